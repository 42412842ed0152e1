"""What the units of etc/systemd start, in a sandbox that forbids what they forbid: it serves, and does what systemd
expects of it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.lab.topology import METADATA_ADDRESS, Lab
from tests.bus.neutron import NeutronServer
from tests.bus.rabbit import RabbitMQ
from tests.discovery.scene import Router, ours
from tests.discovery.scene import Scene as Discovery
from tests.lookup.cloud import PASSWORD, PROJECT
from tests.lookup.cloud import USER as METADATA
from tests.lookup.cloud import Cloud as Keystone
from tests.nova_side.certificates import Authority
from tests.service import conftest as service
from tests.service.agents import SECRET as SERVICE_SECRET
from tests.service.agents import Cloud, until
from tests.service.guests import Guest
from tests.service.upstream import Upstream

from .kit import PORT, SECRET
from .node import Node
from .services import FASTMETA, UID, USER, RunningUnit, Sandbox
from .units import DROP_IN, NAMESPACES, RELAY, STOCK, Unit

lab = service.lab

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace of its own")

UNIT = Unit.of(RELAY)
UNITS = {"fastmeta.service": UNIT, "drop-in": Unit(STOCK, DROP_IN.read_text())}
OF_NAMESPACES = Unit.of(NAMESPACES)


def agent_files(
    upstream: Upstream, *, neutron: str = "", agent: str = "", static: bool = True
) -> dict[str, tuple[str, str, int]]:
    """Owners and modes are those of Debian's packages: neutron.conf may be written by the group. neutron, agent: lines
    behind the others; static: with a ports file."""
    lines = [
        "[DEFAULT]",
        f"nova_metadata_port = {upstream.tcp_port}",
        f"metadata_proxy_shared_secret = {SECRET}",
    ]
    lines += [agent, "[fastmeta]", "access_log = true"]
    lines += ["ports_file = /etc/neutron/ports.json"] if static else []
    return {
        "/etc/neutron/neutron.conf": (
            f"[DEFAULT]\nstate_path = /var/lib/neutron\n{neutron}\n",
            "root",
            0o660,
        ),
        "/etc/neutron/metadata_agent.ini": ("\n".join([*lines, ""]), USER, 0o640),
        "/etc/neutron/ports.json": (json.dumps({"ports": [PORT]}), "root", 0o640),
    }


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    """For its upstream and its requests; the socket is where the sandbox puts it."""
    with Node(folder) as made:
        made.socket_path.parent.rmdir()  # the sandbox makes it
        yield made


@pytest.mark.parametrize("name", ["fastmeta.service", "drop-in"])
def test_it_serves_under_what_the_unit_forbids(node: Node, name: str) -> None:
    unit = UNITS[name]
    with RunningUnit(unit, node.folder, agent_files(node.upstream)) as running:
        assert node.is_served()
        assert running.status("Uid").split() == [str(UID)] * 4
        for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"):
            assert int(running.status(kind), 16) == 0
        assert running.status("NoNewPrivs") == "1"
        assert running.status("Seccomp") == "2"
        nofile = min(int(unit.value("LimitNOFILE")), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        limits = Path(f"/proc/{running.pid}/limits").read_text()
        assert re.search(rf"^Max open files +{nofile} +{nofile} ", limits, re.MULTILINE)
        assert node.socket_path.stat().st_uid == UID
        status = running.inside(str(FASTMETA), "status", "--json")
        assert (status.returncode, status.stderr) == (0, "")
        assert json.loads(status.stdout)["totals"]["requests"] == 1
        log = running.service.log()
        assert " WARNING " not in log, log
        assert f"{nofile} descriptors (LimitNOFILE)" in log


def test_it_asks_over_the_bus(node: Node, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    """oslo.messaging, and all that it brings, needs no more than the unit allows."""
    neutron.tell(ports=[PORT])
    files = agent_files(node.upstream, neutron=f"transport_url = {rabbit.url}", static=False)
    with RunningUnit(UNIT, node.folder, files) as running:
        assert node.is_served()
        until(lambda: neutron.calls("report_state"))
        assert " WARNING " not in running.service.log()


def test_it_asks_neutrons_api(node: Node) -> None:
    """So does keystoneauth1; and TLS to Nova."""
    with Keystone([PORT]) as cloud:
        credentials = {
            "auth_url": f"{cloud.keystone.url}/v3",
            "username": METADATA,
            "password": PASSWORD,
            "project_name": PROJECT,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        section = ["[neutron]", *(f"{name} = {value}" for name, value in credentials.items())]
        authority = Authority(node.folder, "authority")
        node.upstream.tls = authority.sign("server", "IP:127.0.0.1").server()
        files = agent_files(
            node.upstream,
            neutron="\n".join(section),
            agent="nova_metadata_protocol = https\nauth_ca_cert = /etc/neutron/nova.pem",
            static=False,
        )
        files["/etc/neutron/nova.pem"] = (Path(authority.certificate).read_text(), "root", 0o644)
        with RunningUnit(UNIT, node.folder, files):
            assert node.is_served()


def test_what_it_tells_systemd(node: Node) -> None:
    """sd_notify(3): READY=1 has come when it is entered; then a reload, and the end."""
    said: list[dict[str, str]] = []
    with RunningUnit(UNIT, node.folder, agent_files(node.upstream)) as running:
        assert running.service.status.endswith("/metadata_proxy; lookups: healthy"), running.service.status
        with running.listening() as receive:
            running.reload()
            said += [receive(), receive()]
            os.kill(running.pid, signal.SIGTERM)
            said.append(receive())
    assert said[0]["RELOADING"] == "1"
    assert int(said[0]["MONOTONIC_USEC"]) > 0
    assert said[1]["READY"] == "1"
    assert said[2] == {"STOPPING": "1"}
    assert not node.socket_path.exists()


def test_the_log_file_of_the_stock_agent(node: Node) -> None:
    """As Debian's and RDO's units give it to the stock agent on the command line; readable to its group."""
    arguments = "--config-file /etc/neutron/neutron.conf --config-file /etc/neutron/metadata_agent.ini "
    variables = {"FASTMETA_ARGUMENTS": arguments + "--log-file /var/log/neutron/neutron-metadata-agent.log"}
    with RunningUnit(
        UNITS["drop-in"], node.folder, agent_files(node.upstream), variables=variables
    ) as running:
        assert node.is_served()
        log = node.folder / "log" / "neutron-metadata-agent.log"
        until(lambda: "GET /served" in log.read_text())
        assert log.stat().st_mode & 0o777 == 0o640
        assert running.service.log() == ""


def test_a_group_with_others_in_it_may_not_write(node: Node) -> None:
    """neutron.conf is Debian's, but somebody has been made a member of Neutron's group."""
    sandbox = Sandbox(UNIT, node.folder, agent_files(node.upstream), members=["operator1"])
    sandbox.runtime.mkdir(0o700, exist_ok=True)
    done = subprocess.run(
        [*sandbox.command, *UNIT.command("ExecStart")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "/etc/neutron/neutron.conf: mode 0660 lets group or others write" in done.stderr


def test_sockets_in_namespaces(folder: Path, lab: Lab) -> None:
    """The unit with the capabilities for them: of a namespace that is there, and of one that comes later."""
    cloud = Cloud(lab)
    cloud.add_network("unit-blue", ["10.0.0.5"])
    later = lab.add_network("unit-green")
    namespace = f"qdhcp-{later.network_id}"
    guest = cloud.add_guest(later, "10.0.0.6", [(f"{METADATA_ADDRESS}/32", "10.0.0.2")])
    cloud.listen.append(f"network:{later.network_id}@{namespace}/{METADATA_ADDRESS}:80")
    with Upstream(SECRET) as upstream:
        own = [
            "[DEFAULT]",
            f"nova_metadata_port = {upstream.tcp_port}",
            f"metadata_proxy_shared_secret = {SECRET}",
            "[fastmeta]",
            "stand_in = true",
            "ports_file = /etc/fastmeta/ports.json",
            *(f"listen = {entry}" for entry in cloud.listen),
        ]
        files = {
            "/etc/neutron/neutron.conf": ("[DEFAULT]\nstate_path = /var/lib/neutron\n", "root", 0o660),
            "/etc/fastmeta/fastmeta.conf": ("\n".join([*own, ""]), "root", 0o640),
            "/etc/fastmeta/ports.json": (json.dumps({"ports": cloud.ports()}), "root", 0o640),
        }
        with RunningUnit(OF_NAMESPACES, folder, files) as running:
            assert running.status("Uid").split() == [str(UID)] * 4
            wanted = sum(1 << number for number in (10, 12, 21))  # NET_BIND_SERVICE, NET_ADMIN, SYS_ADMIN
            assert {int(running.status(kind), 16) for kind in ("CapEff", "CapBnd", "CapAmb")} == {wanted}
            assert running.status("Seccomp") == "2"
            assert cloud.guests["unit-blue-5"].is_served()
            assert running.service.status.startswith("1 of 2 listeners")
            lab.add_namespace(namespace)
            extra = [f"{METADATA_ADDRESS}/32"]
            lab.add_port(later, namespace, "tap0", ["10.0.0.2/24"], extra_addresses=extra)
            until(lambda: _answers(guest), "the namespace is found")
            assert running.inside("test", "-S", "/run/fastmeta/stand-ins").returncode == 0
            assert " WARNING " not in running.service.log()
        assert upstream.wrong == []


def test_routers_that_are_found(folder: Path, lab: Lab) -> None:
    """The same unit: iptables is a program that it starts, with its capabilities and under the same rules."""
    with Discovery(lab) as scene:
        router = Router(scene)
        scene.namespaces.folder.chmod(0o755)
        own = [
            "[DEFAULT]",
            f"nova_metadata_port = {scene.upstream.tcp_port}",
            f"metadata_proxy_shared_secret = {SERVICE_SECRET}",
            "[fastmeta]",
            "discover = router, dhcp",
            f"netns_dir = {scene.namespaces.folder}",
            "ports_file = /etc/fastmeta/ports.json",
        ]
        files = {
            "/etc/neutron/neutron.conf": ("[DEFAULT]\nstate_path = /var/lib/neutron\n", "root", 0o660),
            "/etc/fastmeta/fastmeta.conf": ("\n".join([*own, ""]), "root", 0o640),
            "/etc/fastmeta/ports.json": (json.dumps({"ports": scene.cloud.ports()}), "root", 0o640),
        }
        with RunningUnit(OF_NAMESPACES, folder, files) as running:
            scene.until_served(router.guest)
            assert ours(router.path)
            assert " WARNING " not in running.service.log()
        assert ours(router.path) == []
        scene.check()


def _answers(guest: Guest) -> bool:
    try:
        return guest.is_served()
    except ConnectionRefusedError:
        return False


FORBIDDEN = {
    "another family of sockets": "socket.socket(17, socket.SOCK_RAW)",
    "a namespace": "unshare(CLONE_NEWNET)",
    "somebody else's namespace": "setns(os.open('/proc/self/ns/net', 0), CLONE_NEWNET)",
    "memory to write and to execute": "mmap.mmap(-1, 4096, prot=7)",
    "a file of the system": "open('/usr/lib/written', 'w')",
    "a file of the configuration": "open('/etc/neutron/written', 'w')",
    "a kernel's setting": "open('/proc/sys/kernel/hostname', 'w').write('x')",
    "another user": "os.setuid(0)",
    "a program that makes one root": "os.chmod('/var/lib/neutron/program', 0o4755)",
    "a privileged TCP port": "socket.socket().bind(('127.0.0.1', 81))",
    "a real-time process": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "a device": "open('/dev/kmsg')",
}
ALLOWED = {
    "a file of its own": "open('/var/lib/neutron/written', 'w')",
    "a line in the log": "open('/var/log/neutron/written', 'w')",
    "its folder in /run": "open('/run/fastmeta/written', 'w')",
    "a connection": "socket.socket(socket.AF_INET6)",
}
TRY = """
import ctypes, json, mmap, os, socket
CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
open('/var/lib/neutron/program', 'w')
def unshare(flags):
    if libc.unshare(flags): raise OSError(ctypes.get_errno(), "unshare")
def setns(fd, flags):
    if libc.setns(fd, flags): raise OSError(ctypes.get_errno(), "setns")
def tried(text):
    try:
        exec(text)
    except OSError as error:
        return type(error).__name__
    return "done"
"""


@pytest.mark.parametrize("name", ["fastmeta.service", "fastmeta-namespaces.service"])
def test_the_sandbox_forbids(node: Node, name: str) -> None:
    """That what serves here would not serve there is no matter of luck: the sandbox keeps what the unit says."""
    unit = Unit.of(RELAY.with_name(name))
    sandbox = Sandbox(unit, node.folder, agent_files(node.upstream))
    sandbox.runtime.mkdir(0o700, exist_ok=True)
    script = (
        f"{TRY}\nprint(json.dumps([tried(text) for text in {[*FORBIDDEN.values(), *ALLOWED.values()]!r}]))"
    )
    done = subprocess.run(
        [*sandbox.command, "/usr/bin/python3", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    got = dict(zip([*FORBIDDEN, *ALLOWED], json.loads(done.stdout), strict=True))
    done_there = {what for what, result in got.items() if result == "done"}
    needed = {"a namespace", "somebody else's namespace", "a privileged TCP port"}
    assert done_there == set(ALLOWED) | (needed if name == "fastmeta-namespaces.service" else set()), got
