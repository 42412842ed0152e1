"""One line for each request that an operator asked to see, and nothing in it that a guest could forge."""

from __future__ import annotations

import re

import pytest

from .conftest import Served

LINE = re.compile(
    r"(?P<kind>network|router) (?P<uuid>[0-9a-f-]{36}) (?P<address>[0-9a-f.:]+) instance (?P<instance>\S+) "
    r'"(?P<method>[^ "]*) (?P<target>[^"]*)" (?P<status>[0-9]{3}) (?P<bytes>[0-9]+) bytes '
    r"(?P<total>[0-9]+\.[0-9]) ms \(waited (?P<waited>[0-9]+\.[0-9]), Nova (?P<nova>[0-9]+\.[0-9]), "
    r"answered (?P<answered>[0-9]{3}|-)\)$"
)


def line(served: Served, text: str, count: int = 1) -> re.Match[str]:
    """The access log's line with this text, of which there must be so many in all."""
    lines = served.agent.until_logged(re.escape(text), count)
    assert len(lines) == count
    match = LINE.search(lines[-1])
    assert match is not None, lines[-1]
    return match


@pytest.mark.parametrize("name", ["blue-5", "red-5"])
def test_who_asked_what(served: Served, name: str) -> None:
    """Network or router, address, instance, method, target, status, size, times."""
    guest = served.guests[name]
    target = f"/access/{name}"
    size = len(guest.ask(target).body)
    found = line(served, target)
    assert found["kind"] == ("router" if name == "red-5" else "network")
    assert found["uuid"] in next(entry for entry in served.cloud.listen if found["uuid"] in entry)
    if found["kind"] == "network":
        assert found["uuid"] == guest.port.network.network_id
    assert (found["address"], found["instance"]) == (guest.address, guest.instance_id)
    assert (found["method"], found["target"], found["status"]) == ("GET", target, "200")
    assert (int(found["bytes"]), found["answered"]) == (size, "200")
    assert float(found["nova"]) <= float(found["total"])


def test_each_request_has_one_line(served: Served) -> None:
    """Also those on one connection, and those that did not reach Nova."""
    guest = served.guests["green-5"]
    with guest.connect() as wire:
        wire.send(b"".join(b"GET /each/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        for _ in range(50):
            assert wire.answer().status == 200
        wire.send(b"TRACE /each/last HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer().status == 501
    served.agent.until_logged("/each/", 51)
    targets = [LINE.search(found)["target"] for found in served.agent.logged("/each/")]
    assert targets == [*(f"/each/{n}" for n in range(50)), "/each/last"]
    assert line(served, "/each/last")["answered"] == "-"


def test_a_refused_head_has_a_line(served: Served) -> None:
    """400: there is no target that could be trusted, but who it was is known."""
    guest = served.guests["red-8"]
    before = len(served.agent.logged('" 400 '))
    assert guest.raw(b"GET /refused HTTP/1.1\r\nHost : x\r\n\r\n")[0] == 400
    found = LINE.search(served.agent.until_logged('" 400 ', before + 1)[-1])
    assert found is not None
    assert (found["kind"], found["address"], found["instance"]) == ("router", guest.address, "-")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/odd/1%0aforged", r"/odd/1%0aforged"),
        (b'/odd/2"200 0 bytes', None),
        (b'/odd/3"quoted"', r"/odd/3\x22quoted\x22"),
        (b"/odd/4\\n\\x22", r"/odd/4\x5cn\x5cx22"),
        (b"/odd/5\x1b[31m", None),
        (b"/odd/6\xc3\xa4", None),
        (b"/odd/7'%22<script>", "/odd/7'%22<script>"),
        (b"/odd/8/" + b"x" * 4000, "/odd/8/" + "x" * 121 + "..."),
        (b"/odd/9%d%s{}%(a)s", "/odd/9%d%s{}%(a)s"),
    ],
)
def test_odd_targets(served: Served, target: bytes, shown: str | None) -> None:
    """What a guest sends is one line of printable ASCII, its quotes and backslashes escaped; None: it was refused."""
    guest = served.guests["blue-6"]
    mark = target[:6].decode()
    before = len(served.agent.logged('" 400 '))
    status, _ = guest.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    if shown is None:
        assert status == 400
        served.agent.until_logged('" 400 ', before + 1)
        assert served.upstream.asked(mark) == []
    else:
        assert status == 200
        assert line(served, mark)["target"] == shown
    log = served.agent.service.log_path.read_bytes()
    assert re.search(rb"[^\x20-\x7e\n]", log) is None
    assert b"\nforged" not in log
