"""Routers whose L3 agent leaves metadata to us: rules, listeners, guests that ask through both."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from fastmeta.lab.namespaces import inside, run_command
from fastmeta.lab.redirect import redirect_rules
from tests.service.agents import until

from .scene import Router, Scene, listens, ours, run_in, saved

METADATA_PORT = 9697

RULES = {
    "-A fastmeta-PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffff",
    "-A fastmeta-PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9697",
    "-A fastmeta-INPUT -m mark --mark 0x1/0xffff -j ACCEPT",
    "-A fastmeta-INPUT -p tcp -m tcp --dport 9697 -j DROP",
    "-A fastmeta-FORWARD -m mark --mark 0x1/0xffff -j DROP",
    "-A PREROUTING -j fastmeta-PREROUTING",
    "-A INPUT -j fastmeta-INPUT",
    "-A FORWARD -j fastmeta-FORWARD",
}


def test_a_router_that_is_there(scene: Scene) -> None:
    """Its guests ask over IPv4 and over IPv6; in the end nothing of us is left."""
    router = Router(scene)
    before = [saved(router.path, version) for version in (4, 6)]
    agent = scene.agent()
    scene.until_served(router.guest)
    rules = [line for line in ours(router.path) if line.startswith("-A")]
    assert set(rules) == RULES
    assert len(rules) == 9  # PREROUTING calls ours in two tables
    assert {line.replace("169.254.169.254/32", "fe80::a9fe:a9fe/128") for line in RULES} == {
        line for line in ours(router.path, 6) if line.startswith("-A")
    }
    assert router.link_local_guest().is_served()
    agent.terminate()
    assert agent.exit_status() == 0
    assert ours(router.path) == ours(router.path, 6) == []
    after = [saved(router.path, version) for version in (4, 6)]
    # nft leaves tables that are empty; legacy, too.
    assert [[line for line in lines if line.startswith("-A")] for lines in after] == [
        [line for line in lines if line.startswith("-A")] for lines in before
    ]


def test_routers_that_come_and_go(scene: Scene) -> None:
    """One comes anew under its name, too: with rules, and a listener in the new one."""
    router, other = Router(scene, made=False), Router(scene)
    agent = scene.agent()
    router.make()
    agent.change_ports(scene.cloud.ports())
    scene.until_served(router.guest)
    scene.until_served(other.guest)
    scene.namespaces.remove(router.name)
    router.make()
    scene.until_served(router.guest)
    assert other.guest.is_served()
    assert agent.logged("found and served: [12] routers, 0 networks")


def test_the_rules_are_there_before_it_listens(scene: Scene) -> None:
    """Looked at as often as can be, from the moment when its name appears; and within moments it listens."""
    scene.agent()
    looked: list[tuple[bool, int]] = []
    took: list[float] = []
    router = Router(scene, made=False)

    def look() -> None:
        until(lambda: os.path.exists(router.path))
        began = time.monotonic()
        while not looked or not looked[-1][0]:
            try:
                listening = listens(router.path, METADATA_PORT)
                looked.append((listening, len(ours(router.path)) + len(ours(router.path, 6))))
            except Exception:  # noqa: S112 - nothing is mounted there yet
                continue
            assert time.monotonic() - began < 30
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()
    router.make()
    thread.join(60)
    assert looked[-1] == (True, 26)
    print(f"\na router listens {took[0] * 1000:.0f} ms after its name has appeared")
    assert took[0] < 0.5  # promised: 0.1


def test_a_name_long_before_its_namespace(scene: Scene) -> None:
    router = Router(scene, made=False)
    agent = scene.agent()
    router.make(wait=0.3)
    agent.change_ports(scene.cloud.ports())
    scene.until_served(router.guest)


def test_nobody_comes_in_but_by_the_redirection(scene: Scene) -> None:
    """Who asks the TCP port itself is not heard, whichever address he takes."""
    router = Router(scene)
    scene.agent()
    scene.until_served(router.guest)

    def connect() -> None:
        with socket.create_connection(("10.0.0.1", METADATA_PORT), timeout=1.5):
            pass

    with pytest.raises(TimeoutError):
        inside(router.guest.port.namespace, connect)
    assert router.guest.is_served()


def test_rules_of_others_stay(scene: Scene) -> None:
    """Also where they are in the same chains, and do the same: Neutron's, whose proxy has just been switched off."""
    router = Router(scene)
    foreign = (
        "*filter\n:elsewhere - [0:0]\n-A INPUT -s 192.0.2.7/32 -j elsewhere\n-A elsewhere -j DROP\nCOMMIT\n"
    )
    for text in (redirect_rules(), foreign):
        run_in(router.path, "iptables-restore", "--noflush", text=text)
    before = saved(router.path)
    agent = scene.agent()
    scene.until_served(router.guest)
    assert [line for line in saved(router.path) if "fastmeta" not in line] == before
    agent.terminate()
    assert agent.exit_status() == 0
    assert saved(router.path) == before


def test_rules_of_a_killed_agent(scene: Scene) -> None:
    """The next one takes them over, whatever state they are in: each is there once."""
    router = Router(scene)
    first = scene.agent()
    scene.until_served(router.guest)
    right = [sorted(ours(router.path, version)) for version in (4, 6)]
    os.kill(first.pid, signal.SIGKILL)
    first.exit_status()
    assert [sorted(ours(router.path, version)) for version in (4, 6)] == right
    # One was lost, one is there twice, one has another TCP port.
    run_in(router.path, "iptables", "-t", "mangle", "-D", "PREROUTING", "-j", "fastmeta-PREROUTING")
    run_in(router.path, "iptables", "-A", "INPUT", "-j", "fastmeta-INPUT")
    run_in(router.path, "iptables", "-A", "fastmeta-INPUT", "-p", "tcp", "--dport", "9000", "-j", "DROP")
    run_in(router.path, "ip6tables", "-t", "nat", "-F", "fastmeta-PREROUTING")
    second = scene.agent()
    scene.until_served(router.guest)
    assert [sorted(ours(router.path, version)) for version in (4, 6)] == right
    second.terminate()
    assert second.exit_status() == 0
    assert ours(router.path) == ours(router.path, 6) == []


def test_with_the_other_iptables(scene: Scene) -> None:
    """Whichever is installed is used: legacy here, where nft is what the machine has, or the other way round."""
    other = "nft" if "legacy" in run_command(["iptables", "--version"]) else "legacy"
    folder = scene.ha_confs.parent / "sbin"
    folder.mkdir()
    for base in ("iptables", "ip6tables"):
        for name in ("restore", "save"):
            program = shutil.which(f"{base}-{other}-{name}", path="/usr/sbin:/sbin")
            assert program is not None
            (folder / f"{base}-{name}").symlink_to(os.path.realpath(program))

    def rules(version: str) -> list[str]:
        lines = run_in(router.path, str(folder / f"{version}-save")).splitlines()
        return sorted(line.split(" [")[0] for line in lines if "fastmeta" in line)

    router = Router(scene)
    prefix = ["env", f"PATH={folder}:{os.environ['PATH']}"]
    first = scene.agent("router", prefix=prefix)
    scene.until_served(router.guest)
    right = [rules("iptables"), rules("ip6tables")]
    assert [len(lines) for lines in right] == [13, 13]
    assert ours(router.path) == []
    os.kill(first.pid, signal.SIGKILL)
    first.exit_status()
    second = scene.agent("router", prefix=prefix)
    scene.until_served(router.guest)
    assert [rules("iptables"), rules("ip6tables")] == right
    second.terminate()
    assert second.exit_status() == 0
    assert [rules("iptables"), rules("ip6tables")] == [[], []]


def test_port_and_mark(scene: Scene) -> None:
    router = Router(scene)
    scene.agent(default=["metadata_port = 9700", "metadata_access_mark = 0x20"])
    scene.until_served(router.guest)
    rules = ours(router.path)
    assert "-A fastmeta-INPUT -m mark --mark 0x20/0xffff -j ACCEPT" in rules
    assert "-A fastmeta-INPUT -p tcp -m tcp --dport 9700 -j DROP" in rules
    assert listens(router.path, 9700)


def test_somebody_else_listens(scene: Scene) -> None:
    """It is said once, and nothing is done there until he ends."""
    router, other = Router(scene), Router(scene)

    def listen() -> socket.socket:
        return socket.create_server(("0.0.0.0", METADATA_PORT))

    with inside(router.path, listen):
        agent = scene.agent()
        scene.until_served(other.guest)
        agent.until_logged(f"{router.name} is not served: somebody else listens on its TCP port 9697")
        time.sleep(3.5)  # it has looked again
        assert len(agent.logged("somebody else listens")) == 1
        assert ours(router.path) == []
    scene.until_served(router.guest)


def test_a_router_that_listen_names_is_left_alone(scene: Scene) -> None:
    """And others are found beside it."""
    named, found = Router(scene), Router(scene)
    scene.agent(listen=[f"router:{named.uuid}@{named.name}/0.0.0.0:9000"])
    scene.until_served(found.guest)
    assert listens(named.path, 9000)
    assert not listens(named.path, METADATA_PORT)
    assert ours(named.path) == []


class TestHighAvailability:
    def test_only_while_it_is_primary(self, scene: Scene) -> None:
        router = Router(scene)
        router.set_state("backup")
        agent = scene.agent()
        agent.until_logged(f"{router.name} is not served: it is an HA router, and its state here is backup")
        assert not listens(router.path, METADATA_PORT)
        router.set_state("primary")
        scene.until_served(router.guest)
        # Who is being answered gets his answer; who comes from then on finds nobody.
        wire = router.guest.connect()
        gate = scene.hold("slow")
        wire.get("/slow")
        scene.upstream.until_asked("/slow")
        router.set_state("backup")
        until(lambda: not listens(router.path, METADATA_PORT), "end of the listener")
        gate.set()
        assert wire.answer().body == router.guest.mark("/slow")
        wire.socket.close()
        until(lambda: ours(router.path) == ours(router.path, 6) == [], "end of the rules")
        router.set_state("master")  # as it was called once
        scene.until_served(router.guest)
        assert len(ours(router.path)) == 13

    def test_back_before_the_rules_are_gone(self, scene: Scene) -> None:
        router = Router(scene)
        router.set_state("primary")
        scene.agent()
        scene.until_served(router.guest)
        for state in ("backup", "primary", "backup", "primary"):
            router.set_state(state)
            time.sleep(0.1)
        scene.until_served(router.guest)
        time.sleep(3)
        assert router.guest.is_served()
        assert len(ours(router.path)) == 13

    def test_it_turns_out_to_be_one_only_later(self, scene: Scene) -> None:
        """The L3 agent makes the namespace first, then the folder, then the file."""
        router = Router(scene)
        scene.agent()
        scene.until_served(router.guest)
        folder = scene.ha_confs / router.uuid
        folder.mkdir(parents=True)
        until(lambda: not listens(router.path, METADATA_PORT), "end of the listener")
        (folder / "state").write_text("primary")
        scene.until_served(router.guest)
        (folder / "state").unlink()
        until(lambda: not listens(router.path, METADATA_PORT), "end of the listener")
        folder.rmdir()  # it is not an HA router any more
        scene.until_served(router.guest)

    def test_a_distributed_one_is_always_served(self, scene: Scene) -> None:
        """What moves is its snat namespace, which is nobody's way to metadata."""
        router = Router(scene)
        router.set_state("backup")
        agent = scene.agent()
        agent.until_logged(f"{router.name} is not served")
        snat = scene.namespaces.add(f"snat-{router.uuid}")
        scene.until_served(router.guest)
        assert saved(snat) == []
        assert not listens(snat, METADATA_PORT)
        scene.namespaces.remove(f"snat-{router.uuid}")
        until(lambda: not listens(router.path, METADATA_PORT), "end of the listener")


class TestDeletion:
    def test_the_namespace_ends_at_once(self, scene: Scene) -> None:
        """With guests in the middle of everything: its interfaces are gone, as they only are when nothing is in it any
        more."""
        router = Router(scene)
        scene.agent()
        scene.until_served(router.guest)
        assert router.link_local_guest().is_served()
        # (One that has not sent anything yet is kept by the kernel itself, for TCP_DEFER_ACCEPT's second.)
        idle = router.guest.connect()
        idle.get("/idle")
        assert idle.answer().status == 200
        waiting = router.guest.connect()
        gate = scene.hold("never")
        waiting.get("/never")
        scene.upstream.until_asked("/never")
        assert scene.links_of(router.network) == 2
        scene.namespaces.remove(router.name)
        began = time.monotonic()
        until(lambda: scene.links_of(router.network) == 1, "end of the router's interfaces")
        print(f"\na deleted router is gone after {(time.monotonic() - began) * 1000:.0f} ms")
        assert time.monotonic() - began < 2
        gate.set()
        for wire in (idle, waiting):
            wire.socket.close()


def test_none(scene: Scene) -> None:
    """Nothing is there to be found, not even the folder."""
    agent = scene.agent(netns_dir=Path("/tmp") / f"not-there-{os.getpid()}")
    agent.until_logged("found and served: 0 routers, 0 networks")
