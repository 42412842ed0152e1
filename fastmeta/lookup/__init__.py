"""Finding out which port has an address: the resolver, and the sources that it asks.

``source`` is the interface, ``resolver`` decides when and what to ask and what an answer is worth, the other
modules are the sources.
"""
