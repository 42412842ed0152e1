"""What the resolver expects of whatever answers "which port has this address in this scope"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from fastmeta.lookup.parts import Heard, ignored
from fastmeta.models import Answer, Change, Question, Scope

OnChange: TypeAlias = Callable[[Change], None]
"""Called in the thread of the event loop as soon as a source knows that something has changed."""

OnAnnouncing: TypeAlias = Callable[[bool], None]
"""Called in the thread of the event loop. True: from now on every change will be told by OnChange at once. False:
that can no longer be relied on."""


class LookupSource(Protocol):
    """One source. All methods are called in the thread of the event loop; none may block it."""

    async def start(self, on_change: OnChange, on_announcing: OnAnnouncing) -> None:
        """Called once, before the first question. Until on_announcing(True) no change is promised to be told.
        Raises ConfigError when it can never work as it is configured; a source that is merely away starts all
        the same."""

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Heard = ignored) -> Answer:
        """The networks of the scope (a router's: those it has an interface in, and which of its own ports is
        in which), and the ports that may have one of the addresses asked for, in any of these networks. One
        call for all questions, cancelled when it takes too long. What has to be asked for in parts, each of which
        may take as long as a whole answer, calls heard after each; nothing in the answer is older than the call of
        this method.

        Raises LookupUnavailableError when the same question may be answered later (LookupRefusedError: only
        after an operator has acted), LookupMalformedError when what came back as a whole is not an answer; a
        single malformed port goes into Answer.malformed. The text of an error is the same for the same cause,
        whatever was asked, so that it is said once: no scope, address, request id or time is in it, nor ever
        a secret.
        """

    async def all_ports(self, scope: Scope, most: int, heard: Heard = ignored) -> Answer | None:
        """The same, with all ports of the scope that an address may be asked for of; None when they are more than so
        many, or cannot be asked for. Nobody waits for them: they must not hold up questions for which somebody does.
        Raises as ports() does."""

    async def stop(self) -> None:
        """Frees what it holds. No on_change and no on_announcing comes any more."""
