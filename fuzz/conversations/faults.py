"""System calls that fail, descriptors and memory that run out."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.operations import CALLS, Conversation


def few_descriptors_left() -> Conversation:
    """60 guests that are idle, and a Nova that answers no more."""
    conversation = Conversation()
    for _ in range(4):
        conversation.crowd(0, 15).turns(8)
    return conversation.nova(answers=False).limits(80)


def faults() -> Iterator[tuple[str, Conversation]]:
    """Each call, while a guest asks; at the start; in the middle of a body."""
    new = Conversation
    for call in CALLS:
        if call == "calls":
            continue
        for error in range(0, 8, 3):
            yield (
                f"fault-{call}-{error}",
                new(access_log=True)
                .connect()
                .ask("get")
                .fault(call, error, 2, error)
                .turn(4)
                .connect()
                .ask("post", 2000, guest=1)
                .turn(4)
                .connect(1)
                .ask("get", guest=2)
                .turn(4),
            )
    for fault in range(1, 33, 2):
        yield f"start-fault-{fault}", new(start_fault=fault).connect().ask("get").turn(3)
        yield f"start-fault-memory-{fault}", new(start_fault=fault // 2 * 4 | 2).connect().ask("get").turn(3)
    for call, error in (("recv", 0), ("recv", 1), ("send", 1), ("send", 2), ("watch", 0), ("memory", 0)):
        for skip in range(0, 8, 2):
            yield (
                f"body-and-fault-{call}-{error}-{skip}",
                new(answers=False)
                .connect()
                .queue("post_slow", 600)
                .deliver(100)
                .connect()
                .queue("post_slow", 150_000, guest=1)
                .deliver(100, guest=1)
                .turn(5)
                .fault(call, skip, 2, error)
                .body(100)
                .body(100, guest=1)
                .turn(2)
                .body(600)
                .body(90_000, guest=1)
                .turn(3)
                .answer()
                .turn(3),
            )


def descriptors() -> Iterator[tuple[str, Conversation]]:
    """There are few, or none."""
    new = Conversation
    yield (
        "descriptors-run-out",
        new().limits(25).crowd(0, 8).turn(8).limits(0).time(100).turn(5).to_timer().turn(5),
    )
    yield (
        "descriptors-run-out-and-nobody-goes",
        new(opens=False, answers=False).limits(25).crowd(0, 8).turn(4),
    )
    # Idle connections make room for connections to Nova while their listener drains, or the loop stops.
    yield "draining-makes-room", few_descriptors_left().all_ask().remove_listener(drain=True).turns(15)
    yield "stopping-makes-room", few_descriptors_left().all_ask().stop(1000).turns(15)
