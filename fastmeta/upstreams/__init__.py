"""Where Nova's metadata API is: turns what an operator names into servers that the core is told of."""
