"""A lab: networks (one bridge each), the namespaces that Neutron's agents would make, and guests.

Addresses may overlap between networks, as those of tenants do. All bridges live in one namespace of the lab's
own, so that the machine's network never sees an interface, an address or a packet of it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from fastmeta.exceptions import LabError
from fastmeta.lab.namespaces import (
    NETNS_FOLDER,
    in_thread,
    inside,
    make_namespace,
    remove_namespace,
    run_command,
    sbin_environment,
)
from fastmeta.lab.redirect import METADATA_PORT, redirect_rules
from fastmeta.lab.registry import Registry, remove_leftovers

METADATA_ADDRESS = "169.254.169.254"
METADATA_ADDRESS_V6 = "fe80::a9fe:a9fe"


@dataclass(frozen=True)
class Network:
    """A network; bridge is the name of its bridge in the lab's switch namespace."""

    name: str
    network_id: str
    bridge: str


@dataclass(frozen=True)
class Port:
    """A Neutron port: an interface in a namespace."""

    port_id: str
    network: Network
    namespace: str
    interface: str
    mac_address: str
    addresses: tuple[str, ...]
    """Fixed IPs, without prefix length."""


class Lab:
    """Builds and removes namespaces. Use it with ``with``: leaving it removes whatever it has made, in any
    state.

    Needs CAP_SYS_ADMIN and CAP_NET_ADMIN over the network and mount namespace that it runs in. Raises
    LabError with what could not be done.
    """

    def __init__(self) -> None:
        self.tag = secrets.token_hex(3)
        """Tells this lab's own namespaces from those of any other."""
        self.leftovers: list[str] = []
        """Namespaces of killed labs that were removed on entering."""
        self._stack = contextlib.ExitStack()
        self.switch = f"fastmeta-{self.tag}-switch"
        """The namespace that has the bridges."""
        self._networks = 0

    def __enter__(self) -> Lab:
        self.leftovers = in_thread(remove_leftovers)
        self._registry = self._stack.enter_context(Registry(self.tag))
        try:
            self.add_namespace(self.switch)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add_namespace(self, name: str) -> str:
        """Makes a namespace with its loopback up; it is removed with the lab. Gives its name."""

        def make() -> None:
            self._registry.plan(name)
            try:
                make_namespace(name)
            except LabError:
                self._registry.forget(name)
                raise
            self._registry.made(name)

        in_thread(make)
        self._netlink(name, lambda ipr: ipr.link("set", index=1, state="up"))
        return name

    def remove_namespace(self, name: str) -> None:
        """Removes a namespace of this lab before the end, as an agent does whose network is deleted."""

        def remove() -> None:
            remove_namespace(name)
            self._registry.forget(name)

        in_thread(remove)

    def add_network(self, name: str, network_id: str | None = None) -> Network:
        """A network without ports; network_id: a new one when None."""
        self._networks += 1
        network = Network(name, network_id or str(uuid.uuid4()), f"br{self._networks}")

        def make(ipr: Any) -> None:
            ipr.link("add", ifname=network.bridge, kind="bridge", br_stp_state=0, br_forward_delay=0)
            index = ipr.link_lookup(ifname=network.bridge)[0]
            ipr.link("set", index=index, state="up")

        self._netlink(self.switch, make)
        return network

    def add_port(
        self,
        network: Network,
        namespace: str,
        interface: str,
        addresses: Sequence[str],
        *,
        extra_addresses: Sequence[str] = (),
        routes: Sequence[tuple[str, str]] = (),
        port_id: str | None = None,
        mac_address: str | None = None,
        index: int | None = None,
    ) -> Port:
        """A port of network as an interface of a namespace. mac_address: one made of the port's id when None;
        index: of the interface, the kernel's choice when None.

        addresses: with prefix length (10.0.0.5/24), the port's fixed IPs; extra_addresses: further ones of
        the interface that Neutron does not know as fixed IPs; routes: (destination, gateway).
        """
        port_id = port_id or str(uuid.uuid4())
        if mac_address is None:
            mac_address = "fa:16:3e:" + ":".join(
                port_id.replace("-", "")[start : start + 2] for start in (0, 2, 4)
            )
        peer = f"v{secrets.token_hex(6)}"

        def connect(ipr: Any) -> None:
            chosen = {} if index is None else {"index": index}
            with open(NETNS_FOLDER / self.switch, "rb") as switch:
                end = {"ifname": peer, "net_ns_fd": switch.fileno()}
                ipr.link("add", ifname=interface, kind="veth", address=mac_address, peer=end, **chosen)

        def plug_in(ipr: Any) -> None:
            bridge = ipr.link_lookup(ifname=network.bridge)[0]
            ipr.link("set", index=ipr.link_lookup(ifname=peer)[0], master=bridge, state="up")

        def configure(ipr: Any) -> None:
            index = ipr.link_lookup(ifname=interface)[0]
            for address in (*addresses, *extra_addresses):
                parsed = ipaddress.ip_interface(address)
                # Nobody else has this address: no second of duplicate address detection (IFA_F_NODAD).
                flags = {"flags": 0x02} if parsed.version == 6 else {}
                ipr.addr(
                    "add", index=index, address=str(parsed.ip), prefixlen=parsed.network.prefixlen, **flags
                )
            ipr.link("set", index=index, state="up")
            for destination, gateway in routes:
                ipr.route("add", dst=destination, gateway=gateway)

        self._netlink(namespace, connect)
        self._netlink(self.switch, plug_in)
        self._netlink(namespace, configure)
        fixed_ips = tuple(str(ipaddress.ip_interface(address).ip) for address in addresses)
        return Port(port_id, network, namespace, interface, mac_address, fixed_ips)

    def add_dhcp_namespace(self, network: Network, address: str) -> Port:
        """qdhcp-<network id> as the DHCP agent leaves it, with metadata on: a tap that has the address (with
        prefix length) and 169.254.169.254/32."""
        namespace = self.add_namespace(f"qdhcp-{network.network_id}")
        port_id = str(uuid.uuid4())
        return self.add_port(
            network,
            namespace,
            f"tap{port_id[:11]}",
            [address],
            extra_addresses=[f"{METADATA_ADDRESS}/32"],
            port_id=port_id,
        )

    def add_router_namespace(self, router_id: str, *, ipv6: bool = False, prefix: str = "qrouter") -> str:
        """qrouter-<router id> as the L3 agent leaves it: it forwards, and redirects metadata to TCP port
        9697 (ipv6: that of fe80::a9fe:a9fe too)."""
        namespace = self.add_namespace(f"{prefix}-{router_id}")

        def prepare() -> None:
            # /proc/sys/net shows the namespace of the thread that opens it.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            run_command(["iptables-restore", "--wait", "5", "--noflush"], redirect_rules(METADATA_PORT))
            if ipv6:
                rules = redirect_rules(METADATA_PORT, destination=f"{METADATA_ADDRESS_V6}/128")
                run_command(["ip6tables-restore", "--wait", "5", "--noflush"], rules)

        inside(namespace, prepare)
        return namespace

    def add_router_interface(self, namespace: str, network: Network, address: str) -> Port:
        """The router's port on a network: qr-<port id>, with the gateway's address (with prefix length)."""
        port_id = str(uuid.uuid4())
        return self.add_port(network, namespace, f"qr-{port_id[:11]}", [address], port_id=port_id)

    def add_guest(
        self,
        network: Network,
        name: str,
        address: str,
        *,
        routes: Sequence[tuple[str, str]],
        mac_address: str | None = None,
    ) -> Port:
        """A guest with one interface, in a namespace of its own; address with prefix length. routes: what
        DHCP would give it, e.g. [("169.254.169.254/32", "10.0.0.2")] or [("0.0.0.0/0", "10.0.0.1")].
        mac_address: as of add_port."""
        namespace = self.add_namespace(f"fastmeta-{self.tag}-guest-{name}")
        return self.add_port(network, namespace, "eth0", [address], routes=routes, mac_address=mac_address)

    def start(self, namespace: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program inside a namespace; options as of subprocess.Popen. The caller ends it. Raises
        LabError."""
        options.setdefault("env", sbin_environment())
        try:
            return subprocess.Popen(in_namespace_command(namespace, command), **options)
        except OSError as error:
            raise LabError(f"cannot start {command[0]} in {namespace}: {error.strerror}") from error

    def _netlink(self, namespace: str, work: Any) -> None:
        """Runs work(ipr) with a netlink socket of the namespace."""

        def run() -> None:
            with IPRoute() as ipr:
                work(ipr)

        try:
            inside(namespace, run)
        except (NetlinkError, OSError, IndexError) as error:
            raise LabError(f"cannot set up the namespace {namespace}: {error}") from error


def in_namespace_command(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command inside a named namespace (only its network is another one)."""
    return ["nsenter", f"--net={NETNS_FOLDER / namespace}", "--", *command]
