"""What the resolver remembers, and what events, lost ones too, make of it. Each test fails when its rule is
broken."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastmeta.exceptions import LookupMalformedError, LookupRefusedError, LookupUnavailableError
from fastmeta.lookup import circuit as circuit_module
from fastmeta.lookup import trust as trust_module
from fastmeta.lookup.resolver import Resolver
from fastmeta.models import Answer, Change, Scope, ScopeKind

from .test_resolver import A5, A6, A7, BLUE, GREEN, ROUTER, Bench, Source, answer, packed, port
from .virtual_time import run as run_virtually

SHORT, LONG, LINGER = 10.0, 60.0, 60.0
P1, P2 = port(1)["id"], port(2)["id"]


def now() -> float:
    return asyncio.get_running_loop().time()


def run(source: Source, test: Callable[[Bench], Awaitable[None]], **settings: Any) -> Bench:
    """In virtual time. Afterwards nothing is left running."""

    async def body() -> Bench:
        bench = Bench(
            source,
            **({"identity_ttl_with_events": LONG, "clock": asyncio.get_running_loop().time} | settings),
        )
        await test(bench)
        await bench.resolver.stop()
        assert len(asyncio.all_tasks()) == 1
        return bench

    return run_virtually(body())


async def known(bench: Bench, *addresses: str, scope: int = 1, interface: int = 0) -> None:
    """These have been asked for and answered; what the core was told is forgotten."""
    bench.table.calls.clear()
    for address in addresses:
        bench.miss(address, scope, interface)
    await bench.answered(len(addresses))
    bench.table.calls.clear()
    bench.table.keywords.clear()


def deleted(*ports: str) -> Change:
    return Change(ports=frozenset(ports))


class TestPorts:
    def test_a_deletion_ends_all_that_was_said_under_the_port(self) -> None:
        """In every scope, of every address; nothing else."""

        async def test(bench: Bench) -> None:
            guest = "fe80::f816:3eff:fe00:1"
            await known(bench, A5, A6, A7)
            await known(bench, guest, interface=4)
            await known(bench, A5, scope=3)
            bench.resolver.changed(deleted(P2, P1))
            assert sorted(call[:3] for call in bench.table.calls) == [
                ("revoke", 1, A5),
                ("revoke", 1, A6),
                ("revoke", 1, guest),
                ("revoke", 3, A5),
            ]
            assert sorted(bench.table.revoked_interfaces) == [0, 0, 0, 4]
            bench.table.calls.clear()
            bench.resolver.changed(deleted(P2, P1))
            assert bench.table.calls == []

        run(Source(answer(port(1, A5, A6), port(3, A7))), test)

    def test_an_update_ends_the_former_address_too(self) -> None:
        async def test(bench: Bench) -> None:
            await known(bench, A5)
            bench.resolver.changed(
                Change({BLUE: frozenset([ipaddress.ip_address(A6)])}, ports=frozenset([P1]))
            )
            assert [call[:3] for call in bench.table.calls] == [("revoke", 1, A5)]

        run(Source(answer(port(1, A5))), test)

    def test_an_answer_that_was_on_its_way(self) -> None:
        """What it says of a port that is gone counts for nothing; the rest does."""

        async def test(bench: Bench) -> None:
            async def meanwhile() -> Answer:
                bench.resolver.changed(deleted(P1))
                return answer(port(1, A5), port(2, A6))

            bench.source.replies = [meanwhile, answer()]
            bench.miss(A5)
            bench.miss(A6)
            assert await bench.answered(2) == [("identity", A6, "instance-2"), ("absent", A5, None)]
            assert [addresses for _, addresses in bench.source.asked] == [[A5, A6], [A5]]

        run(Source(answer()), test)

    def test_an_answer_that_was_on_its_way_when_its_address_changed(self) -> None:
        async def test(bench: Bench) -> None:
            async def meanwhile() -> Answer:
                bench.resolver.changed(Change({GREEN: frozenset([ipaddress.ip_address(A6)])}))
                bench.resolver.changed(Change({BLUE: frozenset([ipaddress.ip_address(A5)])}))
                return answer(port(2, A6))

            bench.source.replies = [meanwhile, answer(port(1, A5))]
            bench.miss(A5)
            bench.miss(A6)
            assert await bench.answered(2) == [("identity", A6, "instance-2"), ("identity", A5, "instance-1")]

        run(Source(answer()), test)

    def test_somebody_who_was_nobody(self) -> None:
        """A port that is made while its guest's 404 is remembered: it is asked for anew."""

        async def test(bench: Bench) -> None:
            await known(bench, A5)
            bench.resolver.changed(
                Change({BLUE: frozenset([ipaddress.ip_address(A5)])}, ports=frozenset([P1]))
            )
            assert [call[:3] for call in bench.table.calls] == [("revoke", 1, A5)]
            # Afterwards there is nothing to end.
            await known(bench, A5)
            await asyncio.sleep(2.1)
            bench.resolver.changed(Change({BLUE: frozenset([ipaddress.ip_address(A5)])}))
            assert bench.table.calls == []

        run(Source(answer()), test)

    def test_it_is_found_while_a_request_may_be_in_progress(self) -> None:
        """An identity has ended; a request that was sent before waits for Nova. Later there is none."""

        async def test(bench: Bench) -> None:
            await known(bench, A5)
            await asyncio.sleep(SHORT + LINGER - 1)
            bench.resolver.changed(deleted(P1))
            assert [call[:3] for call in bench.table.calls] == [("revoke", 1, A5)]
            await known(bench, A5)
            await asyncio.sleep(SHORT + LINGER + 1)
            bench.resolver.changed(deleted(P1))
            assert bench.table.calls == []

        run(Source(answer(port(1, A5))), test)

    def test_a_network_that_a_router_has_lost(self) -> None:
        """Also without an event: the next answer ends what was said in it."""

        async def test(bench: Bench) -> None:
            bench.source.replies = [
                answer(port(1, A5), port(2, A6, network=GREEN), networks=[BLUE, GREEN]),
                answer(networks=[BLUE]),
            ]
            await known(bench, A5, A6, scope=3)
            bench.miss(A7, scope=3)
            await bench.answered()
            assert [call[:3] for call in bench.table.calls] == [("revoke", 3, A6), ("absent", 3, A7)]

        run(Source(answer()), test)


class TestTimeToLive:
    def test_is_longer_while_changes_are_announced(self) -> None:
        async def test(bench: Bench) -> None:
            for announcing, time_to_live in ((False, SHORT), (True, LONG), (False, SHORT), (True, LONG)):
                bench.resolver.announcing(announcing)
                bench.miss(A5)
                await bench.answered()
                assert bench.table.keywords[-1]["ttl_ms"] == time_to_live * 1000
                bench.table.calls.clear()

        run(Source(answer(port(1, A5))), test)

    @pytest.mark.parametrize("before", [False, True])
    @pytest.mark.parametrize("meanwhile", [(False,), (True,), (False, True), (True, False), ()])
    def test_of_an_answer_counts_from_the_question(self, before: bool, meanwhile: tuple[bool, ...]) -> None:
        """Only when changes were announced all the time from the one to the other."""

        async def test(bench: Bench) -> None:
            async def changes() -> Answer:
                for announcing in meanwhile:
                    bench.resolver.announcing(announcing)
                return answer(port(1, A5))

            bench.source.replies = [changes]
            bench.resolver.announcing(before)
            bench.miss(A5)
            await bench.answered()
            steady = before and False not in meanwhile
            assert bench.table.keywords[-1]["ttl_ms"] == (LONG if steady else SHORT) * 1000

        run(Source(answer()), test)

    def test_ends_when_announcements_do(self) -> None:
        async def test(bench: Bench) -> None:
            bench.resolver.announcing(True)
            await known(bench, A5, A6)
            await known(bench, A5, scope=3)
            bench.resolver.announcing(False)
            assert bench.table.calls == [("shorten", 1, None, None, 10000), ("shorten", 3, None, None, 10000)]
            bench.table.calls.clear()
            bench.resolver.announcing(False)
            assert bench.table.calls == []

        run(Source(answer(port(1, A5), port(2, A6))), test)


class TestUnannounced:
    REPLIES = (
        ("another instance", answer(port(1, A5, device_id="other"))),
        ("another project", answer(port(1, A5, project_id="other"))),
        ("another port", answer(port(2, A5, device_id="instance-1"))),
        ("none", answer()),
        ("two", answer(port(1, A5), port(2, A5))),
    )

    @pytest.mark.parametrize(("what", "reply"), REPLIES)
    def test_what_is_not_what_it_was_is_revoked_first(self, what: str, reply: Answer) -> None:
        """Whether anything was announced or not: requests in progress shall not be answered in its name."""

        async def test(bench: Bench) -> None:
            await known(bench, A5)
            bench.source.replies = [reply]
            bench.miss(A5)
            await bench.answered()
            assert bench.table.calls[0] == ("revoke", 1, A5, None, 1)
            assert [call[0] for call in bench.table.calls[1:]] in (["identity"], ["absent"])
            assert bench.table.calls[1][4] == 1

        run(Source(answer(port(1, A5))), test)

    def test_what_is_as_it_was_is_said_again_with_its_new_age(self) -> None:
        async def test(bench: Bench) -> None:
            await known(bench, A5)
            await asyncio.sleep(5)
            start = now()
            bench.miss(A5)
            await bench.answered()
            assert bench.table.calls == [("identity", 1, A5, "instance-1", 0)]
            assert bench.table.keywords[-1]["asked_at"] == start

        run(Source(answer(port(1, A5))), test)

    @pytest.mark.parametrize(("what", "reply"), REPLIES)
    def test_no_event_had_said_so(self, what: str, reply: Answer, caplog: pytest.LogCaptureFixture) -> None:
        """The scope is back at the short time, for a while; others are not."""

        async def test(bench: Bench) -> None:
            bench.resolver.announcing(True)
            await known(bench, A5, A6)
            bench.source.replies = [reply]
            bench.miss(A5)
            await bench.answered()
            assert ("shorten", 1, None, None, 10000) in bench.table.calls
            bench.source.replies = [answer(port(3, A7))]
            for scope, pause, time_to_live in (
                (1, 0, SHORT),
                (1, trust_module.DISTRUST_PERIOD - 1, SHORT),
                (3, 0, LONG),
                (1, 2, LONG),
            ):
                await asyncio.sleep(pause)
                bench.table.calls.clear()
                bench.miss(A7, scope)
                await bench.answered()
                assert bench.table.keywords[-1]["ttl_ms"] == time_to_live * 1000

        run(Source(answer(port(1, A5), port(2, A6))), test)
        assert sum("no event had announced it" in line for line in caplog.messages) == 1

    def test_an_event_had_said_so(self, caplog: pytest.LogCaptureFixture) -> None:
        async def test(bench: Bench) -> None:
            bench.resolver.announcing(True)
            await known(bench, A5)
            bench.resolver.changed(deleted(P1))
            bench.source.replies = [answer(port(2, A5))]
            bench.miss(A5)
            await bench.answered()
            assert bench.table.keywords[-1]["ttl_ms"] == LONG * 1000

        run(Source(answer(port(1, A5))), test)
        assert caplog.messages == []

    def test_nobody_had_promised_to_say_so(self, caplog: pytest.LogCaptureFixture) -> None:
        """What was learnt before changes were announced may have changed before that, too."""

        async def test(bench: Bench) -> None:
            await known(bench, A5)
            bench.resolver.announcing(True)
            bench.source.replies = [answer(port(2, A5))]
            bench.miss(A5)
            await bench.answered()
            assert bench.table.keywords[-1]["ttl_ms"] == LONG * 1000

        run(Source(answer(port(1, A5))), test)
        assert caplog.messages == []


class TestRenewal:
    def test_the_core_is_asked_in_time_and_once(self) -> None:
        """For all that end soon; and then nothing runs any more."""

        async def test(bench: Bench) -> None:
            bench.resolver.announcing(True)
            start = now()
            await known(bench, A5)
            await asyncio.sleep(LONG / 8)
            await known(bench, A6)
            await asyncio.sleep(LONG / 4)
            await known(bench, A7)
            asked = len(bench.source.asked)
            await asyncio.sleep(LONG + LINGER)
            assert [(scope, round(before - start, 1)) for scope, before in bench.table.renewals] == [
                (1, LONG * 9 / 8),  # A6 ends then
                (1, LONG * 11 / 8),
            ]
            await asyncio.sleep(LONG)
            assert len(bench.source.asked) == asked  # an idle node asks nothing
            assert not bench.resolver._active
            assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]

        run(Source(answer(port(1, A5), port(2, A6), port(3, A7))), test)

    def test_who_is_used_is_confirmed(self) -> None:
        async def test(bench: Bench) -> None:
            bench.resolver.announcing(True)
            renewed: list[float] = []

            def renew(scope: int, before: float) -> None:
                renewed.append(now())
                bench.miss(A5)

            bench.table.renew = renew  # type: ignore[method-assign]
            start = now()
            await known(bench, A5)
            await asyncio.sleep(LONG * 2 + 0.1)
            assert [round(time - start, 1) for time in renewed] == [LONG * 2 / 3, LONG * 4 / 3, LONG * 2]
            assert {call[0] for call in bench.table.calls} == {"identity"}

        run(Source(answer(port(1, A5))), test)

    @pytest.mark.parametrize(
        "failure",
        [LookupUnavailableError("away"), LookupRefusedError("401"), LookupMalformedError("not JSON")],
    )
    def test_one_that_fails_is_tried_until_the_identity_ends(self, failure: Exception) -> None:
        """And makes nobody fail before: the core is told nothing."""

        async def test(bench: Bench) -> None:
            bench.resolver.announcing(True)
            start = now()
            await known(bench, A5)
            bench.source.replies = [failure]
            await asyncio.sleep(LONG * 2 / 3)
            bench.miss(A5)
            await asyncio.sleep(LONG / 3 - 1)
            assert bench.table.calls == []
            asked = len(bench.source.asked)
            assert asked > 8
            await asyncio.sleep(1 + circuit_module.LONGEST_PAUSE + 0.1)
            asked = len(bench.source.asked)
            await asyncio.sleep(LONG)
            assert len(bench.source.asked) == asked  # nobody waits
            assert now() > start + LONG
            assert [call for call in bench.table.calls if call[0] != "refused"] == []

        run(Source(answer(port(1, A5))), test)

    def test_a_guest_that_waits_is_refused_all_the_same(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(A5)
            assert await bench.answered() == [("refused", A5, None)]

        run(Source(LookupMalformedError("not JSON")), test)


class TestMany:
    def test_memory_is_bounded(self) -> None:
        """The oldest of the scope ends, in the core too."""

        async def test(bench: Bench) -> None:
            bench.resolver._said.known._most = 3
            await known(bench, A5, A6)
            await known(bench, A5, scope=3)
            await known(bench, A7)
            bench.table.calls.clear()
            bench.resolver.changed(deleted(P1))
            assert [call[:3] for call in bench.table.calls] == [("revoke", 3, A5)]
            assert len(bench.resolver._said.known) == 2

        bench = run(Source(answer(port(1, A5), port(2, A6), port(3, A7))), test)
        assert len(bench.resolver._said.known) == 0

    def test_one_that_makes_place_is_revoked(self) -> None:
        async def test(bench: Bench) -> None:
            bench.resolver._said.known._most = 1
            bench.miss(A5)
            await bench.answered(1)
            bench.miss(A6)
            await bench.answered(2)
            assert [call[:3] for call in bench.table.calls] == [
                ("identity", 1, A5),
                ("identity", 1, A6),
                ("revoke", 1, A5),
            ]

        run(Source(answer(port(1, A5), port(2, A6))), test)

    def test_a_scope_nobody_asks_from_costs_nothing(self) -> None:
        async def test(bench: Bench) -> None:
            for number in range(10, 5010):
                bench.resolver.add_scope(number, Scope(ScopeKind.ROUTER, f"{ROUTER[:-4]}{number:04}"))
            bench.resolver.changed(Change(everything=True))
            assert not bench.resolver._states
            assert bench.table.calls == []

        run(Source(answer()), test)


class TestHealth:
    def test_is_told_when_it_changes(self, caplog: pytest.LogCaptureFixture) -> None:
        told: list[str] = []

        async def test(bench: Bench) -> None:
            assert bench.resolver.health == "healthy"
            for scope in (1, 2, 3):
                bench.miss(A5, scope)
            await asyncio.sleep(5)
            assert told == ["degraded: lookups fail: Neutron is away"]
            bench.source.replies = [answer(networks=[BLUE, GREEN])]
            await bench.answered(3)
            bench.resolver.announcing(True)
            assert told[1:] == ["healthy"]
            bench.resolver.announcing(False)
            assert told[2:] == ["degraded: changes of ports are not announced, identities live identity_ttl"]
            bench.resolver.announcing(True)
            assert bench.resolver.health == told[3] == "healthy"

        with caplog.at_level(logging.INFO):
            run(
                Source(LookupUnavailableError("Neutron is away")),
                test,
                on_health=told.append,
                first_pause=0.1,
            )
        # One line for all scopes, and one when it was over.
        assert len(caplog.messages) == 2

    def test_all_scopes_go_on_when_it_is_over(self) -> None:
        async def test(bench: Bench) -> None:
            for number in range(10, 510):
                bench.resolver.add_scope(number, Scope(ScopeKind.NETWORK, BLUE))
                bench.miss(A5, number)
            await asyncio.sleep(4)
            asked = len(bench.source.asked)
            # 32 at once, until the fifth failed; then one after the other.
            assert asked <= circuit_module.PLACES + 10
            bench.source.replies = [answer(port(1, A5))]
            await asyncio.sleep(circuit_module.LONGEST_PAUSE + 1)
            assert len(bench.table.answers()) == 500

        run(Source(LookupUnavailableError("away")), test, first_pause=0.1)

    def test_a_failure_of_one_scope_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        """While the source answers others, it is that scope's: said once, and the circuit stays closed."""

        async def test(bench: Bench) -> None:
            async def of_one() -> Answer:
                if bench.source.asked[-1][0].uuid == GREEN:
                    raise LookupUnavailableError("500 Internal Server Error")
                return answer(port(1, A5))

            bench.source.replies = [of_one]
            bench.miss(A5, 2)
            for _ in range(20):
                bench.miss(A5, 1)
                await asyncio.sleep(0.3)
            assert bench.resolver.health == "healthy"

        run(Source(answer()), test, first_pause=0.1)
        assert caplog.messages == [f"lookup for network {GREEN}: 500 Internal Server Error"]

    def test_a_source_that_hangs_for_one_scope_holds_up_nobody(self) -> None:
        async def test(bench: Bench) -> None:
            async def hangs_for_green() -> Answer:
                if bench.source.asked[-1][0].uuid == GREEN:
                    await asyncio.Event().wait()
                return answer(port(1, A5))

            bench.source.replies = [hangs_for_green]
            for number in range(10, 110):
                bench.resolver.add_scope(number, Scope(ScopeKind.NETWORK, GREEN))
                bench.miss(A5, number)
            await asyncio.sleep(0.1)
            start = now()
            bench.miss(A5, 1)
            await bench.answered()
            assert now() - start < bench.resolver._asking.lookup_timeout

        run(Source(answer()), test, lookup_timeout=60.0, park_timeout=80.0)


def test_removing_a_scope_forgets_it() -> None:
    async def test(bench: Bench) -> None:
        await known(bench, A5)
        bench.resolver.remove_scope(1)
        bench.resolver.changed(deleted(P1))
        bench.resolver.changed(Change(everything=True))
        bench.resolver.miss(1, packed(A5), 0)
        assert bench.table.calls == []
        assert isinstance(bench.resolver, Resolver)
        assert not [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()]

    run(Source(answer(port(1, A5))), test)
