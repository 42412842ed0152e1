"""Settings: the one place that reads a configuration. Whatever cannot be used is refused here, with a text
that says option, value, and what would be right."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from fastmeta import conf as fastmeta_conf
from fastmeta.conf.discovery import DISCOVERY_OPTS, DiscoverySpec, discovery_spec
from fastmeta.conf.neutron import CREDENTIALS, OLD_NAMES
from fastmeta.conf.relay import RelaySpec, relay_spec
from fastmeta.conf.tls import TlsOptions, read_tls_options
from fastmeta.conf.upstreams import UpstreamSpec, parse_upstreams, upstream_at
from fastmeta.exceptions import ConfigError
from fastmeta.models import ListenSpec, ScopeKind
from fastmeta.trusted_files import read_trusted_file

_LISTEN_FORM = (
    "right is network:<uuid>@<address>:<tcp port> or router:<uuid>@<address>:<tcp port>, "
    "with <namespace>/ before the address when it is not our own, IPv6 in brackets"
)

# Options in seconds that are settings of the core, in milliseconds, under the same name with _ms.
_CORE_TIMES = (
    "park_timeout",
    "upstream_timeout",
    "head_timeout",
    "body_timeout",
    "write_timeout",
    "keepalive_timeout",
    "answer_timeout",
    "connect_timeout",
    "second_try_after",
)
# Options that are settings of the core, by their names there.
_CORE_NUMBERS = {
    name: name
    for name in (
        "max_connections",
        "max_connections_per_scope",
        "max_connections_per_address",
        "max_parked",
        "max_parked_per_scope",
        "max_parked_per_address",
        "max_head",
        "max_headers",
        "max_target",
        "max_body",
        "max_upstream_connections",
        "warm_connections",
    )
} | {"max_gathered": "max_gathered_bodies"}

_RATE_VERSIONS = {4: 1, 6: 2}

_PREFIXES = {"qdhcp-": ScopeKind.NETWORK, "ovnmeta-": ScopeKind.NETWORK, "qrouter-": ScopeKind.ROUTER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an operator decides, checked. Times are seconds. Secrets do not show in its repr.

    next_secret: None when there is none that could be another. tls: None when no upstream wants it. relay, discover:
    None when there is to be none. control_dir: likewise empty. lookup: never auto, but what it comes to.
    """

    upstreams: tuple[UpstreamSpec, ...]
    tls: TlsOptions | None
    secret: bytes = field(repr=False)
    next_secret: bytes | None = field(repr=False)
    listen: tuple[ListenSpec, ...]
    discover: DiscoverySpec | None
    relay: RelaySpec | None
    lookup: str
    ports_file: str
    netns_dir: str
    control_dir: str
    stand_in: bool
    identity_ttl: float
    identity_ttl_with_events: float
    negative_ttl: float
    lookup_timeout: float
    prefetch: bool
    park_timeout: float
    drain_timeout: float
    loops: int
    debug: bool
    core: Mapping[str, int]
    """Settings of the core, by its names, within its bounds; for all loops together."""

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> Settings:
        """Raises ConfigError, UnsafeFileError. Takes secrets for bytes in UTF-8, as Nova does."""
        _check_files(conf)
        reader = _Reader(conf)
        relay = _relay(conf, reader)
        discover = discovery_spec(
            reader.own("discover"), *(reader.default(option.name) for option in DISCOVERY_OPTS)
        )
        stand_in = reader.own("stand_in")
        listen = _listen(reader.own("listen"), needed=relay is None and discover is None and not stand_in)
        upstreams = _upstreams(reader)
        secret = reader.default("metadata_proxy_shared_secret").encode()
        next_secret = reader.own("next_shared_secret").encode()
        lookup_timeout = reader.own("lookup_timeout")
        for name in ("identity_ttl", "identity_ttl_with_events"):
            if reader.own(name) <= lookup_timeout:
                raise ConfigError(
                    f"[fastmeta] {name} = {reader.own(name):g}: must be longer than lookup_timeout "
                    f"({lookup_timeout:g}); an answer would be too old when it comes"
                )
        netns_dir, control_dir = reader.own("netns_dir"), reader.own("control_dir")
        for name, path in (("netns_dir", netns_dir), ("control_dir", control_dir or "/")):
            if not path.startswith("/"):
                raise ConfigError(f"[fastmeta] {name} = {path!r}: must be an absolute path")
        if stand_in and not control_dir:
            raise ConfigError("[fastmeta] stand_in = true: needs control_dir, where stand-ins find fastmeta")
        core = {f"{name}_ms": round(reader.own(name) * 1000) for name in _CORE_TIMES}
        core |= {setting: reader.own(option) for setting, option in _CORE_NUMBERS.items()}
        core |= _rate_limits(reader)
        core["access_log"] = int(reader.own("access_log"))
        return cls(
            upstreams=upstreams,
            tls=_tls(reader) if any(spec.scheme == "https" for spec in upstreams) else None,
            secret=secret,
            next_secret=next_secret if next_secret not in (b"", secret) else None,
            listen=listen,
            discover=discover,
            relay=relay,
            lookup=_lookup(conf, reader),
            ports_file=reader.own("ports_file") or "",
            netns_dir=netns_dir,
            control_dir=control_dir,
            stand_in=stand_in,
            identity_ttl=reader.own("identity_ttl"),
            identity_ttl_with_events=reader.own("identity_ttl_with_events"),
            negative_ttl=reader.own("negative_ttl"),
            lookup_timeout=lookup_timeout,
            prefetch=reader.own("prefetch"),
            park_timeout=reader.own("park_timeout"),
            drain_timeout=reader.own("drain_timeout"),
            loops=reader.own("loops"),
            debug=reader.default("debug"),
            core=core,
        )


def load(argv: Sequence[str], *, prog: str, version: str) -> cfg.ConfigOpts:
    """A configuration of its own, read from the files and options that argv names; logging's options
    included.

    Raises ConfigError when a file cannot be read; ends the process with status 2 when argv makes no sense.
    """
    conf = cfg.ConfigOpts()
    logging.register_options(conf)
    fastmeta_conf.register(conf)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            conf(list(argv), project="fastmeta", prog=prog, version=version)
    except SystemExit as end:
        # So oslo.config ends when a file gives a bad value to an option that argv could give, too.
        if end.code == 1:
            raise ConfigError(_one_line(said.getvalue())) from None
        sys.stderr.write(said.getvalue())
        raise
    except cfg.ConfigFileParseError as error:
        # The parser's text ends with the line that it cannot read, which may be the secret's: not as a cause
        # either.
        where = re.search(r"at (\S+:\d+),", str(error))
        place = where[1] if where else error.config_file
        raise ConfigError(f"{place}: not a line of a configuration file; right is option = value") from None
    except cfg.ConfigFilesPermissionDeniedError as error:
        raise ConfigError(
            f"{', '.join(error.config_files)}: permission denied: the user that fastmeta runs as must be allowed to "
            "read it (chown root:<its group>, chmod 640), and to search the folders above it"
        ) from error
    except cfg.Error as error:
        raise ConfigError(_one_line(str(error))) from error
    except (OSError, UnicodeError) as error:
        # oslo.config lets these through: a folder in a file's place, or bytes that are no text.
        if isinstance(error, OSError):
            raise ConfigError(f"{error.filename}: {error.strerror}") from error
        raise ConfigError("a configuration file is not text in UTF-8") from None
    sys.stderr.write(said.getvalue())
    return conf


class _Reader:
    """Reads values by section."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def default(self, name: str) -> Any:
        """A value of [DEFAULT]."""
        return read(self._conf, name, name)

    def own(self, name: str) -> Any:
        """A value of [fastmeta]."""
        return read(self._conf.fastmeta, name, f"[fastmeta] {name}")

    def neutron(self, name: str) -> Any:
        """A value of [neutron]."""
        return read(self._conf.neutron, name, f"[neutron] {name}")

    def rate_limiting(self, name: str) -> Any:
        """A value of [metadata_rate_limiting]."""
        return read(self._conf.metadata_rate_limiting, name, f"[metadata_rate_limiting] {name}")


def read(group: Any, name: str, shown: str) -> Any:
    """The value of an option of a group (or of a ConfigOpts); raises ConfigError for one that cannot be used."""
    try:
        return group[name]
    except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError, cfg.NoSuchGroupError):
        # The error's text shows a part of the value, which may be the secret: not as a cause either.
        raise ConfigError(f"{shown}: $ in it names no option; right is $$ for a dollar sign") from None
    except (cfg.Error, ValueError) as error:
        reason = error.__context__ if isinstance(error.__context__, ValueError) else error
        file = re.search(r"detail='([^']*)'", str(error))
        raise ConfigError(f"{file[1] + ': ' if file else ''}{shown}: {_one_line(str(reason))}") from error


_NEEDS = {
    "rpc": "transport_url in [DEFAULT], as in neutron.conf",
    "rest": "credentials in [neutron]: auth_url, username, password, project_name, user_domain_name, "
    "project_domain_name",
    "static": "ports_file in [fastmeta], a file that says which port has which address",
}


def _lookup(conf: cfg.ConfigOpts, reader: _Reader) -> str:
    """Which source is asked. What it needs is there then; whether that can be used, the source finds out."""
    there = {
        "rpc": is_written(conf, "DEFAULT", "transport_url"),
        "rest": any(reader.neutron(name) for name in CREDENTIALS),
        "static": bool(reader.own("ports_file")),
    }
    wanted: str = reader.own("lookup")
    if wanted == "auto":
        for name, given in there.items():
            if given:
                return name
        raise ConfigError(
            f"[fastmeta] lookup = auto: there is nothing to ask who has which address. For lookup = rpc: "
            f"{_NEEDS['rpc']}; for rest: {_NEEDS['rest']}; for static: {_NEEDS['static']}"
        )
    if not there[wanted]:
        raise ConfigError(f"[fastmeta] lookup = {wanted} needs {_NEEDS[wanted]}")
    return wanted


def _rate_limits(reader: _Reader) -> dict[str, int]:
    """The core's settings for them."""
    versions = set(reader.rate_limiting("ip_versions"))
    if not versions or not versions <= set(_RATE_VERSIONS):
        shown = ",".join(map(str, sorted(versions)))
        raise ConfigError(f"[metadata_rate_limiting] ip_versions = {shown}: right is 4, 6 or 4,6")
    enabled = reader.rate_limiting("rate_limit_enabled")
    return {
        "rate_versions": sum(_RATE_VERSIONS[version] for version in versions) if enabled else 0,
        "base_window_ms": reader.rate_limiting("base_window_duration") * 1000,
        "base_limit": reader.rate_limiting("base_query_rate_limit"),
        "burst_window_ms": reader.rate_limiting("burst_window_duration") * 1000,
        "burst_limit": reader.rate_limiting("burst_query_rate_limit"),
    }


def _upstreams(reader: _Reader) -> tuple[UpstreamSpec, ...]:
    """The list, or the one upstream of Neutron's own options."""
    texts = reader.own("upstreams")
    if texts:
        return parse_upstreams(texts)
    scheme, host, tcp_port = (
        reader.default(f"nova_metadata_{name}") for name in ("protocol", "host", "port")
    )
    try:
        return (upstream_at(scheme, host, tcp_port),)
    except ConfigError as error:
        raise ConfigError(f"nova_metadata_host: {error}") from None


def _tls(reader: _Reader) -> TlsOptions:
    return read_tls_options(
        ca_file=reader.default("auth_ca_cert"),
        insecure=reader.default("nova_metadata_insecure"),
        certificate=reader.default("nova_client_cert"),
        private_key=reader.default("nova_client_priv_key"),
    )


def _relay(conf: cfg.ConfigOpts, reader: _Reader) -> RelaySpec | None:
    """The agent's unix socket: when it is asked for, or nothing else is, as in the files of Neutron's agent."""
    path = reader.default("metadata_proxy_socket")
    others = reader.own("listen") or reader.own("discover") or reader.own("stand_in")
    if not path or not reader.own("relay") or (others and not is_given(conf, "metadata_proxy_socket")):
        return None
    return relay_spec(
        path, *(reader.default(f"metadata_proxy_{name}") for name in ("socket_mode", "user", "group"))
    )


def _listen(texts: Sequence[str], *, needed: bool) -> tuple[ListenSpec, ...]:
    """All listeners, each place once."""
    if not texts and needed:
        raise ConfigError(
            "[fastmeta] listen, discover and stand_in are not set, and metadata_proxy_socket is empty (or relay is "
            "false): there is nothing to serve; "
            f"{_LISTEN_FORM}"
        )
    places: dict[tuple[str | None, str], ListenSpec] = {}
    for text in texts:
        try:
            spec = ListenSpec.parse(text)
        except ConfigError as error:
            raise ConfigError(f"[fastmeta] listen = {text!r}: {error}; {_LISTEN_FORM}") from error
        other = places.setdefault((spec.namespace, spec.place), spec)
        if other is not spec:
            raise ConfigError(
                f"[fastmeta] listen = {text!r}: the same place is given already, for {other.scope}; give "
                "it once"
            )
        for prefix, kind in _PREFIXES.items():
            if (
                spec.namespace
                and spec.namespace.startswith(prefix)
                and kind is spec.scope.kind
                and spec.namespace[len(prefix) :].lower() != spec.scope.uuid
            ):
                raise ConfigError(
                    f"[fastmeta] listen = {text!r}: the namespace is that of another {kind.value}; "
                    f"right is {prefix}{spec.scope.uuid}"
                )
    return tuple(places.values())


def _check_files(conf: cfg.ConfigOpts) -> None:
    """All configuration files decide who is believed to be who, and most hold secrets."""
    for path in config_files(conf):
        read_trusted_file(path, by_own_group=True)


def config_files(conf: cfg.ConfigOpts) -> list[str]:
    """The files that were read, those of --config-dir included."""
    files = [os.path.abspath(path) for path in conf.config_file or ()]
    for folder in conf.config_dir or ():
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror}") from error
        files += [os.path.join(folder, name) for name in names if name.endswith(".conf")]
    return files


def is_written(conf: cfg.ConfigOpts, section: str, name: str) -> bool:
    """Whether a file gives this option a value that is not empty; also one that is not registered."""
    value = ""
    for path in config_files(conf):
        sections: dict[str, dict[str, Any]] = {}
        cfg.ConfigParser(path, sections).parse()  # has been read before: it can be
        for written, values in sections.get(section, {}).items():
            if written == name:
                value = values[-1]
    return bool(value)


def is_given(conf: cfg.ConfigOpts, name: str) -> bool:
    """Whether an option of [DEFAULT] is in a file, also with its default's value."""
    location = conf.get_location(name)
    return location is not None and location.location.is_user_controlled


def uses_old_names(conf: cfg.ConfigOpts) -> bool:
    """Whether the options of the first metadata agents are what says how to reach Keystone."""
    return any(is_written(conf, "DEFAULT", name) for name in OLD_NAMES)


def _one_line(text: str) -> str:
    return " ".join(text.split())
