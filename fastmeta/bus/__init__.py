"""The message bus of a cloud, through oslo.messaging: calls to Neutron's servers, and what they announce.

``connection`` is the way to the bus, bounded in time; ``workers`` the threads that its blocking calls run in;
``failures`` what its errors mean; ``library_log`` keeps what the libraries log short and free of secrets;
``port_events`` reads announcements about ports; ``subscription`` takes them, and knows whether they can be relied on.
"""
