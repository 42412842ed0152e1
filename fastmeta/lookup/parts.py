"""Waiting for an answer that comes in parts: so long for each of them, and not longer than so long for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Heard: TypeAlias = Callable[[], None]
"""Called in the thread of the event loop: a part has come, and the next one is asked for."""


def ignored() -> None:
    """For whoever waits in another way."""


async def in_parts(ask: Callable[[Heard], Coroutine[Any, Any, T]], each: float, most: float) -> T:
    """What ask returns or raises. Raises asyncio.TimeoutError, with a text, when there is nothing more of it for so
    many seconds, or when not all of it came in so many; then, as when this is cancelled, ask is cancelled and has
    ended."""
    loop = asyncio.get_running_loop()
    end = loop.time() + max(most, each)
    deadline = loop.time() + each

    def heard() -> None:
        nonlocal deadline
        deadline = min(loop.time() + each, end)

    task = loop.create_task(ask(heard))
    try:
        while not task.done():
            left = deadline - loop.time()
            if left <= 0:
                raise asyncio.TimeoutError(
                    f"no answer in {each:g} seconds (lookup_timeout)"
                    if deadline < end or each >= most
                    else f"parts of an answer, but not all of it in {most:g} seconds"
                )
            await asyncio.wait([task], timeout=left)
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # or asyncio complains that nobody has looked at it
