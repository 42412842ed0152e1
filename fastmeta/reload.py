"""SIGHUP: reads the configuration again, and brings what has changed to those whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from oslo_log import log as logging

from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import Settings
from fastmeta.exceptions import FastmetaError
from fastmeta.lookup.resolver import Resolver
from fastmeta.upstream import Upstream

LOG = logging.getLogger(__name__)


class SettingsTable(Protocol):
    """The part of the core's loops that is told."""

    def set_settings(self, settings: Mapping[str, int]) -> None: ...

    def set_secret(self, secret: bytes) -> None: ...


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
        upstream: Upstream,
        core_settings: Callable[[Settings], Mapping[str, int]],
    ) -> None:
        self._configuration = configuration
        self._core = core
        self._resolver = resolver
        self._upstream = upstream
        self._core_settings = core_settings

    def reload(self) -> bool:
        """Says in the log what came of it; whether anything is taken up. Raises CoreError when the core takes no
        messages."""
        try:
            changes = self._configuration.read_again()
        except FastmetaError as error:
            LOG.error("reload: nothing is taken up, what was read before stays in force: %s", error)
            return False
        self._apply(changes.before, changes.settings)
        if changes.needs_restart:
            LOG.warning(
                "reload: needs a restart, and stays as it was until then: %s",
                ", ".join(changes.needs_restart),
            )
        LOG.info("reload: taken up: %s", ", ".join(changes.taken_up) or "nothing, all is as it was")
        return bool(changes.taken_up)

    def _apply(self, before: Settings, settings: Settings) -> None:
        if settings.core != before.core:
            self._core.set_settings(self._core_settings(settings))
        self._resolver.set_times(
            identity_ttl=settings.identity_ttl,
            negative_ttl=settings.negative_ttl,
            lookup_timeout=settings.lookup_timeout,
            park_timeout=settings.park_timeout,
        )
        if settings.secret != before.secret:
            # The core's identities hold signatures: they are made anew.
            self._core.set_secret(settings.secret)
            self._resolver.revoke_all()
        where = settings.nova_metadata_host, settings.nova_metadata_port
        if where != (before.nova_metadata_host, before.nova_metadata_port):
            # After the secret: whoever is there never sees a signature made with the old one.
            self._upstream.move(*where)
        if settings.debug != before.debug:
            logging.getLogger(None).logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)
