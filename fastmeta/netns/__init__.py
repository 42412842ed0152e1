"""Network namespaces: opening sockets in them, and seeing them come and go. Knows nothing of the proxy."""
