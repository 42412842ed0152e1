"""Finding by itself what there is to serve: the namespaces of routers and of networks (``[fastmeta] discover``)."""
