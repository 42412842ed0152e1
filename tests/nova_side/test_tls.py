"""TLS towards Nova: who is believed, what is kept, what is said when it fails. The server is Python's ssl module."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmeta import _core
from fastmeta.exceptions import CoreError
from tests.core.loop_kit import Rig, Upstream, Wire, answer, echo, nothing_left_behind, once, until

from .certificates import Authority, Certificate, openssl

NAME = "nova.test"
WAIT_MS = 500
"""park_timeout and connect_timeout where a guest is to be refused."""
X509_V_ERR_CERT_HAS_EXPIRED = 10
X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
X509_V_ERR_HOSTNAME_MISMATCH = 62
X509_V_ERR_IP_ADDRESS_MISMATCH = 64
MEBIBYTE = 1 << 20


class Papers:
    """All certificates of these tests."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "authority")
        self.stranger = Authority(folder, "stranger")
        self.good = self.authority.sign("good", f"DNS:{NAME}", "IP:127.0.0.1")
        self.expired = self.authority.sign("expired", f"DNS:{NAME}", "IP:127.0.0.1", days=-1)
        self.other = self.authority.sign("other", "DNS:other.test", "IP:127.0.0.9")
        self.unknown = self.stranger.sign("unknown", f"DNS:{NAME}", "IP:127.0.0.1")
        self.ours = self.authority.sign("ours")
        self.theirs = self.stranger.sign("theirs")


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


class TlsUpstream(Upstream):
    """Speaks TLS by context, which may be changed at any time; None: it does not. The script sees what is inside."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.inside: Callable[[Wire], None] = echo
        self.resumed: list[bool] = []
        self.versions: list[str | None] = []
        self.subjects: list[Any] = []
        self.refused: list[str] = []
        super().__init__(self.secured)

    def secured(self, wire: Wire) -> None:
        if self.context is not None:
            try:
                wire.socket = self.context.wrap_socket(wire.socket, server_side=True)
            except OSError as error:
                self.refused.append(str(error))
                raise
            self.resumed.append(bool(wire.socket.session_reused))
            self.versions.append(wire.socket.version())
            self.subjects.append(wire.socket.getpeercert())
        self.inside(wire)


class TlsRig(Rig):
    """A loop that speaks TLS with its upstream."""

    name = NAME
    tls: _core.TlsContext

    def start(self) -> TlsRig:
        self.tell(self.tls)
        self.add_listener(1, 1)
        self.runner.start()
        self.driver.start()
        return self

    def tell(self, tls: _core.TlsContext) -> None:
        host, tcp_port = self.upstream.host, self.upstream.tcp_port
        self.loop.set_upstreams([(7, host, tcp_port, f"{NAME}:{tcp_port}", tls, self.name)])

    def said(self, code: int) -> list[int]:
        """The errors of the events of this code, all of the one server."""
        found = [event for event in self.events if event[:2] == (_core.EVENT_PROBLEM, code)]
        assert all(event[6] == 7 for event in found), found
        return [event[2] for event in found]


Before = Callable[..., tuple[TlsRig, TlsUpstream]]


@pytest.fixture
def before(papers: Papers) -> Iterator[Before]:
    """before(context of the server, settings, **options of TlsContext) -> the loop, the server."""
    made: list[Rig] = []

    def make(
        server: ssl.SSLContext | Certificate | None,
        settings: dict[str, int] | None = None,
        *,
        name: str = NAME,
        **options: Any,
    ) -> tuple[TlsRig, TlsUpstream]:
        if not options.get("insecure"):
            options.setdefault("ca_file", papers.authority.certificate)
        upstream = TlsUpstream(server.server() if isinstance(server, Certificate) else server)
        rig = TlsRig(settings or {}, upstream)
        made.append(rig)
        rig.name = name
        rig.tls = _core.TlsContext(**options)
        return rig.start(), upstream

    with nothing_left_behind():
        yield make
        for rig in made:
            rig.end()
        made.clear()


QUICK = {"park_timeout_ms": WAIT_MS, "connect_timeout_ms": WAIT_MS}


def content(length: int) -> bytes:
    """No two parts of it are alike."""
    return b"".join(b"%07d\n" % number for number in range(-(-length // 8)))[:length]


def refuses_then_recovers(rig: TlsRig, upstream: TlsUpstream, right: ssl.SSLContext) -> None:
    """The guest is refused in time and nothing reached the server; when the server is right, all is well."""
    refused = rig.ask("/refused")
    assert refused.status == 503
    assert refused.all("Retry-After")
    assert upstream.requests == []
    upstream.context = right
    until(lambda: rig.ask("/back").status == 200, "recovers")
    assert "/refused" not in upstream.targets()


def test_kept_connections(before: Before, papers: Papers) -> None:
    """Guests one after the other, with a connection each, need one to Nova."""
    rig, upstream = before(papers.good)
    for number in range(20):
        found = rig.ask(f"/{number}")
        assert found.status == 200
        assert bytes(found.body).endswith(f" GET /{number}\n".encode())
    assert upstream.connections == 1
    assert upstream.versions == ["TLSv1.3"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
def test_large_answers(before: Before, papers: Papers, framing: str, slow: bool) -> None:
    """Every byte, also to a guest that reads slowly: what OpenSSL holds epoll does not know of."""
    rig, upstream = before(papers.good)
    sent = content(MEBIBYTE)

    def large(wire: Wire) -> None:
        while wire.read() is not None:
            if framing == "length":
                wire.send(answer(sent))
                continue
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(sent), 5000):
                piece = sent[at : at + 5000]
                wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            wire.send(b"0\r\n\r\n")

    upstream.inside = large
    for _ in range(2):
        guest = rig.guest(receive_buffer=4096 if slow else 0)
        guest.get("/large")
        if slow:
            time.sleep(0.2)
        found = guest.head()
        if slow:
            for _ in range(20):
                assert guest.more(1000) == ""
                time.sleep(0.005)
        if framing == "length":
            found.whole = guest.take(int(found.all("Content-Length")[0]), found)
        else:
            found.whole = guest.chunks(found)
        assert found.whole
        assert found.body == sent
        guest.close()
    assert upstream.connections == 1


@pytest.mark.parametrize("length", [16_000, 16_240, 16_241, 16_383, 16_384, 16_385, 32_768])
def test_answers_of_about_a_record(before: Before, papers: Papers, length: int) -> None:
    """A record holds 2**14 bytes (RFC 8446 section 5.1), and our first buffer a little less: what is left of a record
    then is with OpenSSL, and no event will ever come for it."""
    rig, upstream = before(papers.good)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %05d\r\n\r\n"
    sent = content(length - len(head % 0))

    def exact(wire: Wire) -> None:
        while wire.read() is not None:
            wire.send(head % len(sent) + sent)

    upstream.inside = exact
    for _ in range(3):
        assert rig.ask().body == sent
    assert upstream.connections == 1


def test_post_of_a_mebibyte(before: Before, papers: Papers) -> None:
    """To a server that begins to read late, so that OpenSSL's writes stop in the middle."""
    rig, upstream = before(papers.good)

    def late(wire: Wire) -> None:
        while (request := wire.read_head()) is not None:
            time.sleep(0.2)
            wire.read_body(request)
            wire.send(answer(b"%d" % len(request.body)))

    upstream.inside = late
    guest = rig.guest()
    guest.post(content(MEBIBYTE), "/post")
    assert guest.answer().body == b"%d" % MEBIBYTE
    assert upstream.requests[0].body == content(MEBIBYTE)


@pytest.mark.parametrize(
    ("shown", "name", "error"),
    [
        ("unknown", NAME, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY),
        ("expired", NAME, X509_V_ERR_CERT_HAS_EXPIRED),
        ("other", NAME, X509_V_ERR_HOSTNAME_MISMATCH),
        ("other", "127.0.0.1", X509_V_ERR_IP_ADDRESS_MISMATCH),
    ],
)
def test_certificates_that_are_refused(
    before: Before, papers: Papers, shown: str, name: str, error: int
) -> None:
    rig, upstream = before(getattr(papers, shown), QUICK, name=name)
    refuses_then_recovers(rig, upstream, papers.good.server())
    assert set(rig.said(_core.PROBLEM_UPSTREAM_CERTIFICATE)) == {error}
    assert rig.said(_core.PROBLEM_UPSTREAM_TLS) == []
    assert _core.certificate_error_text(error)


def test_the_right_address(before: Before, papers: Papers) -> None:
    rig, upstream = before(papers.good, name="127.0.0.1")
    assert rig.ask().status == 200
    assert upstream.connections == 1


@pytest.mark.parametrize("shown", ["expired", "other", "unknown"])
def test_insecure_takes_any(before: Before, papers: Papers, shown: str) -> None:
    rig, _ = before(getattr(papers, shown), insecure=True)
    assert rig.ask().status == 200
    assert rig.problems() == set()


def test_our_certificate_is_shown(before: Before, papers: Papers) -> None:
    ours = {"certificate": papers.ours.certificate, "private_key": papers.ours.key}
    rig, upstream = before(papers.good.server(clients=papers.authority.certificate), **ours)
    assert rig.ask().status == 200
    assert upstream.subjects[0]["subject"] == ((("commonName", "ours"),),)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
@pytest.mark.parametrize("shown", [None, "theirs"])
def test_our_certificate_is_missing(
    before: Before, papers: Papers, shown: str | None, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the server refuses it after the client's handshake is done (RFC 8446 section 4.4.2.4). It has not read
    the request then, so its kernel resets the connection, which may overtake the alert that says why."""
    ours = {"certificate": papers.theirs.certificate, "private_key": papers.theirs.key} if shown else {}
    context = papers.good.server(clients=papers.authority.certificate)
    context.maximum_version = version
    rig, upstream = before(context, QUICK, **ours)
    refuses_then_recovers(rig, upstream, papers.good.server())
    assert upstream.refused
    assert rig.said(_core.PROBLEM_UPSTREAM_CERTIFICATE) == []
    said = rig.said(_core.PROBLEM_UPSTREAM_TLS)
    if version == ssl.TLSVersion.TLSv1_3:
        said = said or rig.said(_core.PROBLEM_UPSTREAM_SILENT)
    assert said, rig.events


@pytest.mark.parametrize(("name", "seen"), [(NAME, NAME), ("127.0.0.1", None)])
def test_server_name_indication(before: Before, papers: Papers, name: str, seen: str | None) -> None:
    """RFC 6066 section 3: names, never addresses."""
    names: list[str | None] = []
    context = papers.good.server()
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    rig, _ = before(context, name=name)
    assert rig.ask().status == 200
    assert names == [seen]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(before: Before, papers: Papers) -> None:
    context = papers.good.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    rig, upstream = before(context, QUICK)
    refuses_then_recovers(rig, upstream, papers.good.server())
    (error, *_) = rig.said(_core.PROBLEM_UPSTREAM_TLS)
    assert "version" in _core.tls_error_text(error)


def test_a_server_without_tls(before: Before, papers: Papers) -> None:
    """It answers 400, as nginx does."""
    rig, upstream = before(None, QUICK)

    def bad_request(wire: Wire) -> None:
        wire.socket.recv(65536)
        wire.send(answer(b"what?", "400 Bad Request"))

    upstream.inside = bad_request
    assert rig.ask().status == 503
    (error, *_) = rig.said(_core.PROBLEM_UPSTREAM_TLS)
    assert "wrong version number" in _core.tls_error_text(error)
    upstream.inside, upstream.context = echo, papers.good.server()
    until(lambda: rig.ask().status == 200, "recovers")


def test_a_server_that_is_silent(before: Before, papers: Papers) -> None:
    """connect_timeout holds for the handshake, too."""
    rig, upstream = before(None, {"connect_timeout_ms": 200, "park_timeout_ms": 1000})
    upstream.inside = Wire.read_to_end
    assert rig.ask().status == 503
    assert upstream.connections > 1
    assert _core.PROBLEM_UPSTREAM_AWAY in rig.problems()
    upstream.inside, upstream.context = echo, papers.good.server()
    until(lambda: rig.ask().status == 200, "recovers")


@pytest.mark.parametrize("polite", [True, False], ids=["close_notify", "cut"])
def test_answers_that_end_with_the_connection(before: Before, papers: Papers, polite: bool) -> None:
    """RFC 9112 section 9.8: without close_notify nobody knows whether that was all."""
    rig, upstream = before(papers.good)

    def ends(wire: Wire) -> None:
        assert wire.read() is not None
        wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
        if polite:
            assert isinstance(wire.socket, ssl.SSLSocket)
            wire.socket.unwrap()

    upstream.inside = ends
    found = rig.ask()
    assert found.status == 200
    assert found.whole == polite
    if polite:
        assert found.body == b"all of it"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_sessions_are_resumed(before: Before, papers: Papers, version: ssl.TLSVersion) -> None:
    context = papers.good.server()
    context.minimum_version = context.maximum_version = version
    rig, upstream = before(context)
    upstream.inside = once(lambda request: answer(b"x", headers=("Connection: close",)))
    for _ in range(4):
        assert rig.ask().status == 200
    assert upstream.resumed == [False, True, True, True]


def test_a_session_of_another_life(before: Before, papers: Papers) -> None:
    """The server was started anew and does not know its tickets: a full handshake, nobody notices."""
    rig, upstream = before(papers.good)
    upstream.inside = once(lambda request: answer(b"x", headers=("Connection: close",)))
    assert rig.ask().status == 200
    upstream.context = papers.good.server()
    assert rig.ask().status == 200
    assert rig.ask().status == 200
    assert upstream.resumed == [False, False, True]
    assert rig.problems() == set()


def test_tickets_that_come_late(before: Before, papers: Papers) -> None:
    """Warm connections get theirs while they are idle (RFC 8446 section 4.6.1), and stay."""
    rig, upstream = before(papers.good, {"warm_connections": 3})
    rig.wait_stat("upstream_idle", 3)
    time.sleep(0.3)
    assert rig.stat("upstream_idle") == 3
    for _ in range(6):
        assert rig.ask().status == 200
    assert upstream.connections == 3


def test_warm_connections_that_fail(before: Before, papers: Papers) -> None:
    """It is said before any guest asks."""
    rig, _ = before(papers.expired, {"warm_connections": 2})
    until(lambda: rig.said(_core.PROBLEM_UPSTREAM_CERTIFICATE), "said")
    assert rig.stat("upstream_idle") == 0


def test_an_idle_connection_that_gets_bytes(before: Before, papers: Papers) -> None:
    """An answer that nobody asked for is nobody's: the connection ends."""
    rig, upstream = before(papers.good)
    more = threading.Event()

    def stray(wire: Wire) -> None:
        while wire.read() is not None:
            wire.send(answer(b"asked for"))
            if wire.number == 1:
                assert more.wait(5)
                wire.send(answer(b"stray"))

    upstream.inside = stray
    assert rig.ask().body == b"asked for"
    rig.wait_stat("upstream_idle", 1)
    more.set()
    rig.wait_stat("upstream_idle", 0)
    assert rig.ask().body == b"asked for"
    assert upstream.connections == 2


def test_another_context(before: Before, papers: Papers) -> None:
    """From then on new connections are made by it, and those by the old one are used no more."""
    rig, upstream = before(papers.good, QUICK)
    assert rig.ask().status == 200
    rig.tell(_core.TlsContext(ca_file=papers.stranger.certificate))
    assert rig.ask().status == 503
    rig.tell(_core.TlsContext(ca_file=papers.authority.certificate))
    until(lambda: rig.ask().status == 200, "recovers")
    assert upstream.resumed[-1] is False


@pytest.mark.parametrize("what", ["missing", "empty", "key of another", "no key"])
def test_files_that_cannot_be_used(papers: Papers, tmp_path: Path, what: str) -> None:
    """The error names the file."""
    wrong = tmp_path / "wrong.pem"
    options: dict[str, Any] = {"ca_file": str(wrong)}
    if what == "empty":
        wrong.write_text("")
    elif what == "key of another":
        wrong.write_bytes(Path(papers.theirs.key).read_bytes())
        options = {"insecure": True, "certificate": papers.ours.certificate, "private_key": str(wrong)}
    elif what == "no key":
        wrong.write_bytes(Path(papers.ours.certificate).read_bytes())
        options = {"insecure": True, "certificate": papers.ours.certificate, "private_key": str(wrong)}
    with pytest.raises(CoreError, match=str(wrong)):
        _core.TlsContext(**options)


def test_when_our_certificate_ends(papers: Papers) -> None:
    """As openssl(1) says it of the same file."""
    ours = papers.ours
    context = _core.TlsContext(insecure=True, certificate=ours.certificate, private_key=ours.key)
    said = openssl("x509", "-in", ours.certificate, "-noout", "-enddate").decode().strip()
    assert context.expires == ssl.cert_time_to_seconds(said.removeprefix("notAfter="))
    assert _core.TlsContext(insecure=True).expires is None
