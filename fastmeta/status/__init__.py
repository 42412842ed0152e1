"""What an operator can see of a running agent: `fastmeta status`."""
