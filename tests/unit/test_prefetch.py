"""What is asked before anybody asks: it follows the rules of identity safety as any answer does, and is in nobody's
way. Each test fails when its rule is broken."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fastmeta.exceptions import LookupMalformedError, LookupRefusedError, LookupUnavailableError
from fastmeta.lookup import circuit as circuit_module
from fastmeta.lookup import prefetch as prefetch_module
from fastmeta.models import Answer, Change, Scope, ScopeKind

from .test_resolver import A5, A6, A7, BLUE, GREEN, Bench, Source, answer, port
from .test_resolver_events import P1, SHORT, deleted, now, run

BOTH = answer(port(1, A5), port(2, A6))
BY_GUEST = answer(port(9, A5))
"""What is said to whoever asks for himself."""


def source(*wholes: Any, asked: Answer = BY_GUEST) -> Source:
    """all_ports gives wholes, one after the other, and the last for ever."""
    made = Source(asked)
    made.whole_replies = list(wholes)
    return made


class Slow:
    """A list of all ports that comes when it is released."""

    def __init__(self, reply: Answer = BOTH) -> None:
        self.reply = reply
        self.gate = asyncio.Event()
        self.count = 0

    async def __call__(self) -> Answer:
        self.count += 1
        await self.gate.wait()
        return self.reply


async def quiet() -> None:
    """Whoever has anything to do has done it."""
    for _ in range(20):
        await asyncio.sleep(0)


async def prefetched(bench: Bench, *numbers: int) -> list[tuple[str, str | None, str | None]]:
    """What the core was told of it."""
    for number in numbers or (1,):
        bench.resolver.prefetch(number)
    await quiet()
    return bench.table.answers()


def interrupted(
    meanwhile: Callable[[Bench], Any], reply: Answer = BOTH, scope: int = 1
) -> list[tuple[str, str | None, str | None]]:
    """What the core is told when this happens between the question and the answer."""

    async def test(bench: Bench) -> None:
        slow = Slow(reply)
        bench.source.whole_replies = [slow]
        await prefetched(bench, scope)
        assert slow.count == 1
        meanwhile(bench)
        await quiet()
        slow.gate.set()
        await quiet()

    return run(source(None), test).table.answers()


IDENTITIES = [("identity", A5, "instance-1"), ("identity", A6, "instance-2")]


class TestWhatIsSaid:
    def test_whose_all_addresses_are(self) -> None:
        async def test(bench: Bench) -> None:
            assert await prefetched(bench) == IDENTITIES
            assert bench.source.wholes == [Scope(ScopeKind.NETWORK, BLUE)]
            await asyncio.sleep(SHORT * 7)
            # Nobody has used them, so nobody is asked for: they just end.
            assert bench.source.asked == []
            assert len(bench.source.wholes) == 1

        run(source(BOTH), test)

    @pytest.mark.parametrize("announcing", [False, True])
    def test_its_age_counts_from_the_question(self, announcing: bool) -> None:
        async def test(bench: Bench) -> None:
            bench.resolver.announcing(announcing)
            slow = Slow()
            bench.source.whole_replies = [slow]
            asked_at = now()
            await prefetched(bench)
            await asyncio.sleep(0.7)
            slow.gate.set()
            await quiet()
            assert [keywords["asked_at"] for keywords in bench.table.keywords] == [asked_at] * 2
            assert {keywords["ttl_ms"] for keywords in bench.table.keywords} == {
                60_000 if announcing else 10_000
            }

        run(source(None), test)

    @pytest.mark.parametrize("before", [False, True])
    def test_the_longer_time_only_if_changes_were_announced_all_the_time(self, before: bool) -> None:
        def meanwhile(bench: Bench) -> None:
            bench.resolver.announcing(not before)

        async def test(bench: Bench) -> None:
            bench.resolver.announcing(before)
            slow = Slow()
            bench.source.whole_replies = [slow]
            await prefetched(bench)
            meanwhile(bench)
            slow.gate.set()
            await quiet()
            assert {keywords["ttl_ms"] for keywords in bench.table.keywords} == {10_000}

        run(source(None), test)

    @pytest.mark.parametrize(
        ("others", "what"),
        [
            ([port(3, A5)], "a double"),
            ([port(3, A5, device_owner="network:dhcp")], "the double of a DHCP server"),
            ([port(3, A5, device_id=None)], "a malformed double"),
            ([port(1, A5, device_id="instance-9")], "another description"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_doubt_concerns_its_address_only(self, others: list[Any], what: str) -> None:
        async def test(bench: Bench) -> None:
            assert await prefetched(bench) == [("identity", A6, "instance-2")]

        run(source(answer(port(1, A5), port(2, A6), *others)), test)

    @pytest.mark.parametrize(
        "items",
        [
            [port(1, A5, network=GREEN)],
            [port(1, A5, device_id="")],
            [port(1, A5, project_id="")],
            [port(1, A5, device_owner="network:router_interface")],
            [port(1, "fe80::f816:3eff:fe00:1")],
            [port(1, A5), port(2, A6, fixed_ips=None)],
        ],
        ids=["another-network", "no-instance", "no-project", "router", "link-local", "unreadable"],
    )
    def test_of_whom_nothing_is_said(self, items: list[Any]) -> None:
        """Nor that they are nobody: whoever asks is asked for."""

        async def test(bench: Bench) -> None:
            assert await prefetched(bench) == []
            bench.miss(A5)
            await quiet()
            assert bench.table.answers() == [("identity", A5, "instance-9")]

        run(source(answer(*items)), test)

    def test_one_with_an_id_that_the_core_refuses_is_left_out(self) -> None:
        async def test(bench: Bench) -> None:
            bench.table.refuses.add("instance-1")
            assert await prefetched(bench) == IDENTITIES[1:]

        run(source(BOTH), test)


class TestMeanwhile:
    @pytest.mark.parametrize(
        ("change", "left"),
        [
            (deleted(P1), IDENTITIES[1:]),
            (Change({BLUE: frozenset([ipaddress.ip_address(A5)])}), IDENTITIES[1:]),
            (Change({GREEN: frozenset([ipaddress.ip_address(A5)])}), IDENTITIES),
            (Change({}, everything=True), []),
            (deleted(*(f"00000000-0000-4000-8000-{n:012}" for n in range(100, 400))), []),
        ],
        ids=["port", "address", "another-network", "everything", "too-many-to-tell"],
    )
    def test_what_has_changed_is_void(self, change: Change, left: list[Any]) -> None:
        assert interrupted(lambda bench: bench.resolver.changed(change)) == left

    def test_all_that_is_known_ends(self) -> None:
        assert interrupted(lambda bench: bench.resolver.revoke_all()) == []

    def test_a_scope_that_is_gone(self) -> None:
        assert interrupted(lambda bench: bench.resolver.remove_scope(1)) == []

    def test_a_change_in_a_network_that_only_this_answer_knows_of(self) -> None:
        """A router has it since the last answer; and from now on changes in it concern us."""
        a5 = port(1, A5, network=GREEN)
        change = Change({GREEN: frozenset(answer(a5).ports[0].fixed_ips)})
        both = answer(a5, port(2, A6, network=GREEN), networks=[BLUE, GREEN])

        async def test(bench: Bench) -> None:
            bench.miss(A7, scope=3)  # of its networks the answer knows one
            await bench.answered()
            bench.table.calls.clear()
            slow = Slow(both)
            bench.source.whole_replies = [slow]
            await prefetched(bench, 3)
            bench.resolver.changed(change)
            slow.gate.set()
            await quiet()
            assert bench.table.answers() == [("identity", A6, "instance-2")]
            bench.resolver.changed(Change({GREEN: frozenset(both.ports[1].fixed_ips)}))
            assert bench.table.calls[-1][:3] == ("revoke", 3, A6)

        run(source(None, asked=answer(port(7, A7), networks=[BLUE])), test)

    def test_whoever_has_asked_is_answered_by_a_question_of_his_own(self) -> None:
        async def test(bench: Bench) -> None:
            slow, own = Slow(), Slow(BY_GUEST)
            bench.source.whole_replies, bench.source.replies = [slow], [own]
            await prefetched(bench)
            bench.miss(A5)
            await quiet()
            assert own.count == 1  # which was sent at once
            slow.gate.set()
            await quiet()
            assert bench.table.answers() == IDENTITIES[1:]
            own.gate.set()
            await quiet()
            assert bench.table.answers()[1:] == [("identity", A5, "instance-9")]

        run(source(None), test)

    def test_and_that_counts_also_when_it_comes_first(self) -> None:
        """Although it may be the answer to the earlier question."""
        assert interrupted(lambda bench: bench.miss(A5)) == [
            ("identity", A5, "instance-9"),
            ("identity", A6, "instance-2"),
        ]

    def test_what_was_said_to_be_nobody_meanwhile(self) -> None:
        assert interrupted(lambda bench: bench.miss(A6)) == [("absent", A6, None), IDENTITIES[0]]

    def test_what_is_in_force_is_left_alone(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(A5)
            await quiet()
            assert await prefetched(bench) == [("identity", A5, "instance-9"), IDENTITIES[1]]
            assert all(call[0] != "revoke" for call in bench.table.calls)

        run(source(BOTH), test)

    def test_what_was_another_is_revoked_first(self) -> None:
        """Also when it has ended: a request may be in progress under it."""

        async def test(bench: Bench) -> None:
            bench.miss(A5)
            await quiet()
            await asyncio.sleep(SHORT + 1)
            bench.table.calls.clear()
            await prefetched(bench)
            assert [call[:4] for call in bench.table.calls][:2] == [
                ("revoke", 1, A5, None),
                ("identity", 1, A5, "instance-1"),
            ]

        run(source(BOTH), test)

    def test_a_deletion_afterwards_ends_it(self) -> None:
        async def test(bench: Bench) -> None:
            await prefetched(bench)
            bench.resolver.changed(deleted(P1))
            assert bench.table.calls[-1][:3] == ("revoke", 1, A5)

        run(source(BOTH), test)


class TestGivingWay:
    def test_a_few_at_a_time_and_each_scope_once(self) -> None:
        async def test(bench: Bench) -> None:
            slow = Slow()
            bench.source.whole_replies = [slow]
            for number in range(10, 30):
                bench.resolver.add_scope(number, Scope(ScopeKind.NETWORK, BLUE))
            for _ in range(3):
                await prefetched(bench, *range(10, 30))
            assert slow.count == prefetch_module.AT_ONCE
            slow.gate.set()
            await quiet()
            # Those that were under way when they were wanted again are asked for once more.
            assert slow.count <= 20 + prefetch_module.AT_ONCE

        run(source(None), test)

    def test_nothing_is_begun_while_guests_wait_for_a_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(circuit_module, "PLACES", 1)

        async def test(bench: Bench) -> None:
            bench.source.replies = [own := Slow(BY_GUEST)]
            bench.miss(A5)
            bench.miss(A5, scope=2)
            await quiet()
            await prefetched(bench, 3)
            assert bench.source.wholes == []
            own.gate.set()
            await quiet()
            assert len(bench.source.wholes) == 1

        run(source(BOTH), test)

    def test_nothing_is_begun_while_the_circuit_is_open(self) -> None:
        async def test(bench: Bench) -> None:
            bench.source.replies = [LookupRefusedError("401")]
            bench.miss(A5)
            await quiet()
            assert bench.resolver.health.startswith("degraded")
            await prefetched(bench, 2)
            assert bench.source.wholes == []
            bench.source.replies = [BY_GUEST]
            await asyncio.sleep(1)
            assert len(bench.source.wholes) == 1

        run(source(BOTH), test)

    @pytest.mark.parametrize(
        "failure",
        [
            LookupUnavailableError("away"),
            LookupRefusedError("401"),
            LookupMalformedError("garbage"),
            ZeroDivisionError("a mistake of ours"),
        ],
        ids=lambda failure: type(failure).__name__,
    )
    def test_a_failure_is_quiet_and_nobody_s(
        self, failure: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is not repeated, opens no circuit, and refuses no guest."""
        caplog.set_level(logging.INFO)

        async def test(bench: Bench) -> None:
            for number in range(10, 40):
                bench.resolver.add_scope(number, Scope(ScopeKind.NETWORK, BLUE))
            assert await prefetched(bench, *range(10, 40)) == []
            await asyncio.sleep(30)
            assert len(bench.source.wholes) == 30
            assert bench.resolver.health == "healthy"
            bench.miss(A5)
            await quiet()
            assert bench.table.answers() == [("identity", A5, "instance-9")]

        run(source(failure), test)
        assert not caplog.records

    def test_a_success_closes_no_circuit(self) -> None:
        async def test(bench: Bench) -> None:
            slow = Slow()
            bench.source.whole_replies = [slow]
            await prefetched(bench, 2)
            bench.source.replies = [LookupRefusedError("401")]
            bench.miss(A5)
            await quiet()
            slow.gate.set()
            await quiet()
            assert bench.resolver.health.startswith("degraded")

        run(source(None), test)

    def test_an_answer_that_does_not_come_is_given_up(self) -> None:
        async def test(bench: Bench) -> None:
            slow = Slow()
            bench.source.whole_replies = [slow, BOTH]
            await prefetched(bench)
            await asyncio.sleep(1.1)  # lookup_timeout is 1 s here
            slow.gate.set()
            await quiet()
            assert bench.table.answers() == []
            assert await prefetched(bench) == IDENTITIES

        run(source(None), test)

    def test_the_largest_scopes_are_left_to_questions(self) -> None:
        """all_ports gives None for them; how many are too many, it is told."""

        async def test(bench: Bench) -> None:
            assert await prefetched(bench) == []

        run(source(None), test)

    def test_it_never_makes_what_guests_use_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prefetch_module, "MOST_KNOWN", 1)

        async def test(bench: Bench) -> None:
            assert await prefetched(bench) == IDENTITIES[:1]

        run(source(BOTH), test)


def test_stopping_ends_it() -> None:
    async def test(bench: Bench) -> None:
        slow = Slow()
        bench.source.whole_replies = [slow]
        await prefetched(bench, 1, 2, 3)

    assert run(source(None), test).table.answers() == []
