"""What the harness looks for, it finds: a core with one wrong line each, over the seeds alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.build import Defect, replayer

from .conftest import Replay

DEFECTS = {
    "a connection is reused although bytes followed the answer": (
        "conversation",
        "sent on a connection that should have been closed",
        Defect("answer", "up.reusable = False                # bytes after the end", "pass  #"),
    ),
    "a connection is closed, and one counter does not know": (
        "conversation",
        "connections, 2 open, 0 ended",
        Defect("guest", "st_count(loop, guest.scope, CT_ENDED + how, 1)", "pass"),
    ),
    "an aborted request is counted for the loop, and not for its scope": (
        "conversation",
        "a scope: 1 requests, 0 aborted",
        Defect(
            "exchange",
            "st_count(loop, scope, CT_ABORTED, 1)",
            "at_count(&loop.counters.values[CT_ABORTED], 1)",
        ),
    ),
    "a place at Nova is not given back to its source": (
        "conversation",
        "a source counts",
        Defect("upstream", "up.source.busy_n -= 1", "pass"),
    ),
    "an answer is received one byte beyond its buffer": (
        "conversation",
        "AddressSanitizer: heap-buffer-overflow",
        Defect("answer", "room = buffer.capacity - BF_BACK - buffer.end", "room = buffer.capacity + 1 - buffer.end"),
    ),
    "a head is read one byte beyond its end": (
        "request",
        "AddressSanitizer: heap-buffer-overflow",
        Defect("http", "        if at >= limits.head:", "        if at + data[length] // 256 >= limits.head:"),
    ),
    "an identity is used after its time": (
        "conversation",
        "which had ended",
        Defect("identity", "entry.state == EN_VALID and loop.now_us < entry.ends_us", "entry.state == EN_VALID"),
    ),
    "identities are found whatever the address": (
        "conversation",
        "goes under the identity of key",
        Defect(
            "identity",
            "if entry.interface == interface and memcmp(entry.address, address, 16) == 0:",
            "if entry.interface == interface:",
        ),
    ),
    "the loop spins while it has no descriptors": (
        "conversation",
        "the loop spins",
        Defect("listener", "st_unwatch(loop, &listener.socket)     # hang-ups too", "pass  #"),
    ),
    "a scope's counters are never given back": (
        "conversation",
        "were not given back",
        Defect("scope", "sc_tell_removed(loop, scope.number, scope.counters)", "pass"),
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(tmp_path: Path, replay: Replay, name: str) -> None:
    target, complaint, defect = DEFECTS[name]
    done = replay(replayer(tmp_path, defect), target)
    assert done.returncode != 0
    assert complaint in done.stderr
