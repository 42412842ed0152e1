"""In haproxy's place: the programs that Neutron's agents start there (c/), and the agent's side of them."""
