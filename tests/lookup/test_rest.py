"""The REST source before a Keystone and Neutron of ours: how often it asks, for what, and how it gives up."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastmeta.exceptions import (
    LookupFailedError,
    LookupMalformedError,
    LookupRefusedError,
    LookupUnavailableError,
)
from fastmeta.lookup import bounded_http, neutron_rest
from fastmeta.lookup.neutron_rest import FIELDS, MAX_NETWORKS, NAMED, RestSource
from fastmeta.models import Answer, Scope

from .cloud import (
    HTML,
    PASSWORD,
    Cloud,
    Fault,
    Request,
    drop,
    flood,
    hang,
    raw,
    says,
    trickle_body,
    trickle_head,
)
from .ports import (
    BLUE,
    GREEN,
    OTHER_ROUTER,
    RED,
    interface,
    link_local,
    network,
    port,
    questions,
    router,
    whose,
)
from .rigs import rest_source

GUEST = port(1, "10.0.0.5", "2001:db8::5")
DHCP = port(9, "10.0.0.2", device_owner="network:dhcp", device_id="dhcp-of-blue")

Test = Callable[[Cloud, RestSource], Awaitable[Any]]


def run(folder: Path, test: Test, ports: list[Any] | None = None, **options: Any) -> None:
    async def body() -> None:
        with Cloud([GUEST, DHCP] if ports is None else ports) as cloud:
            async with rest_source(folder, cloud, **options) as source:
                await test(cloud, source)

    asyncio.run(body())


async def ask(source: RestSource, *addresses: str, scope: Scope | None = None) -> Answer:
    return await source.ports(scope or network(BLUE), questions(*(addresses or ("10.0.0.5",))))


async def asked(source: RestSource, *addresses: str, scope: Scope | None = None) -> list[str]:
    """Whose they are."""
    scope = scope or network(BLUE)
    answer = await ask(source, *addresses, scope=scope)
    return [whose(answer, scope, question) for question in questions(*(addresses or ("10.0.0.5",)))]


async def failure(source: RestSource, kind: type[LookupFailedError], **where: Any) -> str:
    with pytest.raises(LookupFailedError) as caught:
        await ask(source, **where)
    assert type(caught.value) is kind, caught.value
    return str(caught.value)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("neutron-")]


class TestCalls:
    @pytest.mark.parametrize(("count", "calls"), [(1, 1), (NAMED, 1), (NAMED + 1, 1), (1000, 1)])
    def test_of_a_network(self, tmp_path: Path, count: int, calls: int) -> None:
        """Up to NAMED are named; all beyond cost one page of a thousand."""
        addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(count)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            assert await asked(source, *addresses) == [f"instance-{n + 1}" for n in range(count)]
            assert len(cloud.calls) == calls + (count == neutron_rest.PAGE)  # a full page: is there another?
            named = cloud.calls[0].values("fixed_ips")
            assert named == ([f"ip_address={a}" for a in addresses] if count <= NAMED else [])
            assert len(cloud.logins) == 1

        run(tmp_path, test, [port(n + 1, address) for n, address in enumerate(addresses)])

    def test_of_a_router(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            assert await asked(source, scope=router()) == ["instance-1"]
            first, second = cloud.calls
            assert first.values("device_id") == [router().uuid]
            assert len(first.values("device_owner")) == 6
            assert sorted(second.values("network_id")) == [BLUE, GREEN]

        run(tmp_path, test, [GUEST, interface(20, BLUE), interface(21, GREEN)])

    def test_a_router_without_networks_asks_for_nothing_more(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            assert await asked(source, scope=router()) == ["nobody"]
            assert len(cloud.calls) == 1
            assert all(call.values("network_id") or call.values("device_id") for call in cloud.calls)

        run(tmp_path, test, [GUEST])

    def test_a_server_that_does_not_filter(self, tmp_path: Path) -> None:
        """What it was not asked for counts for nothing: another router's port, and what a tenant may write."""
        ports = [
            port(1, "10.0.0.5", network=GREEN),
            port(2, "10.0.0.5", network=BLUE),
            interface(20, GREEN),
            interface(21, BLUE, OTHER_ROUTER),
            interface(22, RED, device_owner="compute:nova"),
        ]

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = says(200, {"ports": ports})
            assert await asked(source, scope=router()) == ["instance-1"]
            answer = await ask(source, scope=router())
            assert answer.networks == {GREEN}
            assert dict(answer.links) == {"fa:16:3e:00:00:14": {GREEN}}

        run(tmp_path, test)

    def test_every_question_is_confined(self, tmp_path: Path) -> None:
        """Whatever leads there: without a network or router no question leaves."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            before = len(cloud.calls)
            for filters in ([], [("fixed_ips", "ip_address=10.0.0.5")], [("network_id", "")]):
                with pytest.raises(RuntimeError, match="must be confined"):
                    source._page([*filters, ("limit", "1")], neutron_rest.Call(3))
            assert len(cloud.calls) == before

        run(tmp_path, test)

    def test_only_the_fields_that_are_needed(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            (found,) = (await ask(source)).ports
            assert (found.device_id, found.project_id) == (GUEST["device_id"], GUEST["project_id"])
            assert cloud.calls[0].values("fields") == list(FIELDS)
            assert cloud.calls[0].headers["Accept"] == "application/json"
            assert cloud.calls[0].headers["User-Agent"].startswith("fastmeta/")

        run(tmp_path, test)

    @pytest.mark.parametrize("kind", ["IPv4", "IPv6", "MAC", "mixed"])
    @pytest.mark.parametrize("networks", [1, MAX_NETWORKS, MAX_NETWORKS + 5])
    def test_no_url_is_too_long(self, tmp_path: Path, kind: str, networks: int) -> None:
        ids = [f"{n:08x}-ffff-4fff-8fff-ffffffffffff" for n in range(networks)]
        ports = [interface(n + 5000, uuid) for n, uuid in enumerate(ids)]
        ports += [port(1, "10.255.255.1", "2001:db8:ffff:ffff:ffff:ffff:ffff:1", network=ids[-1])]
        addresses = {
            "IPv4": [f"10.255.255.{n}" for n in range(1, 101)],
            "IPv6": [f"2001:db8:ffff:ffff:ffff:ffff:ffff:{n:x}" for n in range(1, 101)],
            "MAC": [link_local(n) for n in range(1, 101)],
        }
        addresses["mixed"] = [address for some in addresses.values() for address in some[:33]]

        async def test(cloud: Cloud, source: RestSource) -> None:
            answer = await ask(source, *addresses[kind], scope=router())
            first = questions(addresses[kind][0])[0]
            # A link-local address is in the one network of its link, which the resolver knows.
            assert whose(answer, router(), first) == "instance-1"
            longest = max(len(call.path) + len(cloud.neutron.url) for call in cloud.calls)
            assert longest < 8000
            expected = 1 + (1 if networks <= MAX_NETWORKS else 2) * (2 if kind == "mixed" else 1)
            assert expected <= len(cloud.calls) <= expected * 2

        run(tmp_path, test, ports)

    def test_connections_are_kept(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            for _ in range(5):
                await ask(source)
            assert len(cloud.neutron.connections) == 1

        run(tmp_path, test)

    def test_a_large_network_is_named_after_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once it is known to be large it is not listed again."""
        monkeypatch.setattr(neutron_rest, "WHOLE", 250)
        addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1200)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            expected = [f"instance-{n + 1}" for n in range(150)]
            assert await asked(source, *addresses[:150]) == expected
            assert len(cloud.calls) == 1 + 2
            assert await asked(source, *addresses[:150]) == expected
            assert len(cloud.calls) == 3 + 2

        run(tmp_path, test, [port(n + 1, address) for n, address in enumerate(addresses)])

    def test_a_list_of_which_nothing_comes_in_time_is_asked_for_in_shorter_pages(
        self, tmp_path: Path
    ) -> None:
        addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)  # the token
            cloud.neutron.fault = at_the_rate_of(0.0016)
            await failure_of(ask(source, *addresses))  # 1.6 s
            cloud.calls.clear()
            assert await asked(source, *addresses) == [f"instance-{n + 1}" for n in range(1000)]
            # 0.8 s, after which they are halved once more (on a busy machine perhaps again).
            limits = [int(call.values("limit")[0]) for call in cloud.calls]
            assert limits[:2] == [500, 250]
            assert len(limits) <= 8

        run(tmp_path, test, many(addresses), lookup_timeout=1.2)

    def test_what_has_come_is_kept_when_a_page_takes_too_long(self, tmp_path: Path) -> None:
        addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1500)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.calls.clear()
            cloud.neutron.faults = [Request.as_usual, hang]
            assert await asked(source, *addresses) == [f"instance-{n + 1}" for n in range(1500)]
            limits = [call.values("limit") for call in cloud.calls]
            assert limits[:3] == [["1000"], ["1000"], ["500"]]
            assert cloud.calls[1].values("marker") == cloud.calls[2].values("marker") != []

        run(tmp_path, test, many(addresses), lookup_timeout=1.5)

    def test_pages_are_long_again_when_it_is_quick_again(self, tmp_path: Path) -> None:
        addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(1000)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            source._page_size = neutron_rest.SMALLEST_PAGE
            assert await asked(source, *addresses) == [f"instance-{n + 1}" for n in range(1000)]
            limits = [int(call.values("limit")[0]) for call in cloud.calls]
            assert limits == [125, 250, 500, 1000]

        run(tmp_path, test, many(addresses), lookup_timeout=20)

    def test_whoever_gives_up_on_a_list_names_addresses_next(self, tmp_path: Path) -> None:
        """The resolver waits for parts, too, only as long as guests do."""
        addresses = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(200)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.calls.clear()
            cloud.max_page = 50
            cloud.neutron.faults = [Request.as_usual, hang]
            question = asyncio.ensure_future(ask(source, *addresses))
            await until(lambda: len(cloud.calls) == 2)
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)
            cloud.calls.clear()
            await ask(source, *addresses)
            assert all(call.values("fixed_ips") for call in cloud.calls)

        run(tmp_path, test, many(addresses))

    def test_a_large_network_is_listed_again_after_a_while(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(neutron_rest, "LARGE_PERIOD", -1.0)
        monkeypatch.setattr(neutron_rest, "WHOLE", 120)
        addresses = [f"10.1.0.{n}" for n in range(1, 151)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            for _ in range(2):
                await ask(source, *addresses)
            assert [bool(call.values("fixed_ips")) for call in cloud.calls] == [False, True, True] * 2

        run(tmp_path, test, many(addresses))


def many(addresses: Sequence[str]) -> list[Any]:
    return [port(n + 1, address) for n, address in enumerate(addresses)]


def at_the_rate_of(seconds: float) -> Fault:
    """So long for each port of an answer, and an instant for all."""

    def slowly(request: Request) -> None:
        asked_for = len(request.values("fixed_ips")) + len(request.values("mac_address"))
        request.wait(0.02 + seconds * (asked_for or int(request.values("limit")[0])))
        request.as_usual()

    return slowly


async def failure_of(question: Awaitable[Any]) -> LookupFailedError:
    with pytest.raises(LookupFailedError) as caught:
        await question
    return caught.value


class TestPages:
    @pytest.mark.parametrize("page", [1, 7, 100, 149, 150, 151])
    def test_pages_of_the_server_s_size(self, tmp_path: Path, page: int) -> None:
        """pagination_max_limit; the links name a host that cannot be reached, which is never tried."""
        addresses = [f"10.1.0.{n}" for n in range(1, 151)]

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.max_page = page
            assert await asked(source, *addresses) == [f"instance-{n}" for n in range(1, 151)]
            assert len(cloud.calls) == 150 // page + 1
            before = len(cloud.calls)
            assert await asked(source, *addresses[:5]) == [f"instance-{n}" for n in range(1, 6)]
            assert len(cloud.calls) - before == 5 // page + 1

        run(tmp_path, test, [port(n, address) for n, address in enumerate(addresses, 1)], lookup_timeout=20)

    def test_pages_of_a_router_s_own_ports(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.max_page = 1
            assert (await ask(source, scope=router())).networks == {BLUE, GREEN, RED}

        run(tmp_path, test, [GUEST, *(interface(20 + n, uuid) for n, uuid in enumerate((BLUE, GREEN, RED)))])

    def test_a_full_page_without_a_link_is_not_the_last(self, tmp_path: Path) -> None:
        """A double may be on the next one. (Neutron gives no links where native paging is off.)"""

        def page(request: Request) -> None:
            marker = request.values("marker")
            request.say(
                200, {"ports": [port(77, "10.0.0.5")] if marker else [port(n) for n in range(100, 1100)]}
            )

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = page
            assert await asked(source) == ["instance-77"]
            assert len(cloud.calls) == 2

        run(tmp_path, test)

    def test_the_same_port_on_two_pages_is_one(self, tmp_path: Path) -> None:
        def page(request: Request) -> None:
            last = bool(request.values("marker"))
            links = [] if last else [{"rel": "next", "href": "x"}]
            request.say(200, {"ports": [GUEST, port(2, "10.0.0.6")], "ports_links": links})

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = page
            assert await asked(source, "10.0.0.5", "10.0.0.6") == ["instance-1", "instance-2"]
            assert [call.values("marker") for call in cloud.calls] == [[], [port(2)["id"]]]

        run(tmp_path, test)

    def test_two_descriptions_of_a_port_on_two_pages_are_nobody_s(self, tmp_path: Path) -> None:
        def page(request: Request) -> None:
            marker = request.values("marker")
            links = [] if marker else [{"rel": "next", "href": "x"}]
            ports = [GUEST | {"device_id": "another"}] if marker else [GUEST]
            request.say(200, {"ports": ports, "ports_links": links})

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = page
            assert await asked(source) == ["nobody"]

        run(tmp_path, test)

    def test_a_double_on_the_last_page_counts(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.max_page = 1
            assert await asked(source) == ["nobody"]

        run(tmp_path, test, [GUEST, port(77, "10.0.0.5")])

    @pytest.mark.parametrize(
        "answer",
        [
            {"ports": [GUEST], "ports_links": [{"rel": "next", "href": "x"}]},
            {"ports": [], "ports_links": [{"rel": "next", "href": "x"}]},
            {"ports": [{"id": "5"}], "ports_links": [{"rel": "next", "href": "x"}]},
            {"ports": [GUEST], "ports_links": "next"},
            {"ports": [GUEST], "ports_links": ["next"]},
        ],
        ids=["in-circles", "after-none", "after-no-id", "no-list", "no-link"],
    )
    def test_pages_that_lead_nowhere(self, tmp_path: Path, answer: dict[str, Any]) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = says(200, answer)
            await failure(source, LookupMalformedError)
            assert len(cloud.calls) <= 2

        run(tmp_path, test)

    def test_pages_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neutron_rest, "MAX_PORTS", 50)

        def page(request: Request) -> None:
            number = int((request.values("marker") or ["0"])[0].rpartition("-")[2], 16) + 1
            request.say(200, {"ports": [port(number)], "ports_links": [{"rel": "next", "href": "x"}]})

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = page
            assert "without end" in await failure(source, LookupMalformedError)
            assert len(cloud.calls) == 51

        run(tmp_path, test)

    def test_the_last_port_of_a_page_is_gone(self, tmp_path: Path) -> None:
        """Neutron answers a marker that it does not know with 404: a question for later, not for an operator."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            def answer_and_delete(request: Request) -> None:
                request.as_usual()
                cloud.ports = [one for one in cloud.ports if one is not GUEST]

            cloud.max_page = 1
            cloud.neutron.faults = [answer_and_delete]
            assert "has changed its list" in await failure(source, LookupUnavailableError)
            assert await asked(source) == ["instance-2"]

        run(tmp_path, test, [GUEST, port(2, "10.0.0.5")])


class TestTokens:
    def test_one_for_all_questions(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await asyncio.gather(*(ask(source) for _ in range(50)))
            assert len(cloud.logins) == 1

        run(tmp_path, test)

    def test_it_is_there_before_the_first_question(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await until(lambda: len(cloud.tokens) == 1)

        run(tmp_path, test)

    def test_a_401_in_between_gets_one_fresh_token(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.expire_tokens()
            assert await asked(source) == ["instance-1"]
            assert (len(cloud.logins), len(cloud.calls)) == (2, 3)
            await ask(source)
            assert len(cloud.logins) == 2

        run(tmp_path, test)

    def test_it_is_renewed_before_it_ends(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.token_life = 60  # less than the margin: it is never used twice
            source._token_until = 0
            source._session.auth.invalidate()  # type: ignore[union-attr]
            for _ in range(3):
                assert await asked(source) == ["instance-1"]
            assert len(cloud.logins) >= 4
            assert all(call.headers["X-Auth-Token"] in cloud.valid for call in cloud.calls)

        async def after_the_first(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            await test(cloud, source)

        run(tmp_path, after_the_first)

    def test_a_slow_keystone_gets_done(self, tmp_path: Path) -> None:
        """A token may take longer than a question: who asks again has it."""

        def slowly(request: Request) -> None:
            request.wait(1.0)
            request.as_usual()

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.keystone.fault = slowly
            source._session.auth.invalidate()  # type: ignore[union-attr]
            source._token_until = 0
            text = await failure(source, LookupUnavailableError)
            assert text.startswith("Keystone at ")
            assert "does not answer in time" in text
            await until(lambda: source._token_until > time.monotonic())
            assert await asked(source) == ["instance-1"]
            assert len(cloud.logins) == 2

        async def after_the_first(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            await test(cloud, source)

        run(tmp_path, after_the_first, lookup_timeout=0.4)

    def test_no_thread_waits_for_a_hung_keystone(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.keystone.fault = hang
            source._session.auth.invalidate()  # type: ignore[union-attr]
            source._token_until = 0
            await asyncio.gather(*(failure_of(ask(source)) for _ in range(40)))
            assert len(threads()) <= 2
            assert len(cloud.keystone.requests) <= 3

        async def after_the_first(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            await test(cloud, source)

        run(tmp_path, after_the_first, lookup_timeout=0.5)


NO_LIST: list[Fault] = [
    says(200, HTML, Content_Type="text/html"),
    says(200, b""),
    says(200, b'{"ports": [', Content_Type="application/json"),
    says(200, b'{"ports": [], "ports": []}'),
    says(200, b"[" * 100_000),
    says(200, b"\xff\xfe"),
    says(200, []),
    says(200, None),
    says(200, {}),
    says(200, {"ports": {}}),
    says(200, {"ports": None}),
    says(200, {"networks": []}),
]


class TestRefusals:
    @pytest.mark.parametrize("fault", NO_LIST, ids=lambda fault: str(NO_LIST.index(fault)))
    def test_garbage(self, tmp_path: Path, fault: Fault) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = fault
            text = await failure(source, LookupMalformedError)
            assert "is no list of ports" in text
            assert cloud.neutron.url in text
            assert len(text) < 400
            cloud.neutron.fault = None
            assert await asked(source) == ["instance-1"]

        run(tmp_path, test)

    @pytest.mark.parametrize(
        ("fault", "kind", "text"),
        [
            (says(401, {}), LookupRefusedError, "does not take a token that Keystone has given"),
            (says(403, {"NeutronError": {}}), LookupRefusedError, "need the role admin or service"),
            (says(404, HTML), LookupRefusedError, "has no list of ports (404)"),
            (says(400, {}), LookupRefusedError, "400 Bad Request"),
            (says(414, b""), LookupRefusedError, "414"),
            (says(302, b"", Location="/elsewhere"), LookupRefusedError, "302 Found"),
            (
                says(302, b"", Location="http://192.0.2.1/"),
                LookupRefusedError,
                "redirects to http://192.0.2.1:80",
            ),
            (says(204, b""), LookupRefusedError, "204"),
            (says(500, b"oops"), LookupUnavailableError, "answers 500 Internal Server Error"),
            (says(502, HTML), LookupUnavailableError, "answers 502 Bad Gateway"),
            (says(503, b""), LookupUnavailableError, "answers 503 Service Unavailable"),
            (says(599, b""), LookupUnavailableError, "answers 599"),
            (drop, LookupUnavailableError, "closes the connection without an answer"),
            (raw(b"\x15\x03\x01\x00\x02\x02\x28\r\n"), LookupMalformedError, "no HTTP"),
            (
                raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
                LookupUnavailableError,
                "in the middle of its answer",
            ),
            (
                raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{"),
                LookupUnavailableError,
                "in the middle of its answer",
            ),
            (
                says(200, b"\x1f\x8b", Content_Encoding="gzip"),
                LookupMalformedError,
                "packs its answer",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_of_neutron(self, tmp_path: Path, fault: Fault, kind: type[LookupFailedError], text: str) -> None:
        """The text is the same whatever is asked, names the server, and says neither the question nor a secret."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.fault = fault
            said = await failure(source, kind)
            assert text in said
            assert cloud.neutron.url in said
            assert await failure(source, kind, scope=network(GREEN)) == said
            for secret in (PASSWORD, *cloud.tokens, "10.0.0.5", BLUE):
                assert secret not in said
            cloud.neutron.fault = None
            assert await asked(source) == ["instance-1"]

        run(tmp_path, test)

    @pytest.mark.parametrize("status", [429, 503])
    def test_rest_as_told(self, tmp_path: Path, status: int) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.faults = [says(status, b"", Retry_After="1")]
            first = await failure(source, LookupUnavailableError)
            begin = time.monotonic()
            assert await failure(source, LookupUnavailableError) == first
            assert len(cloud.calls) == 1
            while time.monotonic() < begin + 1.0:
                await asyncio.sleep(0.05)
            assert await asked(source) == ["instance-1"]

        run(tmp_path, test)

    @pytest.mark.parametrize("value", ["999999999", "soon", "-5", "1e9", "²"])
    def test_rest_is_bounded(self, tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neutron_rest, "MAX_REST", 0.3)

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.faults = [
                raw(f"HTTP/1.1 429 No\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode())
            ]
            await failure(source, LookupUnavailableError)
            begin = time.monotonic()
            while time.monotonic() < begin + 0.3:
                await asyncio.sleep(0.05)
            assert await asked(source) == ["instance-1"]

        run(tmp_path, test)

    @pytest.mark.parametrize(
        ("fault", "kind", "text"),
        [
            (says(401, {}), LookupRefusedError, "does not take our credentials (401)"),
            (says(403, {}), LookupRefusedError, "403 Forbidden"),
            (says(404, HTML), LookupRefusedError, "there is no Keystone there"),
            (says(400, {}), LookupRefusedError, "400 Bad Request"),
            (
                says(301, b"", Location="http://192.0.2.1/"),
                LookupRefusedError,
                "redirects to http://192.0.2.1:80",
            ),
            (says(500, b""), LookupUnavailableError, "500 Internal Server Error"),
            (says(503, b""), LookupUnavailableError, "503"),
            (
                says(201, HTML, Content_Type="text/html"),
                LookupRefusedError,
                "authentication fails (InvalidResponse)",
            ),
            (says(201, {"token": []}), LookupMalformedError, "cannot be understood"),
            (says(201, {}, X_Subject_Token="x"), LookupRefusedError, "InvalidResponse"),
            (drop, LookupUnavailableError, "closes the connection without an answer"),
            (raw(b"SSH-2.0-OpenSSH\r\n"), LookupMalformedError, "no HTTP"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_of_keystone(
        self, tmp_path: Path, fault: Fault, kind: type[LookupFailedError], text: str
    ) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            before = len(cloud.calls)
            source._session.auth.invalidate()  # type: ignore[union-attr]
            source._token_until = 0
            cloud.keystone.fault = fault
            said = await failure(source, kind)
            assert text in said
            assert f"{cloud.keystone.url}/v3/auth/tokens" in said
            assert await failure(source, kind, scope=network(GREEN)) == said
            assert PASSWORD not in said
            assert len(cloud.calls) == before
            cloud.keystone.fault = None
            assert await asked(source) == ["instance-1"]

        run(tmp_path, test)

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"password": "wr0ng"}, "does not take our credentials (401)"),
            ({"username": "nobody"}, "does not take our credentials (401)"),
            ({"project_name": "nothing"}, "does not take our credentials (401)"),
            ({"user_domain_name": "nowhere"}, "does not take our credentials (401)"),
            (
                {"region_name": "Nowhere"},
                "in region Nowhere, there is admin in region RegionOne; internal in",
            ),
            ({"service_type": "compute"}, "no endpoint of service type compute"),
            ({"valid_interfaces": "secret"}, "wanted secret, there is"),
        ],
        ids=str,
    )
    def test_wrong_configuration(
        self, tmp_path: Path, wrong: dict[str, str], text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Said in the log at the start, before there is a guest; and every question is told the same."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            await until(lambda: text in caplog.text)
            assert text in await failure(source, LookupRefusedError)
            assert len(cloud.calls) == 0

        run(tmp_path, test, **wrong)
        assert "Neutron's API cannot be asked yet, guests wait" in caplog.text
        assert "wr0ng" not in caplog.text
        assert PASSWORD not in caplog.text

    def test_nothing_listens(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.end()
            assert await failure(source, LookupUnavailableError) == (
                f"Neutron at {cloud.neutron.url}: Connection refused"
            )
            source._session.auth.invalidate()  # type: ignore[union-attr]
            source._token_until = 0
            cloud.keystone.end()
            assert "Connection refused" in await failure(source, LookupUnavailableError)

        run(tmp_path, test)

    def test_connections_that_a_restart_has_ended(self, tmp_path: Path) -> None:
        """A kept connection that turns out to be dead is no failure; but of a new one it is."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.faults = [drop]
            assert await asked(source) == ["instance-1"]
            cloud.neutron.faults = [drop, drop]
            await failure(source, LookupUnavailableError)

        run(tmp_path, test)


class TestVisibility:
    def test_nothing_at_all_is_visible(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """As Neutron shows ports to a user without a role beyond its own project."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.visible = lambda port: False
            for _ in range(3):
                assert await asked(source) == ["nobody"]
            assert len(cloud.calls) == 3 + 1  # it is looked for once
            assert await asked(source, scope=network(GREEN)) == ["nobody"]

        run(tmp_path, test)
        said = [
            record.getMessage() for record in caplog.records if "role admin or service" in record.getMessage()
        ]
        assert len(said) == 1
        assert BLUE in said[0]

    def test_of_a_router(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.visible = lambda port: False
            assert await asked(source, scope=router()) == ["nobody"]
            assert len(cloud.calls) == 1

        run(tmp_path, test, [GUEST, interface(20, BLUE)])
        assert "role admin or service" in caplog.text

    def test_an_address_that_nobody_has(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The DHCP server's port is visible, so nothing is wrong with the credentials."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            for _ in range(3):
                assert await asked(source, "10.0.0.77") == ["nobody"]
            assert len(cloud.calls) == 3 + 1

        run(tmp_path, test)
        assert "role" not in caplog.text


class TestTime:
    @pytest.mark.parametrize("fault", [hang, trickle_head, trickle_body], ids=lambda fault: fault.__name__)
    def test_a_thread_is_free_again_soon(self, tmp_path: Path, fault: Fault) -> None:
        """Whatever the server does with it, and the text is the same."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.fault = fault
            expected = f"Neutron at {cloud.neutron.url} does not answer in time (lookup_timeout)"
            assert await failure(source, LookupUnavailableError) == expected
            await until(lambda: not source._started._running)
            cloud.neutron.fault = None
            assert await asked(source) == ["instance-1"]
            assert len(threads()) <= 2

        run(tmp_path, test, lookup_timeout=0.5)

    def test_a_hung_question_blocks_no_other_scope(self, tmp_path: Path) -> None:
        def hang_blue(request: Request) -> None:
            if BLUE in request.values("network_id"):
                hang(request)
            else:
                request.as_usual()

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.fault = hang_blue
            hung = [asyncio.ensure_future(ask(source)) for _ in range(5)]
            await until(lambda: len(source._started._running) == 5)
            for _ in range(3):
                await asked(source, scope=network(GREEN))
            assert not any(question.done() for question in hung)
            for question in hung:
                question.cancel()
            await asyncio.gather(*hung, return_exceptions=True)
            # Cut off at once, long before the 30 seconds.
            await until(lambda: not source._started._running)

        run(tmp_path, test, lookup_timeout=30)

    def test_when_all_threads_hang(self, tmp_path: Path) -> None:
        """The number of threads is bounded; whoever gets none is told so, and those that hang are cut off."""

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.fault = hang
            hung = [asyncio.ensure_future(failure_of(ask(source))) for _ in range(neutron_rest.THREADS)]
            await until(lambda: len(source._started._running) == neutron_rest.THREADS)
            source._lookup_timeout = lambda: 0.2  # so that no thread is free before these give up
            errors = await asyncio.gather(*(failure_of(ask(source)) for _ in range(24)))
            assert {str(error) for error in errors} == {
                "Neutron's API (all 16 threads wait for it) does not answer in time (lookup_timeout)"
            }
            assert len(threads()) == neutron_rest.THREADS
            await asyncio.gather(*hung)
            source._lookup_timeout = lambda: 3.0
            cloud.neutron.fault = None
            assert await asked(source) == ["instance-1"]

        run(tmp_path, test, lookup_timeout=2.0)

    def test_a_question_that_is_cancelled_leaves_no_harm(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            for _ in range(30):
                question = asyncio.ensure_future(ask(source))
                await asyncio.sleep(0.001)
                question.cancel()
                await asyncio.gather(question, return_exceptions=True)
                assert await asked(source) == ["instance-1"]
            assert len(cloud.logins) == 1

        run(tmp_path, test)

    def test_stop_is_prompt(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.neutron.fault = hang
            hung = [asyncio.ensure_future(failure_of(ask(source))) for _ in range(20)]
            await until(lambda: len(source._started._running) == neutron_rest.THREADS)
            begin = time.monotonic()
            await source.stop()
            assert time.monotonic() - begin < 5
            await asyncio.gather(*hung)
            await until(lambda: not threads())
            await failure(source, LookupUnavailableError)

        run(tmp_path, test, lookup_timeout=60)

    def test_stop_while_keystone_hangs(self, tmp_path: Path) -> None:
        async def body() -> None:
            with Cloud([GUEST]) as cloud:
                cloud.keystone.fault = hang
                async with rest_source(tmp_path, cloud) as source:
                    await until(lambda: bool(cloud.keystone.requests))
                    begin = time.monotonic()
                    await source.stop()
                    assert time.monotonic() - begin < 2
                    await until(lambda: not threads())

        asyncio.run(body())

    def test_an_answer_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounded_http, "MAX_ANSWER", 1_000_000)

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = flood
            assert "answers more than 1000000 bytes" in await failure(source, LookupMalformedError)
            await until(lambda: not source._started._running)

        run(tmp_path, test, lookup_timeout=20)

    def test_a_head_without_end(self, tmp_path: Path) -> None:
        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2_000_000)
            await failure(source, LookupMalformedError)

        run(tmp_path, test, lookup_timeout=20)

    def test_no_descriptor_is_left(self, tmp_path: Path) -> None:
        """Connections have a second descriptor: it must go when they do."""

        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            for fault in (hang, drop, says(500, b""), trickle_body) * 3:
                cloud.neutron.fault = fault
                await failure_of(ask(source))
            await until(lambda: not source._started._running)
            cloud.neutron.fault = None
            await ask(source)

        before = descriptors()
        for _ in range(2):
            run(tmp_path, test, lookup_timeout=0.3)
        end = time.monotonic() + 5
        while descriptors() > before and time.monotonic() < end:
            time.sleep(0.02)  # the server's threads close theirs
        assert descriptors() <= before


class TestEnvironment:
    def test_nothing_of_it_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy would get the password; .netrc would send another one."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1/")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login x password y\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

        async def test(cloud: Cloud, source: RestSource) -> None:
            assert await asked(source) == ["instance-1"]
            assert all("Authorization" not in call.headers for call in cloud.keystone.requests + cloud.calls)

        run(tmp_path, test)

    def test_no_cookie_is_kept(self, tmp_path: Path) -> None:
        def with_cookie(request: Request) -> None:
            request.say(200, {"ports": [GUEST]}, Set_Cookie="session=1; Path=/")

        async def test(cloud: Cloud, source: RestSource) -> None:
            cloud.neutron.fault = with_cookie
            await ask(source)
            await ask(source)
            assert "Cookie" not in cloud.calls[1].headers

        run(tmp_path, test)

    def test_debug_logs_hold_no_secret(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        http.client.HTTPConnection.debuglevel = 0

        async def test(cloud: Cloud, source: RestSource) -> None:
            await ask(source)
            cloud.expire_tokens()
            await ask(source)
            for fault in (drop, says(500, b""), says(403, {})):
                cloud.neutron.fault = fault
                await failure_of(ask(source))
            for secret in (PASSWORD, *cloud.tokens):
                assert secret not in caplog.text

        run(tmp_path, test)
