"""The rules of identity safety, as far as they are the resolver's. Each test fails when its rule is
broken."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fastmeta.exceptions import LookupMalformedError, LookupUnavailableError
from fastmeta.lookup import resolver as resolver_module
from fastmeta.lookup.parts import Heard, ignored
from fastmeta.lookup.resolver import Resolver
from fastmeta.models import Answer, Change, Question, Scope, ScopeKind, pack_address

BLUE = "11111111-1111-4111-8111-111111111111"
GREEN = "22222222-2222-4222-8222-222222222222"
ROUTER = "33333333-3333-4333-8333-333333333333"
PROJECT = "a" * 32
A5, A6, A7 = (f"10.0.0.{n}" for n in (5, 6, 7))


def port(number: int, *addresses: str, network: str = BLUE, **changes: Any) -> dict[str, Any]:
    item = {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "network_id": network,
        "device_id": f"instance-{number}",
        "device_owner": "compute:nova",
        "project_id": PROJECT,
        "mac_address": f"fa:16:3e:00:00:{number:02x}",
        "fixed_ips": [{"ip_address": address} for address in addresses],
    }
    return item | changes


def packed(address: str) -> bytes:
    return pack_address(ipaddress.ip_address(address))


class Table:
    """What the core would be told: (what, scope, address, instance or None, generation)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, str | None, str | None, int]] = []
        self.keywords: list[dict[str, Any]] = []
        self.interfaces: list[int] = []
        """Of the identities."""
        self.revoked_interfaces: list[int] = []
        self.refuses: set[str] = set()
        self.renewals: list[tuple[int, float]] = []

    def _note(self, what: str, scope: int, address: bytes | None, generation: int, **keywords: Any) -> None:
        shown = None if address is None else str(resolver_module.unpack_address(address))
        self.calls.append((what, scope, shown, keywords.get("instance_id"), generation))
        self.keywords.append(keywords)

    def put_identity(
        self, scope: int, address: bytes, interface: int, *, generation: int, **rest: Any
    ) -> None:
        if rest["instance_id"] in self.refuses:
            raise ValueError("not a header's value")
        self.interfaces.append(interface)
        self._note("identity", scope, address, generation, **rest)

    def put_absent(self, scope: int, address: bytes, interface: int, *, generation: int, **rest: Any) -> None:
        self._note("absent", scope, address, generation, **rest)

    def put_refused(self, scope: int, address: bytes, interface: int, *, generation: int) -> None:
        self._note("refused", scope, address, generation)

    def revoke(self, scope: int, generation: int, address: bytes | None = None, interface: int = 0) -> None:
        self._note("revoke", scope, address, generation)
        self.revoked_interfaces.append(interface)

    def renew(self, scope: int, before: float) -> None:
        self.renewals.append((scope, before))

    def shorten(self, scope: int, ttl_ms: int) -> None:
        self._note("shorten", scope, None, ttl_ms)

    def answers(self) -> list[tuple[str, str | None, str | None]]:
        return [
            (what, address, instance)
            for what, _, address, instance, _ in self.calls
            if what not in ("revoke", "shorten")
        ]


class Source:
    """Answers with what its replies say, the last of them for ever; counts the questions."""

    def __init__(self, *replies: Answer | Exception | Callable[[], Awaitable[Answer]]) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Scope, list[str]]] = []
        self.in_flight: dict[Scope, int] = {}
        self.most_in_flight = 0
        self.wholes: list[Scope] = []
        self.whole_replies: list[Answer | Exception | Callable[[], Awaitable[Answer]] | None] = [None]
        self.heard: Heard = ignored

    async def start(self, on_change: Any, on_announcing: Any) -> None: ...

    async def stop(self) -> None: ...

    async def all_ports(self, scope: Scope, most: int, heard: Heard = ignored) -> Answer | None:
        """By what whole_replies says, as for ports."""
        self.wholes.append(scope)
        reply = self.whole_replies.pop(0) if len(self.whole_replies) > 1 else self.whole_replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if reply is None or isinstance(reply, Answer) else await reply()

    async def ports(self, scope: Scope, questions: Sequence[Question], heard: Heard = ignored) -> Answer:
        self.heard = heard
        self.asked.append((scope, [str(question.address) for question in questions]))
        self.in_flight[scope] = self.in_flight.get(scope, 0) + 1
        self.most_in_flight = max(self.most_in_flight, *self.in_flight.values())
        try:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            if isinstance(reply, Exception):
                raise reply
            return reply if isinstance(reply, Answer) else await reply()
        finally:
            self.in_flight[scope] -= 1


def answer(*items: object, networks: Sequence[str] = (BLUE,)) -> Answer:
    return Answer.from_api(networks, items)


class Bench:
    """A resolver for network blue (1), network green (2) and a router (3)."""

    def __init__(self, source: Source, **settings: Any) -> None:
        self.table = Table()
        self.source = source
        defaults: dict[str, Any] = {
            "identity_ttl": 10.0,
            "negative_ttl": 2.0,
            "lookup_timeout": 1.0,
            "park_timeout": 8.0,
            "first_pause": 0.001,
        }
        self.resolver = Resolver(self.table, source, **(defaults | settings))
        self.resolver.add_scope(1, Scope(ScopeKind.NETWORK, BLUE))
        self.resolver.add_scope(2, Scope(ScopeKind.NETWORK, GREEN))
        self.resolver.add_scope(3, Scope(ScopeKind.ROUTER, ROUTER))

    def miss(self, address: str, scope: int = 1, interface: int = 0) -> None:
        self.resolver.miss(scope, packed(address), interface)

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.table.calls, self.source.asked)
            await asyncio.sleep(0.001)

    async def answered(self, count: int = 1) -> list[tuple[str, str | None, str | None]]:
        await self.until(lambda: len(self.table.answers()) >= count)
        return self.table.answers()


def run(source: Source, test: Callable[[Bench], Awaitable[None]], **settings: Any) -> Bench:
    async def body() -> Bench:
        bench = Bench(source, **settings)
        await test(bench)
        await bench.resolver.stop()
        assert len(asyncio.all_tasks()) == 1  # nothing is left behind
        return bench

    return asyncio.run(body())


def ask(
    reply: Answer | Exception, *addresses: str, scope: int = 1
) -> list[tuple[str, str | None, str | None]]:
    """What becomes of misses of these addresses, when the source answers so."""

    async def test(bench: Bench) -> None:
        for address in addresses:
            bench.miss(address, scope)
        await bench.answered(len(addresses))

    return sorted(run(Source(reply), test).table.answers(), key=str)


class TestJudgement:
    def test_exactly_one_port_is_an_identity(self) -> None:
        assert ask(answer(port(1, A5)), A5) == [("identity", A5, "instance-1")]

    def test_no_port_is_nobody(self) -> None:
        assert ask(answer(), A5) == [("absent", A5, None)]

    def test_two_ports_are_nobody_and_concern_that_address_only(self) -> None:
        assert ask(answer(port(1, A5), port(2, A5), port(3, A6)), A5, A6) == [
            ("absent", A5, None),
            ("identity", A6, "instance-3"),
        ]

    def test_the_same_port_twice_is_one(self) -> None:
        assert ask(answer(port(1, A5), port(1, A5)), A5) == [("identity", A5, "instance-1")]

    def test_two_descriptions_of_one_port_are_nobody(self) -> None:
        contradiction = port(1, A5, device_id="instance-9")
        assert ask(answer(port(1, A5), contradiction), A5) == [("absent", A5, None)]

    @pytest.mark.parametrize("changes", [{"device_id": ""}, {"project_id": ""}])
    def test_a_port_of_no_instance_is_nobody(self, changes: dict[str, str]) -> None:
        assert ask(answer(port(1, A5, **changes)), A5) == [("absent", A5, None)]

    def test_a_port_of_another_network_does_not_count(self) -> None:
        assert ask(answer(port(1, A5, network=GREEN)), A5) == [("absent", A5, None)]

    def test_a_network_s_own_id_is_not_the_source_s_to_decide(self) -> None:
        reply = answer(port(1, A5, network=GREEN), networks=[BLUE, GREEN])
        assert ask(reply, A5) == [("absent", A5, None)]

    def test_a_port_with_another_address_does_not_count(self) -> None:
        assert ask(answer(port(1, A6)), A5) == [("absent", A5, None)]

    def test_a_router_without_networks_has_nobody(self) -> None:
        assert ask(answer(port(1, A5), networks=[]), A5, scope=3) == [("absent", A5, None)]

    def test_a_router_has_the_ports_of_its_networks(self) -> None:
        reply = answer(port(1, A5, network=GREEN), port(2, A6, network=ROUTER), networks=[BLUE, GREEN])
        assert ask(reply, A5, A6, scope=3) == [("absent", A6, None), ("identity", A5, "instance-1")]

    def test_the_same_address_in_two_networks_of_a_router_is_nobody(self) -> None:
        reply = answer(port(1, A5), port(2, A5, network=GREEN), networks=[BLUE, GREEN])
        assert ask(reply, A5, scope=3) == [("absent", A5, None)]

    def test_a_malformed_port_refuses_its_address_only(self) -> None:
        reply = answer(port(1, A5), port(2, A5, device_id=None), port(3, A6))
        assert ask(reply, A5, A6) == [("identity", A6, "instance-3"), ("refused", A5, None)]

    def test_a_port_without_readable_addresses_refuses_all(self) -> None:
        reply = answer(port(1, A5), port(2, A6, fixed_ips=None))
        assert ask(reply, A5, A6) == [("refused", A5, None), ("refused", A6, None)]

    def test_an_answer_that_is_none_refuses_all(self) -> None:
        assert ask(LookupMalformedError("no"), A5, A6) == [("refused", A5, None), ("refused", A6, None)]

    def test_an_id_that_the_core_refuses_refuses_the_address(self) -> None:
        async def test(bench: Bench) -> None:
            bench.table.refuses.add("instance-1")
            bench.miss(A5)
            bench.miss(A6)
            assert await bench.answered(2) == [("refused", A5, None), ("identity", A6, "instance-2")]

        run(Source(answer(port(1, A5), port(2, A6))), test)


class TestLinkLocal:
    GUEST = "fe80::f816:3eff:fe00:1"

    def test_is_found_by_the_mac(self) -> None:
        assert ask(answer(port(1, A5), port(2, A6)), self.GUEST) == [("identity", self.GUEST, "instance-1")]

    def test_without_a_mac_is_nobody_and_nobody_is_asked(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss("fe80::99", interface=4)
            assert await bench.answered() == [("absent", "fe80::99", None)]
            assert bench.source.asked == []

        run(Source(answer()), test)

    def test_a_malformed_port_concerns_whoever_is_asked_for_by_mac(self) -> None:
        reply = answer(port(1, A5), port(2, A6, mac_address="?"))
        assert ask(reply, self.GUEST, A5) == [("identity", A5, "instance-1"), ("refused", self.GUEST, None)]

    def test_on_two_interfaces_it_is_asked_for_once_and_answered_twice(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, interface=4)
            bench.miss(self.GUEST, interface=5)
            await bench.answered(2)
            assert [addresses for _, addresses in bench.source.asked] == [[self.GUEST]]

        run(Source(answer(port(1, A5))), test)

    def test_any_change_of_its_network_revokes_it(self) -> None:
        """On its own interface. By a change that names ports, it is found by its port."""

        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, interface=4)
            await bench.answered()
            bench.resolver.changed(Change({BLUE: frozenset()}, ports=frozenset([port(2)["id"]])))
            assert len(bench.table.calls) == 1
            bench.resolver.changed(Change({GREEN: frozenset()}))
            assert len(bench.table.calls) == 1
            bench.resolver.changed(Change({BLUE: frozenset()}))
            assert bench.table.calls[1:] == [("revoke", 1, self.GUEST, None, 1)]
            assert bench.table.revoked_interfaces == [4]

        run(Source(answer(port(1, A5))), test)


class TestGathering:
    def test_one_query_in_flight_and_the_rest_in_the_next(self) -> None:
        async def test(bench: Bench) -> None:
            release = asyncio.Event()

            async def slow() -> Answer:
                await release.wait()
                return answer(*(port(n, f"10.0.1.{n}") for n in range(100)))

            bench.source.replies = [slow]
            bench.miss("10.0.1.0")
            await asyncio.sleep(0.005)
            for n in range(1, 100):
                bench.miss(f"10.0.1.{n}")
                bench.miss(f"10.0.1.{n}")
            await asyncio.sleep(0.005)
            assert len(bench.source.asked) == 1
            release.set()
            answers = await bench.answered(100)
            assert {what for what, _, _ in answers} == {"identity"}
            assert len(answers) == 100
            assert [len(addresses) for _, addresses in bench.source.asked] == [1, 99]
            assert bench.source.most_in_flight == 1

        run(Source(answer()), test)

    def test_no_scope_delays_another(self) -> None:
        async def test(bench: Bench) -> None:
            async def never() -> Answer:
                await asyncio.Event().wait()
                raise AssertionError

            bench.source.replies = [never, answer(port(1, A5, network=GREEN), networks=[GREEN])]
            bench.miss(A5, scope=1)
            await asyncio.sleep(0)
            bench.miss(A5, scope=2)
            await bench.until(lambda: bool(bench.table.calls), 0.5)
            assert bench.table.calls == [("identity", 2, A5, "instance-1", 0)]

        run(Source(answer()), test)

    def test_what_is_waited_for_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resolver_module, "MAX_QUESTIONS_PER_SCOPE", 3)
        monkeypatch.setattr(resolver_module, "MAX_QUESTIONS", 5)

        async def test(bench: Bench) -> None:
            for scope in (1, 2):
                for n in range(10):
                    bench.miss(f"10.0.1.{n}", scope)
            await bench.until(lambda: len(bench.source.asked) == 2)
            assert [len(addresses) for _, addresses in bench.source.asked] == [3, 2]
            # Places that are free again are given again.
            await bench.answered(5)
            bench.miss(A5)
            await bench.answered(6)

        run(Source(answer(networks=[BLUE, GREEN])), test)

    def test_a_scope_that_is_removed_is_not_answered(self) -> None:
        async def test(bench: Bench) -> None:
            async def removes_meanwhile() -> Answer:
                bench.resolver.remove_scope(1)
                return answer(port(1, A5))

            bench.source.replies = [removes_meanwhile]
            bench.miss(A5)
            await bench.until(lambda: len(bench.source.asked) == 1)
            bench.resolver.remove_scope(1)
            bench.miss(A5)
            await asyncio.sleep(0.02)
            assert bench.table.calls == []
            assert len(bench.source.asked) == 1

        run(Source(answer()), test)


class TestTime:
    def test_age_counts_from_when_the_question_was_sent(self) -> None:
        clock = [1000.0]

        async def test(bench: Bench) -> None:
            async def slow() -> Answer:
                clock[0] += 2.5
                return answer(port(1, A5))

            bench.source.replies = [slow]
            bench.miss(A5)
            bench.miss(A6)
            await bench.answered(2)
            for keywords in bench.table.keywords:
                assert keywords["asked_at"] == 1000.0
            assert [keywords["ttl_ms"] for keywords in bench.table.keywords] == [10000, 2000]

        run(Source(answer()), test, clock=lambda: clock[0])

    def test_a_query_that_takes_too_long_is_asked_again(self) -> None:
        async def test(bench: Bench) -> None:
            async def never() -> Answer:
                await asyncio.Event().wait()
                raise AssertionError

            bench.source.replies = [never, never, answer(port(1, A5))]
            bench.miss(A5)
            assert await bench.answered() == [("identity", A5, "instance-1")]
            assert len(bench.source.asked) == 3

        run(Source(answer()), test, lookup_timeout=0.02)

    def test_a_failed_query_is_asked_again_after_growing_pauses(self) -> None:
        times: list[float] = []

        async def test(bench: Bench) -> None:
            async def away() -> Answer:
                times.append(time.monotonic())
                raise LookupUnavailableError("away")

            bench.source.replies = [away] * 5 + [answer(port(1, A5))]  # type: ignore[list-item]
            bench.miss(A5)
            assert await bench.answered() == [("identity", A5, "instance-1")]

        run(Source(answer()), test, first_pause=0.01, jitter=lambda: 1.0)
        pauses = [after - before for before, after in itertools.pairwise(times)]
        # Each pause has at least its length: 10, 20, 40, 80 ms.
        assert all(pause >= 0.009 * 2**n for n, pause in enumerate(pauses))
        assert len(pauses) == 4

    def test_nobody_is_asked_for_longer_than_somebody_waits(self) -> None:
        clock = [1000.0]

        async def test(bench: Bench) -> None:
            bench.miss(A5)
            await bench.until(lambda: len(bench.source.asked) >= 2)
            clock[0] += 5
            bench.miss(A6)
            clock[0] += 4  # 9 s after the miss of A5, 4 s after that of A6
            count = len(bench.source.asked)
            await bench.until(lambda: len(bench.source.asked) >= count + 2)
            assert bench.source.asked[-1][1] == [A6]
            clock[0] += 5
            await bench.until(lambda: len(asyncio.all_tasks()) == 1)
            count = len(bench.source.asked)
            bench.miss(A7)
            await bench.until(lambda: len(bench.source.asked) > count)
            assert bench.source.asked[-1][1] == [A7]
            assert bench.table.calls == []

        run(Source(LookupUnavailableError("away")), test, clock=lambda: clock[0])

    def test_a_miss_that_is_repeated_keeps_the_question(self) -> None:
        clock = [1000.0]

        async def test(bench: Bench) -> None:
            bench.miss(A5)
            for _ in range(4):
                clock[0] += 7
                bench.miss(A5)
                count = len(bench.source.asked)
                await bench.until(lambda count=count: len(bench.source.asked) > count)  # type: ignore[misc]

        run(Source(LookupUnavailableError("away")), test, clock=lambda: clock[0])

    def test_a_source_that_breaks_its_contract_is_asked_again(self, caplog: pytest.LogCaptureFixture) -> None:
        async def test(bench: Bench) -> None:
            bench.source.replies = [RuntimeError("bug"), RuntimeError("bug"), answer(port(1, A5))]
            bench.miss(A5)
            assert await bench.answered() == [("identity", A5, "instance-1")]

        run(Source(answer()), test)
        assert sum(record.levelno == logging.ERROR for record in caplog.records) == 1

    def test_the_same_complaint_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        async def test(bench: Bench) -> None:
            for _ in range(6):
                bench.miss(A5)
                count = len(bench.table.answers())
                await bench.answered(count + 1)

        run(Source(answer(port(1, A5, device_id=7))), test)
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "device_id is not a string" in warnings[0].getMessage()


class TestRevocation:
    def test_an_answer_to_a_question_from_before_is_thrown_away_and_asked_anew(self) -> None:
        async def test(bench: Bench) -> None:
            async def changes_meanwhile() -> Answer:
                bench.resolver.changed(Change({BLUE: frozenset([ipaddress.ip_address(A5)])}))
                return answer(port(1, A5))

            bench.source.replies = [changes_meanwhile, answer(port(2, A5))]
            bench.miss(A5)
            await bench.answered()
            # The core had not been told anything that could be revoked.
            assert bench.table.calls == [("identity", 1, A5, "instance-2", 0)]

        run(Source(answer()), test)

    def test_so_is_one_that_was_malformed(self) -> None:
        async def test(bench: Bench) -> None:
            async def changes_meanwhile() -> Answer:
                bench.resolver.changed(Change({}, everything=True))
                raise LookupMalformedError("half of an answer")

            bench.source.replies = [changes_meanwhile, answer(port(2, A5))]
            bench.miss(A5)
            assert await bench.answered() == [("identity", A5, "instance-2")]

        run(Source(answer()), test)

    def test_only_what_changed_is_revoked(self) -> None:
        """And only what was asked for: all else costs the core nothing."""

        async def test(bench: Bench) -> None:
            for address in (A5, A6):
                bench.miss(address)
            await bench.answered(2)
            bench.table.calls.clear()
            changed = frozenset(map(ipaddress.ip_address, (A6, A7)))
            bench.resolver.changed(Change({BLUE: changed, ROUTER: frozenset()}))
            bench.resolver.changed(Change({GREEN: changed}, routers=frozenset([ROUTER])))
            bench.resolver.changed(Change(ports=frozenset([port(9)["id"]])))
            assert bench.table.calls == [("revoke", 1, A6, None, 1)]

        run(Source(answer(port(1, A5), port(2, A6))), test)

    def test_a_router_is_concerned_by_its_networks(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(A6, scope=3)
            await bench.answered()
            bench.table.calls.clear()
            bench.resolver.changed(Change({BLUE: frozenset([ipaddress.ip_address(A6)])}))
            assert [call for call in bench.table.calls if call[1] == 3] == []
            bench.resolver.changed(Change({GREEN: frozenset([ipaddress.ip_address(A6)])}))
            assert [call for call in bench.table.calls if call[1] == 3] == [("revoke", 3, A6, None, 1)]
            bench.resolver.changed(Change({}, frozenset([ROUTER])))
            assert bench.table.calls[-1] == ("revoke", 3, None, None, 2)

        run(Source(answer(networks=[GREEN])), test)

    def test_everything(self) -> None:
        async def test(bench: Bench) -> None:
            for scope in (1, 2, 3):
                bench.miss(A5, scope)
            await bench.answered(3)
            bench.table.calls.clear()
            bench.resolver.changed(Change({}, everything=True))
            assert sorted(bench.table.calls) == [("revoke", n, None, None, 1) for n in (1, 2, 3)]

        run(Source(answer()), test)

    def test_many_addresses_revoke_the_scope(self) -> None:
        async def test(bench: Bench) -> None:
            many = [ipaddress.ip_address("10.0.0.0") + n for n in range(257)]
            for address in many:
                bench.miss(str(address))
            await bench.answered(257)
            bench.table.calls.clear()
            bench.resolver.changed(Change({BLUE: frozenset(many)}))
            assert bench.table.calls == [("revoke", 1, None, None, 1)]

        run(Source(answer()), test)

    def test_a_change_ends_a_pause(self) -> None:
        async def test(bench: Bench) -> None:
            bench.source.replies = [LookupUnavailableError("no file yet"), answer(port(1, A5))]
            bench.miss(A5)
            await bench.until(lambda: len(bench.source.asked) == 1)
            bench.resolver.changed(Change({}, everything=True))
            assert await bench.answered() == [("identity", A5, "instance-1")]

        # A pause of its full length would be 2 s at least, and `answered` would still wait for it: so measure
        # it.
        started = time.monotonic()
        run(Source(answer()), test, first_pause=60.0, jitter=lambda: 1.0)
        assert time.monotonic() - started < 1.5


def test_revoking_everything() -> None:
    """In every scope; an answer that is under way counts for nothing, and is asked for anew."""

    async def test() -> None:
        release = asyncio.Event()

        async def slow() -> Answer:
            await release.wait()
            return answer(port(5, A5))

        bench = Bench(Source(slow, answer(port(6, A5))))
        bench.miss(A5)
        await bench.until(lambda: len(bench.source.asked) == 1)
        bench.resolver.revoke_all()
        assert [call[:3] for call in bench.table.calls] == [("revoke", 1, None)]
        release.set()
        assert await bench.answered() == [("identity", A5, "instance-6")]
        await bench.resolver.stop()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("times", "revoked"),
    [
        ({}, False),
        ({"identity_ttl": 20.0, "negative_ttl": 3.0}, False),
        ({"identity_ttl": 9.9}, True),
        ({"negative_ttl": 0.0}, True),
        ({"identity_ttl_with_events": 59.0}, True),
        ({"identity_ttl_with_events": 61.0}, False),
        ({"lookup_timeout": 0.5, "park_timeout": 1.0}, False),
    ],
)
def test_other_times(times: dict[str, float], revoked: bool) -> None:
    """They hold from now on; what was to be believed for longer than it may be now ends."""

    async def test() -> None:
        bench = Bench(Source(answer(port(5, A5))), identity_ttl_with_events=60.0)
        new = {
            "identity_ttl": 10.0,
            "identity_ttl_with_events": 60.0,
            "negative_ttl": 2.0,
            "lookup_timeout": 1.0,
            "park_timeout": 8.0,
        } | times
        bench.miss(A5)
        await bench.answered()
        bench.resolver.set_times(**new)
        assert bench.table.calls[1:] == ([("revoke", 1, None, None, 1)] if revoked else [])
        bench.table.calls.clear()
        bench.table.keywords.clear()
        bench.miss(A5)
        bench.miss(A6)
        await bench.answered(2)
        assert [keywords["ttl_ms"] for keywords in bench.table.keywords if keywords] == [
            new["identity_ttl"] * 1000,
            new["negative_ttl"] * 1000,
        ]
        await bench.resolver.stop()

    asyncio.run(test())


def test_another_lookup_timeout() -> None:
    async def test() -> None:
        async def never() -> Answer:
            await asyncio.sleep(60)
            raise AssertionError

        bench = Bench(Source(never, answer(port(5, A5))), lookup_timeout=60.0)
        bench.resolver.set_times(identity_ttl=90.0, negative_ttl=2.0, lookup_timeout=0.02, park_timeout=8.0)
        bench.miss(A5)
        assert await bench.answered() == [("identity", A5, "instance-5")]
        await bench.resolver.stop()

    asyncio.run(test())
