"""The part of the core's loops that the resolver writes to."""

from __future__ import annotations

from typing import Protocol


class IdentityTable(Protocol):
    """What the core knows of addresses. Its messages are carried out in order; see _core.pyi."""

    def put_identity(
        self,
        scope: int,
        address: bytes,
        interface: int,
        *,
        instance_id: str,
        project_id: str,
        asked_at: float,
        ttl_ms: int,
        generation: int,
    ) -> None: ...

    def put_absent(
        self, scope: int, address: bytes, interface: int, *, asked_at: float, ttl_ms: int, generation: int
    ) -> None: ...

    def put_refused(self, scope: int, address: bytes, interface: int, *, generation: int) -> None: ...

    def revoke(
        self, scope: int, generation: int, address: bytes | None = None, interface: int = 0
    ) -> None: ...

    def renew(self, scope: int, before: float) -> None: ...

    def shorten(self, scope: int, ttl_ms: int) -> None: ...
