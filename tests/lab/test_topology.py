"""The lab does what a cloud's node does: overlapping addresses, and Neutron's redirect. Real namespaces."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import uuid
from pathlib import Path

import pytest

from fastmeta.exceptions import LabError
from fastmeta.lab.namespaces import NETNS_FOLDER, inside, make_namespace, remove_namespace
from fastmeta.lab.redirect import redirect_rules
from fastmeta.lab.registry import REGISTRY_FOLDER
from fastmeta.lab.topology import Lab, Port, in_namespace_command

METADATA = "169.254.169.254"


def listen(namespace: str, address: str, tcp_port: int) -> socket.socket:
    """A listening socket inside a namespace."""

    def make() -> socket.socket:
        listener = socket.create_server((address, tcp_port))
        listener.settimeout(5)
        return listener

    return inside(namespace, make)


def connect(port: Port, address: str, tcp_port: int, timeout: float = 5) -> socket.socket:
    """A connection out of a guest. Raises OSError."""
    return inside(port.namespace, lambda: socket.create_connection((address, tcp_port), timeout))


def reaches(port: Port, listener: socket.socket, address: str, tcp_port: int) -> str:
    """Connects and gives the address that the listener sees."""
    with connect(port, address, tcp_port):
        connection, peer = listener.accept()
        connection.close()
        return str(peer[0])


def run(namespace: str, *command: str) -> str:
    return subprocess.run(
        in_namespace_command(namespace, command), check=True, capture_output=True, text=True, timeout=30
    ).stdout


def test_overlapping_networks_are_apart(lab: Lab) -> None:
    listeners = {}
    guests = {}
    with contextlib.ExitStack() as stack:
        for name in ("blue", "green"):
            network = lab.add_network(name)
            dhcp = lab.add_dhcp_namespace(network, "10.0.0.2/24")
            assert dhcp.namespace == f"qdhcp-{network.network_id}"
            assert dhcp.interface == f"tap{dhcp.port_id[:11]}"
            listeners[name] = stack.enter_context(listen(dhcp.namespace, METADATA, 80))
            route = [(f"{METADATA}/32", "10.0.0.2")]
            guests[name] = [
                lab.add_guest(network, f"{name}-{number}", f"10.0.0.{number}/24", routes=route)
                for number in (5, 6)
            ]
        for name, (first, second) in guests.items():
            assert reaches(first, listeners[name], METADATA, 80) == "10.0.0.5"
            assert reaches(second, listeners[name], METADATA, 80) == "10.0.0.6"
            # They reach each other, in their own network only.
            with listen(second.namespace, "10.0.0.6", 7000) as listener:
                assert reaches(first, listener, "10.0.0.6", 7000) == "10.0.0.5"
        stack.enter_context(listen(guests["blue"][1].namespace, "10.0.0.6", 7000))
        with pytest.raises(OSError, match="refused"):
            connect(guests["green"][0], "10.0.0.6", 7000)
    assert guests["blue"][0].namespace != guests["green"][0].namespace
    assert guests["blue"][0].addresses == guests["green"][0].addresses == ("10.0.0.5",)


def test_ports_are_what_the_kernel_has(lab: Lab) -> None:
    network = lab.add_network("blue")
    port = lab.add_guest(network, "a", "10.0.0.5/24", routes=[("0.0.0.0/0", "10.0.0.1")])
    shown = run(port.namespace, "ip", "address")
    assert port.mac_address.startswith("fa:16:3e:")
    assert port.mac_address in shown
    assert "inet 10.0.0.5/24" in shown
    assert "default via 10.0.0.1" in run(port.namespace, "ip", "route")
    assert "inet 127.0.0.1/8" in shown


def test_ipv6(lab: Lab) -> None:
    network = lab.add_network("blue")
    first = lab.add_guest(network, "a", "2001:db8::5/64", routes=[("2001:db8:1::/64", "2001:db8::1")])
    second = lab.add_guest(network, "b", "2001:db8::6/64", routes=[])
    with listen_v6(second.namespace, "2001:db8::6", 7000) as listener:
        assert reaches(first, listener, "2001:db8::6", 7000) == "2001:db8::5"


def listen_v6(namespace: str, address: str, tcp_port: int) -> socket.socket:
    listener = inside(namespace, lambda: socket.create_server((address, tcp_port), family=socket.AF_INET6))
    listener.settimeout(5)
    return listener


def test_router_redirects_as_neutron_does(lab: Lab) -> None:
    network = lab.add_network("red")
    router_id = str(uuid.uuid4())
    namespace = lab.add_router_namespace(router_id)
    assert namespace == f"qrouter-{router_id}"
    interface = lab.add_router_interface(namespace, network, "10.0.0.1/24")
    assert interface.interface == f"qr-{interface.port_id[:11]}"
    guest = lab.add_guest(network, "a", "10.0.0.5/24", routes=[("0.0.0.0/0", "10.0.0.1")])
    with listen(namespace, "0.0.0.0", 9697) as listener:
        assert reaches(guest, listener, METADATA, 80) == "10.0.0.5"
        # Without the mark that only the way over 169.254.169.254:80 gives, the proxy's TCP port is closed.
        with pytest.raises(OSError, match="timed out"):
            connect(guest, "10.0.0.1", 9697, timeout=0.5)
        with pytest.raises(OSError, match=r"timed out|unreachable"):
            connect(guest, METADATA, 81, timeout=0.5)
    saved = run(namespace, "iptables-save")
    for rule in redirect_rules().splitlines():
        if rule.startswith("-A"):
            assert rule in saved.splitlines()
    assert (
        "-A neutron-l3-agent-PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 -j REDIRECT"
        in saved
    )
    forwarding = inside(namespace, lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text())
    assert forwarding.strip() == "1"


def test_a_marked_packet_never_leaves_the_router(lab: Lab) -> None:
    """The scope chain: with the REDIRECT gone, 169.254.169.254:80 must not be forwarded elsewhere."""
    red, outside = lab.add_network("red"), lab.add_network("outside")
    namespace = lab.add_router_namespace(str(uuid.uuid4()))
    lab.add_router_interface(namespace, red, "10.0.0.1/24")
    lab.add_port(outside, namespace, "qg-1", ["192.0.2.1/24"], routes=[(f"{METADATA}/32", "192.0.2.2")])
    guest = lab.add_guest(red, "a", "10.0.0.5/24", routes=[("0.0.0.0/0", "10.0.0.1")])
    other = lab.add_guest(outside, "b", "192.0.2.2/24", routes=[("10.0.0.0/24", "192.0.2.1")])
    run(other.namespace, "ip", "address", "add", f"{METADATA}/32", "dev", "lo")
    run(namespace, "iptables", "-w", "-t", "nat", "-F", "neutron-l3-agent-PREROUTING")
    with listen(other.namespace, METADATA, 80) as listener, listen(other.namespace, METADATA, 81) as open_one:
        assert reaches(guest, open_one, METADATA, 81) == "10.0.0.5", "other TCP ports are forwarded"
        with pytest.raises(OSError, match="timed out"):
            connect(guest, METADATA, 80, timeout=0.5)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_machine_sees_nothing(lab: Lab) -> None:
    network = lab.add_network("blue")
    port = lab.add_dhcp_namespace(network, "10.0.0.2/24")
    here = subprocess.run(["ip", "link"], check=True, capture_output=True, text=True, timeout=30).stdout
    assert port.interface not in here
    assert port.mac_address not in here
    assert f"link-netns {port.namespace}" not in here


def test_leaving_removes_everything_after_a_failure(clean_machine: None) -> None:
    with pytest.raises(ZeroDivisionError), Lab() as lab:
        network = lab.add_network("blue")
        lab.add_dhcp_namespace(network, "10.0.0.2/24")
        lab.add_guest(network, "a", "10.0.0.5/24", routes=[])
        raise ZeroDivisionError


def test_what_cannot_be_set_up_is_said(lab: Lab) -> None:
    network = lab.add_network("blue")
    with pytest.raises(LabError, match=r"cannot set up the namespace fastmeta-.*-guest-a"):
        lab.add_guest(network, "a", "10.0.0.5/24", routes=[("0.0.0.0/0", "192.0.2.1")])
    # nsenter is there, the program is not.
    with lab.start(
        lab.add_namespace(f"fmt-{lab.tag}"), ["no-such-program"], stderr=subprocess.PIPE
    ) as process:
        assert process.wait(10) == 127
    with pytest.raises(LabError, match="cannot start cat in no-such"):
        lab.start("no-such", ["cat"], cwd="/no/such")


def test_a_name_that_exists_is_refused_and_left_alone(lab: Lab) -> None:
    name = f"fmt-{lab.tag}"
    make_namespace(name)
    try:
        with pytest.raises(LabError, match="exists already"):
            lab.add_namespace(name)
        lab.__exit__(None, None, None)
        assert (NETNS_FOLDER / name).exists()
    finally:
        remove_namespace(name)


def test_a_name_that_is_its_own_is_refused_and_still_removed_in_the_end(clean_machine: None) -> None:
    with Lab() as lab:
        name = lab.add_namespace(f"fmt-{lab.tag}")
        with pytest.raises(LabError, match="exists already"):
            lab.add_namespace(name)
    assert not (NETNS_FOLDER / name).exists()


def test_a_namespace_that_somebody_made_anew_is_left_alone(
    clean_machine: None, caplog: pytest.LogCaptureFixture
) -> None:
    with Lab() as lab, Lab() as keeper:
        name = lab.add_namespace(f"fmt-{lab.tag}")
        # Held open, so that its inode is not used again.
        with open(NETNS_FOLDER / name, "rb"):
            remove_namespace(name)
            make_namespace(name)
            lab.__exit__(None, None, None)
        assert (NETNS_FOLDER / name).exists()
        assert f"{name} is another one than the lab made" in caplog.text
        remove_namespace(name)
        assert (NETNS_FOLDER / keeper.switch).exists()


def test_one_of_its_own_can_go_before_the_end(lab: Lab) -> None:
    name = lab.add_namespace(f"fmt-{lab.tag}")
    lab.remove_namespace(name)
    assert not (NETNS_FOLDER / name).exists()
    assert lab.add_namespace(name) == name, "and come again"


def test_nothing_leaks_into_this_process(clean_machine: None) -> None:
    def descriptors() -> set[str]:
        found = set()
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}")
        return {line for line in found if "/fd" not in line}

    own = os.stat("/proc/thread-self/ns/net").st_ino
    with Lab() as warm:
        warm.add_network("blue")
    before = descriptors()
    with Lab() as lab:
        network = lab.add_network("blue")
        lab.add_dhcp_namespace(network, "10.0.0.2/24")
        lab.add_router_namespace(str(uuid.uuid4()))
    assert descriptors() == before
    assert os.stat("/proc/thread-self/ns/net").st_ino == own


def test_registry_is_private(lab: Lab) -> None:
    assert REGISTRY_FOLDER.stat().st_mode & 0o777 == 0o700
    assert (REGISTRY_FOLDER / f"{lab.tag}.jsonl").stat().st_mode & 0o777 == 0o600
