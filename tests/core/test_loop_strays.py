"""Rule 3 under every fault at once: no answer reaches another tenant, whatever upstream and guests do."""

import random
import threading
import time

import pytest

from .loop_kit import Gone, answer, chunked, echo, instance_of, mark, reset, until

FAULTS = (
    "none",
    "none",
    "chunked",
    "bytewise",
    "until close",
    "close header",
    "close after",
    "close before",
    "reset before",
    "reset in the content",
    "short",
    "cut chunks",
    "twice",
    "extra byte",
    "nonsense",
    "both framings",
    "interim",
    "switching",
    "early",
    "slow",
)


def hostile(seed, faults=FAULTS):
    """Serves marked answers, each with a fault by chance."""
    lock = threading.Lock()
    chance = random.Random(seed)

    def pick():
        with lock:
            return chance.choice(faults), chance.random()

    def script(wire):
        while True:
            fault, number = pick()
            request = wire.read_head()
            if request is None:
                return
            if fault == "early" and request.all("Content-Length"):
                wire.send(answer(mark(request)))
                time.sleep(0.001)
                return
            wire.read_body(request)
            content = b"" if request.method == "HEAD" else mark(request) * (1 + int(number * number * 2000))
            whole = answer(content)
            if fault == "chunked":
                whole = chunked(content[:7], content[7:]) if content else whole
            elif fault == "both framings":
                whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + whole.split(b"\r\n", 1)[1]
            elif fault == "nonsense":
                whole = b"\0\1\2" + whole
            elif fault == "interim":
                whole = b"HTTP/1.1 100 Continue\r\n\r\n" + whole
            elif fault == "switching":
                whole = b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + whole
            elif fault == "close header":
                whole = answer(content, headers=("Connection: close",))
            elif fault == "until close":
                whole = b"HTTP/1.1 200 OK\r\n\r\n" + content
            elif fault == "twice":
                whole += answer(b"stray")
            elif fault == "extra byte":
                whole += b"H"
            elif fault == "cut chunks":
                whole = chunked(content, end=b"")
            if fault == "slow":
                time.sleep(number * 0.02)
            if fault == "bytewise":
                wire.send(whole[:200], 1)
                wire.send(whole[200:], 1000)
            elif fault in ("close before", "reset before"):
                if fault == "reset before":
                    wire.reset()
                return
            elif fault in ("short", "reset in the content"):
                wire.send(whole[: len(whole) - len(content) // 2])
                if fault == "reset in the content":
                    wire.reset()
                return
            else:
                wire.send(whole)
            if fault in ("until close", "close after", "cut chunks"):
                return

    return script


class Talker:
    """A guest that asks on and on and looks at every byte it gets."""

    def __init__(self, rig, listener, scope, address, seed):
        self.rig, self.listener, self.address = rig, listener, address
        self.instance = f"instance-{scope}-{address}-"
        self.chance = random.Random(seed)
        self.strays = []
        self.answers = 0
        self.posts = []

    def talk(self, end):
        guest = None
        number = 0
        while time.monotonic() < end:
            if guest is None:
                guest = self.rig.guest(self.address, self.listener)
                guest.socket.settimeout(10)
            try:
                depth = self.chance.choice((1, 1, 1, 2, 5))
                asked = []
                data = b""
                for _ in range(depth):
                    number += 1
                    method = self.chance.choice(("GET", "GET", "GET", "HEAD", "POST"))
                    target = f"/{number}"
                    body = bytes(self.chance.choice((0, 3, 30_000, 90_000))) if method == "POST" else b""
                    length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""
                    data += f"{method} {target} HTTP/1.1\r\nHost: a\r\n{length}\r\n".encode() + body
                    asked.append((method, target))
                guest.send(data)
                if self.chance.random() < 0.05:
                    reset(guest.socket)
                    guest = None
                    continue
                for method, target in asked:
                    found = guest.answer(method)
                    self.look(method, target, found)
                    if not found.whole or "close" in found.all("Connection"):
                        guest.close()
                        guest = None
                        break
            except (Gone, OSError):
                guest.close()
                guest = None
        if guest is not None:
            guest.close()

    def look(self, method, target, found):
        self.answers += 1
        if method == "HEAD" or found.status >= 400:
            return
        for line in found.body.split(b"\n")[:-1]:
            text = line.decode()
            if not (text.startswith(self.instance) and text.endswith(f" {method} {target}")):
                self.strays.append((self.instance, method, target, text[:200]))
        rest = found.body.split(b"\n")[-1].decode()
        if not self.instance.startswith(rest[: len(self.instance)]):
            self.strays.append((self.instance, method, target, rest[:200]))


def hammer(rig, seconds, each=4, scopes=2, disturb=None):
    for scope in range(2, scopes + 1):
        rig.add_listener(scope, scope)
    end = time.monotonic() + seconds
    talkers = [
        Talker(rig, scope, scope, f"127.0.0.{number}", scope * 100 + number)
        for scope in range(1, scopes + 1)
        for number in range(2, 2 + each)
    ]
    threads = [threading.Thread(target=talker.talk, args=(end,)) for talker in talkers]
    for thread in threads:
        thread.start()
    while disturb is not None and time.monotonic() < end:
        disturb()
        time.sleep(0.01)
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive()
    assert [stray for talker in talkers for stray in talker.strays] == []
    assert all(talker.answers for talker in talkers)
    rig.wait_stat("connections_open", 0)
    rig.wait_stat("parked", 0)
    rig.wait_stat("upstream_connections", 0)
    # Whatever may not be repeated went up at most once.
    posts = [(r.one("X-Instance-ID")[:-2], r.target) for r in rig.upstream.requests if r.method == "POST"]
    assert len(posts) == len(set(posts))


SHORT = {
    "park_timeout_ms": 400,
    "upstream_timeout_ms": 2000,
    "upstream_idle_timeout_ms": 200,
    "linger_timeout_ms": 100,
    "keepalive_timeout_ms": 300,
}


def test_no_stray_under_any_fault(make_rig):
    """Several tenants with the same addresses, all faults, identities that end all the time."""
    rig = make_rig(hostile(1), settings=SHORT, ttl_ms=40)
    hammer(rig, 3)
    assert rig.stat("requests") > 300


def test_no_stray_with_few_places(make_rig):
    """The same with less connections to the upstream than guests, so that each is used by many."""
    rig = make_rig(hostile(2), settings={**SHORT, "max_upstream_connections": 2}, ttl_ms=200)
    hammer(rig, 2)


def test_no_stray_when_connections_go_stale(make_rig):
    """An upstream that closes idle connections all the time: no GET fails."""
    rig = make_rig(hostile(3, ("none", "none", "chunked", "close after")), settings=SHORT)
    hammer(rig, 2)


def test_no_old_data_while_identities_are_revoked(make_rig):
    """An answer that begins after a revocation is the new instance's."""
    rig = make_rig(hostile(4, ("none", "chunked", "slow", "bytewise", "close after")), settings=SHORT)
    chance = random.Random(4)
    hammer(rig, 2, disturb=lambda: rig.revoke(chance.choice((None, "127.0.0.2", "127.0.0.3")), scope=1))
    assert rig.stat("revoked_in_flight") > 0


PIECES = (
    b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
    b"POST /%d HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
    + bytes(100_000),
    b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n1\r\ne\r\n0\r\n\r\n",
    b"POST /%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\r\nGET /%d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
    b"GET /%d HTTP/9.9\r\n\r\n",
    b"\0\xff%d\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
)


def babble(rig, seed, end):
    """Random segments of valid and broken conversations, with random delays and aborts."""
    chance = random.Random(seed)
    while time.monotonic() < end:
        guest = rig.guest(f"127.0.0.{chance.randrange(2, 9)}")
        guest.socket.settimeout(0.05)
        data = b"".join(chance.choice(PIECES) % n for n in range(chance.randrange(1, 12)))
        try:
            while data:
                length = chance.choice((1, 10, 100, 5000, len(data)))
                guest.send(data[:length])
                data = data[length:]
                if chance.random() < 0.2:
                    time.sleep(chance.random() * 0.01)
                if chance.random() < 0.3:
                    guest.more(chance.choice((1, 1000, 100_000)))
                if chance.random() < 0.02:
                    break
            if chance.random() < 0.5:
                guest.more()
        except OSError:
            pass
        (reset if chance.random() < 0.5 else type(guest.socket).close)(guest.socket)


@pytest.mark.parametrize("seed", [11, 12])
def test_random_conversations(make_rig, seed):
    """No crash, no hang, and nothing is held afterwards."""
    rig = make_rig(hostile(seed), settings={**SHORT, "max_connections": 12, "max_parked": 6}, ttl_ms=100)
    chance = random.Random(seed)

    def source(rig, scope, address):
        kind = chance.random()
        if kind < 0.7:
            rig.put(address)
        elif kind < 0.8:
            rig.absent(address, ttl_ms=30)
        elif kind < 0.9:
            rig.refused(address)

    rig.on_miss = source
    end = time.monotonic() + 2
    threads = [threading.Thread(target=babble, args=(rig, seed * 100 + n, end)) for n in range(8)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        rig.revoke(chance.choice((None, "127.0.0.2", "127.0.0.3")))
        time.sleep(0.02)
    for thread in threads:
        thread.join(15)
        assert not thread.is_alive()
    rig.on_miss = lambda rig, scope, address: rig.put(address)
    rig.upstream.script = echo
    for name in ("connections_open", "parked", "upstream_connections", "identities"):
        rig.wait_stat(name, 0)
    until(lambda: rig.ask("/after").body.decode().endswith(" GET /after\n"))
    assert instance_of(1, "127.0.0.1")[:-1] in rig.upstream.requests[-1].one("X-Instance-ID")
