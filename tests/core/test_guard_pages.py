"""No parser reads a byte before or behind its input, which lies between two pages that may not be touched.

An over-read does not fail these tests, it kills them (SIGSEGV); the last test shows that it would."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from fastmeta._core import _parse_request, _parse_response
from tests.vectors import cases, heads

PAGES = 5  # of memory that may be read, between the guards: more than the largest head
SIZE = PAGES * mmap.PAGESIZE

Place = Callable[[bytes], memoryview]


class Guarded:
    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.map = mmap.mmap(-1, SIZE + 2 * mmap.PAGESIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        for guard in (self.address, self.address + mmap.PAGESIZE + SIZE):
            if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        self.usable = memoryview(self.map)[mmap.PAGESIZE : mmap.PAGESIZE + SIZE]

    def at_the_end(self, data: bytes) -> memoryview:
        place = self.usable[SIZE - len(data) :]
        place[:] = data
        return place

    def at_the_start(self, data: bytes) -> memoryview:
        place = self.usable[: len(data)]
        place[:] = data
        return place


@pytest.fixture(scope="module")
def guarded() -> Guarded:
    return Guarded()


@pytest.fixture(params=["end", "start"])
def place(request: pytest.FixtureRequest, guarded: Guarded) -> Place:
    return guarded.at_the_end if request.param == "end" else guarded.at_the_start


@pytest.mark.parametrize("kind", ["accept", "refuse"])
def test_requests_and_all_of_their_prefixes(place: Place, kind: str) -> None:
    for case in cases("requests", kind):
        for head in heads(case):
            for length in range(len(head) + 1):
                assert _parse_request(place(head[:length])) == _parse_request(head[:length])


@pytest.mark.parametrize("kind", ["accept", "refuse"])
def test_responses_and_all_of_their_prefixes(place: Place, kind: str) -> None:
    for case in cases("responses", kind):
        for head in heads(case):
            for length in range(len(head) + 1):
                for to_head in (False, True):
                    read = _parse_response(place(head[:length]), to_head)
                    assert read == _parse_response(head[:length], to_head)


NEARLY = [
    # What a comparison of fixed length could read past: the end comes within a word that means something.
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: clos\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-aliv\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunke\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continu\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nContent_Lengt: 1\r\n",
    b"GET / HTTP/1\r\n",
    b"GET / \r\n",
    b"GET /\r\n",
    b"GET \r\n",
    b"GET\r\n",
    b"GET h\r\n",
    b"GET http:/ HTTP/1.1\r\n",
    b"G\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"",
]
NEARLY_ANSWERS = [
    b"HTTP/1.1 200\r\n", b"HTTP/1.1 20\r\n", b"HTTP/1.1 \r\n", b"HTTP/1.\r\n", b"H\r\n", b"\r\n", b"\n", b"",
    b"HTTP/1.1 200 \r\nConnection: c\r\n", b"HTTP/1.1 200 \r\nContent-Length:\r\n", b"HTTP/1.1 200 \r\n:\r\n",
]  # fmt: skip


def test_input_that_ends_within_a_word(place: Place) -> None:
    for data in NEARLY:
        assert _parse_request(place(data)) == _parse_request(data)
    for data in NEARLY_ANSWERS:
        assert _parse_response(place(data)) == _parse_response(data)


def test_the_largest_heads(place: Place) -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"x" * 13_968 + b"\r\n\r\n"
    assert len(head) == 14_000
    for length in (13_000, 13_998, 13_999, 14_000):
        assert _parse_request(place(head[:length]), 14_000) == _parse_request(head[:length], 14_000)
    endless = b"GET /" + b"a" * (SIZE - 5)
    assert _parse_request(place(endless), 65_535) == 0
    assert _parse_request(place(endless[:300]), 256) == 414


@pytest.mark.parametrize("where", ["end", "start"])
def test_the_guards_do_kill(where: str) -> None:
    """A child that reads one byte too many, at either end."""
    program = (
        "import ctypes, sys; sys.path[:0] = sys.argv[1].split(sys.argv[2]);"
        "from tests.core.test_guard_pages import Guarded, SIZE; import mmap; guarded = Guarded();"
        "start = guarded.address + mmap.PAGESIZE; ctypes.string_at(start, SIZE);"
        f"ctypes.string_at({'start + SIZE' if where == 'end' else 'start - 1'}, 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, os.pathsep.join(path for path in sys.path if path), os.pathsep],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGSEGV, done.stderr
