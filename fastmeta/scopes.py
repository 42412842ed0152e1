"""The numbers by which the core knows networks and routers, and who still needs which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastmeta.models import Scope


@dataclass(slots=True)
class _Numbered:
    """place: what tells apart two numbers of one scope. holders: how many need it."""

    scope: Scope
    place: str | None
    holders: int = 0


class Scopes:
    """Scopes that have a number. Lives in the event loop's thread.

    A scope that is served in two namespaces has two numbers: the index of an interface, by which guests with
    link-local addresses are told apart, means something in one namespace only. No number is used twice, so that what
    is said of a scope that is being removed cannot be mistaken.
    """

    def __init__(self) -> None:
        self._next = 1
        self._numbers: dict[tuple[Scope, str | None], int] = {}
        self._numbered: dict[int, _Numbered] = {}
        self.by_number: dict[int, Scope] = {}
        """All that have a number now."""
        self.on_added: Callable[[int, Scope], None] = _nobody
        """Called with each that is new from now on,"""
        self.on_removed: Callable[[int], None] = _nobody
        """and when nobody needs it any more."""

    def new_number(self) -> int:
        """One that no scope has or had."""
        number, self._next = self._next, self._next + 1
        return number

    def hold(self, scope: Scope, place: str | None) -> int:
        """The number of this scope in this place, a new one if it has none. It stays until as many let_go."""
        number = self._numbers.get((scope, place))
        if number is None:
            number = self._numbers[scope, place] = self.new_number()
            self._numbered[number] = _Numbered(scope, place)
            self.by_number[number] = scope
            self.on_added(number, scope)
        self._numbered[number].holders += 1
        return number

    def hold_again(self, number: int) -> None:
        """One more needs it."""
        self._numbered[number].holders += 1

    def let_go(self, number: int) -> None:
        """One less needs it."""
        numbered = self._numbered[number]
        numbered.holders -= 1
        if numbered.holders == 0:
            del self._numbers[numbered.scope, numbered.place]
            del self._numbered[number]
            del self.by_number[number]
            self.on_removed(number)

    def place(self, number: int) -> str | None:
        """Where it is served: the name of a namespace; None outside of any. Raises KeyError."""
        return self._numbered[number].place


def _nobody(*_: object) -> None:
    """Nobody wants to know."""
