"""What the resolver expects of whatever answers "which port has this address in this scope"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from fastmeta.models import Answer, Change, Question, Scope

OnChange: TypeAlias = Callable[[Change], None]
"""Called in the thread of the event loop as soon as a source knows that something has changed."""


class LookupSource(Protocol):
    """One source. All methods are called in the thread of the event loop; none may block it."""

    async def start(self, on_change: OnChange) -> None:
        """Called once, before the first question. Raises ConfigError when it can never work as it is
        configured; a source that is merely away starts all the same."""

    async def ports(self, scope: Scope, questions: Sequence[Question]) -> Answer:
        """The networks of the scope (a router's: those it has an interface in, and which of its own ports is
        in which), and the ports that may have one of the addresses asked for, in any of these networks. One
        call for all questions, cancelled when it takes too long.

        Raises LookupUnavailableError when the same question may be answered later, LookupMalformedError when
        what came back as a whole is not an answer; a single malformed port goes into Answer.malformed.
        """

    async def stop(self) -> None:
        """Frees what it holds. No on_change comes any more."""
