"""Rules 2 and 4: nothing that a guest sends becomes identity, and nothing ambiguous goes upstream."""

from __future__ import annotations

import itertools

import pytest

from .conftest import Served
from .guests import Guest
from .upstream import TRUSTED, Received

PASSED = {
    "accept",
    "accept-encoding",
    "accept-language",
    "content-type",
    "if-modified-since",
    "if-none-match",
    "range",
    "user-agent",
}
OURS = {"host", "content-length", *TRUSTED}

LIES = {
    "X-Instance-ID": "{instance}",
    "X-Tenant-ID": "{project}",
    "X-Instance-ID-Signature": "0" * 64,
    "X-Forwarded-For": "10.0.0.99",
    "X-Neutron-Network-ID": "{network}",
    "X-Neutron-Router-ID": "{network}",
    "X-Metadata-Provider": "{network}",
    "X-Metadata-Provider-Signature": "0" * 64,
    "Forwarded": "for=10.0.0.99",
    "X-Real-IP": "10.0.0.99",
}
SPELLINGS = (
    str,
    str.lower,
    str.upper,
    str.swapcase,
    lambda name: name.replace("-", "_"),
    lambda name: name.replace("-", "_", 1).lower(),
    lambda name: f"HTTP_{name.replace('-', '_')}",
)

ASKERS = ["blue-5", "red-5"]
"""A guest that comes in directly, and one over the REDIRECT of a router's namespace."""


@pytest.fixture(params=ASKERS)
def guest(served: Served, request: pytest.FixtureRequest) -> Guest:
    return served.guests[request.param]


@pytest.fixture
def victim(served: Served) -> Guest:
    return served.guests["green-5"]


def only(served: Served, text: str) -> Received:
    (request,) = served.upstream.asked(text)
    return request


def test_answers_carry_the_guests_own_identity(served: Served) -> None:
    """Equal addresses on two networks and behind a router: three instances."""
    marks = {served.guests[name].ask("/who").body for name in ("blue-5", "green-5", "red-5")}
    assert marks == {served.guests[name].mark("/who") for name in ("blue-5", "green-5", "red-5")}
    assert len(marks) == 3


def test_trusted_headers_of_a_guest_count_for_nothing(served: Served, guest: Guest, victim: Guest) -> None:
    """Every name, in every spelling, once, twice, and all at once."""
    fill = {
        "instance": victim.instance_id,
        "project": victim.project_id,
        "network": victim.port.network.network_id,
    }
    lines = [
        f"{spell(name)}:{space}{value.format(**fill)}"
        for (name, value), spell in itertools.product(LIES.items(), SPELLINGS)
        for space in (" ", "")
    ]
    tries = [(line,) for line in lines] + [(line, line) for line in lines[::5]]
    tries += [tuple(lines[start : start + 90]) for start in range(0, len(lines), 90)]
    with guest.connect() as wire:
        for number, headers in enumerate(tries):
            target = f"/lie/{guest.instance_id}/{number}"
            wire.get(target, *headers)
            answer = wire.answer()
            assert (answer.status, answer.body) == (200, guest.mark(target)), headers
            request = only(served, f"{target}")
            assert victim.instance_id.encode() not in request.head
            assert b"10.0.0.99" not in request.head
            assert {name for name, _ in request.headers} <= OURS | PASSED
            # Served each once, and signed: that is Upstream's own check, see Setting.check.
            served.upstream.received.remove(request)


def test_with_curl_as_a_guest_would(guest: Guest, victim: Guest) -> None:
    """The same with a real client."""
    done = guest.curl(
        "-H",
        f"X-Instance-ID: {victim.instance_id}",
        "-H",
        f"X_Tenant_ID: {victim.project_id}",
        "-H",
        f"X-Forwarded-For: {victim.address}, 10.0.0.99",
        "-w",
        "%{http_code}",
        "/curl",
    )
    assert done.stderr == b""
    assert done.stdout == guest.mark("/curl") + b"200"


def test_only_harmless_headers_pass(served: Served, guest: Guest) -> None:
    """What is on the allow-list arrives as it was; cookies, credentials, hop-by-hop and unknown ones do not."""
    target = f"/harmless/{guest.instance_id}"
    passed = [f"{name}: value of {name}" for name in sorted(PASSED)]
    dropped = [
        "Cookie: a=b",
        "Authorization: Basic x",
        "Connection: keep-alive, X-Instance-ID, Host",
        "Keep-Alive: 5",
        "TE: trailers",
        "Upgrade: h2c",
        "Proxy-Connection: close",
        "X-Anything: 1",
        "X-Aws-Ec2-Metadata-Token: 1",
        "Via: 1.1 x",
    ]
    with guest.connect() as wire:
        wire.get(target, *passed, *dropped)
        assert wire.answer().body == guest.mark(target)
    request = only(served, target)
    assert {name: value for name, value in request.headers if name in PASSED} == {
        name: f"value of {name}" for name in PASSED
    }
    assert {name for name, _ in request.headers} == PASSED | OURS - {"content-length"}


@pytest.mark.parametrize(
    "line",
    [
        "X-Instance-ID : {instance}",
        "X-Instance-ID\t: {instance}",
        " X-Instance-ID: {instance}",
        "Accept: a\r\n X-Instance-ID: {instance}",
        "Accept: a\r\n\tfolded",
        "X-Instance-ID\r\n: {instance}",
        ": {instance}",
        "X-Instance-ID",
        "X Instance ID: {instance}",
        "X-Inst\0ance-ID: {instance}",
        "Accept: a\0b",
        "Accept: a\rX-Instance-ID: {instance}",
        "Accept: a\nX-Instance-ID: {instance}",
        "X-Instance-ID(: {instance}",
        "Host: again",
    ],
)
def test_heads_that_may_be_read_in_two_ways(served: Served, guest: Guest, victim: Guest, line: str) -> None:
    """Spaces before the colon, folded lines, bare CR or LF, NUL: 400, closed, nothing of it goes upstream."""
    target = "/two-ways"
    text = line.format(instance=victim.instance_id)
    data = f"GET {target} HTTP/1.1\r\nHost: x\r\n{text}\r\n\r\n".encode("latin-1")
    status, got = guest.raw(data + b"GET /two-ways/next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 400
    assert got.count(b"HTTP/1.1") == 1, "something was answered after a head that nobody can frame"
    assert served.upstream.asked(target) == []


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        ("http://10.1.1.1/abs/1", "/abs/1"),
        ("http://127.0.0.1:{tcp_port}/abs/2?a=b", "/abs/2?a=b"),
        ("HTTP://user:password@nova/abs/3", "/abs/3"),
        ("http://nova?abs/4", "/?abs/4"),
        ("//nova/abs/5", "//nova/abs/5"),
    ],
)
def test_absolute_targets(served: Served, guest: Guest, sent: str, asked: str) -> None:
    """Whatever authority a target names, the request goes to our metadata API, under its name."""
    served.upstream.received.clear()
    with guest.connect() as wire:
        wire.get(sent.format(tcp_port=served.upstream.tcp_port))
        assert wire.answer().body == guest.mark(asked)
    request = only(served, "abs/")
    assert request.value("host") == f"127.0.0.1:{served.upstream.tcp_port}"


@pytest.mark.parametrize(
    "target", ["*", "nova:80", "http:///x", "http://", "https://nova/x", "x", "\\x", "/#x"]
)
def test_targets_of_no_use(served: Served, guest: Guest, target: str) -> None:
    """RFC 9112 section 3.2: forms of targets that name nothing here are 400."""
    served.upstream.received.clear()
    status, _ = guest.raw(f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status == 400
    assert served.upstream.received == []


@pytest.mark.parametrize("host", ["nova.example", "127.0.0.1:1", "", "[::1]", "a, b", "169.254.169.254%eth0"])
def test_host_is_ours(served: Served, guest: Guest, host: str) -> None:
    """Rule 2: whatever a guest's Host says, the metadata API is asked by its own name."""
    served.upstream.received.clear()
    with guest.connect() as wire:
        wire.send(f"GET /host HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert wire.answer().body == guest.mark("/host")
    assert only(served, "/host").value("host") == f"127.0.0.1:{served.upstream.tcp_port}"


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /smuggler HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", (400,)),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", (400,)),
        (b"Content-Length: 0\r\nContent-Length: 34\r\n\r\n", (400,)),
        (b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", (400,)),
        (b"Content-Length: 0, 0\r\n\r\n", (400,)),
        (b"Content-Length: +0\r\n\r\n", (400,)),
        (b"Content-Length: -1\r\n\r\n", (400,)),
        (b"Content-Length: 0x0\r\n\r\n", (400,)),
        (b"Content-Length: 0 0\r\n\r\n", (400,)),
        (b"Content-Length:\r\n\r\n", (400,)),
        (b"Content-Length: 99999999999999999999\r\n\r\n", (400, 413)),
        (b"Content_Length: 34\r\n\r\n", (400,)),
        (b"CONTENT_LENGTH: 34\r\n\r\n", (400,)),
        (b"Transfer_Encoding: chunked\r\n\r\n", (400,)),
        (b"Content-Length : 34\r\n\r\n", (400,)),
        (b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"Transfer-Encoding: identity\r\n\r\n", (400, 501)),
        (b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", (400, 501)),
        (b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', (400, 501)),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", (400, 501)),
        (b"Transfer-Encoding: chunked\r\n\r\n0\n\n", (400,)),
        (b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", (400,)),
        (b"Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n", (400,)),
        (b"Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n", (400,)),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", (400,)),
        (b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", (400, 413)),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n x\r\n\r\n", (400,)),
        (b"Content-Length: 0\nContent-Length: 34\r\n\r\n", (400,)),
        (b"\nContent-Length: 34\r\n\r\n", (400,)),
    ],
)
def test_smuggling(served: Served, guest: Guest, data: bytes, statuses: tuple[int, ...]) -> None:
    """Rule 4: an ambiguous request is refused and its connection closed; neither it nor what hides behind it is seen
    upstream."""
    status, got = guest.raw(HEAD + data + SMUGGLED)
    assert status in statuses
    assert got.count(b"HTTP/1.1") == 1
    assert served.upstream.asked("/smuggl") == []


def test_transfer_coding_in_http_1_0(served: Served, guest: Guest) -> None:
    """RFC 9112 section 6.1: an attempt at smuggling."""
    status, got = guest.raw(
        b"POST /smuggler HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED
    )
    assert (status, got.count(b"HTTP/1.1")) == (400, 1)
    assert served.upstream.asked("/smuggl") == []


def test_content_stays_content(served: Served, guest: Guest) -> None:
    """A request hidden in another one's body arrives as this body, and the next request is the next one."""
    for method in ("POST", "GET"):
        served.upstream.received.clear()
        with guest.connect() as wire:
            wire.get("/carrier", method=method, body=SMUGGLED)
            assert wire.answer().body == guest.mark("/carrier")
            wire.get("/after-it")
            assert wire.answer().body == guest.mark("/after-it")
        carrier, after = served.upstream.received
        assert (carrier.target, carrier.body) == ("/carrier", SMUGGLED)
        assert carrier.value("content-length") == str(len(SMUGGLED))
        assert after.target == "/after-it"


def test_chunked_content_goes_up_with_its_length(served: Served, guest: Guest) -> None:
    """Rule 5: Nova fails without Content-Length; the pipelined request behind it is a request of its own."""
    served.upstream.received.clear()
    with guest.connect() as wire:
        wire.send(
            b"POST /gathered HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;extension=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Instance-ID: trailer\r\n\r\n" + SMUGGLED
        )
        assert wire.answer().body == guest.mark("/gathered")
        assert wire.answer().body == guest.mark("/smuggled")
    gathered, following = served.upstream.received
    assert gathered.body == b"hello world"
    assert gathered.value("content-length") == "11"
    assert gathered.values("transfer-encoding") == []
    assert (following.target, following.body) == ("/smuggled", b"")
    assert b"trailer" not in gathered.head


def test_who_is_nobody_does_not_reach_the_metadata_api(served: Served) -> None:
    """Rule 1: an address that no port has gets 404, whatever it sends; the metadata API hears nothing of it."""
    blue = served.guests["blue-5"]
    routes = [("169.254.169.254/32", "10.0.0.2")]
    nobody = served.cloud.add_guest(blue.port.network, "10.0.0.77", routes, known=False)
    served.upstream.received.clear()
    assert nobody.ask("/nobody", f"X-Instance-ID: {blue.instance_id}").status == 404
    assert served.upstream.received == []
