"""Options of fastmeta, and the settings made of them. Importing this has no effect on any configuration."""

from __future__ import annotations

from oslo_config import cfg

from fastmeta.conf.bus import AGENT_GROUP, AGENT_OPTS, BUS_OPTS
from fastmeta.conf.discovery import DISCOVERY_OPTS
from fastmeta.conf.neutron import KEYSTONE_OPTS, NEUTRON_GROUP
from fastmeta.conf.options import (
    FASTMETA_GROUP,
    FASTMETA_OPTS,
    NEUTRON_OPTS,
    RATE_LIMIT_GROUP,
    RATE_LIMIT_OPTS,
)
from fastmeta.conf.relay import RELAY_OPTS

__all__ = ["list_opts", "register"]


def list_opts() -> list[tuple[cfg.OptGroup | str, list[cfg.Opt]]]:
    """For oslo-config-generator (entry point ``oslo.config.opts``)."""
    return [
        ("DEFAULT", [*NEUTRON_OPTS, *RELAY_OPTS, *DISCOVERY_OPTS, *BUS_OPTS]),
        (FASTMETA_GROUP, list(FASTMETA_OPTS)),
        (RATE_LIMIT_GROUP, list(RATE_LIMIT_OPTS)),
        (NEUTRON_GROUP, list(KEYSTONE_OPTS)),
        (AGENT_GROUP, list(AGENT_OPTS)),
    ]


def register(conf: cfg.ConfigOpts) -> None:
    """Makes the options known to a configuration of the caller's."""
    conf.register_opts(NEUTRON_OPTS)
    conf.register_opts(RELAY_OPTS)
    conf.register_opts(DISCOVERY_OPTS)
    conf.register_opts(FASTMETA_OPTS, group=FASTMETA_GROUP)
    conf.register_opts(RATE_LIMIT_OPTS, group=RATE_LIMIT_GROUP)
    conf.register_opts(KEYSTONE_OPTS, group=NEUTRON_GROUP)
    conf.register_opts(BUS_OPTS)
    conf.register_opts(AGENT_OPTS, group=AGENT_GROUP)
