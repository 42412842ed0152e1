"""Networks, routers and guests of a small cloud as network namespaces of this machine, for the demo and for
tests.

``topology`` is what one builds with (class Lab); below it ``namespaces`` makes, enters and removes network
namespaces, ``registry`` remembers which ones are ours, ``redirect`` writes the rules of Neutron's L3 agent.
``services`` starts the programs under test and waits until they are ready.
"""
