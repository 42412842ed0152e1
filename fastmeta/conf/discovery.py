"""What is found by itself: options, and what is made of them. Those of Neutron's L3 and DHCP agents have their names
and their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oslo_config import cfg, types

from fastmeta.conf.types import Whole
from fastmeta.exceptions import ConfigError

ROUTER, DHCP = "router", "dhcp"

DISCOVER_OPT = cfg.ListOpt(
    "discover",
    default=[],
    item_type=types.String(choices=[ROUTER, DHCP]),
    metavar="router,dhcp",
    help="What is found by itself, in netns_dir, as it comes and goes. router: the routers of Neutron's L3 agent "
    "(namespaces qrouter-<uuid>), where that has enable_metadata_proxy = False; the rules that lead guests here are "
    "put there and taken away. dhcp: the networks (qdhcp-<uuid>) where the DHCP agent has put 169.254.169.254 and "
    "nobody listens. Namespaces that listen names are left alone.",
)

DISCOVERY_OPTS: tuple[cfg.Opt, ...] = (
    cfg.Opt(
        "metadata_port",
        type=Whole(1, 65535, "TCP port"),
        default=9697,
        help="The TCP port in a router's namespace to which metadata requests are led there. For [fastmeta] discover; "
        "the L3 agent has the same option.",
    ),
    cfg.StrOpt(
        "metadata_access_mark",
        default="0x1",
        help="The mark of packets that are metadata requests, up to 0xffff. For [fastmeta] discover; the L3 agent has "
        "the same option, and drops what has its mark and would leave the router.",
    ),
    cfg.StrOpt(
        "ha_confs_path",
        default="$state_path/ha_confs",
        metavar="DIR",
        help="Where the L3 agent writes the state of HA routers: <router id>/state below it. For [fastmeta] discover; "
        "the L3 agent has the same option.",
    ),
    cfg.BoolOpt(
        "enable_metadata_network",
        default=False,
        help="Networks whose DHCP port has an address in 169.254.0.0/16 are metadata networks: their guests are those "
        "of the router that is attached. For [fastmeta] discover; the DHCP agent has the same option.",
    ),
)


@dataclass(frozen=True, slots=True)
class DiscoverySpec:
    """What is looked for. mark: from 1 to 0xffff."""

    routers: bool
    networks: bool
    metadata_port: int
    mark: int
    ha_confs_path: str
    metadata_networks: bool


def discovery_spec(
    wanted: Sequence[str], metadata_port: int, mark: str, ha_confs_path: str, metadata_networks: bool
) -> DiscoverySpec | None:
    """None when nothing is to be looked for. Raises ConfigError."""
    if not wanted:
        return None
    if not ha_confs_path.startswith("/"):
        raise ConfigError(f"ha_confs_path = {ha_confs_path!r}: must be an absolute path")
    return DiscoverySpec(
        routers=ROUTER in wanted,
        networks=DHCP in wanted,
        metadata_port=metadata_port,
        mark=_mark(mark),
        ha_confs_path=ha_confs_path,
        metadata_networks=metadata_networks,
    )


def _mark(text: str) -> int:
    try:
        mark = int(text, 0)
    except ValueError:
        mark = 0
    if not 1 <= mark <= 0xFFFF:
        raise ConfigError(f"metadata_access_mark = {text!r}: right is a number from 0x1 to 0xffff")
    return mark
