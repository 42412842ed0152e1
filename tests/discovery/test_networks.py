"""Networks of the DHCP agent: served where it has put the metadata address on its port, and nobody listens."""

from __future__ import annotations

import socket
import time
import uuid
from typing import Any

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS, Port
from tests.service.agents import port_item, until
from tests.service.guests import Cut, Guest
from tests.service.link_local import LinkLocalGuest

from .scene import IsolatedNetwork, Router, Scene, listens, ours, run_in, until_usable


def test_networks_that_are_there_and_that_come(scene: Scene) -> None:
    first, second = IsolatedNetwork(scene), IsolatedNetwork(scene)
    first.make().add_metadata_addresses()
    agent = scene.agent()
    scene.until_served(first.guest)
    began = time.monotonic()
    second.make().add_metadata_addresses()
    until(lambda: listens(second.path, 80), "listener")
    print(f"\na network listens {(time.monotonic() - began) * 1000:.0f} ms after its making began")
    agent.change_ports(scene.cloud.ports())
    scene.until_served(second.guest)
    assert first.guest.is_served()


def test_over_ipv6(scene: Scene) -> None:
    """The guest asks the address itself, which is on the port of the DHCP agent."""
    network = IsolatedNetwork(scene).make().add_metadata_addresses(ipv6=True)
    scene.agent("dhcp")
    scene.until_served(network.guest)
    guest = LinkLocalGuest(network.guest)
    until_usable(f"/run/netns/{guest.namespace}", guest.address)
    until_usable(network.path, "fe80::a9fe:a9fe")
    assert guest.is_served()


def test_the_address_says_whether_it_is_wanted(scene: Scene) -> None:
    network = IsolatedNetwork(scene).make()
    agent = scene.agent()
    agent.until_logged(f"{network.name} is not served: no interface in it has 169.254.169.254")
    assert not listens(network.path, 80)
    network.add_metadata_addresses(ipv6=True)
    scene.until_served(network.guest)
    network.remove_metadata_address()
    until(lambda: not listens(network.path, 80), "end of the listeners")
    run_in(network.path, "ip", "addr", "del", "fe80::a9fe:a9fe/128", "dev", network.tap)
    network.add_metadata_addresses(ipv6=True)
    scene.until_served(network.guest)
    # The DHCP agent unplugs its port, and plugs in another one.
    run_in(network.path, "ip", "link", "del", network.tap)
    until(lambda: not listens(network.path, 80), "end of the listeners")
    scene.cloud.lab.add_port(
        network.network, network.path, network.tap, ["10.0.0.2/24"], port_id=network.port_id
    )
    network.add_metadata_addresses(ipv6=True)
    scene.until_served(network.guest)
    assert len(agent.logged("no interface in it has")) == 3


def test_somebody_else_listens(scene: Scene) -> None:
    """A haproxy of the DHCP agent: said once; when it ends, it is our turn."""
    network = IsolatedNetwork(scene).make().add_metadata_addresses()
    other = IsolatedNetwork(scene).make().add_metadata_addresses()
    with inside(network.path, lambda: socket.create_server((METADATA_ADDRESS, 80))):
        agent = scene.agent()
        scene.until_served(other.guest)
        agent.until_logged(f"{network.name} is not served: somebody else listens on its TCP port 80")
        time.sleep(3.5)  # it has looked again
        assert len(agent.logged("somebody else listens")) == 1
    scene.until_served(network.guest)


def test_only_what_is_asked_for(scene: Scene) -> None:
    network, router = IsolatedNetwork(scene).make().add_metadata_addresses(), Router(scene)
    agent = scene.agent("dhcp")
    scene.until_served(network.guest)
    assert not listens(router.path, 9697)
    assert ours(router.path) == []
    agent.terminate()
    assert agent.exit_status() == 0
    scene.agent("router")
    scene.until_served(router.guest)
    assert not listens(network.path, 80)


def test_the_namespace_ends_at_once(scene: Scene) -> None:
    """Its port is gone, as it only is when nothing is in the namespace any more."""
    network = IsolatedNetwork(scene).make().add_metadata_addresses(ipv6=True)
    scene.agent()
    scene.until_served(network.guest)
    wire = network.guest.connect()
    gate = scene.hold("held")
    wire.get("/held")
    scene.upstream.until_asked("/held")
    assert scene.links_of(network.network) == 2
    scene.namespaces.remove(network.name)
    began = time.monotonic()
    until(lambda: scene.links_of(network.network) == 1, "end of the port")
    print(f"\na deleted network is gone after {(time.monotonic() - began) * 1000:.0f} ms")
    assert time.monotonic() - began < 2
    gate.set()
    wire.socket.close()


class MetadataNetwork:
    """Two routers, each with a network of guests of its own, of which one guest has the same address; one of them is
    attached to a metadata network, and leads there what its guests ask 169.254.169.254."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.metadata = IsolatedNetwork(scene, addresses="169.254.100").make().add_metadata_addresses()
        run_in(self.metadata.path, "ip", "route", "add", "default", "via", "169.254.100.1")
        lab = scene.cloud.lab
        self.routers = []
        self.guests: list[Guest] = []
        for number in (1, 2):
            router_id = str(uuid.uuid4())
            namespace = lab.add_namespace(f"fastmeta-{lab.tag}-router-{router_id[:6]}")
            run_in(namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            network = lab.add_network(f"net{number}-{router_id[:6]}")
            port = lab.add_router_interface(namespace, network, "10.0.0.1/24")
            scene.cloud.infrastructure.append(port_item(port, router_id, "p", "network:router_interface"))
            self.guests.append(scene.cloud.add_guest(network, "10.0.0.5", [("0.0.0.0/0", "10.0.0.1")]))
            self.routers.append((router_id, namespace))

    def attach(self, number: int, *, plugged: bool = True) -> dict[str, Any]:
        """The router leads its guests there (plugged: already); gives what Neutron then says of its port."""
        router_id, namespace = self.routers[number]
        port_id = str(uuid.uuid4())
        name = f"qr-{port_id[:11]}"
        port = Port(port_id, self.metadata.network, namespace, name, "fa:16:3e:00:77:01", ("169.254.100.1",))
        item = port_item(port, router_id, "p", "network:router_interface")
        if plugged:
            self.plug(number, item)
        return item

    def plug(self, number: int, item: dict[str, Any]) -> None:
        namespace = self.routers[number][1]
        self.scene.cloud.lab.add_port(
            self.metadata.network,
            namespace,
            f"qr-{item['id'][:11]}",
            ["169.254.100.1/24"],
            port_id=item["id"],
            mac_address=item["mac_address"],
        )
        run_in(namespace, "ip", "route", "add", f"{METADATA_ADDRESS}/32", "via", "169.254.100.2")

    def detach(self, number: int, item: dict[str, Any]) -> None:
        run_in(self.routers[number][1], "ip", "link", "del", f"qr-{item['id'][:11]}")


def test_a_metadata_network(scene: Scene) -> None:
    """Guests are those of the router that is attached; where that cannot be told, nobody is served."""
    there = MetadataNetwork(scene)
    first = there.attach(0)
    scene.cloud.infrastructure.append(first)
    agent = scene.agent("dhcp", default=["enable_metadata_network = true"], identity_ttl=60)
    scene.until_served(there.guests[0])
    agent.until_logged(f"listening: router:{there.routers[0][0]}@{there.metadata.name}/169.254.169.254:80")
    # The other router takes its place: first for Neutron, then for its agents. Its guest has the address of one of the
    # former's, and never gets that one's data.
    there.detach(0, first)
    scene.cloud.infrastructure.remove(first)
    second = there.attach(1, plugged=False)
    scene.cloud.infrastructure.append(second)
    agent.change_ports(scene.cloud.ports())
    there.plug(1, second)
    bodies = []

    def served() -> bool:
        try:
            answer = there.guests[1].ask("/who")
        except (OSError, Cut):
            return False
        bodies.append(answer.body)
        return answer.status == 200

    until(served, "the other router's guest is served")
    assert set(bodies) == {there.guests[1].mark("/who")}
    agent.until_logged(f"listening: router:{there.routers[1][0]}@")
    # Both at once.
    scene.cloud.infrastructure.append(first)
    agent.change_ports(scene.cloud.ports())
    agent.until_logged(
        "is not served: a metadata network with 2 routers, so that nobody can tell whose guests ask"
    )
    until(lambda: not listens(there.metadata.path, 80), "end of the listener")
    scene.cloud.infrastructure.remove(first)
    agent.change_ports(scene.cloud.ports())
    scene.until_served(there.guests[1])


def test_a_metadata_network_without_a_router(scene: Scene) -> None:
    """Then it is a network like others; and so it is where enable_metadata_network is false."""
    network = IsolatedNetwork(scene, addresses="169.254.100").make().add_metadata_addresses()
    agent = scene.agent("dhcp", default=["enable_metadata_network = true"])
    line = f"listening: network:{network.uuid}@{network.name}/169.254.169.254:80"
    agent.until_logged(line)
    agent.terminate()
    assert agent.exit_status() == 0
    item = {**scene.cloud.infrastructure[0], "id": str(uuid.uuid4()), "device_id": str(uuid.uuid4())}
    scene.cloud.infrastructure.append(item | {"device_owner": "network:router_interface"})
    scene.agent("dhcp").until_logged(line)
