"""A guest with a link-local address behind a router is looked for in the network of its link only. Each test
fails when its rule is broken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

import pytest

from fastmeta.lookup import asking as asking_module
from fastmeta.lookup import resolver as resolver_module
from fastmeta.models import Answer

from .test_resolver import A5, A6, BLUE, GREEN, Bench, Source, port, run


class TestLinksOfARouter:
    GUEST = "fe80::f816:3eff:fe00:1"
    PRIVATE = "fe80::1234:5678:9abc:def0"
    LEFT, RIGHT, GATEWAY = "fa:16:3e:0a:0a:01", "fa:16:3e:0a:0a:02", "fa:16:3e:0a:0a:03"
    EXTERNAL = "44444444-4444-4444-8444-444444444444"
    LINKS: ClassVar[dict[str, frozenset[str]]] = {
        LEFT: frozenset({BLUE}),
        RIGHT: frozenset({GREEN}),
        GATEWAY: frozenset({EXTERNAL}),
    }

    @staticmethod
    def reply(*items: object, links: Mapping[str, frozenset[str]] = LINKS) -> Answer:
        return Answer.from_api([BLUE, GREEN], items, links)

    def twins(self) -> Answer:
        """The same MAC on both links."""
        other = port(2, A6, network=GREEN, mac_address="fa:16:3e:00:00:01")
        return self.reply(port(1, A5), other)

    def test_the_same_address_on_two_links_is_two_guests(self) -> None:
        """Asked for at once."""

        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 4)
            bench.miss(self.GUEST, 3, 5)
            instances = [instance for _, _, instance in await bench.answered(2)]
            assert dict(zip(bench.table.interfaces, instances, strict=True)) == {
                4: "instance-1",
                5: "instance-2",
            }
            assert [addresses for _, addresses in bench.source.asked] == [[self.GUEST]]

        run(Source(self.twins()), test, link_mac=lambda _, index: {4: self.LEFT, 5: self.RIGHT}[index])

    def test_a_guest_of_another_link_is_nobody(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 5)
            assert await bench.answered() == [("absent", self.GUEST, None)]

        run(Source(self.reply(port(1, A5))), test, link_mac=lambda *_: self.RIGHT)

    def test_two_ports_with_its_mac_on_its_link_are_nobody(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 4)
            assert await bench.answered() == [("absent", self.GUEST, None)]

        twin = port(2, A6, mac_address="fa:16:3e:00:00:01")
        run(Source(self.reply(port(1, A5), twin)), test, link_mac=lambda *_: self.LEFT)

    def test_over_the_gateway_comes_nobody(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 4)
            assert await bench.answered() == [("absent", self.GUEST, None)]

        outside = port(1, A5, network=self.EXTERNAL)
        run(Source(self.reply(outside)), test, link_mac=lambda *_: self.GATEWAY)

    def test_a_privacy_address_is_nobody_whatever_its_link(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(self.PRIVATE, 3, 4)
            assert await bench.answered() == [("absent", self.PRIVATE, None)]
            assert bench.source.asked == []

        run(Source(self.twins()), test)

    @pytest.mark.parametrize(
        ("link", "links", "why"),
        [
            (None, LINKS, "it is gone, or has no MAC of its own"),
            ("fa:16:3e:0a:0a:09", LINKS, "its MAC fa:16:3e:0a:0a:09 is that of no port of the router"),
            (LEFT, {}, "that of no port of the router"),
            (LEFT, {LEFT: frozenset({BLUE, GREEN})}, "that of the router's ports in 2 networks"),
        ],
    )
    def test_what_cannot_be_told_waits_and_is_never_guessed(
        self,
        link: str | None,
        links: dict[str, frozenset[str]],
        why: str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Also when one port only has its MAC. Others of the scope are answered meanwhile, without a pause."""
        monkeypatch.setattr(asking_module, "LINK_PAUSE", 0.02)

        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 4)
            for n in range(20):
                bench.miss(f"10.0.1.{n}", 3)
                await bench.answered(n + 1)
            await asyncio.sleep(0.1)
            assert {address for _, address, _ in bench.table.answers()} == {f"10.0.1.{n}" for n in range(20)}
            assert len([record for record in caplog.records if why in record.getMessage()]) == 1
            # Then it can: without a further miss.
            known[0] = self.LEFT
            bench.source.replies = [self.reply(port(1, A5))]
            await bench.answered(21)
            assert bench.table.answers()[-1] == ("identity", self.GUEST, "instance-1")

        known = [link]
        reply = self.reply(port(1, A5), links=links)
        run(Source(reply), test, link_mac=lambda *_: known[0], first_pause=60.0)

    def test_who_has_waited_too_long_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking_module, "LINK_PAUSE", 0.01)
        monkeypatch.setattr(resolver_module, "MAX_QUESTIONS", 1)

        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 4)
            await asyncio.sleep(0)
            bench.miss(A5, 3)  # there is no place for it
            await bench.until(lambda: bench.resolver._questions == 0)
            bench.miss(A5, 3)
            assert await bench.answered() == [("identity", A5, "instance-1")]

        run(Source(self.reply(port(1, A5))), test, park_timeout=0.1)

    def test_changed_links_revoke(self) -> None:
        async def test(bench: Bench) -> None:
            bench.resolver.links_changed(3)
            bench.resolver.links_changed(9)
            assert bench.table.calls == []  # nobody has asked from a link-local address
            bench.miss(self.GUEST, 3, 4)
            await bench.answered()
            bench.resolver.links_changed(3)
            assert bench.table.calls[1:] == [("revoke", 3, None, None, 1)]

        run(Source(self.twins()), test, link_mac=lambda *_: self.LEFT)

    def test_a_link_that_changes_while_its_guest_is_asked_for(self) -> None:
        """Whether it is told of or not: the answer counts for nothing, and it is asked anew."""
        for told in (True, False):
            links = [self.LEFT]

            async def test(bench: Bench, links: list[str] = links, told: bool = told) -> None:
                async def changes() -> Answer:
                    links[0] = self.RIGHT
                    if told:
                        bench.resolver.links_changed(3)
                    return self.twins()

                bench.source.replies = [changes, self.twins()]
                bench.miss(self.GUEST, 3, 4)
                assert await bench.answered() == [("identity", self.GUEST, "instance-2")]
                assert len(bench.source.asked) == 2

            run(Source(self.twins()), test, link_mac=lambda *_, links=links: links[0])

    def test_a_change_that_is_told_when_the_link_is_looked_at(self) -> None:
        """link_mac may find that links have changed, and say so before it answers."""
        told: list[Bench] = []

        def link_mac(scope: int, index: int) -> str:
            if told:
                told.pop().resolver.links_changed(scope)
            return self.LEFT

        async def test(bench: Bench) -> None:
            told.append(bench)
            bench.miss(self.GUEST, 3, 4)
            assert await bench.answered() == [("identity", self.GUEST, "instance-1")]
            assert bench.table.calls == [
                ("revoke", 3, None, None, 1),
                ("identity", 3, self.GUEST, "instance-1", 1),
            ]

        run(Source(self.twins()), test, link_mac=link_mac)

    def test_a_scope_that_is_removed_leaves_nobody_waiting(self) -> None:
        async def test(bench: Bench) -> None:
            bench.miss(self.GUEST, 3, 4)
            await bench.until(lambda: bool(bench.resolver._states[3].aside))
            bench.resolver.remove_scope(3)
            assert bench.resolver._questions == 0

        run(Source(self.twins()), test)
