"""Rule 5 with curl inside the guests: what real clients do to a connection works, directly and over the REDIRECT."""

from __future__ import annotations

import re

import pytest

from .conftest import Served
from .guests import Guest


@pytest.fixture(params=["green-5", "red-5"])
def guest(served: Served, request: pytest.FixtureRequest) -> Guest:
    return served.guests[request.param]


def test_get_with_http_1_0(guest: Guest) -> None:
    """The answer has a length, or ends with the connection."""
    done = guest.curl("-0", "/http-1-0")
    assert (done.returncode, done.stdout) == (0, guest.mark("/http-1-0"))


def test_head(served: Served, guest: Guest) -> None:
    done = guest.curl("-I", "/head")
    assert done.returncode == 0
    length = re.search(rb"(?i)^content-length: ([0-9]+)\r$", done.stdout, re.MULTILINE)
    assert length is not None
    assert int(length[1]) == len(guest.mark("/head"))
    assert {request.method for request in served.upstream.asked("/head")} == {"HEAD"}


@pytest.mark.parametrize("size", [10, 60_000, 900_000])
@pytest.mark.parametrize("coding", ["Content-Length", "chunked"])
def test_post(served: Served, guest: Guest, size: int, coding: str, tmp_path) -> None:
    """With Expect: 100-continue, whole and byte for byte; chunked content of more than 64 KiB is 413."""
    served.upstream.received.clear()
    body = bytes(n * 7 % 256 for n in range(size))
    file = tmp_path / "body"
    file.write_bytes(body)
    headers = ["-H", "Expect: 100-continue", "-w", "%{http_code}"]
    if coding == "chunked":
        headers += ["-H", "Transfer-Encoding: chunked"]
    done = guest.curl(*headers, "--data-binary", f"@{file}", "/post")
    if coding == "chunked" and size > 65_536:
        assert done.stdout.endswith(b"413")
        assert served.upstream.received == []
        return
    assert done.stdout == guest.mark("/post") + b"200"
    (request,) = served.upstream.asked("/post")
    assert request.body == body


def test_several_requests_on_one_connection(served: Served, guest: Guest) -> None:
    """Kept alive by curl, whatever the framing of the answers."""

    def chunked(exchange) -> bool:
        content = exchange.content(1000)
        exchange.send(
            exchange.head("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        )
        return True

    def until_close(exchange) -> bool:
        exchange.send(exchange.head() + exchange.content(1000))
        return False

    served.upstream.scripts |= {"chunked": chunked, "until-close": until_close}
    targets = ["/chunked/1", "/until-close/2", "/length/3", "/chunked/4"]
    url = "http://169.254.169.254"
    done = guest.curl(
        "-w", "connects=%{num_connects}\\n", *(url + target for target in targets[:-1]), targets[-1]
    )
    assert done.returncode == 0, done.stderr
    assert set(re.findall(rb"<[^<>]+\|[^<>]+>\n", done.stdout)) == {guest.mark(target) for target in targets}
    assert re.findall(rb"connects=([01])\n", done.stdout) == [b"1", b"0", b"0", b"0"]
