"""Rule 1, identity safety: only a confirmed, fresh, unrevoked identity goes to the upstream."""

import socket
import threading
import time

import pytest

from .loop_kit import Gone, Guest, Wire, answer, echo, instance_of, mark, packed, silence, until


def test_first_request_asks_once_and_is_answered(rig):
    """A miss is told to Python once; the next request finds the identity."""
    assert rig.ask("/a").body == f"{instance_of(1, '127.0.0.1')} GET /a\n".encode()
    assert rig.ask("/b").body == f"{instance_of(1, '127.0.0.1')} GET /b\n".encode()
    assert rig.misses == [(1, "127.0.0.1")]
    assert rig.stat("identity_hits") >= 1


def test_each_address_has_its_own_identity(rig):
    """Two guests of one listener are two instances; overlapping addresses of two scopes too."""
    rig.add_listener(2, 2)
    for listener, scope, address in ((1, 1, "127.0.0.1"), (1, 1, "127.0.0.2"), (2, 2, "127.0.0.1")):
        guest = rig.guest(address, listener)
        guest.get("/x")
        assert guest.answer().body.split()[0].decode() == instance_of(scope, address)


def test_ipv6_guest(rig):
    """An IPv6 guest is known by its 16 bytes."""
    rig.add_listener(2, 1, "::1")
    guest = rig.guest("::1", 2)
    guest.get("/x")
    assert guest.answer().body.split()[0].decode() == instance_of(1, "::1")
    assert rig.upstream.requests[-1].one("X-Forwarded-For") == "::1"


def test_time_to_live_counts_from_the_question(make_rig):
    """An identity whose question was sent long ago has ended, however lately it was put."""
    rig = make_rig(on_miss=silence, settings={"park_timeout_ms": 150})
    rig.put("127.0.0.1", asked_at=time.monotonic() - 10, ttl_ms=9_000)
    assert rig.ask().status == 503
    assert rig.upstream.requests == []
    rig.put("127.0.0.1", asked_at=time.monotonic() - 10, ttl_ms=60_000)
    assert rig.ask().status == 200


def test_an_identity_ends(make_rig):
    """After its time a new question is asked, and the new answer counts."""
    rig = make_rig(ttl_ms=150)
    guest = rig.guest()
    guest.get("/a")
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.1", 0)
    rig.age[1, "127.0.0.1"] = 1
    time.sleep(0.2)
    guest.get("/b")
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.1", 1)
    assert len(rig.misses) == 2


def test_answers_of_an_older_generation_are_thrown_away(make_rig):
    """An answer to a question that was sent before a revocation counts for nothing; it is asked anew."""
    rig = make_rig(on_miss=silence)
    rig.generation[1] = 5
    rig.loop.revoke(1, 5)
    guest = rig.guest()
    guest.get("/a")
    until(lambda: rig.misses)
    rig.put("127.0.0.1", generation=4, instance="old")
    until(lambda: len(rig.misses) == 2, "asked anew")
    assert rig.upstream.requests == []
    rig.loop.put_absent(1, packed("127.0.0.1"), 0, asked_at=time.monotonic(), ttl_ms=1000, generation=4)
    until(lambda: len(rig.misses) == 3, "asked anew")
    rig.put("127.0.0.1", generation=5, instance="new")
    assert guest.answer().body.startswith(b"new ")


def test_an_identity_that_ends_while_its_request_waits_for_a_connection(make_rig):
    """It is checked when the head goes to Nova, not when the request came."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                go_on.wait(5)
            wire.send(answer(mark(request)))

    rig = make_rig(script, settings={"max_upstream_connections": 1}, ttl_ms=250)
    first = rig.guest("127.0.0.2")
    first.get("/slow")
    until(lambda: rig.upstream.targets() == ["/slow"])
    second = rig.guest("127.0.0.3")
    second.get("/late")
    until(lambda: rig.stat("parked") == 1 and (1, "127.0.0.3") in rig.misses)
    rig.age[1, "127.0.0.3"] = 1
    time.sleep(0.3)
    go_on.set()
    assert first.answer().status == 200
    assert second.answer().body.split()[0].decode() == instance_of(1, "127.0.0.3", 1)


def test_an_identity_that_is_revoked_while_its_request_waits_for_a_connection(make_rig):
    """The same, by revocation: the old instance's id never reaches the upstream."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                go_on.wait(5)
            wire.send(answer(mark(request)))

    rig = make_rig(script, settings={"max_upstream_connections": 1})
    rig.put("127.0.0.3")
    first = rig.guest("127.0.0.2")
    first.get("/slow")
    until(lambda: rig.upstream.targets() == ["/slow"])
    second = rig.guest("127.0.0.3")
    second.get("/late")
    until(lambda: rig.stat("parked") == 1)
    rig.revoke("127.0.0.3")
    go_on.set()
    assert second.answer().body.split()[0].decode() == instance_of(1, "127.0.0.3", 1)
    assert instance_of(1, "127.0.0.3", 0) not in [r.one("X-Instance-ID") for r in rig.upstream.requests]


@pytest.mark.parametrize("how", ["ends", "is revoked"])
def test_an_identity_that_is_over_when_its_connection_is_made(make_rig, how):
    """The upstream takes a second to accept a connection: the head that goes up names the new instance."""
    rig = make_rig()
    crowded = socket.socket()
    crowded.bind(("127.0.0.1", 0))
    crowded.listen(0)
    waiting = [socket.socket() for _ in range(2)]
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(crowded.getsockname())
    rig.put("127.0.0.9")  # the table is swept a second after this, and after the next
    time.sleep(0.5)
    rig.put("127.0.0.1", ttl_ms=700 if how == "ends" else 60_000)
    rig.age[1, "127.0.0.1"] = 1 if how == "ends" else 0
    rig.loop.set_upstream([crowded.getsockname()], "nova")
    guest = rig.guest()
    guest.get("/a")
    rig.wait_stat("upstream_connects", 1)
    if how == "is revoked":
        rig.revoke("127.0.0.1")
    sent = []
    for _ in range(len(waiting) + 1):
        sock, peer = crowded.accept()
        if peer in [other.getsockname() for other in waiting]:
            sock.close()
            continue
        wire = Wire(rig.upstream, sock, 0)
        sent.append(wire.read())
        wire.send(answer(mark(sent[-1])))
        break
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.1", 1)
    assert [request.one("X-Instance-ID") for request in sent] == [instance_of(1, "127.0.0.1", 1)]
    for other in (sock, crowded, *waiting):
        other.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_identity_that_is_revoked_while_a_body_is_gathered(rig, chunked):
    """A body takes time: the head that goes up afterwards names the new instance."""
    guest = rig.guest()
    guest.get("/first")
    assert guest.answer().status == 200
    if chunked:
        guest.get("/p", "Transfer-Encoding: chunked", method="POST")
        guest.send(b"3\r\nabc\r\n")
    else:
        guest.get("/p", "Content-Length: 6", method="POST")
        guest.send(b"abc")
    until(lambda: rig.stat("identity_hits") >= 1)
    rig.revoke("127.0.0.1")
    guest.send(b"3\r\ndef\r\n0\r\n\r\n" if chunked else b"def")
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.1", 1)
    assert rig.upstream.requests[-1].body == b"abcdef"
    assert [r.one("X-Instance-ID")[-1] for r in rig.upstream.requests] == ["0", "1"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("everything", [False, True])
def test_revoked_before_the_answer(make_rig, method, everything):
    """A revocation before the first byte of the answer aborts it; the guest gets the new instance's data."""
    old = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if request.one("X-Instance-ID").endswith("-0"):
                assert wire.is_closed()
                old.set()
                return
            wire.send(answer(headers=("X-Mark: " + request.one("X-Instance-ID"),)))

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/a", method=method)
    until(rig.upstream.targets)
    rig.revoke(None if everything else "127.0.0.1")
    found = guest.answer(method)
    assert (found.status, found.all("X-Mark")) == (200, [instance_of(1, "127.0.0.1", 1)])
    assert old.wait(5)
    assert rig.stat("revoked_in_flight") == 1


def test_revoked_when_part_of_the_answers_head_is_here(make_rig):
    """Nothing has gone to the guest: the part that came is thrown away with its connection."""
    partly = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if request.one("X-Instance-ID").endswith("-0"):
                wire.send(b"HTTP/1.1 200 OK\r\nX-Mark: old")
                partly.set()
                assert wire.is_closed()
                return
            wire.send(answer(mark(request)))

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/a")
    assert partly.wait(5)
    time.sleep(0.02)
    rig.revoke()
    found = guest.answer()
    assert (found.headers, found.body.split()[0].decode()) == (
        [("Content-Length", str(len(found.body)))],
        instance_of(1, "127.0.0.1", 1),
    )


def test_revoked_when_the_guests_kernel_takes_no_byte(make_rig):
    """A guest that pipelines and does not read: at some time the kernel takes not one byte of an answer. When the
    identity is revoked meanwhile, that answer does not go any more. (Each answer fills whole segments, so that the send
    buffer is full at the end of one: else a part of the next would fit.)"""
    segment, requests = 500, 2000

    def script(wire):
        while (request := wire.read()) is not None:
            head = answer(length=100, headers=("X-Mark: " + request.one("X-Instance-ID"),))
            # The loop passes the head on as it is.
            padding = b"X-Padding: " + b"p" * (segment - 100 - len(head) - 13) + b"\r\n\r\n"
            wire.send(head.removesuffix(b"\r\n") + padding + b"c" * 100)

    rig = make_rig(script)
    sock = socket.socket()
    sock.settimeout(8)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment + 12)  # and the timestamps' option
    sock.connect(rig.listeners[1])
    guest = Guest(sock)
    rig.guests.append(guest)
    guest.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(requests)))
    asked = [-1, 0]
    while asked[-1] != asked[-2]:
        time.sleep(0.2)
        asked.append(len(rig.upstream.requests))
    assert asked[-1] < requests, "the guest's kernel takes everything"
    rig.revoke()
    marks = [guest.answer().all("X-Mark")[0][-1] for _ in range(requests)]
    held = asked[-1] - 1
    assert marks == ["0"] * held + ["1"] * (requests - held)
    assert rig.stat("revoked_in_flight") == 1
    assert rig.upstream.targets()[held : held + 2] == [f"/{held}"] * 2


def test_a_revoked_post_is_refused(make_rig):
    """What may not be repeated gets 503 with Retry-After, and went up once."""

    def script(wire):
        wire.read()
        wire.is_closed()

    rig = make_rig(script)
    guest = rig.guest()
    guest.post(b"data", "/p")
    until(rig.upstream.targets)
    rig.revoke()
    found = guest.answer()
    assert found.status == 503
    assert int(found.all("Retry-After")[0]) in (1, 2, 3)
    assert rig.upstream.targets() == ["/p"]


def test_revoking_one_address_leaves_the_others(make_rig):
    """Another guest's request in flight goes on, and its identity stays."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            if request.target == "/slow":
                go_on.wait(5)
            wire.send(answer(mark(request)))

    rig = make_rig(script)
    guest = rig.guest("127.0.0.2")
    guest.get("/slow")
    until(rig.upstream.targets)
    assert rig.ask("/x", address="127.0.0.3").status == 200
    rig.revoke("127.0.0.3")
    assert rig.ask("/y", address="127.0.0.3").body.split()[0].decode() == instance_of(1, "127.0.0.3", 1)
    go_on.set()
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.2", 0)
    guest.get("/again")
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.2", 0)
    assert rig.misses.count((1, "127.0.0.2")) == 1
    assert rig.stat("revoked_in_flight") == 0


def test_an_answer_that_has_begun_is_not_aborted(make_rig):
    """It left under an identity that was good; only what follows needs a new one."""
    go_on = threading.Event()

    def script(wire):
        while (request := wire.read()) is not None:
            body = mark(request)
            wire.send(answer(body)[: -len(body)] + body[:5])
            go_on.wait(5)
            wire.send(body[5:])

    rig = make_rig(script)
    guest = rig.guest()
    guest.get("/a")
    until(lambda: guest.more() == "")
    rig.revoke()
    rig.wait_stat("identities", 0)
    go_on.set()
    found = guest.answer()
    assert found.whole and found.body.split()[0].decode() == instance_of(1, "127.0.0.1", 0)
    guest.get("/c")
    assert guest.answer().body.split()[0].decode() == instance_of(1, "127.0.0.1", 1)


def test_a_removed_scope_forgets(rig):
    """remove_scope forgets identities and closes what it has; a new scope of that number starts afresh."""
    guest = rig.guest()
    guest.get("/a")
    assert guest.answer().status == 200
    rig.wait_stat("identities", 1)
    rig.remove_scope(1)
    assert guest.ended() in ("closed", "reset")
    rig.wait_stat("identities", 0)
    rig.add_listener(7, 1)
    guest = rig.guest(listener=7)
    guest.get("/a")
    assert guest.answer().status == 200
    assert len(rig.misses) == 2


def test_identities_that_ended_are_forgotten(make_rig):
    """The table of a node whose guests come and go does not grow."""
    rig = make_rig(ttl_ms=100)
    for number in range(2, 22):
        rig.put(f"127.0.0.{number}")
    rig.ask("/a")
    rig.wait_stat("identities", 0)


def test_identity_flood_while_traffic_flows(make_rig):
    """Thousands of messages from Python disturb no guest."""
    rig = make_rig(echo)
    done = threading.Event()
    problems = []

    def flood():
        generation = 0
        while not done.is_set():
            for number in range(2, 250):
                rig.put(f"127.0.1.{number}")
            generation += 1
            rig.loop.revoke(
                1, rig.generation[1], bytes(10) + b"\xff\xff" + bytes([127, 0, 1, generation % 256])
            )

    def talk(address):
        guest = rig.guest(address)
        count = 0
        try:
            while not done.is_set():
                guest.get(f"/{count}")
                found = guest.answer()
                if found.status != 200 or found.body.decode() != f"{instance_of(1, address)} GET /{count}\n":
                    problems.append((address, found))
                count += 1
        except (Gone, OSError) as error:
            problems.append((address, error))

    threads = [threading.Thread(target=flood)]
    threads += [threading.Thread(target=talk, args=(f"127.0.0.{n}",)) for n in range(2, 6)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    done.set()
    for thread in threads:
        thread.join(8)
    assert not problems
    assert rig.stat("requests") > 50
