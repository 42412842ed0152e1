"""Options for the message bus: Neutron's own names, so that neutron.conf is enough.

What oslo.messaging reads besides (``[oslo_messaging_rabbit]``, ``rpc_…``) is not ours: it is read from the same files
when the bus is used (``fastmeta.bus.connection``).
"""

from __future__ import annotations

import socket

from oslo_config import cfg

from fastmeta.conf.types import Seconds

AGENT_GROUP = cfg.OptGroup("agent", title="What Neutron's agents have in common")

BUS_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "transport_url",
        secret=True,
        metavar="URL",
        help="The message bus that Neutron's servers listen to, as in neutron.conf: rabbit://<user>:<password>@<host>:"
        "<tcp port>,…/<vhost>. With it Neutron can be asked without further credentials (lookup = rpc), and "
        "openstack network agent list shows us. TLS and all else of the bus: [oslo_messaging_rabbit], as oslo.messaging"
        " documents it. Needs the packages of fastmeta[rpc].",
    ),
    cfg.StrOpt(
        "host",
        metavar="NAME",
        help="The name of this machine in openstack network agent list; the same one as in neutron.conf. Two agents "
        "must not have the same. Not set: the machine's host name.",
    ),
)

AGENT_OPTS: tuple[cfg.Opt, ...] = (
    cfg.Opt(
        "report_interval",
        type=Seconds(0, 3600),
        default=30.0,
        help="Seconds between two reports to Neutron that we are alive; half of Neutron's agent_down_time at most. 0: "
        "none. Without reports Neutron does not send us port events, so that identities live identity_ttl only.",
    ),
    cfg.BoolOpt(
        "log_agent_heartbeats",
        default=False,
        help="Whether Neutron's server logs a line for each of our reports.",
    ),
)


def host_name(conf: cfg.ConfigOpts) -> str:
    """The name by which Neutron knows this machine."""
    return str(conf.host or socket.gethostname())
