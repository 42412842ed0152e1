"""The head that goes to Nova, for any head that we accept: ours are there once, for every reader."""

from __future__ import annotations

import h11
from hypothesis import given
from hypothesis import strategies as st

from fastmeta._core import _build_request, _identity_block, _parse_request
from tests.property import peers
from tests.property.peers import Reading
from tests.property.strategies import PASSED_NAMES, TRUSTED_NAMES, any_requests, of

HOST = b"nova:8775"

addresses = st.binary(min_size=16, max_size=16)
ids = of(bytes(range(0x21, 0x7F)), 1, 40).map(lambda text: text.decode("ascii"))
blocks = st.builds(_identity_block, addresses, ids, ids, st.binary(max_size=80))


def folded(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


@given(any_requests, blocks, st.one_of(st.just(-1), st.integers(0, 2**62)))
def test_each_trusted_header_is_there_once_with_our_value(
    head: bytes, block: bytes, content_length: int
) -> None:
    read = _parse_request(head)
    if not isinstance(read, dict):
        return
    built = _build_request(head, block, HOST, content_length)

    event = h11.Connection(h11.SERVER)
    event.receive_data(built)
    request = event.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == read["method"]
    assert request.target == (read["target"] if read["target"].startswith(b"/") else b"/" + read["target"])
    assert request.http_version == b"1.1"

    ours = [line.split(b": ", 1) for line in block.split(b"\r\n")[:-1]]
    assert [name for name, _ in ours] == TRUSTED_NAMES
    if content_length >= 0:
        ours.append([b"Content-Length", b"%d" % content_length])
    passed = [
        (name, value) for name, value in read["headers"] if name.lower() in map(bytes.lower, PASSED_NAMES)
    ]
    wanted = [(b"host", HOST), *((name.lower(), value) for name, value in ours), *passed]
    assert list(request.headers) == [(name.lower(), value) for name, value in wanted]
    # And folded as WSGI folds names, still nothing but these.
    for name in (b"Host", b"Content-Length", b"Transfer-Encoding", *TRUSTED_NAMES):
        found = [value for key, value in request.headers if folded(key) == name.lower()]
        assert found == [value for key, value in wanted if key.lower() == name.lower()]


@given(any_requests, blocks, st.one_of(st.just(-1), st.integers(0, 10**18 - 1)))
def test_rewriting_what_was_rewritten_changes_nothing(head: bytes, block: bytes, content_length: int) -> None:
    if not isinstance(_parse_request(head), dict):
        return
    built = _build_request(head, block, HOST, content_length)
    assert isinstance(_parse_request(built, 14_000), dict)
    assert _build_request(built, block, HOST, content_length) == built


@given(any_requests, blocks, blocks)
def test_another_identity_leaves_no_trace(head: bytes, block: bytes, other: bytes) -> None:
    """A request that already carries somebody's identity goes out under that of its guest, and only that."""
    if not isinstance(_parse_request(head), dict):
        return
    stolen = _build_request(head, other, HOST)
    assert _build_request(stolen, block, HOST) == _build_request(head, block, HOST)


@given(any_requests, blocks, st.integers(0, 40))
def test_peers_end_it_where_we_do(head: bytes, block: bytes, content_length: int) -> None:
    """With its content and another request behind it, on the one connection to Nova."""
    read = _parse_request(head)
    if not isinstance(read, dict):
        return
    built = _build_request(head, block, HOST, content_length)
    data = built + b"c" * content_length + built
    for theirs in (peers.h11_request(data), peers.llhttp_request(data)):
        if theirs == peers.REFUSED:
            assert read["method"] not in peers.LLHTTP_METHODS
            continue
        assert isinstance(theirs, Reading)
        assert theirs.end == len(built) + content_length
        assert theirs.keep_alive
