"""Puts the parts together: the core in threads of its own, everything else in an asyncio event loop around
it."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections import ChainMap
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from oslo_log import log as logging

from fastmeta import _core
from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import Settings
from fastmeta.control.server import ControlServer
from fastmeta.events import EventReader
from fastmeta.exceptions import CoreError, ListenError
from fastmeta.folders import FolderWatcher
from fastmeta.listeners import Listeners
from fastmeta.lookup.choice import make_source
from fastmeta.lookup.resolver import Resolver
from fastmeta.lookup.source import LookupSource, OnChange
from fastmeta.loops import DESCRIPTORS_OF_A_LOOP, Loops, divided
from fastmeta.models import Change, Scope
from fastmeta.notify import notify
from fastmeta.process import connections_allowed, raise_descriptor_limit
from fastmeta.relay import Relay
from fastmeta.reload import Reloader, lookup_times
from fastmeta.reports import Reporter
from fastmeta.scopes import Scopes
from fastmeta.stand_in.service import StandIns
from fastmeta.status.errors import LastErrors
from fastmeta.status.snapshot import Snapshots
from fastmeta.upstreams.servers import Upstreams

if TYPE_CHECKING:
    from fastmeta.discovery.discovery import Discovery

LOG = logging.getLogger(__name__)

FEW_CONNECTIONS = 1000
"""Fewer connections than this are too few for a storm of booting guests: said as a warning."""

_PARTS = {"max_connections_per_scope": 4, "max_connections_per_address": 32}
"""One part in so many of the connections, where descriptors do not allow as many as the options do."""

DESCRIPTORS_OF_STAND_INS = 4096
"""Up to four each: two listeners, the holder's connection, and links. How many there will be, nobody knows."""

DESCRIPTORS_OF_DISCOVERY = 16384
"""Kept for namespaces that are found, each of which takes up to four; at most a quarter of all."""

JOIN_GRACE = 5.0
"""Seconds beyond drain_timeout after which a core that does not end is given up."""


class Agent:
    """The service. Make it and call run() once, in the main thread of a process of its own.

    make_loop makes one of the core's loops of its settings and the secret.
    """

    def __init__(
        self, configuration: RunningConfiguration, make_loop: Callable[..., _core.Loop] = _core.Loop
    ) -> None:
        self._configuration = configuration
        self._make_loop = make_loop
        self._ready = False
        self._reload_wanted = False
        self._stopping = asyncio.Event()
        self._loop_ended = asyncio.Event()
        self._core_ended = asyncio.Event()
        self._loops_running = 0

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, and then until requests in progress have ended (drain_timeout at
        most). SIGHUP reads the configuration again.

        Raises ConfigError, ListenError, NamespaceError when it cannot start, CoreError when the core cannot
        go on.
        """
        settings = self._configuration.settings
        self._say_doubts()
        core = self._make_core(settings)
        upstreams = Upstreams(core, _core.TlsContext)
        prepared = upstreams.prepare(settings)
        loop = asyncio.get_running_loop()
        folders = FolderWatcher(loop)
        source = self._make_source(folders)
        reporter = Reporter(self._configuration.conf, reports_itself=settings.lookup == "rpc")
        scopes = Scopes()
        listeners = Listeners(core, scopes, settings.listen, settings.netns_dir, folders)
        stand_ins = StandIns(core, scopes, listeners.new_number, folders)
        resolver = Resolver(
            core,
            source,
            **lookup_times(settings),
            link_mac=lambda number, index: (
                listeners.link_mac(number, index) or stand_ins.link_mac(number, index)
            ),
            on_health=lambda _: self._tell_status(listeners, relay, resolver),
        )
        errors = LastErrors()
        relay = Relay(core, resolver, scopes.by_number, scopes.new_number)
        events = EventReader(
            core,
            scopes=ChainMap(relay.scopes, cast("dict[int, Scope | str]", scopes.by_number)),
            upstreams=upstreams,
            on_miss=resolver.miss,
            on_listener_closed=lambda number: listeners.closed(number) or stand_ins.closed(number),
            place=lambda number: relay.place(number) or listeners.place(number) or stand_ins.place(number),
            on_handed=relay.handed,
            on_scope_removed=functools.partial(_relay_scope_removed, relay, errors),
            on_error=errors.note,
        )
        reloader = Reloader(self._configuration, core, resolver, upstreams, _core_settings)
        discovery = self._make_discovery(
            folders, listeners, source, lambda: self._tell_status(listeners, relay, resolver)
        )
        snapshots = Snapshots(
            core=core,
            scopes=scopes.by_number,
            listeners=(listeners, stand_ins),
            relay=relay,
            resolver=resolver,
            upstreams=upstreams,
            errors=errors,
            lookup=settings.lookup,
        )
        control = ControlServer(settings.control_dir, {"status": snapshots.answer})
        self._handle_signals(loop, functools.partial(self._reload, reloader, listeners, relay, resolver))
        # Nothing of what follows may keep the threads from being ended.
        self._loops_running = len(core)
        core.start(functools.partial(loop.call_soon_threadsafe, self._one_ended))
        try:
            core.set_secret(settings.secret, settings.next_secret)
            for number, scope in scopes.by_number.items():
                core.add_scope(number, scope if relay.number_of(scope) == number else None)
                resolver.add_scope(number, scope)
            scopes.on_added = functools.partial(_scope_added, core, resolver)
            scopes.on_removed = functools.partial(_scope_removed, core, resolver, errors)
            for descriptor in core.filenos():
                loop.add_reader(descriptor, events.read)
            upstreams.take(prepared)
            changed = resolver.changed if discovery is None else _both(resolver.changed, discovery.changed)
            await source.start(changed, resolver.announcing)
            reporter.start()
            if discovery is not None:
                discovery.start()
            reachable = functools.partial(self._reachable, resolver)
            listeners.start(resolver.links_changed, reachable)
            if settings.relay is not None:
                relay.start(settings.relay)
            if settings.stand_in:
                stand_ins.start(settings.control_dir, settings.netns_dir, resolver.links_changed, reachable)
            self._start_control(control)
            self._tell_ready(listeners, relay, resolver)
            if self._reload_wanted:
                self._reload(reloader, listeners, relay, resolver)
            await self._until_the_end()
        finally:
            notify("STOPPING=1")
            if discovery is not None:
                discovery.stop()
            listeners.stop()
            relay.stop()
            stand_ins.stop()
            await control.stop()
            drain_timeout = self._configuration.settings.drain_timeout
            core.stop(int(drain_timeout * 1000) if self._stopping.is_set() else 0)
            # Requests that wait for an identity may still get one.
            await self._wait_for_core(drain_timeout + JOIN_GRACE)
            if discovery is not None:
                await discovery.end()
            await resolver.stop()
            await upstreams.stop()
            await asyncio.gather(source.stop(), reporter.stop())
            for descriptor in core.filenos():
                loop.remove_reader(descriptor)
            folders.close()
        events.read()
        if core.error is not None:
            raise CoreError(f"the core cannot go on: {core.error}") from core.error
        if not self._stopping.is_set():
            raise CoreError("the core ended although nobody asked it to")
        LOG.info("fastmeta agent ended")

    def _make_core(self, settings: Settings) -> Loops:
        count = settings.loops
        shares = divided(_core_settings(settings), count)
        if count > 1:
            LOG.info(
                "%d loops, each with up to %d connections of guests and %d to each server of Nova's metadata API",
                count,
                shares[0]["max_connections"],
                shares[0]["max_upstream_connections"],
            )
        try:
            return Loops([self._make_loop(part, secret=settings.secret) for part in shares])
        except OSError as error:
            raise CoreError(f"the core cannot start: {error.strerror}") from error

    def _make_source(self, folders: FolderWatcher) -> LookupSource:
        return make_source(self._configuration, folders)

    def _start_control(self, control: ControlServer) -> None:
        """Guests are served also when nobody can look."""
        failure = ""
        if self._configuration.settings.control_dir:
            try:
                control.start()
            except ListenError as error:
                failure = str(error)
        if failure:  # (outside of except, where oslo.log would say it twice)
            LOG.warning("there is no control socket, and fastmeta status finds nobody: %s", failure)

    def _make_discovery(
        self,
        folders: FolderWatcher,
        listeners: Listeners,
        source: LookupSource,
        on_first: Callable[[], None],
    ) -> Discovery | None:
        settings = self._configuration.settings
        if settings.discover is None:
            return None
        from fastmeta.discovery.discovery import Discovery
        from fastmeta.discovery.metadata_networks import MetadataNetworks

        return Discovery(
            settings.discover,
            settings.netns_dir,
            folders,
            listeners,
            MetadataNetworks(source, lambda: self._configuration.settings.identity_ttl),
            without={spec.namespace for spec in settings.listen},
            on_first=on_first,
        )

    def _one_ended(self) -> None:
        """One of the core's loops has ended."""
        self._loops_running -= 1
        self._loop_ended.set()
        if self._loops_running == 0:
            self._core_ended.set()

    def _handle_signals(self, loop: asyncio.AbstractEventLoop, reload: Callable[[], None]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, functools.partial(self._stop, number))
        loop.add_signal_handler(signal.SIGHUP, reload)
        # cmd.main holds it back until now. No thread has been started yet that could have inherited that.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        # Operators send these to OpenStack services for a report; their default action would end us.
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            loop.add_signal_handler(number, self._ignore, number)

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            LOG.warning("%s again: ending at once", number.name)
            os._exit(128 + number)
        LOG.info(
            "%s: requests in progress have %g seconds to end (a second signal ends them at once)",
            number.name,
            self._configuration.settings.drain_timeout,
        )
        self._stopping.set()

    @staticmethod
    def _ignore(number: signal.Signals) -> None:
        LOG.warning("%s: has no meaning here, ignored", number.name)

    def _reload(self, reloader: Reloader, listeners: Listeners, relay: Relay, resolver: Resolver) -> None:
        """Takes no time that a guest could notice; a signal that comes meanwhile is followed by one reload more."""
        if self._stopping.is_set():
            LOG.warning("SIGHUP: ending, the configuration is not read again")
            return
        if not self._ready:
            self._reload_wanted = True
            return
        # Of Type=notify-reload systemd wants to know the time, too (sd_notify(3)).
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        failure = ""
        try:
            if reloader.reload():
                self._say_doubts()
        except CoreError as error:
            failure = str(error)
        finally:
            notify("READY=1", _status(listeners, relay, resolver))
        if failure:  # (outside of except, where oslo.log would say it twice)
            LOG.critical("reload: the core does not take it: %s", failure)

    def _reachable(self, resolver: Resolver, scope: int) -> None:
        """A listener of this scope is open from now on."""
        if self._configuration.settings.prefetch:
            resolver.prefetch(scope)

    def _say_doubts(self) -> None:
        for doubt in self._configuration.doubts:
            LOG.warning("%s", doubt)

    def _tell_ready(self, listeners: Listeners, relay: Relay, resolver: Resolver) -> None:
        discovers = self._configuration.settings.discover is not None
        LOG.log(
            logging.INFO if listeners.open or relay.path or discovers else logging.WARNING,
            "ready: %d of %d listeners are open%s%s",
            listeners.open,
            listeners.wanted,
            f", and {relay.path}" if relay.path else "",
            "; others are being found" if discovers else "",
        )
        notify("READY=1", _status(listeners, relay, resolver))
        self._ready = True

    def _tell_status(self, listeners: Listeners, relay: Relay, resolver: Resolver) -> None:
        """Lookups are healthy again, or not any more: the resolver has logged it."""
        if self._ready:
            notify(_status(listeners, relay, resolver))

    async def _until_the_end(self) -> None:
        """Until somebody asks to stop or a loop of the core has ended by itself."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self._loop_ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _wait_for_core(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._core_ended.wait(), seconds)
        except asyncio.TimeoutError:
            # Threads cannot be ended from outside, and the process waits for them: better an end than a
            # hang.
            LOG.critical("the core did not end %g seconds after it was asked to", seconds)
            os._exit(1)


def _scope_added(core: Loops, resolver: Resolver, number: int, scope: Scope) -> None:
    """A listener needs it. The relay's requests do not come into it: that has one of its own, if it needs any."""
    core.add_scope(number)
    resolver.add_scope(number, scope)


def _scope_removed(core: Loops, resolver: Resolver, errors: LastErrors, number: int) -> None:
    """The core has closed the last listener of it."""
    core.remove_scope(number)
    resolver.remove_scope(number)
    errors.forget(number)


def _relay_scope_removed(relay: Relay, errors: LastErrors, number: int) -> None:
    """Nobody has named it for long."""
    relay.scope_removed(number)
    errors.forget(number)


def _both(first: OnChange, second: OnChange) -> OnChange:
    def changed(change: Change) -> None:
        first(change)
        second(change)

    return changed


def _core_settings(settings: Settings) -> dict[str, int]:
    """Those of the core, for all loops together, with no more connections than there are descriptors for."""
    core = dict(settings.core)
    descriptors = raise_descriptor_limit()
    # Links are followed where there are IPv6 listeners, with a descriptor for each namespace.
    followed = {spec.namespace for spec in settings.listen if spec.address.version == 6}
    loops = settings.loops
    relay = 1 + loops * _core.RELAY_OVER if settings.relay is not None else 0
    stand_ins = DESCRIPTORS_OF_STAND_INS if settings.stand_in else 0
    found = min(DESCRIPTORS_OF_DISCOVERY, descriptors // 4) if settings.discover is not None else 0
    allowed = connections_allowed(
        descriptors,
        len(settings.listen) + len(followed) + loops * DESCRIPTORS_OF_A_LOOP + relay + stand_ins + found,
        # Each upstream counts once: how many addresses a name has is not known yet, and may change.
        max(core["max_upstream_connections"], loops) * len(settings.upstreams),
    )
    wanted = core["max_connections"]
    core["max_connections"] = min(wanted, allowed)
    if allowed < wanted:
        # What one network or guest may have must not be all that its loop has.
        for name, part in _PARTS.items():
            core[name] = min(core[name], max(1, allowed // loops // part))
    LOG.log(
        logging.WARNING if allowed < FEW_CONNECTIONS else logging.INFO,
        "%d descriptors (LimitNOFILE) allow %d connections of guests; at most %d are taken "
        "(max_connections %d)",
        descriptors,
        allowed,
        core["max_connections"],
        wanted,
    )
    return core


def _status(listeners: Listeners, relay: Relay, resolver: Resolver) -> str:
    and_relay = f", and {relay.path}" if relay.path else ""
    return f"STATUS={listeners.open} of {listeners.wanted} listeners are open{and_relay}; lookups: {resolver.health}"


def serve(configuration: RunningConfiguration) -> None:
    """Runs the agent until it is told to end. Raises as Agent.run does."""

    async def run() -> None:
        await Agent(configuration).run()

    asyncio.run(run())
