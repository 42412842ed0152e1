"""The agent's unix socket, on which haproxies that Neutron's agents started hand over requests: options, and what is
made of them. Names and meaning are those of neutron-metadata-agent."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from oslo_config import cfg

from fastmeta.exceptions import ConfigError

RELAY_OPTS: tuple[cfg.Opt, ...] = (
    cfg.StrOpt(
        "metadata_proxy_socket",
        default="$state_path/metadata_proxy",
        metavar="PATH",
        help="The unix socket on which haproxies that Neutron's agents have started hand over requests, in a folder "
        "that exists. It is opened when this option is given, and when there is none of [fastmeta] listen, discover "
        "and stand_in; an empty value, or [fastmeta] relay = false, says that it is not to be.",
    ),
    cfg.StrOpt(
        "metadata_proxy_socket_mode",
        default="deduce",
        choices=[
            (
                "deduce",
                "by metadata_proxy_user and metadata_proxy_group; as root: all, unless they run as root",
            ),
            ("user", "0644"),
            ("group", "0664"),
            ("all", "0666"),
        ],
        help="Who may open that socket, by its mode. Whoever can open it is looked at besides: only root, our own "
        "user, metadata_proxy_user and metadata_proxy_group are served, or, when fastmeta runs as root and neither is "
        "given, the user whom the socket's folder belongs to.",
    ),
    cfg.StrOpt(
        "metadata_proxy_user",
        default="",
        help="The user, by name or number, as whom those haproxies run, when it is not the one that Neutron's agents "
        "and fastmeta run as. The same as in the files of the L3 and DHCP agents.",
    ),
    cfg.StrOpt(
        "metadata_proxy_group",
        default="",
        help="Their group, likewise.",
    ),
)

_MODES = {"user": 0o644, "group": 0o664, "all": 0o666}


@dataclass(frozen=True, slots=True)
class RelaySpec:
    """The socket that is wanted. uids, gids: of effective users and groups who are served; owner_too: so is the user
    whom the socket's folder belongs to."""

    path: str
    mode: int
    uids: frozenset[int]
    gids: frozenset[int]
    owner_too: bool


def relay_spec(path: str, mode: str, user: str, group: str) -> RelaySpec:
    """Raises ConfigError."""
    if not path.startswith("/"):
        raise ConfigError(f"metadata_proxy_socket = {path!r}: must be an absolute path")
    uid = _number("metadata_proxy_user", user)
    gid = _number("metadata_proxy_group", group)
    return RelaySpec(
        path=path,
        mode=_MODES[_deduced(uid, gid) if mode == "deduce" else mode],
        uids=frozenset({0, os.geteuid()} | ({uid} if uid is not None else set())),
        gids=frozenset({gid} if gid is not None else ()),
        # Then the proxies run as the user of Neutron's agents, and that folder is theirs.
        owner_too=os.geteuid() == 0 and uid is None and gid is None,
    )


def _deduced(uid: int | None, gid: int | None) -> str:
    """As Neutron does it, but for root: there it gives a socket that the haproxies of agents which run as another user
    cannot open."""
    if os.geteuid() == 0:
        return "user" if uid == 0 else "all"
    if uid in (None, 0, os.geteuid()):
        return "user"
    return "group" if gid in (None, os.getegid()) else "all"


def _number(option: str, text: str) -> int | None:
    """Of a user or group that is given by name or number."""
    if not text:
        return None
    if text.isascii() and text.isdigit() and int(text) < (1 << 32) - 1:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid if option.endswith("user") else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f"{option} = {text!r}: there is no such {option.rpartition('_')[2]}") from None
