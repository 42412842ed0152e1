"""Which servers the core is told of, and when; and what is loaded for them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from fastmeta.conf.tls import TlsOptions
from fastmeta.conf.upstreams import parse_upstreams
from fastmeta.exceptions import ConfigError, CoreError
from fastmeta.upstreams import names as names_module
from fastmeta.upstreams import servers as servers_module
from fastmeta.upstreams.servers import MAX_SERVERS, Prepared, Server, Upstreams

TLS = TlsOptions(
    "/ca.pem", insecure=False, certificate="/our.pem", private_key="/our.key", content={"auth_ca_cert": "1"}
)


class Context:
    """Without a certificate of ours."""

    expires: float | None = None


class Table:
    """Remembers what the core is told."""

    def __init__(self) -> None:
        self.told: list[list[Server]] = []

    def set_upstreams(self, servers: Sequence[Server]) -> None:
        assert len(servers) == len({server[0] for server in servers}) <= MAX_SERVERS
        self.told.append(list(servers))

    @property
    def places(self) -> list[tuple[str, int, str]]:
        """Of what was told last: address or path, TCP port, Host header."""
        return [server[1:4] for server in self.told[-1]]

    @property
    def numbers(self) -> list[int]:
        return [server[0] for server in self.told[-1]]


def prepared(*texts: str, context: object = None) -> Prepared:
    return Prepared(parse_upstreams(texts), None, context)


def settings(*texts: str, tls: TlsOptions | None = None) -> Any:
    return SimpleNamespace(upstreams=parse_upstreams(texts), tls=tls)


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


@dataclass
class Rig:
    upstreams: Upstreams
    table: Table
    made: list[dict[str, Any]]

    def take(self, *texts: str, context: object = None) -> None:
        self.upstreams.take(prepared(*texts, context=context))


def run(test: Callable[[Rig], Awaitable[None]]) -> Table:
    """No task is left after it."""
    table = Table()

    async def body() -> None:
        made: list[dict[str, Any]] = []

        def make(**options: Any) -> Context:
            made.append(options)
            return Context()

        upstreams = Upstreams(table, make)
        await test(Rig(upstreams, table, made))
        await upstreams.stop()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(body())
    return table


class Replies:
    """Replies of the resolver for each name, one after the other, the last for ever. A reply is addresses or an
    error."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, **replies: Sequence[Sequence[str] | Exception]
    ) -> None:
        self.replies = {name: list(given) for name, given in replies.items()}
        self.asked: list[str] = []
        monkeypatch.setattr(names_module.socket, "getaddrinfo", self)
        monkeypatch.setattr(names_module, "FIRST_PAUSE", 0.005)

    def __call__(self, host: str, *arguments: object, **keywords: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        assert threading.current_thread() is not threading.main_thread()
        left = self.replies[host]
        reply = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(reply, Exception):
            raise reply
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in reply]


AWAY = socket.gaierror(-3, "Temporary failure in name resolution")


def test_addresses_and_sockets_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = Replies(monkeypatch)

    async def test(rig: Rig) -> None:
        context = object()
        rig.take("http://192.0.2.1:8775", "https://[2001:db8::1]", "unix:/run/nova", context=context)
        assert rig.table.told == [
            [
                (1, "192.0.2.1", 8775, "192.0.2.1:8775", None, ""),
                (2, "2001:db8::1", 443, "[2001:db8::1]", context, "2001:db8::1"),
                (3, "/run/nova", 0, "localhost", None, ""),
            ]
        ]
        assert [rig.upstreams.text(number) for number in (1, 2, 3, 7)] == [
            "http://192.0.2.1:8775",
            "https://[2001:db8::1]",
            "unix:/run/nova",
            "server 7",
        ]
        every = "http://192.0.2.1:8775, https://[2001:db8::1], unix:/run/nova"
        assert rig.upstreams.text(0) == str(rig.upstreams) == every
        assert len(rig.upstreams) == 3

    run(test)
    assert replies.asked == []


def test_a_real_name() -> None:
    async def test(rig: Rig) -> None:
        rig.take("http://localhost:8775")
        await until(lambda: rig.table.told)
        assert {"127.0.0.1", "::1"} & {where for where, _, _ in rig.table.places}
        assert {place[1:] for place in rig.table.places} == {(8775, "localhost:8775")}

    run(test)


def test_all_addresses_of_a_name_are_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; those that need a link are not usable."""
    Replies(monkeypatch, nova=[["192.0.2.1", "192.0.2.1", "fe80::1%eth0", "2001:db8::1"]])

    async def test(rig: Rig) -> None:
        rig.take("https://nova:8775")
        await until(lambda: rig.table.told)
        assert [server[1] for server in rig.table.told[0]] == ["192.0.2.1", "2001:db8::1"]
        assert {server[3:] for server in rig.table.told[0]} == {("nova:8775", None, "nova")}
        assert [rig.upstreams.text(number) for number in rig.table.numbers] == [
            "https://nova:8775 (192.0.2.1)",
            "https://nova:8775 (2001:db8::1)",
        ]

    run(test)


def test_one_name_in_two_upstreams_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = Replies(monkeypatch, nova=[["192.0.2.1"]])

    async def test(rig: Rig) -> None:
        rig.take("http://nova:1", "http://nova:2")
        await until(lambda: rig.table.told)
        assert rig.table.places == [("192.0.2.1", 1, "nova:1"), ("192.0.2.1", 2, "nova:2")]
        assert replies.asked == ["nova"]

    run(test)


def test_a_name_that_cannot_be_resolved_yet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others serve. It is said once, and once that it is over."""
    caplog.set_level("INFO")
    replies = Replies(monkeypatch, nova=[AWAY, [], UnicodeError("label too long"), ["192.0.2.1"]])

    async def test(rig: Rig) -> None:
        rig.take("http://nova", "http://192.0.2.9")
        assert rig.table.places == [("192.0.2.9", 80, "192.0.2.9")]
        await until(lambda: len(rig.table.told) == 2)
        assert rig.table.places == [("192.0.2.1", 80, "nova"), ("192.0.2.9", 80, "192.0.2.9")]
        assert replies.asked == ["nova"] * 4
        assert caplog.text.count("the name nova of Nova's metadata API cannot be resolved") == 1
        assert "Temporary failure" in caplog.text
        assert "can be resolved again" in caplog.text

    run(test)


def test_a_name_that_cannot_be_resolved_any_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its addresses stay; it is not said a thousand times."""
    replies = Replies(monkeypatch, nova=[["192.0.2.1"], AWAY])
    monkeypatch.setattr(names_module, "FRESH_FOR", 0.0)
    monkeypatch.setattr(names_module, "AGED_AFTER", 0.0)
    monkeypatch.setattr(names_module, "LONGEST_PAUSE", 0.0)

    async def test(rig: Rig) -> None:
        rig.take("http://nova")
        await until(lambda: len(replies.asked) > 50)
        assert [server[1] for server in rig.table.told[-1]] == ["192.0.2.1"]
        assert len(rig.table.told) == 1
        assert caplog.text.count("cannot be resolved") == 1
        assert "the addresses that it had are used on" in caplog.text

    run(test)


def test_a_name_server_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither other names, nor the loop's executor, nor the end."""
    release = threading.Event()
    given_up: list[str] = []
    replies = Replies(monkeypatch, good=[["192.0.2.1"]])

    def ask(host: str, *arguments: object, **keywords: object) -> list[tuple[Any, ...]]:
        if host != "good" and not release.wait(30):
            given_up.append(host)
        return replies(host)

    monkeypatch.setattr(names_module.socket, "getaddrinfo", ask)

    async def test(rig: Rig) -> None:
        rig.take(*(f"http://hangs{number}" for number in range(15)), "http://good")
        await until(lambda: rig.table.told)
        assert rig.table.places == [("192.0.2.1", 80, "good")]
        assert await asyncio.to_thread(lambda: 7) == 7

    try:
        run(test)
        assert not given_up  # it has ended, and they hang still
    finally:
        release.set()


def test_a_name_is_resolved_again_when_it_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order of the answer: who stays keeps number and place."""
    monkeypatch.setattr(names_module, "FRESH_FOR", 0.0)
    monkeypatch.setattr(names_module, "AGED_AFTER", 0.02)
    one, two, three = (f"192.0.2.{number}" for number in (1, 2, 3))
    Replies(monkeypatch, nova=[[one, two], [two, one], [three, two], [three, two, one]])

    async def test(rig: Rig) -> None:
        rig.take("http://nova")
        await until(lambda: len(rig.table.told) == 3)
        assert [[(server[0], server[1]) for server in told] for told in rig.table.told] == [
            [(1, one), (2, two)],
            [(2, two), (3, three)],
            [(2, two), (3, three), (1, one)],
        ]

    run(test)


def test_nothing_is_asked_while_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = Replies(monkeypatch, nova=[["192.0.2.1"]])
    monkeypatch.setattr(names_module, "FRESH_FOR", 0.0)

    async def test(rig: Rig) -> None:
        rig.take("http://nova")
        await until(lambda: rig.table.told)
        await asyncio.sleep(0.1)
        assert replies.asked == ["nova"]

    run(test)


@pytest.mark.parametrize("number", [2, 0])
def test_a_name_is_resolved_again_while_a_server_of_it_is_away(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """But not before the answer is a little old; and no other name, unless all are away. Until it is back."""
    monkeypatch.setattr(names_module, "FRESH_FOR", 0.2)
    replies = Replies(monkeypatch, nova=[["192.0.2.1"], ["192.0.2.1", "192.0.2.7"]], other=[["192.0.2.2"]])

    async def test(rig: Rig) -> None:
        rig.take("http://192.0.2.3", "http://nova", "http://other")
        await until(lambda: len(rig.upstreams) == 3)
        by_text = {rig.upstreams.text(found): found for found in rig.table.numbers}
        gone = by_text["http://nova (192.0.2.1)"] if number else 0
        rig.upstreams.away(gone)
        rig.upstreams.away(gone)
        await asyncio.sleep(0.1)
        assert sorted(replies.asked) == ["nova", "other"]
        await until(lambda: replies.asked.count("nova") >= 3)
        assert (replies.asked.count("other") > 1) is not bool(number)
        assert len(rig.upstreams) == 4
        for found in rig.table.numbers:
            rig.upstreams.back(found)
        await asyncio.sleep(0.02)
        count = len(replies.asked)
        await asyncio.sleep(0.3)
        assert len(replies.asked) <= count + 2  # what was on its way

    run(test)


def test_who_else_serves() -> None:
    async def test(rig: Rig) -> None:
        rig.take("http://192.0.2.1", "http://192.0.2.2", "http://192.0.2.3")
        assert rig.upstreams.others(1) == 2
        rig.upstreams.away(1)
        rig.upstreams.away(2)
        rig.upstreams.away(99)
        assert [rig.upstreams.others(number) for number in (1, 2, 3)] == [1, 1, 0]
        rig.upstreams.back(1)
        assert rig.upstreams.others(3) == 1
        rig.upstreams.away(0)
        assert rig.upstreams.others(1) == 0
        rig.take("http://192.0.2.1", "http://192.0.2.4")
        assert rig.upstreams.others(1) == 1

    run(test)


def test_moving() -> None:
    """Only what is another is told; who stays keeps its number, and who comes again has the one it had."""

    async def test(rig: Rig) -> None:
        rig.take("http://192.0.2.1")
        rig.take("http://192.0.2.1")
        rig.take("http://192.0.2.2", "http://192.0.2.1")
        rig.take("http://192.0.2.2")
        rig.take("http://192.0.2.1", "http://192.0.2.1:81", "https://192.0.2.1")

    table = run(test)
    assert [[server[:3] for server in told] for told in table.told] == [
        [(1, "192.0.2.1", 80)],
        [(2, "192.0.2.2", 80), (1, "192.0.2.1", 80)],
        [(2, "192.0.2.2", 80)],
        [(1, "192.0.2.1", 80), (3, "192.0.2.1", 81), (4, "192.0.2.1", 443)],
    ]


def test_another_context_is_told() -> None:
    async def test(rig: Rig) -> None:
        first, second = object(), object()
        rig.take("https://192.0.2.1", "http://192.0.2.2", context=first)
        rig.take("https://192.0.2.1", "http://192.0.2.2", context=second)
        assert [[server[4] for server in told] for told in rig.table.told] == [[first, None], [second, None]]

    run(test)


def test_moving_to_a_name_goes_on_with_what_there_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is resolved. What is not wanted any more is not asked for any more."""
    replies = Replies(monkeypatch, old=[["192.0.2.1"]], new=[AWAY, AWAY, ["192.0.2.2"]], never=[AWAY])

    async def test(rig: Rig) -> None:
        rig.take("http://old", "http://never")
        await until(lambda: rig.table.told)
        rig.take("http://new")
        await asyncio.sleep(0.002)
        await until(lambda: len(rig.table.told) == 2)
        assert replies.asked.count("new") == 3
        assert rig.table.places == [("192.0.2.2", 80, "new")]
        count = replies.asked.count("never")
        await asyncio.sleep(0.05)
        assert replies.asked.count("never") == count

    run(test)


def test_moving_to_another_port_of_a_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, without a question."""
    replies = Replies(monkeypatch, nova=[["192.0.2.1"]])

    async def test(rig: Rig) -> None:
        rig.take("http://nova")
        await until(lambda: rig.table.told)
        rig.take("http://nova:81")
        assert rig.table.places == [("192.0.2.1", 81, "nova:81")]
        assert replies.asked == ["nova"]

    run(test)


def test_too_many_addresses_of_a_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(names_module, "FRESH_FOR", 0.0)
    monkeypatch.setattr(names_module, "AGED_AFTER", 0.0)
    replies = Replies(
        monkeypatch, nova=[[f"192.0.2.{n}" for n in range(100)], [f"192.0.2.{n}" for n in range(99, -1, -1)]]
    )

    async def test(rig: Rig) -> None:
        rig.take("http://nova")
        await until(lambda: len(replies.asked) > 20)
        assert [where for where, _, _ in rig.table.places] == [
            f"192.0.2.{n}" for n in range(names_module.MAX_ADDRESSES)
        ]
        assert len(rig.table.told) == 1
        assert caplog.text.count("nova has 100 addresses, of which 16 are used") == 1

    run(test)


def test_too_many_servers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Each upstream has a part; what is not used is said."""
    replies = {f"nova{n}": [[f"192.0.{n}.{m}" for m in range(16)]] for n in range(15)}
    Replies(monkeypatch, **replies)

    async def test(rig: Rig) -> None:
        rig.take(*(f"http://{name}" for name in replies), "http://192.0.99.99")
        await until(lambda: len(rig.upstreams) == MAX_SERVERS)
        await until(lambda: len({host for _, _, host in rig.table.places}) == 16)
        assert all(sum(host == name for _, _, host in rig.table.places) >= 4 for name in replies)
        await until(
            lambda: "241 addresses of Nova's metadata API are known, of which 64 are used" in caplog.text
        )
        (line,) = (text for text in caplog.messages if text.startswith("241 addresses"))
        assert line.count("(192.0.") == 241 - 64
        rig.upstreams._tell()
        assert sum(text.startswith("241 addresses") for text in caplog.messages) == 1

    run(test)


def test_numbers_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "MAX_REMEMBERED", 5)

    async def test(rig: Rig) -> None:
        for number in range(1, 100):
            rig.take(f"http://192.0.2.{number}", "http://192.0.3.1")
            first, second = rig.table.numbers
            assert rig.upstreams.text(first) == f"http://192.0.2.{number}"
            assert (rig.upstreams.text(second), second) == ("http://192.0.3.1", 2)
        assert len(rig.upstreams._texts) == len(rig.upstreams._numbers) == 5

    run(test)


def test_certificates_are_loaded_when_they_are_others() -> None:
    """The same object as long as nothing is another, so that connections may be kept; also over a reading that came to
    nothing."""

    async def test(rig: Rig) -> None:
        upstreams = rig.upstreams
        first = upstreams.prepare(settings("https://192.0.2.1", tls=TLS))
        assert rig.made == [
            {"ca_file": "/ca.pem", "insecure": False, "certificate": "/our.pem", "private_key": "/our.key"}
        ]
        upstreams.take(first)
        assert upstreams.prepare(settings("https://192.0.2.2", tls=TLS)).context is first.context
        other = replace(TLS, content={"auth_ca_cert": "2"})
        second = upstreams.prepare(settings("https://192.0.2.1", tls=other))
        assert second.context not in (None, first.context)
        assert upstreams.prepare(settings("https://192.0.2.1", tls=TLS)).context is first.context
        upstreams.take(second)
        assert upstreams.prepare(settings("https://192.0.2.1", tls=other)).context is second.context
        upstreams.take(upstreams.prepare(settings("http://192.0.2.1")))
        assert len(rig.made) == 2
        assert [[server[4] for server in told] for told in rig.table.told] == [
            [first.context],
            [second.context],
            [None],
        ]

    run(test)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/our.key: bad password read", "nova_client_priv_key = /our.key: /our.key: bad password read"),
        (
            "/our.pem and /our.key do not match",
            "nova_client_cert = /our.pem, nova_client_priv_key = /our.key: /our.pem and",
        ),
        ("no memory", "TLS: no memory"),
    ],
)
def test_certificates_that_cannot_be_loaded(text: str, shown: str) -> None:
    """Option, file, reason."""

    def fails(**options: object) -> NoReturn:
        raise CoreError(text)

    with pytest.raises(ConfigError) as caught:
        Upstreams(Table(), fails).prepare(settings("https://192.0.2.1", tls=TLS))
    assert str(caught.value).startswith(shown)
