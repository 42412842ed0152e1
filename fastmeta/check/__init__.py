"""``fastmeta config check``: what an agent with this configuration would use, and whether what it needs is there."""
