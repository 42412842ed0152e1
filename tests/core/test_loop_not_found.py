"""Rule 7: Nova's 404 may mean that the instance is gone, and that its address belongs to another one by now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from .loop_kit import Rig, Wire, answer, instance_of, mark, silence, until

OLD = instance_of(1, "127.0.0.1", 0)
NEW = instance_of(1, "127.0.0.1", 1)
HELD = 404


def nova(wire: Wire) -> None:
    """Knows no instance of age 0, and no path that begins with /no; says who asked."""
    while (request := wire.read()) is not None:
        missing = request.one("X-Instance-ID").endswith("-0") or request.target.startswith("/no")
        wire.send(answer(mark(request), 404 if missing else 200))


def put_old(rig: Rig, seconds: float = 3.0) -> None:
    """The source said so some time ago."""
    rig.put("127.0.0.1", asked_at=time.monotonic() - seconds)


def name_the_new(rig: Rig, scope: int, address: str) -> None:
    rig.age[scope, address] = 1
    rig.put(address, scope=scope)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("how", ["named", "revoked, then named"])
def test_another_instance_has_the_address(make_rig: Callable[..., Rig], method: str, how: str) -> None:
    """The guest gets what is its own, and nothing of the answer that was held."""

    def on_miss(rig: Rig, scope: int, address: str) -> None:
        if how == "named" or rig.age.get((scope, address)):
            name_the_new(rig, scope, address)
        else:
            rig.revoke(address)
            rig.put(address)

    rig = make_rig(nova, on_miss=on_miss)
    put_old(rig)
    guest = rig.guest()
    for target in ("/a", "/b"):
        guest.get(target, method=method)
        found = guest.answer(method)
        assert found.status == 200
        if method == "GET":
            assert found.body.split()[0].decode() == NEW
    assert [request.one("X-Instance-ID") for request in rig.upstream.requests] == [OLD, NEW, NEW]
    assert (rig.stat("rechecks"), rig.stat("status_404")) == (1, 0)


def test_the_same_instance_has_it(make_rig: Callable[..., Rig]) -> None:
    """It is what it usually is, no such path: the 404 passes, and Nova is not asked a second time."""
    rig = make_rig(nova)
    rig.age[1, "127.0.0.1"] = 1
    put_old(rig)
    guest = rig.guest()
    for target in ("/no/1", "/no/2", "/yes"):
        guest.get(target)
        found = guest.answer()
        assert (found.status, found.whole) == (404 if target.startswith("/no") else 200, True)
        assert found.body.split()[2].decode() == target
    assert rig.upstream.targets() == ["/no/1", "/no/2", "/yes"]
    assert rig.misses == [(1, "127.0.0.1")]
    # Its connection to Nova went on being used.
    assert rig.stat("upstream_connects") == 1


def test_one_question_in_ten_seconds(make_rig: Callable[..., Rig]) -> None:
    """Boots ask for many paths that there are not: only the first 404 costs a question."""
    rig = make_rig(nova, on_miss=lambda rig, scope, address: put_old(rig))
    rig.age[1, "127.0.0.1"] = 1
    put_old(rig)
    for _ in range(20):
        assert rig.ask("/no").status == 404
    assert rig.misses == [(1, "127.0.0.1")]
    assert rig.stat("rechecks") == 1


@pytest.mark.parametrize("how", ["named", "revoked, then named"])
def test_another_identity_is_asked_about_for_itself(make_rig: Callable[..., Rig], how: str) -> None:
    """What the source said of the former one says nothing about who has the address since."""

    def on_miss(rig: Rig, scope: int, address: str) -> None:
        asked = len(rig.misses)
        if asked == 1 and how == "revoked, then named":
            rig.age[scope, address] = 1
            rig.revoke(address)
            return
        rig.age[scope, address] = 1
        put_old(rig)

    rig = make_rig(nova, on_miss=on_miss)
    put_old(rig)
    assert rig.ask("/no").status == 404
    assert [request.one("X-Instance-ID") for request in rig.upstream.requests] == [OLD, NEW]
    assert rig.stat("rechecks") == 2


def test_an_identity_that_was_just_confirmed_is_not_doubted(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(nova)
    put_old(rig, 1.0)
    assert rig.ask("/a").status == 404
    assert (rig.misses, rig.stat("rechecks")) == ([], 0)


def test_nobody_has_it(make_rig: Callable[..., Rig]) -> None:
    """The port is gone: the guest gets our own 404, nothing of Nova's."""
    rig = make_rig(nova, on_miss=lambda rig, scope, address: rig.absent(address))
    put_old(rig)
    found = rig.ask("/a")
    assert (found.status, OLD in found.body.decode()) == (404, False)
    rig.wait_stat("refused_absent", 1)


def test_the_answer_about_it_cannot_be_trusted(make_rig: Callable[..., Rig]) -> None:
    """In doubt nothing goes down."""
    rig = make_rig(nova, on_miss=lambda rig, scope, address: rig.refused(address))
    put_old(rig)
    found = rig.ask("/a")
    assert (found.status, len(found.all("Retry-After"))) == (503, 1)


def test_the_source_is_away(make_rig: Callable[..., Rig]) -> None:
    """Its silence must not make an ordinary 404 a failure: after 3 s it passes."""
    rig = make_rig(nova, on_miss=silence)
    put_old(rig)
    started = time.monotonic()
    found = rig.ask("/a")
    assert (found.status, found.body.split()[0].decode()) == (404, OLD)
    assert time.monotonic() - started >= 2.9
    assert rig.ask("/b").status == 404  # at once: no further question, no further wait
    assert time.monotonic() - started < 6


def test_the_answer_to_an_older_question_does_not_count(make_rig: Callable[..., Rig]) -> None:
    """An answer with the generation of before a revocation is thrown away, and it is asked anew for who waits."""

    def on_miss(rig: Rig, scope: int, address: str) -> None:
        if len(rig.misses) == 1:
            rig.put(address, generation=rig.generation[scope] + 1)
        else:
            name_the_new(rig, scope, address)

    rig = make_rig(nova, on_miss=on_miss)
    put_old(rig)
    found = rig.ask("/a")
    assert (found.status, found.body.split()[0].decode()) == (200, NEW)
    assert len(rig.misses) == 2


def test_a_post_is_passed_on_and_asked_about(make_rig: Callable[..., Rig]) -> None:
    """It may not be sent again; but who comes next gets what the source says now."""
    rig = make_rig(nova, on_miss=name_the_new)
    put_old(rig)
    guest = rig.guest()
    guest.post(b"data", "/a")
    assert guest.answer("POST").status == 404
    until(lambda: rig.misses)
    guest.get("/b")
    found = guest.answer()
    assert (found.status, found.body.split()[0].decode()) == (200, NEW)


@pytest.mark.parametrize("length", [0, 10, 20_000, 300_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_the_rest_of_a_held_answer(make_rig: Callable[..., Rig], framing: str, length: int) -> None:
    """What comes while the head is held waits, and all of it passes; also what comes after."""
    content = bytes(number % 251 for number in range(length))

    def script(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.target != "/no":
                wire.send(answer(mark(request)))
                continue
            head = b"HTTP/1.1 404 Not Found\r\nX-Held: yes\r\n"
            if framing == "length":
                wire.send(head + b"Content-Length: %d\r\n\r\n" % length + content)
            elif framing == "chunked":
                chunk = b"%x\r\n%b\r\n" % (length, content) if length else b""
                wire.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
                wire.send(b"0\r\n\r\n")
            else:
                wire.send(head + b"Connection: close\r\n\r\n" + content)
                return

    def slowly(rig: Rig, scope: int, address: str) -> None:
        time.sleep(0.1)
        rig.put(address)

    rig = make_rig(script, on_miss=slowly)
    put_old(rig)
    guest = rig.guest()
    guest.get("/no")
    found = guest.answer()
    assert (found.status, found.all("X-Held"), bytes(found.body), found.whole) == (
        HELD,
        ["yes"],
        content,
        True,
    )
    guest.get("/yes")
    assert guest.answer().status == 200


def test_the_guest_goes_while_its_answer_is_held(make_rig: Callable[..., Rig]) -> None:
    """Nothing of it stays: neither its place at Nova nor its wait."""
    rig = make_rig(nova, on_miss=silence)
    put_old(rig)
    guest = rig.guest()
    guest.get("/a")
    rig.wait_stat("rechecks", 1)
    guest.reset()
    rig.wait_stat("connections_open", 0)
    rig.wait_stat("upstream_connections", 0)
    rig.put("127.0.0.1")
    assert rig.ask("/b").status == 404
    assert rig.stat("aborted") == 1


def test_the_listener_goes_while_an_answer_is_held(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(nova, on_miss=silence)
    put_old(rig)
    guest = rig.guest()
    guest.get("/a")
    rig.wait_stat("rechecks", 1)
    rig.remove_scope(1)
    assert guest.more() in ("reset", "closed")
    rig.wait_stat("upstream_connections", 0)


def test_an_identity_that_ended_while_nova_worked(make_rig: Callable[..., Rig]) -> None:
    """What it was sent as is not known any more for certain: it is sent again as who it is now."""
    rig = make_rig(nova, on_miss=name_the_new)
    rig.put("127.0.0.1", asked_at=time.monotonic() - 3, ttl_ms=3_150)

    def slow(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.one("X-Instance-ID") == OLD:
                time.sleep(0.3)
            wire.send(answer(mark(request), 404 if request.one("X-Instance-ID") == OLD else 200))

    rig.upstream.script = slow
    found = rig.ask("/a")
    assert (found.status, found.body.split()[0].decode()) == (200, NEW)


def test_another_answer_without_a_revocation(make_rig: Callable[..., Rig]) -> None:
    """Whoever gives answers revokes before it names another instance; a request that is at Nova is aborted even if it
    does not."""

    def script(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.one("X-Instance-ID") == OLD:
                assert wire.is_closed()
                return
            wire.send(answer(mark(request)))

    rig = make_rig(script)
    put_old(rig, 0.0)
    guest = rig.guest()
    guest.get("/a")
    until(rig.upstream.targets)
    name_the_new(rig, 1, "127.0.0.1")
    assert guest.answer().body.split()[0].decode() == NEW
    rig.wait_stat("revoked_in_flight", 1)
    # The same answer again disturbs nobody.
    rig.put("127.0.0.1")
    guest.get("/b")
    assert guest.answer().status == 200
    assert rig.stat("revoked_in_flight") == 1


def test_what_is_sent_again_under_its_new_name_goes_on(make_rig: Callable[..., Rig]) -> None:
    """Kept connections are there at once: the walk over what is in flight must not meet it a second time."""
    together = threading.Barrier(4)

    def script(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.target == "/first":
                together.wait(10)
            elif request.one("X-Instance-ID") == OLD:
                assert wire.is_closed()
                return
            wire.send(answer(mark(request)))

    rig = make_rig(script)
    put_old(rig, 0.0)
    guests = [rig.guest() for _ in range(4)]
    for guest in guests:
        guest.get("/first")
    for guest in guests:
        assert guest.answer().status == 200
    guests[0].get("/a")
    until(lambda: "/a" in rig.upstream.targets())
    name_the_new(rig, 1, "127.0.0.1")
    assert guests[0].answer().body.split()[0].decode() == NEW
    assert rig.upstream.targets().count("/a") == 2
    assert rig.stat("revoked_in_flight") == 1


def test_another_one_was_named_when_the_first_had_ended(make_rig: Callable[..., Rig]) -> None:
    """Nobody knows any more who it was when the 404 comes; it is another's all the same."""
    named = threading.Event()

    def script(wire: Wire) -> None:
        while (request := wire.read()) is not None:
            if request.one("X-Instance-ID") == OLD:
                named.wait(10)
            wire.send(answer(mark(request), 404 if request.one("X-Instance-ID") == OLD else 200))

    rig = make_rig(script, on_miss=name_the_new)
    rig.put("127.0.0.1", asked_at=time.monotonic() - 3, ttl_ms=3_150)
    guest = rig.guest()
    guest.get("/a")
    until(rig.upstream.targets)
    time.sleep(0.3)  # it ends
    assert rig.ask("/b").body.split()[0].decode() == NEW
    named.set()
    found = guest.answer()
    assert (found.status, found.body.split()[0].decode()) == (200, NEW)
    assert rig.stat("status_404") == 0
