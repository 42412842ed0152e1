"""What guests send, and what Nova answers: each case goes through the stock pair and through fastmeta.

The first part of a target's path names what Nova does (nova.py); a path that names nothing gets a plain 200.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND")
HOST = "Host: 169.254.169.254"
LATE = 33.0
"""Seconds after which Nova answers /late: the stock proxy gives up after 32 s."""


@dataclass(frozen=True)
class Case:
    """name: of its own; parts: what the guest sends, with a pause between two; methods: of the requests that are
    answered, in their order; ends: the guest shuts its side down after the last part; guest: which of Guests' asks;
    timeout: seconds for each answer."""

    name: str
    parts: tuple[bytes, ...]
    methods: tuple[str, ...] = ("GET",)
    ends: bool = False
    guest: str = "isolated"
    timeout: float = 10.0


def head(method: str, target: str, *headers: str, version: str = "HTTP/1.1", host: bool = True) -> bytes:
    """Without content. target and headers are latin-1."""
    lines = [f"{method} {target} {version}", *([HOST] if host else []), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def get(name: str, target: str = "/plain", *headers: str, guest: str = "isolated") -> Case:
    return Case(name, (head("GET", target, *headers),), guest=guest)


def post(name: str, content: bytes, *headers: str, method: str = "POST") -> Case:
    request = head(method, "/plain", f"Content-Length: {len(content)}", *headers)
    return Case(name, (request + content,), methods=(method,))


def _methods() -> Iterator[Case]:
    for method in METHODS:
        yield Case(f"method-{method}", (head(method, "/plain", "Content-Length: 0"),), methods=(method,))
    yield Case("method-get-in-lower-case", (head("get", "/plain"),), methods=("get",))
    yield Case("method-CONNECT", (head("CONNECT", "169.254.169.254:80"),), methods=("GET",))
    yield Case("method-TRACE", (head("TRACE", "/plain"),), methods=("TRACE",))
    yield Case("method-with-a-strange-character", (head("G@T", "/plain"),))


PATHS = {
    "root": "/",
    "openstack": "/openstack",
    "openstack-slash": "/openstack/",
    "meta_data.json": "/openstack/latest/meta_data.json",
    "meta_data.json-2018": "/openstack/2018-08-27/meta_data.json",
    "user_data": "/openstack/latest/user_data",
    "vendor_data.json": "/openstack/latest/vendor_data.json",
    "vendor_data2.json": "/openstack/latest/vendor_data2.json",
    "network_data.json": "/openstack/latest/network_data.json",
    "content": "/openstack/content/0000",
    "password": "/openstack/2013-04-04/password",
    "ec2-meta-data": "/latest/meta-data/",
    "ec2-instance-id": "/2009-04-04/meta-data/instance-id",
    "ec2-keys": "/latest/meta-data/public-keys/0/openssh-key",
    "ec2-user-data": "/latest/user-data",
    "ec2-mapping": "/latest/meta-data/block-device-mapping/ami",
    "two-slashes": "//latest//meta-data/",
    "a-dot": "/./latest/meta-data",
    "two-dots": "/latest/../openstack",
    "escaped-letter": "/l%61test/meta-data",
    "escaped-space": "/latest/a%20b",
    "escaped-slash": "/latest%2Fmeta-data",
    "escaped-percent": "/latest/100%25",
    "escaped-utf-8": "/latest/%C3%A9",
    "escaped-latin-1": "/latest/%E9",
    "escaped-lower-case": "/latest/%c3%a9",
    "escaped-zero": "/latest/%00",
    "escaped-line-end": "/latest/%0d%0aX-Instance-ID:%20another",
    "escaped-question-mark": "/latest/a%3Fb",
    "not-an-escape": "/latest/100%",
    "semicolon": "/latest;a=b/meta-data",
    "reserved": "/latest/!$&'()*+,;=:@",
    "unwise": '/latest/"<>^`{|}\\',
    "utf-8": "/latest/\u00c3\u00a9",
    "query": "/latest?a=b&c=d",
    "query-empty": "/latest?",
    "query-escaped": "/latest?a=%20%2F%3D",
    "query-plus": "/latest?a=b+c",
    "query-slash": "/latest?/a/../b",
    "query-question-mark": "/latest?a?b",
    "fragment": "/latest#a",
    "absolute": "http://169.254.169.254/latest/meta-data",
    "absolute-another-host": "http://another.example/latest/meta-data",
    "absolute-no-path": "http://169.254.169.254",
    "asterisk": "*",
    "no-slash": "latest/meta-data",
    "long-1000": "/latest/" + "a" * 1000,
    "long-3500": "/latest/" + "a" * 3500,
    "long-6000": "/latest/" + "a" * 6000,
    "long-20000": "/latest/" + "a" * 20000,
    "query-long-3500": "/latest?" + "a" * 3500,
}

HEADERS: dict[str, tuple[str, ...]] = {
    "user-agent": ("User-Agent: Cloud-Init/22.4.2",),
    "accept": ("Accept: application/json",),
    "accept-all": ("Accept: */*",),
    "accept-encoding": ("Accept-Encoding: gzip, deflate",),
    "accept-encoding-identity": ("Accept-Encoding: identity",),
    "accept-language": ("Accept-Language: de",),
    "range": ("Range: bytes=0-9",),
    "if-none-match": ('If-None-Match: "a"',),
    "if-modified-since": ("If-Modified-Since: Thu, 26 Nov 2026 00:00:00 GMT",),
    "cookie": ("Cookie: a=b",),
    "authorization": ("Authorization: Basic YTpi",),
    "cache-control": ("Cache-Control: no-cache",),
    "pragma": ("Pragma: no-cache",),
    "origin": ("Origin: http://another.example", "Referer: http://another.example/"),
    "imds-token": ("X-aws-ec2-metadata-token: a",),
    "imds-ttl": ("X-aws-ec2-metadata-token-ttl-seconds: 21600",),
    "metadata-provider": ("X-Metadata-Provider: a", "X-Metadata-Provider-Signature: b"),
    "own-forwarded-for": ("X-Forwarded-For: 10.0.0.6",),
    "own-forwarded-for-list": ("X-Forwarded-For: 10.0.0.6, 10.0.0.7",),
    "own-forwarded-for-twice": ("X-Forwarded-For: 10.0.0.6", "X-Forwarded-For: 10.0.0.7"),
    "own-forwarded-for-nonsense": ("X-Forwarded-For: nonsense",),
    "own-forwarded-for-empty": ("X-Forwarded-For:",),
    "own-forwarded-for-underscore": ("X_Forwarded_For: 10.0.0.6",),
    "forwarded": ("Forwarded: for=10.0.0.6",),
    "real-ip": ("X-Real-IP: 10.0.0.6",),
    "via": ("Via: 1.1 another",),
    "own-instance": ("X-Instance-ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "own-instance-underscore": ("X_Instance_ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "own-tenant": ("X-Tenant-ID: 0123456789abcdef0123456789abcdef",),
    "own-signature": ("X-Instance-ID-Signature: " + "0" * 64,),
    "own-network": ("X-Neutron-Network-ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "own-router": ("X-Neutron-Router-ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "own-router-underscore": ("X_Neutron_Router_ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "own-network-underscore": ("X_Neutron_Network_ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "own-ovn-network": ("X-OVN-Network-ID: 0c9a4c2b-8b0d-4b8c-9b5a-0e7d6f1a2b3c",),
    "connection-close": ("Connection: close",),
    "connection-keep-alive": ("Connection: keep-alive",),
    "connection-names-another": ("Connection: X-Instance-ID, close", "X-Instance-ID: a"),
    "keep-alive": ("Keep-Alive: timeout=5",),
    "proxy-connection": ("Proxy-Connection: keep-alive",),
    "upgrade": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "upgrade-websocket": ("Connection: Upgrade", "Upgrade: websocket"),
    "te": ("TE: trailers",),
    "trailer": ("Trailer: X-Instance-ID",),
    "max-forwards": ("Max-Forwards: 0",),
    "content-type": ("Content-Type: application/json",),
    "expect-another": ("Expect: another",),
    "empty-value": ("X-Empty:",),
    "value-with-tabs": ("X-Tabs: \ta\tb\t",),
    "value-latin-1": ("X-Latin: \xe9",),
    "value-utf-8": ("X-Utf: \xc3\xa9",),
    "value-with-a-zero": ("X-Zero: a\0b",),
    "value-with-a-return": ("X-Return: a\rb",),
    "value-with-a-control": ("X-Control: a\x01b",),
    "name-with-a-space": ("X-Space : a",),
    "name-with-a-strange-character": ("X@Strange: a",),
    "name-empty": (": a",),
    "no-colon": ("X-Nothing",),
    "folded": ("X-Folded: a", " b"),
    "folded-instance": ("X-Other: a", " X-Instance-ID: b"),
    "value-3000": ("X-Long: " + "a" * 3000,),
    "value-6000": ("X-Long: " + "a" * 6000,),
    "value-20000": ("X-Long: " + "a" * 20000,),
    "many-50": tuple(f"X-Header-{i}: {i}" for i in range(50)),
    "many-90": tuple(f"X-Header-{i}: {i}" for i in range(90)),
    "many-200": tuple(f"X-Header-{i}: {i}" for i in range(200)),
}


def _hosts() -> Iterator[Case]:
    for name, lines in {
        "none": (),
        "two": (HOST, "Host: another.example"),
        "the-same-twice": (HOST, HOST),
        "empty": ("Host:",),
        "another": ("Host: another.example",),
        "with-port": ("Host: 169.254.169.254:80",),
        "ipv6-zone": ("Host: [fe80::a9fe:a9fe%25eth0]",),
        "bad": ("Host: a/b c",),
    }.items():
        yield Case(f"host-{name}", (head("GET", "/plain", *lines, host=False),))
    for version in ("HTTP/1.0", "HTTP/1.1", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.10"):
        yield Case(f"version-{version.replace('/', '-')}", (head("GET", "/plain", version=version),))
    yield Case("version-1.0-no-host", (head("GET", "/plain", version="HTTP/1.0", host=False),))
    yield Case(
        "version-1.0-keep-alive",
        (head("GET", "/plain", "Connection: keep-alive", version="HTTP/1.0"),),
    )
    yield Case("version-none", (b"GET /plain\r\n\r\n",))


def _lines() -> Iterator[Case]:
    yield Case("line-feeds-alone", (head("GET", "/plain").replace(b"\r\n", b"\n"),))
    yield Case("line-end-before", (b"\r\n" + head("GET", "/plain"),))
    yield Case("two-spaces", (b"GET  /plain HTTP/1.1\r\nHost: a\r\n\r\n",))
    yield Case("tabs", (b"GET\t/plain\tHTTP/1.1\r\nHost: a\r\n\r\n",))
    yield Case("first-header-is-folded", (b"GET /plain HTTP/1.1\r\n Host: a\r\n\r\n",))
    yield Case("tls", (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 40,), timeout=2.0)
    yield Case("nonsense", (b"nonsense\r\n\r\n",))
    yield Case("http-2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",))


def _contents() -> Iterator[Case]:
    for size in (0, 1, 10, 1020, 3000, 5000, 20_000, 60_000):
        yield post(f"content-{size}", b"a" * size)
    yield post("content-binary", bytes(range(256)))
    yield post("content-gzip", gzip.compress(b"a" * 100, mtime=0), "Content-Encoding: gzip")
    yield post("content-form", b"a=b&c=d", "Content-Type: application/x-www-form-urlencoded")
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
        yield post(f"content-{method}", b"0123456789", method=method)
    yield post("content-of-70000", b"a" * 70_000)
    whole = head("POST", "/plain", "Content-Length: 10")
    yield Case("content-in-its-own-segment", (whole, b"0123456789"), methods=("POST",))
    yield Case("content-in-three-segments", (whole + b"012", b"3456", b"789"), methods=("POST",))
    yield Case("content-none-said", (head("POST", "/plain"),), methods=("POST",))
    yield Case(
        "content-expected",
        (head("POST", "/plain", "Content-Length: 10", "Expect: 100-continue"), b"0123456789"),
        methods=("POST",),
    )
    yield Case("content-too-short", (whole + b"01234",), methods=("POST",), ends=True)
    for name, lines in {
        "twice-the-same": ("Content-Length: 10", "Content-Length: 10"),
        "twice-another": ("Content-Length: 10", "Content-Length: 5"),
        "list": ("Content-Length: 10, 10",),
        "negative": ("Content-Length: -10",),
        "plus": ("Content-Length: +10",),
        "hexadecimal": ("Content-Length: 0xa",),
        "empty": ("Content-Length:",),
        "zeros": ("Content-Length: 0010",),
        "huge": ("Content-Length: 99999999999999999999",),
        "underscore": ("Content_Length: 5", "Content-Length: 10"),
    }.items():
        yield Case(
            f"length-{name}", (head("POST", "/plain", *lines) + b"0123456789",), methods=("POST",), ends=True
        )
    chunks = b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
    for name, lines, content in (
        ("plain", ("Transfer-Encoding: chunked",), chunks),
        ("capitals", ("transfer-encoding: CHUNKED",), chunks),
        ("extension", ("Transfer-Encoding: chunked",), b"5;a=b\r\n01234\r\n0\r\n\r\n"),
        ("trailer", ("Transfer-Encoding: chunked",), b"5\r\n01234\r\n0\r\nX-Instance-ID: a\r\n\r\n"),
        ("nothing", ("Transfer-Encoding: chunked",), b"0\r\n\r\n"),
        ("and-length", ("Transfer-Encoding: chunked", "Content-Length: 5"), chunks),
        ("twice", ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), chunks),
        ("identity", ("Transfer-Encoding: identity",), b""),
        ("gzip", ("Transfer-Encoding: gzip, chunked",), chunks),
        ("not-last", ("Transfer-Encoding: chunked, identity",), chunks),
        ("hidden", ("Transfer-Encoding: xchunked",), chunks),
        ("tab", ("Transfer-Encoding:\tchunked",), chunks),
        ("underscore", ("Transfer_Encoding: chunked", "Content-Length: 10"), b"0123456789"),
        ("bad-size", ("Transfer-Encoding: chunked",), b"x\r\n01234\r\n0\r\n\r\n"),
        ("bad-end", ("Transfer-Encoding: chunked",), b"5\r\n01234xx0\r\n\r\n"),
        ("1.0", ("Transfer-Encoding: chunked",), chunks),
    ):
        version = "HTTP/1.0" if name == "1.0" else "HTTP/1.1"
        yield Case(
            f"chunked-{name}",
            (head("POST", "/plain", *lines, version=version) + content,),
            methods=("POST",),
            ends=True,
        )
    yield Case(
        "chunked-in-segments",
        (head("POST", "/plain", "Transfer-Encoding: chunked"), b"5\r\n012", b"34\r\n0\r\n\r\n"),
        methods=("POST",),
    )
    yield Case(
        "token-of-imdsv2",
        (
            head(
                "PUT",
                "/status/404/latest/api/token",
                "X-aws-ec2-metadata-token-ttl-seconds: 21600",
                "Content-Length: 0",
            ),
        ),
        methods=("PUT",),
    )


def _connections() -> Iterator[Case]:
    three = tuple(head("GET", f"/plain/{i}") for i in range(3))
    yield Case("kept-alive", three, methods=("GET",) * 3)
    yield Case("pipelined", (b"".join(three),), methods=("GET",) * 3)
    yield Case(
        "pipelined-after-content",
        (head("POST", "/plain", "Content-Length: 3") + b"abc" + three[0],),
        methods=("POST", "GET"),
    )
    yield Case("head-then-get", (head("HEAD", "/plain"), three[0]), methods=("HEAD", "GET"))
    yield Case("kept-alive-after-404", (head("GET", "/status/404"), three[0]), methods=("GET", "GET"))
    yield Case("kept-alive-after-bad", (head("GET", "/plain", "X-Bad : a"), three[0]), methods=("GET", "GET"))
    request = head("GET", "/plain", "User-Agent: slow")
    yield Case("head-in-two-segments", (request[:20], request[20:]))
    yield Case("head-in-twenty-segments", tuple(request[i : i + 5] for i in range(0, len(request), 5)))
    yield Case("guest-shuts-down", (request,), ends=True)
    yield Case("head-is-cut", (request[:20],), ends=True)


STATUSES = (
    200,
    201,
    202,
    203,
    204,
    205,
    206,
    300,
    301,
    302,
    303,
    304,
    307,
    400,
    401,
    402,
    403,
    404,
    405,
    406,
    408,
    409,
)
STATUSES += (
    410,
    411,
    412,
    413,
    414,
    415,
    416,
    417,
    418,
    422,
    425,
    429,
    431,
    451,
    500,
    501,
    502,
    503,
    504,
    505,
    507,
    511,
    599,
)

ANSWERS = (
    "empty", "large", "json", "html", "no-type", "binary", "octets", "latin-1", "gzip-content", "gzip-coded",
    "deflate", "chunked", "chunked-trailer", "until-close", "version-1.0", "no-reason", "cookies", "etag", "server",
    "date", "hop-by-hop", "connection-close", "retry-after", "continue-first", "many-headers", "large-header",
    "folded", "length-twice", "cut-length", "cut-chunked", "cut-head", "nothing", "reset", "nonsense",
    "instance-header", "redirect", "redirect-away", "slow-2",
)  # fmt: skip


def _answers() -> Iterator[Case]:
    for status in STATUSES:
        yield get(f"status-{status}", f"/status/{status}")
    for answer in ANSWERS:
        yield get(f"answer-{answer}", f"/{answer}")
    for answer in ("empty", "chunked", "gzip-coded", "until-close", "cut-length"):
        yield Case(f"answer-{answer}-to-HEAD", (head("HEAD", f"/{answer}"),), methods=("HEAD",))
    yield Case("answer-late", (head("GET", "/late"),), timeout=LATE + 10)


def _guests() -> Iterator[Case]:
    for guest in ("routed", "ipv6", "routed-ipv6"):
        yield get(f"{guest}-plain", guest=guest)
        yield get(f"{guest}-own-forwarded-for", "/plain", "X-Forwarded-For: 10.0.0.6", guest=guest)
        yield get(f"{guest}-own-network", "/plain", HEADERS["own-network"][0], guest=guest)
        yield get(f"{guest}-own-router", "/plain", HEADERS["own-router"][0], guest=guest)
        yield get(f"{guest}-404", "/status/404", guest=guest)
    for guest in ("nobody", "no-instance", "routed-nobody", "ipv6-privacy"):
        yield get(f"{guest}-plain", guest=guest)


def _all() -> Iterator[Case]:
    yield from _methods()
    for name, target in PATHS.items():
        yield get(f"path-{name}", target)
    for name, lines in HEADERS.items():
        yield get(f"header-{name}", "/plain", *lines)
    yield from _hosts()
    yield from _lines()
    yield from _contents()
    yield from _connections()
    yield from _answers()
    yield from _guests()


CASES = tuple(_all())
"""All of them, each with another name."""
