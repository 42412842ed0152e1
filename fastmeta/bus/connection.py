"""The way to the message bus: oslo.messaging, set up so that no call hangs for ever.

Its own configuration is read from the agent's files, so that every option of oslo.messaging works as in Neutron's
agents, and none of them becomes one of ours.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any
from urllib.parse import quote

from oslo_config import cfg

from fastmeta.bus.library_log import LibraryLog
from fastmeta.conf.settings import config_files
from fastmeta.exceptions import ConfigError

# Neutron's admin context as its servers read it from a message (neutron_lib.context): nothing else must be in it.
ADMIN_CONTEXT: dict[str, Any] = {
    "is_admin": True,
    "user_id": None,
    "project_id": None,
    "roles": ["admin", "member", "reader"],
}

_DEFAULTS: dict[str, Any] = {
    # Of what follows oslo.messaging's own defaults are made for services that have minutes: a node would notice half a
    # minute late that its bus is back (30), and only after a minute that it is gone (60). Spread (splay), so that a bus
    # that comes back does not get all nodes at the same moment.
    "rabbit_interval_max": 4,
    "rabbit_retry_backoff": 1,
    "kombu_reconnect_splay": 1.0,
    "heartbeat_timeout_threshold": 20,
    # So many times in these 20 s, or every second, its threads look around: then they end soon when they are told to.
    "heartbeat_rate": 10,
}


class Bus:
    """One transport of oslo.messaging. Making it connects to nothing; all other methods block.

    Raises ConfigError when it is made and cannot ever work.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """conf: the agent's; its files are read again."""
        self.log = LibraryLog.in_use()
        try:
            self._open(conf)
        except BaseException:
            self.log.give_back()
            raise

    def _open(self, conf: cfg.ConfigOpts) -> None:
        self._library = library = import_library()
        self._conf = _own_configuration(library, conf)
        url = self._conf.transport_url
        try:
            parsed = library.TransportURL.parse(self._conf, url)
            hosts = [(host.hostname, host.port or 5672) for host in parsed.hosts]
            secrets = {host.password or "" for host in parsed.hosts}
        except Exception as error:
            # The error's text may show the password.
            raise ConfigError(
                f"transport_url cannot be used ({type(error).__name__}; it is not shown, since it holds a password); "
                "right is rabbit://<user>:<password>@<host>:<tcp port>/<vhost>, special characters as %xx"
            ) from None
        self.log.strike_out(secrets | {quote(secret) for secret in secrets} | {url or ""})
        names = ", ".join(f"{_bracketed(name)}:{tcp_port}" for name, tcp_port in hosts) or "localhost:5672"
        self.place = f"the message bus at {names}"
        """For texts."""
        # Each host once, and the connection that was there before.
        self._attempts = max(1, len(hosts))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._transport = library.get_rpc_transport(self._conf)
        except Exception as error:
            raise ConfigError(
                f"transport_url: oslo.messaging cannot use it ({self.log.clean(str(error))})"
            ) from None
        self._bound_connecting()

    def call(self, topic: str, version: str, method: str, timeout: float, **arguments: Any) -> Any:
        """What a server on this topic answers in timeout seconds. To get a question onto a bus that does not answer may
        take some ten seconds more, before it fails."""
        client = self._client(topic, version, timeout=timeout)
        return client.call(ADMIN_CONTEXT, method, **arguments)

    def cast(self, topic: str, version: str, method: str, server: str, **arguments: Any) -> None:
        """Sends it to one server of this topic; returns when the bus has it."""
        client = self._client(topic, version, server=server)
        client.cast(ADMIN_CONTEXT, method, **arguments)

    def serve(self, topic: str, server: str, endpoints: Sequence[object]) -> Any:
        """A server of oslo.messaging that has begun: endpoints are called, one message after the other in the order in
        which they came, in a thread of its own. When this returns its queues are declared."""
        target = self._library.Target(topic=topic, server=server)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = self._library.get_rpc_server(self._transport, target, endpoints)
        made.start(override_pool_size=1)
        return made

    def target(self, version: str) -> Any:
        """For endpoints."""
        return self._library.Target(version=version)

    def close(self) -> None:
        """May take as long as a call."""
        try:
            self._transport.cleanup()
        finally:
            self.log.give_back()

    def _client(
        self, topic: str, version: str, server: str | None = None, timeout: float | None = None
    ) -> Any:
        target = self._library.Target(topic=topic, version=version, server=server)
        # Nothing is made or kept by this but a small object.
        return self._library.get_rpc_client(self._transport, target, timeout=timeout, retry=self._attempts)

    def _bound_connecting(self) -> None:
        """Connections for listening, that for answers to calls too, are opened without an end to the attempts, under a
        lock that every call takes: oslo.messaging has no option for it. What makes connections is told to give up."""
        pool = getattr(getattr(self._transport, "_driver", None), "_connection_pool", None)
        create: Callable[..., Any] | None = getattr(pool, "create", None)
        if pool is not None and create is not None:
            pool.create = functools.partial(_create, create, self._attempts)


def _create(create: Callable[..., Any], attempts: int, *arguments: Any, **more: Any) -> Any:
    if more.get("retry") is None:
        more["retry"] = attempts
    return create(*arguments, **more)


def import_library() -> ModuleType:
    """oslo.messaging. Raises ConfigError when it is not installed."""
    try:
        with warnings.catch_warnings():
            # It loads eventlet (and uses nothing of it), which warns.
            warnings.simplefilter("ignore")
            import oslo_messaging
            import oslo_messaging.opts
    except ImportError as error:
        raise ConfigError(
            f"transport_url needs oslo.messaging, which is not installed ({error}); pip install 'fastmeta[rpc]'"
        ) from error
    module: ModuleType = oslo_messaging
    return module


def _own_configuration(library: ModuleType, conf: cfg.ConfigOpts) -> cfg.ConfigOpts:
    """Of the bus alone, and each of its values can be used. Raises ConfigError."""
    _read_all(_registered(library, conf), library)
    # One that nobody has read yet: reading an option that is deprecated changes it, and the library, which registers
    # its options again, would take ours for another one.
    return _registered(library, conf)


def _registered(library: ModuleType, conf: cfg.ConfigOpts) -> cfg.ConfigOpts:
    own = cfg.ConfigOpts()
    for group, options in library.opts.list_opts():
        own.register_opts(options, group=group)
    # These it registers on the global configuration only, and reads from ours. Neither is for us: off.
    for group, name in (
        ("oslo_messaging_tracing", "tracing_enabled"),
        ("oslo_messaging_metrics", "metrics_enabled"),
    ):
        own.register_opt(cfg.BoolOpt(name, default=False), group=group)
        own.set_override(name, False, group=group)
    own.set_default("control_exchange", "neutron")
    for name, value in _DEFAULTS.items():
        own.set_default(name, value, group="oslo_messaging_rabbit")
    try:
        own(args=[], project="fastmeta", default_config_files=config_files(conf), default_config_dirs=[])
    except (cfg.Error, ValueError) as error:
        raise ConfigError(f"the options of the message bus cannot be read ({type(error).__name__})") from None
    return own


def _read_all(own: cfg.ConfigOpts, library: ModuleType) -> None:
    """Once, or a wrong one would be found again by each call. Values may be secret: they are not shown."""
    for group, options in library.opts.list_opts():
        section = own if group is None else own[group]
        for option in options:
            shown = option.name if group is None else f"[{group}] {option.name}"
            try:
                section[option.dest]
            except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
                raise ConfigError(
                    f"{shown}: $ in it names no option; right is $$ for a dollar sign"
                ) from None
            except (cfg.Error, ValueError) as error:
                raise ConfigError(f"{shown}: its value cannot be used ({type(error).__name__})") from None


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name
