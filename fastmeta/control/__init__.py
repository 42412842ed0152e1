"""How other processes of this node talk to a running agent: over a unix socket in a folder that only its user and root
can enter."""
