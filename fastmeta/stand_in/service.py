"""All of the agent's side of stand-ins, as the agent sees it."""

from __future__ import annotations

from collections.abc import Callable

from fastmeta.folders import FolderWatcher
from fastmeta.scopes import Scopes
from fastmeta.stand_in.control import Control
from fastmeta.stand_in.message import HandOver
from fastmeta.stand_in.namespaces import NamespaceNames
from fastmeta.stand_in.proxies import Proxies, Proxy, ProxyTable


class StandIns(Proxies):
    """Does nothing until start()."""

    def __init__(
        self, table: ProxyTable, scopes: Scopes, new_listener: Callable[[], int], folders: FolderWatcher
    ) -> None:
        super().__init__(table, scopes, new_listener)
        self._folders = folders
        self._control: Control | None = None
        self._names: NamespaceNames | None = None

    def start(
        self,
        control_dir: str,
        netns_dir: str,
        on_links_changed: Callable[[int], None],
        on_opened: Callable[[int], None],
    ) -> None:
        """The last two as of Listeners.start. Raises ListenError, ConfigError."""
        self.on_links_changed = on_links_changed
        self.on_opened = on_opened
        self._names = NamespaceNames(netns_dir, self._namespace_gone)
        self._control = Control(self, self._folders, control_dir, self._taken)
        self._names.start(self._folders)
        self._control.start()

    def stop(self) -> None:
        """Nothing more is taken; the core closes what is open, and holders keep their copies."""
        if self._control is not None:
            self._control.stop()
            self._control = None
        super().stop()

    def namespace_of(self, proxy: Proxy) -> str | None:
        return self._names.name(proxy.claim.namespace) if self._names is not None else None

    def _taken(self, claim: HandOver) -> None:
        if self._names is not None:
            self._names.follow(claim)

    def _namespace_gone(self, namespace: tuple[int, int]) -> None:
        for proxy in self:
            if proxy.claim.namespace == namespace and self._control is not None:
                self._control.end(proxy.claim.holder, "its namespace is gone, it is to end")
