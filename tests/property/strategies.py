"""Messages for the parsers: valid ones, and ones that were damaged with knowledge of what damages."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

CRLF = b"\r\n"

Headers = Sequence[tuple[bytes, bytes]]

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def of(alphabet: bytes, smallest: int, largest: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(alphabet), min_size=smallest, max_size=largest).map(bytes)


tokens = of(TOKEN_BYTES, 1, 12)
methods = st.one_of(
    st.sampled_from(
        b"GET HEAD POST PUT DELETE OPTIONS PATCH TRACE PROPFIND QUERY CONNECT PRI get Connect GETS".split()
    ),
    tokens,
)
path_bytes = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))
paths = st.one_of(
    st.sampled_from(
        [
            b"/",
            b"/latest/meta-data/",
            b"/openstack/latest/meta_data.json?a=b&c=%20",
            b"//h/x",
            b"/?",
            b"/http://h",
        ]
    ),
    of(path_bytes, 0, 20).map(lambda text: b"/" + text),
)
authorities = st.one_of(
    st.sampled_from([b"h", b"169.254.169.254:80", b"[fe80::1%25eth0]:80", b"u:p@h", b"a@b@c", b"h{"]),
    of(path_bytes.replace(b"/", b"").replace(b"?", b""), 1, 8),
)
targets = st.one_of(
    paths,
    st.builds(
        lambda scheme, authority, rest: scheme + b"://" + authority + rest,
        st.sampled_from([b"http", b"HTTP", b"hTTp", b"https", b"ftp"]),
        authorities,
        st.one_of(st.just(b""), st.just(b"?q"), paths),
    ),
    st.sampled_from([b"*", b"h:80", b"http:/h", b"http://", b"http:///", b"x", b"?"]),
)
versions = st.sampled_from(
    [b"HTTP/1.1"] * 8 + [b"HTTP/1.0"] * 3 + [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/0.9"]
)

good_versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])


def recased(name: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([name, name.lower(), name.upper(), name.swapcase()])


FRAMING_NAMES = [b"Content-Length", b"Transfer-Encoding"]
PASSED_NAMES = [
    b"Accept", b"Accept-Encoding", b"Accept-Language", b"Content-Type", b"If-Modified-Since",
    b"If-None-Match", b"Range", b"User-Agent",
]  # fmt: skip
TRUSTED_NAMES = [b"X-Forwarded-For", b"X-Instance-ID", b"X-Tenant-ID", b"X-Instance-ID-Signature"]
OTHER_NAMES = [
    b"Expect", b"Upgrade", b"TE", b"Keep-Alive", b"Proxy-Connection", b"Trailer",
    b"X-Neutron-Network-ID", b"Cookie", b"X_Instance_ID", b"X_Forwarded-For", b"User_Agent",
    b"Content-Lengths", b"Transfer-Encodin",
]  # fmt: skip

value_bytes = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
values = st.one_of(
    st.sampled_from(
        [b"", b"x", b"a, b", b"close", b"keep-alive", b"100-continue", b"chunked", b"3", b"\xe9"]
    ),
    of(value_bytes, 0, 16),
)
blanks = st.sampled_from([b" ", b" ", b" ", b"", b"\t", b"  ", b" \t "])
connections = st.lists(
    st.sampled_from(
        [b"close", b"Close", b"keep-alive", b"KEEP-ALIVE", b"upgrade", b"x", b"", b"closed", b"host", b"te"]
    ),
    max_size=4,
).map(b" ,".join)

ordinary_headers = st.one_of(
    st.tuples(st.sampled_from(PASSED_NAMES + TRUSTED_NAMES + OTHER_NAMES).flatmap(recased), values),
    st.tuples(recased(b"Connection"), connections),
    st.tuples(tokens, values),
)
lengths = st.one_of(st.integers(0, 40), st.sampled_from([10**6, 10**18 - 1])).map(lambda n: b"%d" % n)
good_framings = st.one_of(
    st.just([]),
    st.tuples(recased(b"Content-Length"), lengths).map(lambda header: [header]),
    st.tuples(recased(b"Transfer-Encoding"), st.sampled_from([b"chunked", b"Chunked"])).map(
        lambda header: [header]
    ),
)
# RFC 9112 section 6.1: HTTP/1.0 has no transfer codings.
old_framings = st.one_of(
    st.just([]), st.tuples(recased(b"Content-Length"), lengths).map(lambda header: [header])
)
# RFC 9112 section 6.3, and what has been used to smuggle requests.
BAD_LENGTHS = [
    b"+3", b"-3", b"3,3", b"3, 4", b"0x3", b"3 3", b"3_0", b"", b"3;", b"1e1", b"\xb3", b"3.0",
    b"9" * 19, b"0" * 25, b'"3"',
]  # fmt: skip
BAD_CODINGS = [
    b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity", b"xchunked",
    b"chunked;q=1", b"chunked,", b"", b'"chunked"', b",chunked", b"chunkedx", b"\xe7hunked",
]  # fmt: skip


@st.composite
def header_lines(draw: st.DrawFn) -> list[bytes]:
    headers = draw(st.lists(ordinary_headers, max_size=6)) + draw(good_framings)
    if draw(st.integers(0, 9)) > 0:
        headers.append((draw(recased(b"Host")), draw(values)))
    headers = draw(st.permutations(headers))
    return [name + b":" + draw(blanks) + value + draw(blanks) for name, value in headers]


@st.composite
def wild_requests(draw: st.DrawFn) -> list[bytes]:
    """The lines of a head that may be wrong in every part, without their ends and without the empty line."""
    return [draw(methods) + b" " + draw(targets) + b" " + draw(versions), *draw(header_lines())]


@st.composite
def good_headers(draw: st.DrawFn, new: bool, *, framed: bool = True, more: Headers = ()) -> list[bytes]:
    headers = [*draw(st.lists(ordinary_headers, max_size=5)), *more]
    if framed:
        headers += draw(good_framings if new else old_framings)
    return [
        name + b":" + draw(blanks) + value + draw(blanks) for name, value in draw(st.permutations(headers))
    ]


good_methods = methods.filter(lambda name: name.upper() != b"CONNECT")
good_targets = st.one_of(
    paths,
    paths,
    st.builds(
        lambda authority, rest: b"http://" + authority + rest,
        authorities,
        st.one_of(st.just(b""), st.just(b"?q"), paths),
    ),
)


@st.composite
def good_requests(draw: st.DrawFn, *, framed: bool = True, new: bool = False) -> list[bytes]:
    """As above, but certainly accepted. framed: may say that content follows; new: HTTP/1.1 only."""
    new = new or draw(st.integers(0, 3)) > 0
    host = [(draw(recased(b"Host")), draw(values))] if new or draw(st.booleans()) else []
    lines = draw(good_headers(new, framed=framed, more=host))
    return [draw(good_methods) + b" " + draw(good_targets) + b" HTTP/1." + (b"1" if new else b"0"), *lines]


requests = st.one_of(good_requests(), good_requests(), wild_requests())


statuses = st.one_of(
    st.sampled_from([200, 200, 200, 204, 304, 404, 100, 101, 103, 205, 500]), st.integers(100, 599)
).map(lambda n: b"%03d" % n)


@st.composite
def responses(draw: st.DrawFn, *, good: bool = False) -> list[bytes]:
    reason = draw(
        st.one_of(st.sampled_from([b" OK", b" ", b""]), of(value_bytes, 0, 10).map(lambda text: b" " + text))
    )
    version = draw(good_versions if good else versions)
    lines = draw(good_headers(b"1.0" not in version))
    return [version + b" " + draw(statuses) + reason, *lines]


def joined(lines: list[bytes]) -> bytes:
    return CRLF.join([*lines, b"", b""])


bad_bytes = st.sampled_from(b'\0\r\n\t \x0b\x0c\x1f\x7f\x80\xff:;,_-+#?/"09aZ')


@st.composite
def damaged(draw: st.DrawFn, lines: list[bytes]) -> bytes:
    """Some of what makes parsers disagree, done to a message."""
    lines = list(lines)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))):
        at = draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        kind = draw(st.integers(0, 9))
        if kind == 0:  # a framing header that is wrong, or one too many
            name = draw(st.sampled_from(FRAMING_NAMES).flatmap(recased))
            if draw(st.booleans()):
                name = name.replace(b"-", b"_")
            lines.insert(
                at + 1, name + b": " + draw(st.sampled_from([*BAD_LENGTHS, *BAD_CODINGS, b"3", b"chunked"]))
            )
        elif kind == 1:
            lines.insert(at, line)
        elif kind == 2 and len(lines) > 1:
            del lines[at]
        elif kind == 3:  # obs-fold
            lines.insert(at + 1, draw(st.sampled_from([b" ", b"\t", b" folded", b"\tA: b"])))
        elif kind == 4:  # white space where none may be
            lines[at] = draw(
                st.sampled_from([b" " + line, line.replace(b":", b" :", 1), line.replace(b" ", b"  ", 1)])
            )
        elif kind == 5:
            lines.insert(at, b"")
        elif kind == 6 and line:
            place = draw(st.integers(0, len(line) - 1))
            lines[at] = line[:place] + bytes([draw(bad_bytes)]) + line[place + draw(st.integers(0, 1)) :]
        elif kind == 7:
            lines[at] = line.replace(b"-", b"_")
        elif kind == 8:
            lines[at] = line + draw(
                st.sampled_from([b"\r", b"\n", b"\0", b"\n\r", b"\r\nA: b", b"\nContent-Length: 3"])
            )
        else:
            lines[at] = line[: draw(st.integers(0, len(line)))]
        if not lines:
            break
    data = joined(lines)
    data = (
        draw(
            st.sampled_from([b"", b"", b"", b"", b"", b"", b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" "])
        )
        + data
    )
    kind = draw(st.integers(0, 11))
    if kind == 0:
        data = data.replace(
            CRLF, draw(st.sampled_from([b"\n", b"\r", b"\n\r", b"\r\r\n"])), draw(st.integers(1, 3))
        )
    elif kind == 1:
        data = data[: draw(st.integers(0, len(data)))]
    return data


damaged_requests = requests.flatmap(damaged)
damaged_responses = responses().flatmap(damaged)
# About half of these are accepted: for what is to be seen of accepted ones.
any_requests = st.one_of(good_requests().map(joined), good_requests().map(joined), damaged_requests)
any_responses = st.one_of(
    responses(good=True).map(joined), responses(good=True).map(joined), damaged_responses
)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """data in pieces."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


quoted = of(b"ab ;=\t,", 0, 5).map(lambda text: b'"' + text + b'"')


@st.composite
def chunked(draw: st.DrawFn, *, plain: bool = False) -> tuple[bytes, bytes]:
    """Content and its chunked coding, with all that we allow. plain: without trailers, which the peers show
    as headers, and with extensions that keep to the grammar of RFC 9112 section 7.1.1."""
    content = b""
    coded = b""
    good_extension = st.builds(
        lambda name, value: b";" + name + b"=" + value, tokens, st.one_of(tokens, quoted)
    )
    any_extension = of(value_bytes, 0, 8).map(lambda text: b";" + text)
    extensions = st.one_of(st.just(b""), st.just(b""), good_extension if plain else any_extension)
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5)):
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x", b"%015x"])) % len(chunk)
        coded += size + draw(extensions) + CRLF + chunk + CRLF
        content += chunk
    coded += draw(st.sampled_from([b"0", b"000"])) + draw(extensions) + CRLF
    if not plain:
        for name, value in draw(st.lists(st.tuples(tokens, values), max_size=2)):
            coded += name + b": " + value + CRLF
    return content, coded + CRLF
