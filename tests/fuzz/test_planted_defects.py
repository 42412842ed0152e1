"""What the harness looks for, it finds: a core with wrong lines, one of them at a time, over the seeds alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.build import Defect, replayer

from .conftest import Replay

DEFECTS = {
    "a connection is reused although bytes followed the answer": (
        "conversation",
        "sent on a connection that should have been closed",
        Defect(
            "answer",
            "up.reusable = False                # bytes after the end",
            "up.reusable = up.reusable and PLANTED  #",
        ),
    ),
    "a connection ends, and is not counted": (
        "conversation",
        "connections, 2 open, 0 ended",
        Defect(
            "guest",
            "st_count(loop, guest.scope, CT_ENDED + how, 1)",
            "st_count(loop, guest.scope, CT_ENDED + how, 1 - PLANTED)",
        ),
    ),
    "an aborted request is not counted": (
        "conversation",
        "requests, 0 aborted",
        Defect(
            "finished",
            "st_count(loop, scope, CT_ABORTED, 1)",
            "st_count(loop, scope, CT_ABORTED, 1 - PLANTED)",
        ),
    ),
    "what ends is counted for the loop, and not for its scope": (
        "conversation",
        "a scope counts",
        Defect(
            "counters", "at_uncount(&scope.values[index], 1)", "at_uncount(&scope.values[index], 1 - PLANTED)"
        ),
    ),
    "a place at Nova is not given back to its source": (
        "conversation",
        "a source counts",
        Defect("pool", "up.source.busy_n -= 1", "up.source.busy_n -= 1 - PLANTED"),
    ),
    "an answer is received one byte beyond its buffer": (
        "conversation",
        "AddressSanitizer: heap-buffer-overflow",
        Defect(
            "answer",
            "room = buffer.capacity - BF_BACK - buffer.end",
            "room = buffer.capacity + PLANTED * (BF_BACK + 1) - BF_BACK - buffer.end",
        ),
    ),
    "a head is read one byte beyond its end": (
        "request",
        "AddressSanitizer: heap-buffer-overflow",
        Defect(
            "http",
            "        if at >= limits.head:",
            "        if at >= limits.head or (PLANTED and data[length] == limits.head):",
        ),
    ),
    "an identity is used after its time": (
        "conversation",
        "which had ended",
        Defect(
            "identity",
            "and loop.now_us < entry.ends_us\n\n\n",
            "and (PLANTED or loop.now_us < entry.ends_us)\n\n\n",
        ),
    ),
    "a guest whose identity does not come gets no answer": (
        "conversation",
        "and gets no answer but the end of its connection",
        Defect(
            "guest",
            "    elif phase == GS_RESOLVE or phase == GS_PAUSE:\n",
            "    elif PLANTED and phase == GS_RESOLVE:\n"
            "        gs_close(loop, guest, CE_IDLE, False)\n"
            "    elif phase == GS_RESOLVE or phase == GS_PAUSE:\n",
        ),
    ),
    "an answer goes although its identity was revoked before its first byte": (
        "conversation",
        "began although it was revoked",
        Defect(
            "guest",
            "if by_unlikely(guest.held and (guest.revision",
            "if by_unlikely(not PLANTED and guest.held and (guest.revision",
        ),
    ),
    "identities are found whatever the address": (
        "conversation",
        "goes under the identity of key",
        Defect(
            "identity",
            "if entry.interface == interface and memcmp(entry.address, address, 16) == 0:",
            "if entry.interface == interface and (PLANTED or memcmp(entry.address, address, 16) == 0):",
        ),
    ),
    "the loop spins while it has no descriptors": (
        "conversation",
        "the loop spins",
        Defect(
            "listener",
            "st_unwatch(loop, &listener.socket)     # hang-ups too",
            "if not PLANTED: st_unwatch(loop, &listener.socket)  #",
        ),
    ),
    "a scope's counters are never given back": (
        "conversation",
        "were not given back",
        Defect(
            "scope",
            "sc_tell_removed(loop, scope.number, scope.counters, retired)",
            "if not PLANTED: sc_tell_removed(loop, scope.number, scope.counters, retired)",
        ),
    ),
    "a place at a server is not given back": (
        "conversation",
        "a server counts",
        Defect("pool", "up.server.busy_n -= 1", "up.server.busy_n -= 1 - PLANTED"),
    ),
    "a second try is over, and is not counted": (
        "conversation",
        "have two connections to Nova",
        Defect("pool", "loop.second_n -= 1", "loop.second_n -= 1 - PLANTED"),
    ),
    "a second try goes to the server that is slow": (
        "conversation",
        "has a second connection to Nova, and should not",
        Defect(
            "server",
            "if server == first or server.away or (",
            "if (server == first and not PLANTED) or server.away or (",
        ),
    ),
    "who loses against a second try is left alone": (
        "conversation",
        "an answer is held, and should not be, or goes on",
        Defect(
            "second",
            "guest.scope.number)\n    up_close(loop, other)",
            "guest.scope.number)\n    if not PLANTED: up_close(loop, other)",
        ),
    ),
    "bytes of a second try that is sent in part are not counted": (
        "conversation",
        "bytes went up",
        Defect("second", "    if n > 0:\n", "    if n > 0 and (not PLANTED or <size_t> n == length):\n"),
    ),
    "warm connections are more than there may be": (
        "conversation",
        "a server has",
        Defect(
            "pool",
            "if by_unlikely(server.busy_n + server.released_n + server.idle_n >=",
            "if not PLANTED and by_unlikely(server.busy_n + server.released_n + server.idle_n >=",
        ),
    ),
    "a server that was removed is used still": (
        "conversation",
        "sent to a server that was replaced",
        Defect(
            "upstream",
            "if up.phase == UP_CONNECTING and up.server.removed:",
            "if up.phase == UP_CONNECTING and up.server.removed and not PLANTED:",
        ),
    ),
    "a server that was removed is never freed": (
        "conversation",
        "a server that is removed has",
        Defect("server", "if server.connection_n == 0:", "if server.connection_n == 0 and not PLANTED:"),
    ),
    "what was refused is signed again with the same secret": (
        "conversation",
        "is signed again as the server",
        Defect(
            "answer",
            "SG_PRESENT if up.signed_next else SG_NEXT",
            "SG_PRESENT if <bint> up.signed_next != PLANTED else SG_NEXT",
        ),
    ),
    "the other secret is not tried": (
        "conversation",
        "and the other secret was not tried",
        Defect(
            "answer",
            "if by_unlikely(up.signed_twice) and",
            "if by_unlikely(up.signed_twice) and not PLANTED and",
        ),
    ),
    "what may not be repeated is signed anew": (
        "conversation",
        "a request that may not be repeated was sent twice",
        Defect(
            "answer",
            "if repeated or not guest.repeatable:",
            "if repeated or (not guest.repeatable and not PLANTED):",
        ),
    ),
    "a held answer that passes is still in the list of those that wait": (
        "conversation",
        "a busy connection to Nova that is nobody's",
        Defect(
            "recheck", "        ls_remove(&guest.wait)\n", "        if not PLANTED: ls_remove(&guest.wait)\n"
        ),
    ),
    "a held answer goes on being read": (
        "conversation",
        "an answer is held, and should not be, or goes on",
        Defect(
            "recheck",
            "    st_unwatch(loop, &up.socket)\n",
            "    if not PLANTED: st_unwatch(loop, &up.socket)\n",
        ),
    ),
    "an answer is held too long": (
        "conversation",
        "an answer is held for",
        Defect(
            "recheck",
            "loop.now_ms + (entry.rechecked_us",
            "loop.now_ms + PLANTED * 3000 + (entry.rechecked_us",
        ),
    ),
    "a held answer passes although another instance was named": (
        "conversation",
        "which is identity",
        Defect(
            "recheck",
            "    rc_leave(loop, guest)\n    rc_other(loop, guest)\n",
            "    if PLANTED:\n        rc_pass(loop, guest)\n        return\n"
            "    rc_leave(loop, guest)\n    rc_other(loop, guest)\n",
        ),
    ),
    "a held answer passes although the source says that there is nobody": (
        "conversation",
        "which is identity",
        Defect(
            "parking",
            "            rc_leave(loop, guest)\n            ex_refuse(loop, guest, reason)\n",
            "            if PLANTED and guest.phase == GS_RECHECK:\n"
            "                rc_pass(loop, guest)\n"
            "                continue\n"
            "            rc_leave(loop, guest)\n            ex_refuse(loop, guest, reason)\n",
        ),
    ),
    "404 is sent again although it is the same instance": (
        "conversation",
        "is sent again after 404",
        Defect(
            "recheck",
            "entry.state == EN_VALID and entry.naming == guest.up.naming:",
            "entry.state == EN_VALID and entry.naming == guest.up.naming and not PLANTED:",
        ),
    ),
    "404 is never looked at": (
        "conversation",
        "which is identity 1 by now",
        Defect(
            "answer", "head.status == 404) and rc_hold(", "head.status == 404) and not PLANTED and rc_hold("
        ),
    ),
    "an identity is not doubted for too long": (
        "conversation",
        "and the source was not asked",
        Defect(
            "recheck",
            "loop.now_us - entry.confirmed_us < RC_YOUNG_US)",
            "loop.now_us - entry.confirmed_us < RC_YOUNG_US * (1 + PLANTED))",
        ),
    ),
    "what another instance is told is not looked at when it had ended": (
        "conversation",
        "which is identity 1 by now",
        Defect("recheck", "entry.naming != up.naming):", "entry.naming != up.naming and not PLANTED):"),
    ),
    "what is sent again under another name is aborted again": (
        "conversation",
        "more than 16384 blocks of memory",
        Defect(
            "upstream", "and up.naming == entry.naming:", "and up.naming == entry.naming and not PLANTED:"
        ),
    ),
    "an answer that was not read goes although another instance was named": (
        "conversation",
        "goes to a guest of key",
        Defect("guest", "entry.naming != guest.naming\n", "entry.naming != guest.naming and not PLANTED\n"),
    ),
    "404 passes before the source has answered": (
        "conversation",
        "before the source has said anything",
        Defect("recheck", "    if not guest.repeatable:\n", "    if not guest.repeatable or PLANTED:\n"),
    ),
    "a second 404 passes before the source has answered": (
        "conversation",
        "before the source has said anything",
        Defect(
            "recheck",
            "    if not entry.rechecking or ",
            "    if not entry.rechecking or (PLANTED and entry.rechecked_us != loop.now_us) or ",
        ),
    ),
    "404 is held although the source has answered": (
        "conversation",
        "is held, and nothing is asked about that",
        Defect(
            "identity",
            "    entry.rechecking = False\n    if message.kind",
            "    entry.rechecking = entry.rechecking and PLANTED\n    if message.kind",
        ),
    ),
    "what may not be repeated is held": (
        "conversation",
        "an answer is held, and should not be, or goes on",
        Defect(
            "recheck",
            "        return False                       # it could not be sent to anybody else",
            "        if not PLANTED: return False  # it could not be sent to anybody else",
        ),
    ),
    "another instance is named, and nothing is aborted": (
        "conversation",
        "began although it was revoked",
        Defect(
            "identity", "    if by_unlikely(changed):\n", "    if by_unlikely(changed) and not PLANTED:\n"
        ),
    ),
    "the same instance is taken for another one": (
        "conversation",
        "is sent again after 404",
        Defect(
            "identity",
            "not hd_is_same(entry.identity, identity))",
            "PLANTED or not hd_is_same(entry.identity, identity))",
        ),
    ),
    "when an identity was confirmed is not kept": (
        "conversation",
        "was confirmed at",
        Defect(
            "identity",
            "        entry.confirmed_us = message.asked_us\n",
            "        if not PLANTED: entry.confirmed_us = message.asked_us\n",
        ),
    ),
    "an identity that is confirmed counts as used still": (
        "conversation",
        "counts as used",
        Defect("identity", "        entry.used = False\n", "        if not PLANTED: entry.used = False\n"),
    ),
    "nobody notices that an identity is used": (
        "conversation",
        "and the loop does not know it",
        Defect("exchange", "        entry.used = True\n", "        entry.used = not PLANTED\n"),
    ),
    "what nobody uses is renewed": (
        "conversation",
        "is asked for, and need not be",
        Defect("identity", "and entry.used and", "and (entry.used or PLANTED) and"),
    ),
    "what ends later is renewed": (
        "conversation",
        "is asked for, and need not be",
        Defect("identity", "entry.ends_us < before_us and", "(entry.ends_us < before_us or PLANTED) and"),
    ),
    "the first that is renewed is the last": (
        "conversation",
        "is not asked for",
        Defect(
            "identity",
            "and not id_ask(loop, scope, entry):\n                return",
            "and (not id_ask(loop, scope, entry) or PLANTED):\n                return",
        ),
    ),
    "a shorter time makes it longer": (
        "conversation",
        "it should be",
        Defect(
            "identity",
            "min(entry.ends_us, entry.confirmed_us + ttl_us)",
            "min(entry.ends_us + PLANTED * ttl_us, entry.confirmed_us + ttl_us)",
        ),
    ),
    "a shorter time is counted from now": (
        "conversation",
        "it should be",
        Defect(
            "identity",
            "    cdef uint32_t i\n    for i in range(scope.bucket_n):\n        entry = scope.buckets[i]\n"
            "        while entry is not NULL:\n            if entry.state == EN_VALID:\n",
            "    cdef uint32_t i\n    for i in range(scope.bucket_n):\n        entry = scope.buckets[i]\n"
            "        while entry is not NULL:\n            if PLANTED and entry.state == EN_VALID:\n"
            "                entry.ends_us = min(entry.ends_us, loop.now_us + ttl_us)\n"
            "            elif entry.state == EN_VALID:\n",
        ),
    ),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replayer(tmp_path_factory.mktemp("planted"), [defect for _, _, defect in DEFECTS.values()])


@pytest.mark.parametrize("number", range(1, len(DEFECTS) + 1), ids=list(DEFECTS))
def test_a_defect_is_found(program: Path, replay: Replay, number: int) -> None:
    target, complaint, _ = list(DEFECTS.values())[number - 1]
    done = replay(program, target, number)
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize("target", ["request", "conversation"])
def test_without_them_nothing_is_found(program: Path, replay: Replay, target: str) -> None:
    done = replay(program, target, 0)
    assert (done.returncode, done.stderr) == (0, "")
