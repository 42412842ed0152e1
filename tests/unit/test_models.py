"""What comes from outside is checked once, strictly, where it becomes a value of ours."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from fastmeta.exceptions import ConfigError, LookupMalformedError
from fastmeta.models import (
    Answer,
    ListenSpec,
    Port,
    Question,
    Scope,
    ScopeKind,
    mac_of,
    pack_address,
    parse_address,
    unpack_address,
)

NETWORK = "11111111-1111-4111-8111-111111111111"
PORT = "22222222-2222-4222-8222-222222222222"
INSTANCE = "33333333-3333-4333-8333-333333333333"
PROJECT = "4" * 32


def port_item(**changes: Any) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": PORT,
        "network_id": NETWORK,
        "device_id": INSTANCE,
        "device_owner": "compute:nova",
        "project_id": PROJECT,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"ip_address": "10.0.0.5", "subnet_id": "ignored"}],
    }
    item.update(changes)
    return {name: value for name, value in item.items() if value is not ...}


class TestPort:
    def test_of_the_api(self) -> None:
        port = Port.from_api(port_item(status="ACTIVE"))
        assert port.id == PORT
        assert port.device_id == INSTANCE
        assert port.project_id == PROJECT
        assert port.fixed_ips == (ipaddress.IPv4Address("10.0.0.5"),)

    def test_ids_and_mac_are_in_lower_case(self) -> None:
        port = Port.from_api(port_item(network_id=NETWORK.upper(), mac_address="FA:16:3E:AA:BB:CC"))
        assert (port.network_id, port.mac_address) == (NETWORK, "fa:16:3e:aa:bb:cc")

    def test_tenant_id_is_project_id(self) -> None:
        assert Port.from_api(port_item(project_id=..., tenant_id=PROJECT)).project_id == PROJECT
        assert Port.from_api(port_item(project_id=None, tenant_id=PROJECT)).project_id == PROJECT
        assert Port.from_api(port_item(tenant_id=PROJECT)).project_id == PROJECT

    def test_unbound_port_has_an_empty_device(self) -> None:
        assert Port.from_api(port_item(device_id="")).device_id == ""

    def test_mapped_fixed_ip_is_the_ipv4_one(self) -> None:
        port = Port.from_api(port_item(fixed_ips=[{"ip_address": "::ffff:10.0.0.5"}]))
        assert port.fixed_ips == (ipaddress.IPv4Address("10.0.0.5"),)

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": ...},
            {"id": "x"},
            {"id": 1},
            {"network_id": ...},
            {"network_id": None},
            {"network_id": NETWORK + "0"},
            {"network_id": NETWORK.replace("-", "")},
            {"device_id": ...},
            {"device_id": None},
            {"device_id": 5},
            {"device_id": "a\r\nX-Tenant-ID: b"},
            {"device_id": "a b"},
            {"device_id": "\u00e9"},
            {"device_id": "a" * 256},
            {"device_owner": ...},
            {"device_owner": []},
            {"project_id": ...},
            {"project_id": "a\n"},
            {"tenant_id": "5" * 32},
            {"tenant_id": 5},
            {"mac_address": ...},
            {"mac_address": "fa:16:3e:00:00"},
            {"mac_address": "fa163e000001"},
            {"mac_address": None},
            {"fixed_ips": ...},
            {"fixed_ips": None},
            {"fixed_ips": "10.0.0.5"},
            {"fixed_ips": ["10.0.0.5"]},
            {"fixed_ips": [{}]},
            {"fixed_ips": [{"ip_address": "10.0.0"}]},
            {"fixed_ips": [{"ip_address": "10.0.0.05"}]},
            {"fixed_ips": [{"ip_address": "fe80::1%eth0"}]},
            {"fixed_ips": [{"ip_address": 167772165}]},
            {"fixed_ips": [{"ip_address": "10.0.0.5"}] * 1025},
        ],
        ids=repr,
    )
    def test_malformed(self, changes: dict[str, Any]) -> None:
        with pytest.raises(LookupMalformedError) as caught:
            Port.from_api(port_item(**changes))
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("item", [None, "port", 5, [], True])
    def test_not_an_object(self, item: object) -> None:
        with pytest.raises(LookupMalformedError):
            Port.from_api(item)


class TestAnswer:
    def test_a_malformed_port_concerns_its_addresses(self) -> None:
        answer = Answer.from_api([NETWORK], [port_item(), port_item(device_id=None)])
        assert len(answer.ports) == 1
        assert [m.addresses for m in answer.malformed] == [frozenset({ipaddress.IPv4Address("10.0.0.5")})]

    @pytest.mark.parametrize("item", [5, {}, port_item(id="", fixed_ips=[]), port_item(fixed_ips=[{}])])
    def test_one_without_readable_addresses_concerns_everybody(self, item: object) -> None:
        assert [m.addresses for m in Answer.from_api([NETWORK], [item]).malformed] == [None]


class TestAddresses:
    @pytest.mark.parametrize("text", ["10.0.0.5", "2001:db8::1", "fe80::1", "0.0.0.0", "255.255.255.255"])
    def test_there_and_back(self, text: str) -> None:
        address = ipaddress.ip_address(text)
        packed = pack_address(address)
        assert len(packed) == 16
        assert unpack_address(packed) == address

    def test_ipv4_is_mapped(self) -> None:
        assert pack_address(ipaddress.IPv4Address("10.0.0.5")) == bytes(10) + b"\xff\xff\x0a\x00\x00\x05"
        assert parse_address("::ffff:10.0.0.5") == ipaddress.IPv4Address("10.0.0.5")

    @pytest.mark.parametrize("packed", [b"", b"\x0a\x00\x00\x05", bytes(17)])
    def test_other_lengths_are_refused(self, packed: bytes) -> None:
        with pytest.raises(ValueError, match="16 bytes"):
            unpack_address(packed)

    @pytest.mark.parametrize("value", [None, 5, b"10.0.0.5", "", "10.0.0.5/32", " 10.0.0.5", "fe80::1%1"])
    def test_not_an_address(self, value: object) -> None:
        assert parse_address(value) is None

    @pytest.mark.parametrize(
        ("address", "mac"),
        [
            ("fe80::f816:3eff:fe00:1", "fa:16:3e:00:00:01"),
            ("fe80::a9fe:a9fe", None),
            ("fe80::99", None),
            ("fe80:1::f816:3eff:fe00:1", None),
            ("2001:db8::f816:3eff:fe00:1", None),
            ("10.0.0.5", None),
        ],
    )
    def test_mac_of_a_link_local_address(self, address: str, mac: str | None) -> None:
        assert mac_of(ipaddress.ip_address(address)) == mac


class TestQuestion:
    def test_link_local_without_a_mac_cannot_be_answered(self) -> None:
        assert not Question(ipaddress.ip_address("fe80::99")).answerable
        assert Question(ipaddress.ip_address("2001:db8::99")).answerable


class TestListenSpec:
    @pytest.mark.parametrize(
        ("text", "namespace", "address", "tcp_port", "interface"),
        [
            (f"network:{NETWORK}@127.0.0.1:80", None, "127.0.0.1", 80, None),
            (f"router:{NETWORK}@0.0.0.0:9697", None, "0.0.0.0", 9697, None),
            (f"network:{NETWORK}@qdhcp-x/169.254.169.254:80", "qdhcp-x", "169.254.169.254", 80, None),
            (f"router:{NETWORK}@qrouter-x/[::]:9697", "qrouter-x", "::", 9697, None),
            (f"network:{NETWORK}@ns/[fe80::a9fe:a9fe%tap0]:80", "ns", "fe80::a9fe:a9fe", 80, "tap0"),
        ],
    )
    def test_forms(
        self, text: str, namespace: str | None, address: str, tcp_port: int, interface: str | None
    ) -> None:
        spec = ListenSpec.parse(text)
        assert spec.scope.uuid == NETWORK
        assert spec.namespace == namespace
        assert spec.address == ipaddress.ip_address(address)
        assert (spec.tcp_port, spec.interface) == (tcp_port, interface)
        assert str(spec) == text

    def test_scope(self) -> None:
        spec = ListenSpec.parse(f"router:{NETWORK.upper()}@[2001:db8::1]:80")
        assert spec.scope == Scope(ScopeKind.ROUTER, NETWORK)
        assert str(spec.scope) == f"router {NETWORK}"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "127.0.0.1:80",
            f"{NETWORK}@127.0.0.1:80",
            f"subnet:{NETWORK}@127.0.0.1:80",
            "network:blue@127.0.0.1:80",
            f"network:{NETWORK}@127.0.0.1",
            f"network:{NETWORK}@127.0.0.1:",
            f"network:{NETWORK}@127.0.0.1:0",
            f"network:{NETWORK}@127.0.0.1:65536",
            f"network:{NETWORK}@127.0.0.1:0000080",
            f"network:{NETWORK}@127.0.0.1:-1",
            f"network:{NETWORK}@127.0.0.1:\u0661",
            f"network:{NETWORK}@localhost:80",
            f"network:{NETWORK}@::1:80",
            f"network:{NETWORK}@[::1]",
            f"network:{NETWORK}@[127.0.0.1]:80",
            f"network:{NETWORK}@[::1:80",
            f"network:{NETWORK}@/127.0.0.1:80",
            f"network:{NETWORK}@../127.0.0.1:80",
            f"network:{NETWORK}@a/b/127.0.0.1:80",
            f"network:{NETWORK}@a b/127.0.0.1:80",
            f"network:{NETWORK}@[fe80::1]:80",
            f"network:{NETWORK}@[2001:db8::1%eth0]:80",
            f"network:{NETWORK}@127.0.0.1%eth0:80",
            f"network:{NETWORK}@[fe80::1%abcdefghijklmnop]:80",
        ],
        ids=repr,
    )
    def test_refused(self, text: str) -> None:
        with pytest.raises(ConfigError):
            ListenSpec.parse(text)
