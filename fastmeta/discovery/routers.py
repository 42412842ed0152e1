"""Routers: first their rules, then a listener; and the other way round."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os

from oslo_log import log as logging

from fastmeta.conf.discovery import DiscoverySpec
from fastmeta.discovery.ha import PRIMARY, HaStates
from fastmeta.discovery.iptables import Iptables, ip_versions
from fastmeta.discovery.names import QROUTER, SNAT, Names, uuid_of
from fastmeta.discovery.rules import RouterRules
from fastmeta.discovery.serving import FIRST_PAUSE, Gathered, Served, reason
from fastmeta.exceptions import ListenError, NamespaceNotFoundError
from fastmeta.folders import FolderWatcher
from fastmeta.models import ListenSpec, Scope, ScopeKind
from fastmeta.netns.listening import listening_tcp_ports
from fastmeta.netns.namespaces import Raised, namespace_inode
from fastmeta.netns.visits import Visits

LOG = logging.getLogger(__name__)

DRAIN = 2.5
"""Seconds after which the last connection of a listener that was removed has ended (the core gives them 2)."""


class _Router(Served):
    """ruled: whether our rules are there; None when nobody knows, since an agent that was killed may have left some.
    leaves_at: when the connections that are left will have ended."""

    __slots__ = ("leaves_at", "listening", "ruled", "spec")

    def __init__(self, name: str, uuid: str, spec: ListenSpec) -> None:
        super().__init__(name, uuid)
        self.spec = spec
        self.ruled: bool | None = None
        self.listening = False
        self.leaves_at = 0.0


class Routers:
    """All routers that are there. Lives in the event loop's thread."""

    def __init__(
        self, spec: DiscoverySpec, names: Names, folders: FolderWatcher, listeners: Gathered, visits: Visits
    ) -> None:
        """Raises ConfigError when programs are missing."""
        self._names = names
        self._listeners = listeners
        self._visits = visits
        self._rules = RouterRules(spec.metadata_port, spec.mark)
        versions = ip_versions()
        self._iptables = Iptables(versions)
        self._address = ipaddress.ip_address("::" if 6 in versions else "0.0.0.0")
        self._states = HaStates(spec.ha_confs_path, folders, self._reconsider)
        self._routers: dict[str, _Router] = {}
        self._stopped = False

    @property
    def served(self) -> int:
        """How many have a listener."""
        return sum(router.listening for router in self._routers.values())

    def start(self) -> None:
        """Before the first appears. Raises ConfigError when ha_confs_path may not be watched."""
        self._states.start()

    def stop(self) -> None:
        """Nothing is begun any more; the rules stay."""
        self._stopped = True
        for router in self._routers.values():
            router.not_later()

    def remove_rules(self) -> None:
        """After stop(): begins to take all of them away."""
        for router in self._routers.values():
            if router.ruled is not False:
                self._visits.visit(
                    self._names.path(router.name), self._iptables.remove, functools.partial(_removed, router)
                )

    def appeared(self, name: str) -> None:
        """A namespace of a router, or the one that says that a router is distributed."""
        uuid = uuid_of(name, QROUTER)
        if uuid is None:
            self._reconsider(name.removeprefix(SNAT))
            return
        scope = Scope(ScopeKind.ROUTER, uuid)
        router = _Router(name, uuid, ListenSpec(scope, name, self._address, self._rules.tcp_port))
        self._routers[uuid] = router
        self._states.follow(uuid)
        self._consider(router)

    def gone(self, name: str) -> None:
        """Its rules are gone with it."""
        uuid = uuid_of(name, QROUTER)
        if uuid is None:
            self._reconsider(name.removeprefix(SNAT))
            return
        router = self._routers.pop(uuid, None)
        if router is None:
            return
        router.gone = True
        router.not_later()
        self._states.forget(uuid)
        if router.listening:
            self._listeners.remove(router.spec, drain=False)

    def _reconsider(self, uuid: str) -> None:
        router = self._routers.get(uuid)
        if router is not None:
            self._consider(router)

    def _consider(self, router: _Router) -> None:
        """Takes the next step towards what should be."""
        if router.busy or router.gone or self._stopped:
            return
        router.not_later()
        why_not = self._why_not(router)
        if why_not:
            router.waits(why_not)
            self._withdraw(router)
        elif not router.ruled:
            router.busy = True
            self._visits.visit(
                self._names.path(router.name), self._put, functools.partial(self._was_put, router)
            )
        elif not router.listening:
            router.works()
            router.listening = True
            self._listeners.add(router.spec)

    def _why_not(self, router: _Router) -> str:
        """Empty when it is to be served."""
        state = self._states.state(router.uuid)
        if state is None or state in PRIMARY:
            return ""
        # On a node that has its snat namespace an HA router is distributed, too: what moves is that one.
        if os.path.lexists(self._names.path(f"{SNAT}{router.uuid}")):
            return ""
        return f"it is an HA router, and its state here is {state}"

    def _withdraw(self, router: _Router) -> None:
        """First the listener; the rules when the last connection has ended."""
        loop = asyncio.get_running_loop()
        if router.listening:
            router.listening = False
            router.leaves_at = loop.time() + DRAIN
            self._listeners.remove(router.spec, drain=True)
        left = router.leaves_at - loop.time()
        if left > 0:
            router.later(left, functools.partial(self._consider, router))
        elif router.ruled is not False:
            router.busy = True
            self._visits.visit(
                self._names.path(router.name),
                self._iptables.remove,
                functools.partial(self._taken_away, router),
            )

    def _put(self) -> int:
        """In a thread that is in the namespace, whose inode it gives."""
        inode = os.stat("/proc/thread-self/ns/net").st_ino
        if self._rules.tcp_port in listening_tcp_ports():
            raise ListenError(
                f"somebody else listens on its TCP port {self._rules.tcp_port} (a haproxy of the L3 agent, which then "
                "has enable_metadata_proxy = True?)"
            )
        self._iptables.put(self._rules)
        return inode

    def _was_put(self, router: _Router, result: int | Raised) -> None:
        if not self._is_over(router, result):
            return
        # In another namespace, that came under this name meanwhile, no rules are: we will be told of it.
        if result == namespace_inode(self._names.path(router.name)):
            router.ruled = True
            self._consider(router)

    def _taken_away(self, router: _Router, result: Raised | None) -> None:
        if self._is_over(router, result):
            router.ruled = False
            self._consider(router)

    def _is_over(self, router: _Router, result: object) -> bool:
        """A visit; whether it did what it was to do, and still matters."""
        router.busy = False
        if router.gone or self._stopped:
            return False
        if not isinstance(result, Raised):
            return True
        router.ruled = None
        again = functools.partial(self._consider, router)
        if isinstance(result.error, NamespaceNotFoundError):
            router.later(FIRST_PAUSE, again)  # it is going, and we will be told
        else:
            router.hindered(reason(result.error), again)
        return False


def _removed(router: _Router, result: Raised | None) -> None:
    if isinstance(result, Raised) and not isinstance(result.error, NamespaceNotFoundError):
        LOG.error("%s: its rules stay: %s", router.name, reason(result.error))
