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


class Names:
    """So many servers, numbered from 1; who is away is told to both."""

    def __init__(self, told: list[Any], servers: int) -> None:
        self.told = told
        self.servers = servers
        self.gone: set[int] = set()

    def __len__(self) -> int:
        return self.servers

    def text(self, number: int) -> str:
        return f"http://nova.example.org:8775 (192.0.2.{number})"

    def others(self, number: int) -> int:
        return len(set(range(1, self.servers + 1)) - self.gone - {number})

    def away(self, number: int) -> None:
        self.told.append(("away", number))
        self.gone.add(number)

    def back(self, number: int) -> None:
        self.told.append(("back", number))
        self.gone.discard(number)


def problem(
    code: int, number: int = 0, *, scope: int = 0, listener: int = 0, upstream: int = 0
) -> tuple[Any, ...]:
    return (_core.EVENT_PROBLEM, code, number, scope, listener, b"", upstream)


class Reader:
    def __init__(self, *events: tuple[Any, ...], servers: int = 1) -> None:
        self.core = Core(*events)
        self.told: list[Any] = []
        self.reader = EventReader(
            self.core,
            scopes=SCOPES,
            upstreams=Names(self.told, servers),
            on_miss=lambda *miss: self.told.append(("miss", *miss)),
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
        Reader(servers=2).read(problem(code, upstream=1))
        assert "of the core (" not in caplog.text, name
        assert f"problem {code} of the core" not in caplog.text, name
        assert len(caplog.records) == 1, name
        if name.startswith("PROBLEM_UPSTREAM") and name != "PROBLEM_UPSTREAM_SOME_BACK":
            assert "nova.example.org:8775" in caplog.text, name


def test_unknown_problem_is_said_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    Reader().read(problem(4711))
    assert "problem 4711 of the core" in caplog.text


def test_problem_says_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.read(
        problem(_core.PROBLEM_ACCEPT, errno.ECONNABORTED, scope=1, listener=7),
        problem(_core.PROBLEM_ACCEPT, scope=1),
    )
    assert "ECONNABORTED" in caplog.messages[0]
    assert "[place 7]" in caplog.messages[0]
    assert f"[network {BLUE}]" in caplog.messages[1]


def test_the_same_problem_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    for _ in range(50):
        reader.read(problem(_core.PROBLEM_PARKED_FULL))
    assert len(caplog.records) == 1


def test_an_upstream_that_goes_comes_and_goes_is_news_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """With one server, what is said of all of them is not said besides."""
    reader = Reader()
    away = problem(_core.PROBLEM_UPSTREAM_AWAY, errno.ECONNREFUSED, upstream=1)
    back = problem(_core.PROBLEM_UPSTREAM_BACK, upstream=1)
    reader.read(
        away, problem(_core.PROBLEM_UPSTREAM_ALL_AWAY), away, back, problem(_core.PROBLEM_UPSTREAM_SOME_BACK)
    )
    reader.read(away, back)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO] * 2
    assert "(192.0.2.1) is away, guests wait up to park_timeout" in caplog.messages[0]
    assert ": Connection refused (ECONNREFUSED); does it run, and is it there (nova_m" in caplog.messages[0]
    assert caplog.messages[0].endswith("?")
    assert caplog.messages[1].endswith("(192.0.2.1) answers again")
    one = [("away", 1), ("away", 1), ("back", 1), ("away", 1), ("back", 1)]
    assert [told for told in reader.told if told != ("away", 0)] == one


def test_one_of_several_servers(caplog: pytest.LogCaptureFixture) -> None:
    """Who is told by name: that others serve as long as there are any, that guests wait when there are none. Each
    server's coming and going is news, also when another one's has just been said."""
    reader = Reader(servers=2)
    first, second = (problem(_core.PROBLEM_UPSTREAM_AWAY, errno.ECONNREFUSED, upstream=n) for n in (1, 2))
    all_away, some_back = (
        problem(_core.PROBLEM_UPSTREAM_ALL_AWAY),
        problem(_core.PROBLEM_UPSTREAM_SOME_BACK, upstream=2),
    )
    for _ in range(2):
        reader.read(first, second, all_away, some_back)
        reader.read(*(problem(_core.PROBLEM_UPSTREAM_BACK, upstream=n) for n in (2, 1)))
    assert [record.levelname for record in caplog.records] == [
        "WARNING",
        "WARNING",
        "ERROR",
        "INFO",
        "INFO",
        "INFO",
    ] * 2
    texts = caplog.messages
    assert texts[0].endswith("(192.0.2.1) is away, others serve: Connection refused (ECONNREFUSED)")
    assert texts[1].endswith("(192.0.2.2) is away: Connection refused (ECONNREFUSED)")
    assert texts[2].startswith("all servers of Nova's metadata API are away (")
    assert "guests wait up to park_timeout" in texts[2]
    assert texts[3] == "a server of Nova's metadata API answers again, guests are served"
    assert ("away", 0) in reader.told


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (10, "look at the clocks"),
        (20, "auth_ca_cert must be"),
        (62, "it must be for the name"),
        (1, "look at the certificate there, and at auth_ca_cert"),
    ],
)
def test_a_certificate(caplog: pytest.LogCaptureFixture, error: int, advice: str) -> None:
    """What is wrong with it, and where to look. The number is none of errno's."""
    Reader().read(problem(_core.PROBLEM_UPSTREAM_CERTIFICATE, error, upstream=1))
    text = _core.certificate_error_text(error)
    assert f"(192.0.2.1) is not accepted, nothing is sent there: {text} ({error}); {advice}" in caplog.text
    assert "(E" not in caplog.text


def test_tls_that_cannot_begin(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.read(
        problem(_core.PROBLEM_UPSTREAM_TLS, upstream=1),
        problem(_core.PROBLEM_UPSTREAM_TLS, 167772294, upstream=2),
    )
    assert "the connection was closed in the middle of it; does it speak TLS 1.2" in caplog.messages[0]
    assert _core.tls_error_text(167772294) in caplog.messages[1]
    assert "nova_client_cert" in caplog.messages[1]


def test_tls_that_does_not_work_is_no_question_of_the_place(caplog: pytest.LogCaptureFixture) -> None:
    """It runs, and it is there; the line before said what is wrong."""
    away = problem(_core.PROBLEM_UPSTREAM_AWAY, errno.EPROTO, upstream=1)
    for servers in (1, 2):
        caplog.clear()
        Reader(servers=servers).read(away)
        assert "is away" in caplog.text
        assert ": TLS with it does not work, a line about its certificate" in caplog.text
        assert "does it run" not in caplog.text
        assert "EPROTO" not in caplog.text


@pytest.mark.parametrize(
    ("alert", "advice"),
    [
        (42, "look at nova_client_cert, and at the log there"),
        (45, "renew it, or look at the clocks"),
        (48, "an authority that Nova's side trusts must have issued it"),
        (116, "Nova's side wants one: set nova_client_cert and nova_client_priv_key"),
    ],
)
def test_our_certificate_is_refused(caplog: pytest.LogCaptureFixture, alert: int, advice: str) -> None:
    """Alerts of the other side about a certificate are about ours, never about its own."""
    _core.TlsContext(insecure=True)  # has OpenSSL load its texts, as an agent has that gets an alert
    code = 20 << 23 | 1000 + alert  # ERR_PACK of ERR_LIB_SSL
    Reader().read(problem(_core.PROBLEM_UPSTREAM_TLS, code, upstream=1))
    assert "refuses us for our certificate (nova_client_cert), or because there is none" in caplog.text
    assert f": {_core.tls_error_text(code)}; {advice}" in caplog.text
    assert "alert" in caplog.text


def test_an_answer_that_never_came(caplog: pytest.LogCaptureFixture) -> None:
    """A server that wants TLS closes when it gets HTTP."""
    silent = problem(_core.PROBLEM_UPSTREAM_SILENT, upstream=1)
    Reader().read(silent)
    assert (
        "its own log may say why; or does it speak TLS there (nova_metadata_protocol = https" in caplog.text
    )


def test_the_next_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Of each server once."""
    reader = Reader(servers=2)
    reader.read(*(problem(_core.PROBLEM_NEXT_SECRET, upstream=number) for number in (1, 2, 1, 2)))
    assert ["(192.0.2.1) accepts next_shared_secret" in text for text in caplog.messages] == [True, False]
    assert all("put it into metadata_proxy_shared_secret" in text for text in caplog.messages)
