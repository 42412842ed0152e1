"""Where fastmeta differs from the stock pair, and why. docs/compatibility.md is made of this by
tools/compatibility.py, and the test accepts no other differences."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol


class Compared(Protocol):
    """outcomes.Found."""

    @property
    def subject(self) -> str: ...
    @property
    def stock(self) -> str: ...
    @property
    def ours(self) -> str: ...


@dataclass(frozen=True)
class Where:
    """What is different: subject as in outcomes.Found; stock, ours: patterns of the values (fnmatch)."""

    subject: str
    stock: str
    ours: str

    def fits(self, found: Compared) -> bool:
        return found.subject == self.subject and all(
            fnmatchcase(value, pattern)
            for value, pattern in ((found.stock, self.stock), (found.ours, self.ours))
        )


@dataclass(frozen=True)
class Difference:
    """stock, ours: what each of the two does, and why: the reason, all for the reader of the documentation; cases:
    patterns of their names; where: each of these is seen in some case."""

    title: str
    stock: str
    ours: str
    why: str
    cases: tuple[str, ...]
    where: tuple[Where, ...]
    sometimes: bool = False
    """What stock does is a matter of time: that it is seen is not asked for."""

    def is_about(self, case: str) -> bool:
        return any(fnmatchcase(case, pattern) for pattern in self.cases)

    def explains(self, case: str, found: Compared) -> bool:
        return self.is_about(case) and any(where.fits(found) for where in self.where)


NO_REQUEST = Where("requests to Nova", "1", "0")
A_REQUEST = Where("requests to Nova", "0", "1")


def status(stock: str, ours: str) -> Where:
    return Where("status", stock, ours)


def to_nova(name: str, stock: str, ours: str) -> Where:
    return Where(f"Nova header {name}", stock, ours)


def header(name: str, stock: str, ours: str) -> Where:
    return Where(f"answer's header {name}", stock, ours)


REQUESTS = (
    Difference(
        "Headers of the HTTP library",
        "sends `Accept: */*`, `Accept-Encoding: gzip, deflate`, `User-Agent: python-requests/…` and "
        "`Connection: keep-alive` of its own making, whoever asks",
        "sends what the guest sent of `Accept`, `Accept-Encoding` and `User-Agent`, or nothing",
        "Nova sees who really asks; nothing is compressed that the guest did not ask for",
        ("*",),
        (
            to_nova("accept", "[*]/[*]", "*"),
            to_nova("accept-encoding", "gzip, deflate", "*"),
            to_nova("user-agent", "python-requests/*", "*"),
            to_nova("connection", "keep-alive", "-"),
        ),
    ),
    Difference(
        "Harmless headers of the guest",
        "sends none of them",
        "passes those on its allow-list: `Accept-Language`, `Content-Type`, `If-Modified-Since`, "
        "`If-None-Match`, `Range`",
        "Nova and what stands before it may use them, and none of them says who asks",
        (
            "header-accept-language",
            "header-content-type",
            "header-if-*",
            "header-range",
            "content-form",
        ),
        tuple(
            to_nova(name, "-", "*")
            for name in ("accept-language", "content-type", "if-modified-since", "if-none-match", "range")
        ),
    ),
    Difference(
        "IPv4 addresses behind a router",
        "writes them as IPv6 (`::ffff:10.1.0.5`) into `X-Forwarded-For`",
        "writes them as IPv4",
        "they are IPv4, and Nova's `local-ipv4` may be taken from there",
        ("routed-*",),
        (to_nova("x-forwarded-for", "::ffff:*", "[0-9]*"),),
    ),
    Difference(
        "Spelling of the path",
        "decodes the path and writes it anew: `/./` and `/../` are resolved, escapes are others, an "
        "empty query is gone",
        "passes method, path and query byte for byte",
        "what a path means is Nova's to say; `%2F` and `%3F` are not `/` and `?`",
        ("path-*",),
        (Where("target to Nova", "/*", "/*"),),
    ),
    Difference(
        "Paths that are no UTF-8 when decoded",
        "gives no answer (502 of its proxy)",
        "passes them like others",
        "see above",
        ("path-escaped-latin-1",),
        (A_REQUEST, status("502", "200")),
    ),
    Difference(
        "Names of methods in lower case",
        "makes them upper case",
        "passes them as they are",
        "methods are case-sensitive (RFC 9110 section 9.1)",
        ("method-get-in-lower-case",),
        (Where("method to Nova", "GET", "get"), to_nova("content-length", "-", "0")),
    ),
    Difference(
        "Content that comes after the head, or is more than 4 KiB with it",
        "is lost, or cut off at 4096 bytes: a password that is posted so becomes empty",
        "comes to Nova whole",
        "Nova must get what the guest has sent",
        (
            "content-5000",
            "content-20000",
            "content-60000",
            "content-of-70000",
            "content-in-*",
            "content-expected",
        ),
        (to_nova("content-length", "*", "*"), Where("content to Nova", "*", "*")),
    ),
    Difference(
        "Content that is no text",
        "gives no answer (502 of its proxy)",
        "passes it byte for byte",
        "see above",
        ("content-binary", "content-gzip"),
        (A_REQUEST, status("502", "200")),
    ),
    Difference(
        "Content that the guest cuts off",
        "now and then goes to Nova as far as it has come",
        "goes nowhere",
        "it is not what the guest wanted to say (RFC 9112 section 8)",
        ("content-too-short",),
        (NO_REQUEST,),
        sometimes=True,
    ),
    Difference(
        "Chunked content",
        "passes the chunks' framing as content",
        "gathers the content (64 KiB at most) and sends it with its length",
        "Nova fails without a length, and must not get framing for content",
        ("chunked-*",),
        (to_nova("content-length", "*", "*"), Where("content to Nova", "*", "*")),
    ),
)

GUESTS_OWN = (
    Difference(
        "A guest's own `X-Forwarded-For`",
        "does not answer (502 of its proxy): it cannot read two addresses",
        "ignores it, and answers",
        "the guest is told by where its connection comes from; what it says of itself is no reason to "
        "refuse it",
        ("*own-forwarded-for*",),
        (A_REQUEST, status("502", "200")),
    ),
    Difference(
        "A guest's own ids of networks and routers, spelled with underscores",
        "takes them beside its own, and refuses: 400 or 404",
        "ignores them, and answers",
        "see above",
        ("header-own-router-underscore", "header-own-network-underscore"),
        (A_REQUEST, status("400", "200"), status("404", "200")),
    ),
    Difference(
        "Other headers that stock cannot read",
        "does not answer a header that is no UTF-8, or a head of more than 4 KiB (502), and refuses "
        "`Upgrade: websocket` "
        "without its key (400)",
        "ignores what is not on its allow-list; heads may have 8 KiB (`max_head`)",
        "nothing of these headers goes to Nova",
        ("header-value-latin-1", "header-value-6000", "header-upgrade-websocket"),
        (A_REQUEST, status("502", "200"), status("400", "200")),
    ),
    Difference(
        "Another host in an absolute target",
        "400, when it is not the one in `Host`",
        "answers",
        "there is one service at this address, whatever it is called; the host does not go to Nova",
        ("path-absolute-another-host",),
        (A_REQUEST, status("400", "200")),
    ),
)

REFUSED = (
    Difference(
        "Ambiguous heads",
        "its proxy repairs or passes: folded lines, control characters, line feeds alone, several "
        "spaces, HTTP versions that "
        "there are not, no `Host` or two",
        "400, and the connection is closed",
        "RFC 9112 sections 2.2, 3, 3.2 and 5.2: what two readers may understand in two ways goes nowhere",
        (
            "header-folded*",
            "header-value-with-a-zero",
            "header-value-with-a-control",
            "host-none",
            "host-the-same-twice",
            "version-HTTP-1.2",
            "version-HTTP-2.0",
            "version-HTTP-0.9",
            "line-feeds-alone",
            "two-spaces",
            "tabs",
        ),
        (NO_REQUEST, status("200", "400")),
    ),
    Difference(
        "Ambiguous lengths",
        "its proxy merges equal lengths, and takes a length over `Transfer-Encoding`; `_` and `-` are "
        "not the same to it, "
        "and are to what comes after it",
        "400, and the connection is closed",
        "RFC 9112 section 6.3: request smuggling begins here",
        (
            "length-twice-the-same",
            "length-list",
            "length-underscore",
            "chunked-and-length",
            "chunked-underscore",
            "chunked-1.0",
        ),
        (NO_REQUEST, status("200", "400")),
    ),
    Difference(
        "Transfer codings other than chunked",
        "400 or 422",
        "501",
        "RFC 9112 section 6.1 asks for it",
        ("chunked-identity", "chunked-gzip", "chunked-not-last", "chunked-hidden"),
        (status("400", "501"), status("422", "501")),
    ),
    Difference(
        "Methods that are not for metadata",
        "are passed on, CONNECT with an empty path",
        "501 for TRACE, 400 for CONNECT",
        "TRACE would show the guest the headers that are added for it (RFC 9110 section 9.3.8); a "
        "target of CONNECT is no path",
        ("method-TRACE", "method-CONNECT"),
        (NO_REQUEST, status("200", "501"), status("200", "400")),
    ),
    Difference(
        "The target `*`",
        "becomes an empty path",
        "400 for methods other than OPTIONS",
        "RFC 9112 section 3.2.4",
        ("path-asterisk",),
        (NO_REQUEST, status("200", "400")),
    ),
    Difference(
        "What is too long",
        "400, or no answer (502)",
        "414 for the target, 431 for the headers",
        "the status says what is wrong (RFC 9110 section 15.5.15, RFC 6585 section 5)",
        ("path-long-6000", "path-long-20000", "header-value-20000", "header-many-200"),
        (status("502", "414"), status("400", "414"), status("400", "431")),
    ),
    Difference(
        "A beginning that is no HTTP",
        "400 at once for TLS; nothing at all for HTTP/2",
        "400 when a line has ended, 408 when none does in time",
        "a guest that speaks something else learns it all the same",
        ("tls", "http-2"),
        (
            Where("end of the answer", "whole", "nothing came in time"),
            Where("end of the answer", "no HTTP*", "whole"),
            status("400", "-"),
            status("-", "400"),
        ),
    ),
    Difference(
        "A guest that ends its side within the head",
        "400",
        "closes",
        "there is no request that could be answered",
        ("head-is-cut",),
        (Where("end of the answer", "whole", "*"), status("400", "-")),
    ),
)

ANSWERS = (
    Difference(
        "Statuses of Nova's",
        "passes 200, 400, 403, 404, 409, 500, 502, 503 and 504; any other has no answer (502 of its proxy)",
        "passes all of them",
        "what Nova says is for the guest",
        ("status-*",),
        (status("502", "[2345][0-9][0-9]"),),
    ),
    Difference(
        "Redirects",
        "follows them itself, wherever they lead",
        "passes them to the guest",
        "a service that goes where an answer sends it can be sent anywhere, with the guest's identity",
        ("answer-redirect*",),
        (Where("requests to Nova", "2", "1"), status("200", "302"), status("503", "302")),
    ),
    Difference(
        "Answers that are no UTF-8, or have no type",
        "gives no answer (502 of its proxy): binary user-data is lost",
        "passes them byte for byte",
        "user-data is bytes",
        ("answer-no-type", "answer-binary", "answer-octets", "answer-latin-1"),
        (status("502", "200"),),
    ),
    Difference(
        "Compressed content",
        "decompresses it, also user-data that is compressed itself",
        "passes it byte for byte, with its `Content-Encoding`",
        "cloud-init decompresses for itself; what was uploaded is what arrives",
        ("answer-gzip-*", "answer-deflate"),
        (
            header("content-encoding", "-", "*"),
            header("content-length", "*", "*"),
            Where("content of the answer", "40 bytes*", "*"),
        ),
    ),
    Difference(
        "Answers to HEAD",
        "say `Content-Length: 0`",
        "say what Nova says",
        "RFC 9110 section 9.3.2: as for GET",
        ("method-HEAD", "content-HEAD", "head-then-get", "answer-*-to-HEAD"),
        (header("content-length", "0", "*"), header("content-encoding", "-", "gzip")),
    ),
    Difference(
        "Answers without a length",
        "gathers them, and says their length",
        "passes them as they come, chunked",
        "memory stays bounded, and the guest gets the first byte sooner",
        ("answer-chunked", "answer-chunked-trailer", "answer-until-close"),
        (header("content-length", "*", "-"), header("transfer-encoding", "-", "chunked")),
    ),
    Difference(
        "Answers that are cut off",
        "502",
        "cut off for the guest, too",
        "the head has gone already; the guest sees that the content is not whole (RFC 9112 section 8)",
        ("answer-cut-length", "answer-cut-chunked"),
        (Where("end of the answer", "whole", "no HTTP*"), status("502", "200")),
    ),
    Difference(
        "Answers with folded lines or two lengths",
        "passes them",
        "502",
        "ambiguous framing between us and Nova could give a guest what is another's",
        ("answer-folded", "answer-length-twice"),
        (status("200", "502"),),
    ),
    Difference(
        "Nonsense in place of an answer",
        "503",
        "502",
        "Nova is there, and wrong (RFC 9110 section 15.6.3)",
        ("answer-nonsense",),
        (status("503", "502"),),
    ),
    Difference(
        "Nova closes without an answer",
        "503 at once",
        "GET and HEAD are sent again for up to 8 s (`park_timeout`), then 503 with `Retry-After`",
        "guests wait rather than fail: cloud-init before 25.1 does not repeat a request",
        ("answer-nothing", "answer-reset"),
        (Where("requests to Nova", "1", "*"),),
    ),
    Difference(
        "Nova takes more than 32 s",
        "504 of its proxy after 32 s",
        "waits 60 s (`upstream_timeout`)",
        "vendor data may take long",
        ("answer-late",),
        (status("504", "200"),),
    ),
    Difference(
        "Several `Set-Cookie`",
        "become one line",
        "stay as they are",
        "RFC 9110 section 5.3: they cannot be combined",
        ("answer-cookies",),
        (header("set-cookie", "a=b, c=d", "a=b | c=d"),),
    ),
    Difference(
        "Headers between two hops",
        "passes Nova's `Keep-Alive`, `Trailer` and `Upgrade`",
        "does not",
        "RFC 9110 section 7.6.1: they are about the connection to Nova",
        ("answer-hop-by-hop",),
        tuple(header(name, "*", "-") for name in ("keep-alive", "trailer", "upgrade")),
    ),
    Difference(
        "An empty reason phrase",
        "writes one",
        "passes it",
        "nobody may read it (RFC 9112 section 4)",
        ("answer-no-reason",),
        (Where("reason phrase", "OK", ""),),
    ),
    Difference(
        "HTTP/1.0",
        "its proxy closes without saying so",
        "says `Connection: close`",
        "the guest knows before",
        ("version-HTTP-1.0", "version-1.0-no-host"),
        (header("connection", "-", "close"),),
    ),
    Difference(
        "Own error pages",
        "HTML, by two programs",
        "one line of text, with `Date`, and `Retry-After` when trying again helps",
        "they are read in a guest's console log",
        (
            "method-with-a-strange-character",
            "path-utf-8",
            "path-fragment",
            "path-no-slash",
            "header-value-with-a-return",
            "header-name-*",
            "header-no-colon",
            "host-two",
            "version-http-1.1",
            "version-HTTP-1.10",
            "version-none",
            "first-header-is-folded",
            "nonsense",
            "length-*",
            "chunked-twice",
            "chunked-bad-*",
            "kept-alive-after-bad",
            "answer-cut-head",
            "answer-nothing",
            "answer-reset",
            "*nobody-plain",
            "no-instance-plain",
            "ipv6-privacy-plain",
        ),
        (
            Where("reason phrase", "Bad request", "Bad Request"),
            header("cache-control", "no-cache", "-"),
            header("content-type", "text/html", "text/plain; charset=UTF-8"),
            header("content-length", "*", "*"),
            header("date", "-", "*"),
            header("retry-after", "-", "[123]"),
            Where("content of the answer", "*<html>*", "*"),
        ),
    ),
)

DIFFERENCES = REQUESTS + GUESTS_OWN + REFUSED + ANSWERS

BEHIND_A_PROXY = (
    Difference(
        "A guest's own ids of networks and routers, spelled with underscores",
        "takes them beside its proxy's, and refuses: 400 or 404, in HTML",
        "takes them beside the proxy's, too, and refuses: 400",
        "the proxy leaves them in; two ids are no id",
        ("header-own-router-underscore", "header-own-network-underscore"),
        (
            status("404", "400"),
            header("content-length", "*", "*"),
            header("date", "-", "*"),
            Where("content of the answer", "*<html>*", "*"),
        ),
    ),
)

RELAYED = DIFFERENCES + BEHIND_A_PROXY
"""What may be different when Neutron's haproxies are before fastmeta."""
