"""SIGHUP: reads the configuration again, and brings what has changed to those whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from oslo_log import log as logging

from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import Settings
from fastmeta.exceptions import FastmetaError
from fastmeta.lookup.resolver import Resolver, Times
from fastmeta.upstreams.servers import Prepared, Upstreams

LOG = logging.getLogger(__name__)


class SettingsTable(Protocol):
    """The part of the core's loops that is told."""

    def set_settings(self, settings: Mapping[str, int]) -> None: ...

    def set_secret(self, secret: bytes, next_secret: bytes | None = None) -> None: ...


class Reloader:
    """core_settings makes the core's settings of what is configured: descriptors bound them, too.

    Lives in the event loop's thread. Nothing here waits for anybody, so that no other event comes between two
    changes of one reading.
    """

    def __init__(
        self,
        configuration: RunningConfiguration,
        core: SettingsTable,
        resolver: Resolver,
        upstreams: Upstreams,
        core_settings: Callable[[Settings], Mapping[str, int]],
    ) -> None:
        self._configuration = configuration
        self._core = core
        self._resolver = resolver
        self._upstreams = upstreams
        self._core_settings = core_settings

    def reload(self) -> bool:
        """Says in the log what came of it; whether the files could be used (although perhaps nothing in them is new).
        Raises CoreError when the core takes no messages."""
        refused = ""
        try:
            changes = self._configuration.read_again()
            # Certificates that cannot be used show only now.
            prepared = self._upstreams.prepare(changes.settings)
        except FastmetaError as error:
            refused = str(error)
        if refused:  # (outside of except, where oslo.log would say it twice)
            LOG.error("reload: nothing is taken up, what was read before stays in force: %s", refused)
            return False
        self._configuration.take_up(changes)
        self._apply(changes.before, changes.settings, prepared)
        if changes.needs_restart:
            LOG.warning(
                "reload: needs a restart, and stays as it was until then: %s",
                ", ".join(changes.needs_restart),
            )
        LOG.info("reload: taken up: %s", ", ".join(changes.taken_up) or "nothing, all is as it was")
        return True

    def _apply(self, before: Settings, settings: Settings, prepared: Prepared) -> None:
        if (settings.core, len(settings.upstreams)) != (before.core, len(before.upstreams)):
            self._core.set_settings(self._core_settings(settings))
        self._resolver.set_times(**lookup_times(settings))
        if (settings.secret, settings.next_secret) != (before.secret, before.next_secret):
            # The core's identities hold signatures: they are made anew.
            self._core.set_secret(settings.secret, settings.next_secret)
            self._resolver.revoke_all()
        # After the secrets: whoever is there never sees a signature made with an old one.
        self._upstreams.take(prepared)
        if settings.debug != before.debug:
            logging.getLogger(None).logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)


def lookup_times(settings: Settings) -> Times:
    """What the resolver wants to know of the configuration."""
    return {
        "identity_ttl": settings.identity_ttl,
        "identity_ttl_with_events": settings.identity_ttl_with_events,
        "negative_ttl": settings.negative_ttl,
        "lookup_timeout": settings.lookup_timeout,
        "park_timeout": settings.park_timeout,
        # So long a request may be in progress that was sent under an identity.
        "upstream_timeout": settings.core["upstream_timeout_ms"] / 1000,
    }
