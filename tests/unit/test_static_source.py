"""The ports file: what it says, and what happens when it changes. Real files, real inotify."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fastmeta.exceptions import ConfigError, LookupMalformedError, LookupUnavailableError, UnsafeFileError
from fastmeta.folders import FolderWatcher
from fastmeta.lookup.static import Content, StaticSource
from fastmeta.models import ROUTER_INTERFACE_OWNERS, ROUTER_OWNERS, Answer, Change, Question, Scope, ScopeKind

BLUE = "11111111-1111-4111-8111-111111111111"
GREEN = "22222222-2222-4222-8222-222222222222"
ROUTER = "33333333-3333-4333-8333-333333333333"
PROJECT = "a" * 32


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


def interface(number: int, network: str, owner: str = "network:router_interface") -> dict[str, Any]:
    return port(number, "10.0.0.1", network=network, device_id=ROUTER, device_owner=owner)


def content(*ports: dict[str, Any]) -> Content:
    return Content.parse(json.dumps({"ports": list(ports)}).encode())


def questions(*addresses: str) -> list[Question]:
    return [Question(ipaddress.ip_address(address)) for address in addresses]


def instances(answer: Answer) -> list[str]:
    return sorted(p.device_id for p in answer.ports)


class TestContent:
    def test_same_address_in_two_networks(self) -> None:
        both = content(port(1, "10.0.0.5"), port(2, "10.0.0.5", network=GREEN))
        for network, instance in ((BLUE, "instance-1"), (GREEN, "instance-2")):
            answer = both.answer(Scope(ScopeKind.NETWORK, network), questions("10.0.0.5"))
            assert answer.networks == {network}
            assert instances(answer) == [instance]

    def test_many_questions_in_one(self) -> None:
        some = content(port(1, "10.0.0.5", "2001:db8::5"), port(2, "10.0.0.6"), port(3, "10.0.0.7"))
        asked = questions("10.0.0.5", "2001:db8::5", "10.0.0.6", "10.0.0.9", "fe80::f816:3eff:fe00:3")
        answer = some.answer(Scope(ScopeKind.NETWORK, BLUE), asked)
        assert instances(answer) == ["instance-1", "instance-2", "instance-3"]

    @pytest.mark.parametrize("owner", sorted(ROUTER_INTERFACE_OWNERS))
    def test_networks_of_a_router(self, owner: str) -> None:
        routed = content(interface(1, BLUE), interface(2, GREEN, owner), port(3, "10.0.0.5", network=GREEN))
        answer = routed.answer(Scope(ScopeKind.ROUTER, ROUTER), questions("10.0.0.5"))
        assert answer.networks == {BLUE, GREEN}
        assert instances(answer) == ["instance-3"]

    @pytest.mark.parametrize(
        "owner",
        ["network:router_ha_interface", "network:router_gateway", "compute:nova", "", "network:dhcp"],
    )
    def test_other_ports_do_not_make_a_router_s_network(self, owner: str) -> None:
        routed = content(interface(1, BLUE, owner), port(3, "10.0.0.5"))
        answer = routed.answer(Scope(ScopeKind.ROUTER, ROUTER), questions("10.0.0.5"))
        assert answer.networks == frozenset()
        assert answer.ports == ()

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"5",
            b"null",
            b"{}",
            b'{"ports": {}}',
            b'{"ports": [5]}',
            b'{"ports": [{}]}',
            b'{"ports": [], "ports": []}',
            b'{"ports": [], "x": NaN}',
            b'{"ports": []} x',
            b"\xff{}",
            b"[" * 100_000,
            b'{"ports": [' + b"1" * 5000 + b"]}",
            json.dumps({"ports": [port(1, "10.0.0.5"), port(1, "10.0.0.6")]}).encode(),
            json.dumps({"ports": [port(1, "10.0.0.5", device_id=None)]}).encode(),
        ],
        ids=lambda data: repr(data[:40]),
    )
    def test_broken(self, data: bytes) -> None:
        with pytest.raises(LookupMalformedError) as caught:
            Content.parse(data)
        assert len(str(caught.value)) < 400

    def test_change(self) -> None:
        addresses = {n: ipaddress.ip_address(f"10.0.0.{n}") for n in (1, 5, 6, 7)}
        old = content(port(1, "10.0.0.5"), port(2, "10.0.0.6"), port(3, "10.0.0.5", network=GREEN))
        moved = content(port(1, "10.0.0.7"), port(2, "10.0.0.6"), port(3, "10.0.0.5", network=GREEN))
        assert moved.change_from(old) == Change({BLUE: frozenset({addresses[5], addresses[7]})})
        other = content(
            port(1, "10.0.0.5", device_id="x"), port(2, "10.0.0.6"), port(3, "10.0.0.5", network=GREEN)
        )
        assert other.change_from(old) == Change({BLUE: frozenset({addresses[5]})})
        assert old.change_from(old) == Change({})
        routed = content(port(1, "10.0.0.5"), port(2, "10.0.0.6"), interface(4, GREEN))
        assert routed.change_from(old) == Change(
            {GREEN: frozenset({addresses[1], addresses[5]})}, frozenset({ROUTER})
        )
        mac = content(port(1, mac_address="fa:16:3e:ff:ff:ff"))
        assert mac.change_from(content(port(1))) == Change({BLUE: frozenset()})


class TestLinks:
    """A router's own ports tell which network each of its links is in."""

    LEFT, RIGHT = "fa:16:3e:0a:0a:01", "fa:16:3e:0a:0a:02"

    def routed(self, *more: dict[str, Any], left: str = BLUE, right: str = GREEN) -> Content:
        ports = (interface(1, left), interface(2, right))
        macs = ({"mac_address": self.LEFT}, {"mac_address": self.RIGHT})
        return content(*(a | b for a, b in zip(ports, macs, strict=True)), *more)

    def links(self, some: Content) -> dict[str, set[str]]:
        answer = some.answer(Scope(ScopeKind.ROUTER, ROUTER), questions("10.0.0.5"))
        return {mac: set(networks) for mac, networks in answer.links.items()}

    def test_of_a_router(self) -> None:
        assert self.links(self.routed()) == {self.LEFT: {BLUE}, self.RIGHT: {GREEN}}

    def test_a_network_has_none(self) -> None:
        answer = self.routed().answer(Scope(ScopeKind.NETWORK, BLUE), questions("10.0.0.5"))
        assert answer.links == {}

    @pytest.mark.parametrize("owner", sorted(ROUTER_OWNERS - ROUTER_INTERFACE_OWNERS))
    def test_a_gateway_is_a_link_of_no_network_of_its(self, owner: str) -> None:
        outside = "55555555-5555-4555-8555-555555555555"
        gateway = interface(3, outside, owner) | {"mac_address": "fa:16:3e:0a:0a:03"}
        some = self.routed(gateway)
        assert self.links(some)["fa:16:3e:0a:0a:03"] == {outside}
        answer = some.answer(Scope(ScopeKind.ROUTER, ROUTER), questions("10.0.0.5"))
        assert answer.networks == {BLUE, GREEN}

    @pytest.mark.parametrize("owner", ["compute:nova", "", "network:dhcp", "router_interface"])
    def test_who_only_names_the_router_is_no_link(self, owner: str) -> None:
        """A tenant may write any device_id into a port."""
        claim = interface(3, GREEN, owner) | {"mac_address": self.LEFT}
        assert self.links(self.routed(claim))[self.LEFT] == {BLUE}

    def test_one_mac_in_two_networks(self) -> None:
        some = self.routed(interface(3, GREEN) | {"mac_address": self.LEFT})
        assert self.links(some)[self.LEFT] == {BLUE, GREEN}

    def test_links_that_change_places_are_a_change_of_the_router(self) -> None:
        """Its networks are the same, and so are the ports of each network but for their MACs."""
        change = self.routed(left=GREEN, right=BLUE).change_from(self.routed())
        assert change.routers == {ROUTER}
        assert self.routed().change_from(self.routed()) == Change({})


class File:
    """A ports file and a source that reads it."""

    def __init__(self, path: Path, folders: FolderWatcher) -> None:
        self.path = path
        self.changes: list[Change] = []
        self.announcing: list[bool] = []
        self.source = StaticSource(str(path), folders)

    async def start(self) -> None:
        await self.source.start(self.changes.append, self.announcing.append)

    async def instance(self, address: str = "10.0.0.5") -> str:
        answer = await self.source.ports(Scope(ScopeKind.NETWORK, BLUE), questions(address))
        return ",".join(instances(answer))

    async def until_instance(self, expected: str) -> None:
        end = time.monotonic() + 5
        while await self.instance() != expected:
            assert time.monotonic() < end, await self.instance()
            await asyncio.sleep(0.002)

    async def until_logged(self, caplog: pytest.LogCaptureFixture, text: str) -> None:
        end = time.monotonic() + 5
        while text not in caplog.text:
            assert time.monotonic() < end, caplog.text
            await asyncio.sleep(0.002)


def text(instance: str) -> str:
    return json.dumps({"ports": [port(1, "10.0.0.5", device_id=instance)]})


def run(path: Path, test: Callable[[File], Awaitable[None]]) -> None:
    async def body() -> None:
        folders = FolderWatcher(asyncio.get_running_loop())
        file = File(path, folders)
        try:
            await file.start()
            await test(file)
        finally:
            await file.source.stop()
            folders.close()

    asyncio.run(body())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "ports.json"
    path.parent.mkdir()
    path.write_text(text("one"))
    path.chmod(0o644)
    return path


class TestStaticSource:
    def test_is_read_at_start(self, path: Path) -> None:
        async def test(file: File) -> None:
            assert await file.instance() == "one"

        run(path, test)

    def test_written_in_place(self, path: Path) -> None:
        async def test(file: File) -> None:
            path.write_text(text("two"))
            await file.until_instance("two")
            assert file.changes[-1] == Change({BLUE: frozenset({ipaddress.ip_address("10.0.0.5")})})

        run(path, test)

    def test_replaced_by_rename(self, path: Path) -> None:
        async def test(file: File) -> None:
            for instance in ("two", "three"):
                new = path.with_name("new")
                new.write_text(text(instance))
                new.chmod(0o600)
                new.rename(path)
                await file.until_instance(instance)

        run(path, test)

    def test_replaced_by_links(self, path: Path) -> None:
        """As Kubernetes does: the file is a link through a link to a folder, which is swapped."""
        for name in ("one", "two"):
            (path.parent / name).mkdir()
            (path.parent / name / "ports.json").write_text(text(name))
        path.unlink()
        (path.parent / "data").symlink_to("one")
        path.symlink_to("data/ports.json")

        async def test(file: File) -> None:
            assert await file.instance() == "one"
            (path.parent / "tmp").symlink_to("two")
            (path.parent / "tmp").rename(path.parent / "data")
            await file.until_instance("two")

        run(path, test)

    def test_hard_link_in_its_place(self, path: Path) -> None:
        async def test(file: File) -> None:
            other = path.parent.parent / "other"
            other.write_text(text("two"))
            path.unlink()
            os.link(other, path)
            await file.until_instance("two")

        run(path, test)

    def test_appears_later(self, path: Path) -> None:
        path.unlink()

        async def test(file: File) -> None:
            with pytest.raises(LookupUnavailableError, match="not there yet"):
                await file.instance()
            path.write_text(text("one"))
            end = time.monotonic() + 5
            while not file.changes:
                assert time.monotonic() < end
                await asyncio.sleep(0.002)
            assert file.changes == [Change({}, everything=True)]
            assert await file.instance() == "one"

        run(path, test)

    def test_folder_appears_later_too(self, path: Path) -> None:
        path.unlink()
        path.parent.rmdir()

        async def test(file: File) -> None:
            path.parent.mkdir()
            path.write_text(text("one"))
            end = time.monotonic() + 5
            while not file.changes:
                assert time.monotonic() < end
                await asyncio.sleep(0.002)
            assert await file.instance() == "one"

        run(path, test)

    def test_broken_one_keeps_the_old_content_and_says_so(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(file: File) -> None:
            path.write_text('{"ports": [')
            await file.until_logged(caplog, "what was read before stays in force")
            assert await file.instance() == "one"
            # A whole one is not taken in part either.
            path.write_text(json.dumps({"ports": [port(2, "10.0.0.6"), port(3, "10.0.0.7", id="?")]}))
            await file.until_logged(caplog, "id is not a UUID")
            assert await file.instance() == "one"
            assert len(file.changes) == 1
            path.write_text(text("two"))
            await file.until_instance("two")

        run(path, test)

    def test_one_that_is_removed_keeps_the_old_content(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(file: File) -> None:
            path.unlink()
            await file.until_logged(caplog, "No such file")
            assert await file.instance() == "one"
            path.write_text(text("two"))
            await file.until_instance("two")

        run(path, test)

    def test_one_that_others_may_write_is_not_taken(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(file: File) -> None:
            new = path.with_name("new")
            new.write_text(text("evil"))
            new.chmod(0o666)
            new.rename(path)
            await file.until_logged(caplog, "chmod go-w")
            assert await file.instance() == "one"
            path.chmod(0o644)  # mended: taken without another writing
            await file.until_instance("evil")

        run(path, test)

    def test_a_new_file_is_not_read_before_its_writer_is_done(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(file: File) -> None:
            path.unlink()
            await file.until_logged(caplog, "No such file")
            caplog.clear()
            with path.open("w") as new:
                new.write(text("two")[:10])
                new.flush()
                await asyncio.sleep(0.05)
                new.write(text("two")[10:])
            await file.until_instance("two")
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

        run(path, test)

    def test_same_content_changes_nothing(self, path: Path) -> None:
        async def test(file: File) -> None:
            path.write_text(text("one"))
            path.chmod(0o600)
            await asyncio.sleep(0.05)
            assert len(file.changes) == 1

        run(path, test)

    def test_broken_at_start(self, path: Path) -> None:
        path.write_text("[]")

        async def test(file: File) -> None:
            raise AssertionError("it must not have started")

        with pytest.raises(ConfigError, match=r"ports\.json: not a JSON object"):
            run(path, test)

    def test_unsafe_at_start(self, path: Path) -> None:
        path.chmod(0o664)

        async def test(file: File) -> None:
            raise AssertionError("it must not have started")

        with pytest.raises(UnsafeFileError, match="chmod go-w"):
            run(path, test)
