"""What becomes of the core's events: misses are passed on first, the rest makes log lines that help."""

from __future__ import annotations

import errno
import ipaddress
import logging
from typing import Any

import pytest

from fastmeta import _core
from fastmeta.events import MAX_SHOWN, EventReader, printable, request_line
from fastmeta.models import Scope, ScopeKind, pack_address

BLUE = "11111111-1111-4111-8111-111111111111"
ADDRESS = pack_address(ipaddress.ip_address("10.0.0.5"))
SCOPES = {1: Scope(ScopeKind.NETWORK, BLUE)}


def request(**changes: Any) -> dict[str, Any]:
    return {
        "scope": 1,
        "address": ADDRESS,
        "interface": 0,
        "whole": True,
        "instance_id": "instance-1",
        "method": b"GET",
        "target": b"/latest/meta-data/",
        "status": 200,
        "bytes": 123,
        "total_us": 4321,
        "parked_us": 1000,
        "upstream_us": 3210,
        "upstream_status": 200,
    } | changes


class Core:
    def __init__(self, *events: tuple[Any, ...]) -> None:
        self.waiting = list(events)

    def events(self) -> list[tuple[Any, ...]]:
        events, self.waiting = self.waiting, []
        return events


class Reader:
    def __init__(self, *events: tuple[Any, ...]) -> None:
        self.core = Core(*events)
        self.told: list[Any] = []
        self.reader = EventReader(
            self.core,
            scopes=SCOPES,
            upstream="nova.example.org:8775",
            on_miss=lambda *miss: self.told.append(("miss", *miss)),
            on_upstream_away=lambda: self.told.append("away"),
            on_listener_closed=lambda listener: self.told.append(("closed", listener)) or f"place {listener}",
            place=lambda listener: f"place {listener}" if listener == 7 else None,
        )

    def read(self, *events: tuple[Any, ...]) -> None:
        self.core.waiting += events
        self.reader.read()


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_misses_come_before_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    seen_by_then: list[int] = []
    reader.reader._on_miss = lambda *miss: seen_by_then.append(len(caplog.records))
    reader.read((_core.EVENT_REQUEST, request()), (_core.EVENT_MISS, 1, ADDRESS, 0))
    assert seen_by_then == [0]
    assert len(caplog.records) == 1


def test_miss_is_passed_on() -> None:
    reader = Reader()
    reader.read((_core.EVENT_MISS, 1, ADDRESS, 4))
    assert reader.told == [("miss", 1, ADDRESS, 4)]


def test_request_line() -> None:
    assert request_line(request(), SCOPES) == (
        f'network {BLUE} 10.0.0.5 instance instance-1 "GET /latest/meta-data/" 200 123 bytes 4.3 ms '
        "(waited 1.0, Nova 3.2, answered 200)"
    )
    unknown = request_line(request(instance_id="", upstream_status=0, status=404, scope=9), SCOPES)
    assert unknown.startswith("- 10.0.0.5 instance - ")
    assert unknown.endswith("answered -)")
    assert request_line(request(whole=False), SCOPES).endswith("answered 200), cut off")
    link_local = request(address=ipaddress.IPv6Address("fe80::5").packed, interface=7)
    assert request_line(link_local, SCOPES).startswith(f"network {BLUE} fe80::5%7 instance instance-1 ")


def test_guests_cannot_write_into_the_log() -> None:
    line = request_line(request(method="G\nET", target=b'/"\x1b[31m\xff\\' + b"a" * 1000), SCOPES)
    assert '"G\\x0aET /\\x22\\x1b[31m\\xff\\x5caaa' in line
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 500


def test_printable_cuts() -> None:
    assert printable(b"a" * MAX_SHOWN) == "a" * MAX_SHOWN
    assert printable("a" * 1000) == "a" * MAX_SHOWN + "..."
    assert printable("\udcff") == "\\xff"


def test_closed_listener_is_named(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.read((_core.EVENT_LISTENER_CLOSED, 3))
    assert "closed: place 3" in caplog.text


def test_every_problem_has_a_text_that_helps(caplog: pytest.LogCaptureFixture) -> None:
    codes = {name: getattr(_core, name) for name in dir(_core) if name.startswith("PROBLEM_")}
    assert len(codes) > 10
    for name, code in codes.items():
        caplog.clear()
        Reader().read((_core.EVENT_PROBLEM, code, 0, 0, 0, b""))
        assert "of the core (" not in caplog.text, name
        assert f"problem {code} of the core" not in caplog.text, name
        if name.startswith("PROBLEM_UPSTREAM"):
            assert "nova.example.org:8775" in caplog.text, name


def test_unknown_problem_is_said_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    Reader().read((_core.EVENT_PROBLEM, 4711, 0, 0, 0, b""))
    assert "problem 4711 of the core" in caplog.text


def test_problem_says_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.read(
        (_core.EVENT_PROBLEM, _core.PROBLEM_ACCEPT, errno.ECONNABORTED, 1, 7, b""),
        (_core.EVENT_PROBLEM, _core.PROBLEM_ACCEPT, 0, 1, 0, b""),
    )
    assert "ECONNABORTED" in caplog.messages[0]
    assert "[place 7]" in caplog.messages[0]
    assert f"[network {BLUE}]" in caplog.messages[1]


def test_the_same_problem_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    for _ in range(50):
        reader.read((_core.EVENT_PROBLEM, _core.PROBLEM_PARKED_FULL, 0, 0, 0, b""))
    assert len(caplog.records) == 1


def test_an_upstream_that_goes_comes_and_goes_is_news_each_time(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    away = (_core.EVENT_PROBLEM, _core.PROBLEM_UPSTREAM_AWAY, errno.ECONNREFUSED, 0, 0, b"")
    back = (_core.EVENT_PROBLEM, _core.PROBLEM_UPSTREAM_BACK, 0, 0, 0, b"")
    reader.read(away, away, back, away, back)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 2
    assert [record.levelno for record in caplog.records].count(logging.INFO) == 2
    assert reader.told.count("away") == 3
