"""The whole agent, whose sockets are those that stand-ins have opened: real namespaces, holders and guests."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fastmeta.control.client import ask
from fastmeta.lab.services import Service
from fastmeta.lab.topology import METADATA_ADDRESS_V6, Lab
from fastmeta.models import Scope
from tests.relay.users import SOMEBODY, OrdinaryAgent
from tests.service.agents import Agent
from tests.service.guests import Cut, Guest, Wire
from tests.service.link_local import LinkLocalGuest, Router, ip, until_usable
from tests.service.test_namespaces import switch_links
from tests.service.upstream import WAIT

from .kit import command_line, is_alive, status, until
from .places import Scene

_NUMBERS = itertools.count()

STORMING = 100
"""Clients at once."""


def fresh(name: str) -> str:
    """Of a network; those of all tests are in one lab."""
    return f"{name}{next(_NUMBERS)}"


def is_refused(guest: Guest) -> bool:
    try:
        guest.connect().socket.close()
    except ConnectionRefusedError:
        return True
    return False


def kept_alive(guest: Guest) -> Wire:
    """A connection that has had an answer, and waits for the next request."""
    wire = guest.connect()
    wire.get("/first")
    assert wire.answer().body == guest.mark("/first")
    return wire


def three_networks(scene: Scene) -> list[Guest]:
    """Guests with the same address in each, one of them behind a router."""
    scene.cloud.add_network(fresh("blue"), ["10.0.0.5"])
    scene.cloud.add_network(fresh("green"), ["10.0.0.5"])
    scene.cloud.add_routed_network(fresh("red"), ["10.0.0.5"])
    return list(scene.cloud.guests.values())


def one_network(scene: Scene) -> tuple[Guest, Scope, str, list[str]]:
    scene.cloud.add_network(fresh("blue"), ["10.0.0.5"])
    ((scope, namespace, binds),) = scene.proxies()
    (guest,) = scene.cloud.guests.values()
    return guest, scope, namespace, binds


def test_guests_get_their_own(scene: Scene) -> None:
    guests = three_networks(scene)
    agent = scene.agent()
    scene.start_all()
    for guest in guests:
        assert guest.is_served()
    for scope, _, _ in scene.proxies():
        agent.until_logged(rf"{scope} 10\.0\.0\.5 instance")
    assert len(agent.logged("listening: .* on 169|listening: .* on 0.0.0.0")) == 3
    seen = ask(str(scene.control_dir), {"command": "status"})["scopes"]
    assert {(one["kind"], one["id"], one["way"], one["namespace"]) for one in seen} == {
        (scope.kind.value, scope.uuid, "stand-in", namespace) for scope, namespace, _ in scene.proxies()
    }
    assert all(listener["open"] for one in seen for listener in one["listeners"])


def test_ipv6_of_a_network(scene: Scene) -> None:
    _, dhcp = scene.cloud.add_network(fresh("blue"), ["10.0.0.5"])
    ip(dhcp.namespace, "addr", "add", f"{METADATA_ADDRESS_V6}/128", "dev", dhcp.interface, "nodad")
    ((scope, namespace, binds),) = scene.proxies()
    scene.agent()
    scene.start(scope, namespace, [*binds, f"fe80::a9fe:a9fe:80 interface {dhcp.interface}"])
    (known,) = scene.cloud.guests.values()
    guest = LinkLocalGuest(known)
    until_usable(guest.namespace, "eth0", guest.address)
    assert guest.is_served("/v6")
    assert guest.guest.is_served("/v4")


def test_an_address_that_is_tentative(scene: Scene) -> None:
    """Duplicate address detection is not waited for: haproxy could not listen yet, we can."""
    _, dhcp = scene.cloud.add_network(fresh("blue"), ["10.0.0.5"])
    ip(dhcp.namespace, "addr", "add", f"{METADATA_ADDRESS_V6}/128", "dev", dhcp.interface)
    ((scope, namespace, binds),) = scene.proxies()
    scene.agent()
    scene.start(scope, namespace, [*binds, f"fe80::a9fe:a9fe:80 interface {dhcp.interface}"])
    (known,) = scene.cloud.guests.values()
    guest = LinkLocalGuest(known)
    until_usable(dhcp.namespace, dhcp.interface, METADATA_ADDRESS_V6)
    until_usable(guest.namespace, "eth0", guest.address)
    assert guest.is_served("/v6")


def test_ipv6_behind_a_router(scene: Scene) -> None:
    """The same link-local address on two links of one router: who it is, the link says, which the agent follows in a
    namespace that it knows by its sockets only."""
    router = Router(scene.cloud)
    twin = "fa:16:3e:00:00:05"
    guests = []
    for link in (1, 2):
        interface = router.add_link(link)
        guests.append(router.add_guest(link, 5, twin))
        assert interface is None or interface
    agent = scene.agent(park_timeout=4)
    scene.start_all()
    for link, guest in enumerate(guests, 1):
        guest.behind(router.interfaces[link])
        assert guest.is_served(f"/link/{link}")
    assert agent.logged(r"listening: router .* on \[::\]:9697")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_a_holder_ends_its_proxy(scene: Scene, number: int) -> None:
    """At once: connections, too, also one with a request in progress. All is given back."""
    guest, scope, namespace, binds = one_network(scene)
    agent = scene.agent()
    before = agent.quiet_descriptors(scene.upstream)
    gate = threading.Event()
    scene.upstream.scripts["slow"] = lambda exchange: (
        gate.wait(WAIT) and exchange.send(exchange.whole()) is None
    )
    scene.start(scope, namespace, binds)
    assert guest.is_served()
    idle, busy = kept_alive(guest), guest.connect()
    busy.get("/slow")
    scene.upstream.until_asked("/slow", 1)
    scene.end(scope, number)
    for wire in (idle, busy):
        with pytest.raises((Cut, ConnectionResetError)):
            wire.answer()
        wire.socket.close()
    gate.set()
    until(lambda: is_refused(guest), "the end of the listener")
    assert scene.ground.sockets() == []
    assert agent.quiet_descriptors(scene.upstream) == before
    # A successor, as Neutron's monitor starts it.
    scene.start(scope, namespace, binds)
    assert guest.is_served()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_refused_while_the_agent_is_away(scene: Scene, number: int) -> None:
    """Who connects then waits for the next agent, which is given the sockets by the holders."""
    guests = three_networks(scene)
    agent = scene.agent()
    scene.start_all()
    assert all(guest.is_served() for guest in guests)
    scene.kill_agent(agent, number)
    wires = [guest.connect() for guest in guests for _ in range(3)]
    for wire in wires:
        wire.get("/while-away")
    assert not any(is_refused(guest) for guest in guests)
    again = scene.agent()
    for place, wire in enumerate(wires):
        assert wire.answer().body == guests[place // 3].mark("/while-away")
        wire.socket.close()
    assert all(guest.is_served("/afterwards") for guest in guests)
    assert len(again.logged("listening: .* on .*namespace")) == 3


def test_holders_that_end_while_the_agent_is_away(scene: Scene) -> None:
    """The next one finds the names of their sockets, and removes them."""
    guest, scope, _, _ = one_network(scene)
    agent = scene.agent()
    scene.start_all()
    assert guest.is_served()
    scene.kill_agent(agent)
    scene.end(scope, signal.SIGKILL)
    assert len(scene.ground.sockets()) == 1
    scene.agent()
    until(lambda: scene.ground.sockets() == [], "removal of the socket's name")
    assert is_refused(guest)


def test_a_storm_while_the_agent_is_killed_and_started(scene: Scene) -> None:
    """Guests whose clients repeat nothing: what was in flight may fail; nothing is refused, and nothing another's."""
    guests = three_networks(scene)
    agent = scene.agent(access_log="false")
    scene.start_all()
    stop = threading.Event()
    refused: list[str] = []
    cut = [0]
    lock = threading.Lock()
    right = [0] * STORMING

    def storm(place: int) -> None:
        guest = guests[place % 3]
        number = 0
        while not stop.is_set():
            target = f"/storm/{place}/{number}"
            number += 1
            try:
                answer = guest.ask(target)
            except (Cut, ConnectionResetError, BrokenPipeError):
                with lock:
                    cut[0] += 1
            except OSError as error:
                refused.append(str(error))
            else:
                assert (answer.status, answer.body) == (200, guest.mark(target))
                right[place] += 1

    with ThreadPoolExecutor(STORMING) as pool:
        storming = [pool.submit(storm, place) for place in range(STORMING)]
        for _ in range(2):
            time.sleep(0.5)
            scene.kill_agent(agent)
            time.sleep(0.3)
            agent = scene.agent(access_log="false")
        time.sleep(0.5)
        stop.set()
        for one in storming:
            one.result(WAIT)
    assert refused == []
    assert cut[0] <= 2 * STORMING  # at most one for each client and kill
    assert min(right) > 0
    print(f"{sum(right)} answers were right, {cut[0]} were cut off, {len(refused)} refused")


def test_a_successor_takes_its_predecessors_place(scene: Scene) -> None:
    """Neutron may have lost sight of one (its pid file, say), and starts another: that serves, the first is ended."""
    guest, scope, namespace, binds = one_network(scene)
    agent = scene.agent()
    scene.start(scope, namespace, binds)
    first = scene.holder(scope)
    slow = guest.connect()
    gate = threading.Event()
    scene.upstream.scripts["slow"] = lambda exchange: (
        gate.wait(WAIT) and exchange.send(exchange.whole()) is None
    )
    slow.get("/slow")
    scene.upstream.until_asked("/slow", 1)
    scene.start(scope, namespace, binds)
    assert scene.holder(scope) != first
    until(lambda: not is_alive(first), "the end of the predecessor")
    gate.set()
    assert slow.answer().body == guest.mark("/slow")  # what it had begun goes on
    slow.socket.close()
    agent.until_logged("it has a successor")
    assert all(guest.is_served(f"/{number}") for number in range(20))
    assert len(scene.ground.sockets()) == 1


def test_another_network_cannot_listen_in_its_place(scene: Scene) -> None:
    """SO_REUSEPORT would let it, and half of the guests would be taken for another network's."""
    guest, scope, namespace, binds = one_network(scene)
    agent = scene.agent()
    scene.start(scope, namespace, binds)
    other = Scope(scope.kind, scene.ground.new_uuid())
    for place in (binds, ["0.0.0.0:80"], ["[::]:80"]):
        done = scene.start(other, namespace, place, started=False)
        assert "another proxy in that place" in done.stderr
    assert agent.logged("refused: .*another proxy in that place")
    assert all(guest.is_served(f"/{number}") for number in range(20))
    # At another port it may be, as far as sockets go.
    scene.start(other, namespace, ["169.254.169.254:81"])


def test_a_namespace_that_is_deleted_is_released(scene: Scene, lab: Lab) -> None:
    """Although the holder is in it, which nobody has ended: its interfaces go."""
    guest, scope, namespace, binds = one_network(scene)
    agent = scene.agent()
    scene.start(scope, namespace, binds)
    assert guest.is_served()
    pid = scene.holder(scope)
    kept = kept_alive(guest)
    before = len(switch_links(lab))
    lab.remove_namespace(namespace)
    until(lambda: not is_alive(pid), "the end of the holder")
    with pytest.raises((Cut, ConnectionResetError)):
        kept.answer()
    kept.socket.close()
    agent.until_logged("its namespace is gone")
    # The other end of its tap is in the lab's switch, and goes with it.
    until(lambda: len(switch_links(lab)) < before, "the end of the namespace")
    assert scene.ground.sockets() == []


def test_many_come_and_go(scene: Scene, lab: Lab) -> None:
    """Fifty in as many ways: nothing is left of them."""
    guest, scope, namespace, binds = one_network(scene)
    agent = scene.agent()
    scene.start(scope, namespace, binds)
    assert guest.is_served()
    before = agent.quiet_descriptors(scene.upstream)
    others = [Scope(scope.kind, scene.ground.new_uuid()) for _ in range(50)]
    with ThreadPoolExecutor(8) as pool:

        def start(place: int) -> None:
            scene.start(others[place], namespace, [f"127.0.3.{place + 1}:80"])

        list(pool.map(start, range(50)))
    assert agent.quiet_descriptors(scene.upstream) == before + 2 * 50
    pids = [scene.holder(other) for other in others]
    for place, pid in enumerate(pids):
        os.kill(pid, (signal.SIGTERM, signal.SIGKILL)[place % 2])
    until(lambda: len(scene.ground.sockets()) == 1, "removal of their names")
    assert agent.quiet_descriptors(scene.upstream) == before
    assert not any(str(scene.ground.folder) in command_line(pid) for pid in pids)
    assert guest.is_served()


def test_a_holder_that_is_stopped(scene: Scene) -> None:
    """An agent that starts waits for it, and serves the others; it gives its sockets when it goes on."""
    guests = three_networks(scene)
    agent = scene.agent()
    scene.start_all()
    scope = scene.proxies()[0][0]
    pid = scene.holder(scope)
    scene.kill_agent(agent)
    os.kill(pid, signal.SIGSTOP)
    try:
        scene.agent()
        assert all(guest.is_served() for guest in guests[1:])
        waiting = guests[0].connect()
        waiting.get("/late")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert waiting.answer().body == guests[0].mark("/late")
    waiting.socket.close()


def test_rate_limits_of_a_configuration(scene: Scene) -> None:
    """As haproxy keeps them, for each address of this network only, of this version of IP; an agent that starts is told
    of them again."""
    blue, green, _ = three_networks(scene)
    agent = scene.agent()
    (first, *others) = scene.proxies()
    scene.start(*first, limits=(600, 3, 600, 100))
    for other in others:
        scene.start(*other, limits=(600, 3, 600, 100), version="ipv6")

    def statuses(guest: Guest, count: int) -> list[int]:
        return [guest.ask(f"/{number}").status for number in range(count)]

    assert statuses(blue, 5) == [200, 200, 200, 429, 429]
    assert statuses(green, 5) == [200] * 5
    agent.until_logged("asks faster than .* allows")
    scene.kill_agent(agent)
    scene.agent()
    assert statuses(blue, 5) == [200, 200, 200, 429, 429]
    assert statuses(green, 5) == [200] * 5


def test_what_we_cannot_take_now_is_no_reason_to_end_a_proxy(scene: Scene) -> None:
    """Without descriptors, or without the capability to look at sockets, an agent leaves holders as they are; the next
    one has all of them."""
    guest, scope, namespace, binds = one_network(scene)
    agent = scene.agent()
    scene.start(scope, namespace, binds)
    others = [Scope(scope.kind, scene.ground.new_uuid()) for _ in range(40)]
    for place, other in enumerate(others):
        scene.start(other, namespace, [f"127.0.4.{place + 1}:80"])
    pids = [scene.holder(other) for other in (scope, *others)]
    scene.kill_agent(agent)
    poor = scene.agent(prefix=["prlimit", "--nofile=75:75"])
    poor.until_logged("raise LimitNOFILE of the service")
    assert all(map(is_alive, pids))
    scene.kill_agent(poor)
    weak = scene.agent(prefix=["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"])
    weak.until_logged("CAP_NET_ADMIN is missing", 41)
    assert all(map(is_alive, pids))
    done = scene.start(
        Scope(scope.kind, scene.ground.new_uuid()), namespace, ["127.0.4.99:80"], started=False
    )
    assert "CAP_NET_ADMIN is missing" in done.stderr
    scene.kill_agent(weak)
    agent = scene.agent()
    agent.until_logged(r"listening: .*namespace", 41)
    assert guest.is_served()


def test_two_holders_of_one_network(scene: Scene) -> None:
    """Both began while no agent ran: the later one, which Neutron knows, is the one that stays."""
    guest, scope, namespace, binds = one_network(scene)
    scene.control_dir.mkdir(mode=0o700)
    (scene.control_dir / "holders").mkdir(mode=0o700)
    scene.ground.set_options("when_away = hold")
    scene.start(scope, namespace, binds)
    first = scene.holder(scope)
    scene.start(scope, namespace, binds)
    scene.agent()
    until(lambda: not is_alive(first), "the end of the first")
    assert is_alive(scene.holder(scope))
    assert all(guest.is_served(f"/{number}") for number in range(20))


class AgentOfAnOrdinaryUser(OrdinaryAgent):
    """As an ordinary user, with what a service needs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        rights = "+net_admin,+net_bind_service,+sys_admin"
        user = [f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
        command = [
            "setpriv",
            *user,
            f"--inh-caps={rights}",
            f"--ambient-caps={rights}",
            "--pdeathsig",
            "KILL",
        ]
        command += [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(self.config)]
        self.service = Service("agent", command, self.folder)


def test_an_agent_that_is_not_root(scene: Scene) -> None:
    """Stand-ins and holders are root's all the same; each knows the other."""
    guest, scope, namespace, binds = one_network(scene)
    scene.folder.chmod(0o755)
    scene.control_dir.mkdir(mode=0o700)
    os.chown(scene.control_dir, SOMEBODY, SOMEBODY)
    options = {"listen": [], "stand_in": "true", "control_dir": scene.control_dir}

    def agent() -> Agent:
        made = AgentOfAnOrdinaryUser(
            ports=scene.cloud.ports(), nova_tcp_port=scene.upstream.tcp_port, **options
        )
        return scene.setting.stack.enter_context(made)

    first = agent()
    assert status(first.pid)["Uid"].split()[0] == str(SOMEBODY)
    scene.start(scope, namespace, binds)
    assert guest.is_served()
    scene.kill_agent(first)
    waiting = guest.connect()
    waiting.get("/while-away")
    agent()
    assert waiting.answer().body == guest.mark("/while-away")
    waiting.socket.close()
    scene.end(scope)
    until(lambda: scene.ground.sockets() == [], "removal of the socket's name")
