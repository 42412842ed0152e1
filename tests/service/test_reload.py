"""SIGHUP: the configuration is read again. What is seen of it is seen from a guest; nobody else notices."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .agents import SECRET, Agent, until
from .conftest import Served, Setting
from .guests import Guest
from .upstream import Exchange, signature

RATES = (
    "[metadata_rate_limiting]\nrate_limit_enabled = true\nbase_query_rate_limit = 2\n"
    "base_window_duration = 600\nburst_query_rate_limit = 100\n"
)


class ServedByTwoLoops(Served):
    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.cloud = setting.cloud
        self.guests = self.cloud.guests
        self.upstream = setting.upstream()
        self.agent = setting.agent(self.upstream, loops=2)


@pytest.fixture
def served(setting: Setting) -> Served:
    """An agent of its own for each test: what it is told holds until its end."""
    return ServedByTwoLoops(setting)


class Poller:
    """Asks without a pause, each time for something else, on a kept connection and on one for each request in turns."""

    def __init__(self, guest: Guest, name: str) -> None:
        self.guest = guest
        self.name = name
        self.asked: list[tuple[float, str]] = []
        self.failures: list[object] = []
        self.stopped = False
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        try:
            with self.guest.connect() as kept:
                for number in itertools.count():
                    if self.stopped:
                        return
                    target = f"/{self.name}/{number}"
                    self.asked.append((time.monotonic(), target))
                    if number % 2:
                        kept.get(target)
                        answer = kept.answer()
                    else:
                        answer = self.guest.ask(target)
                    if (answer.status, answer.body) != (200, self.guest.mark(target)):
                        self.failures.append((target, answer))
        except BaseException as error:
            self.failures.append(error)


@contextmanager
def load(served: Served) -> Iterator[list[Poller]]:
    """All guests ask all the time; every one of their requests must be answered, and with their own data."""
    pollers = [Poller(guest, name) for name, guest in served.guests.items()]
    for poller in pollers:
        poller.thread.start()
    try:
        until(lambda: all(len(poller.asked) > 5 or poller.failures for poller in pollers))
        yield pollers
        counts = [len(poller.asked) for poller in pollers]
        until(lambda: all(len(p.asked) > n + 5 or p.failures for p, n in zip(pollers, counts, strict=True)))
    finally:
        for poller in pollers:
            poller.stopped = True
        for poller in pollers:
            poller.thread.join()
    assert [poller.failures for poller in pollers if poller.failures] == []


def ask_all(served: Served, target: str) -> list[int]:
    return [guest.ask(target).status for guest in served.guests.values()]


def test_a_limit(served: Served) -> None:
    guest = served.guests["blue-5"]
    assert guest.ask("/a", method="POST", body=b"x" * 100).status == 200
    line = served.agent.reload(max_body=99)
    assert line.endswith("reload: taken up: [fastmeta] max_body = 99")
    assert guest.ask("/a", method="POST", body=b"x" * 100).status == 413
    assert guest.ask("/a", method="POST", body=b"x" * 99).status == 200


def test_a_time(served: Served) -> None:
    """keepalive_timeout: of connections that become idle from now on."""
    guest = served.guests["green-5"]
    with guest.connect() as early, guest.connect() as late:
        early.get("/a")
        assert early.answer().status == 200
        served.agent.reload(keepalive_timeout=0.2)
        late.get("/b")
        assert late.answer().status == 200
        assert late.end() == b""
        early.get("/c")
        assert early.answer().status == 200


def test_how_long_guests_wait(setting: Setting) -> None:
    """park_timeout, which Python and the core both know."""
    agent = setting.agent(setting.upstream(), ports=None, park_timeout=60)
    agent.reload(park_timeout=0.3)
    assert setting.cloud.guests["red-5"].ask("/in-vain").status == 503


def test_how_long_nobody_is_believed(setting: Setting) -> None:
    """negative_ttl, made shorter: what was to be believed for longer ends."""
    cloud = setting.cloud
    agent = setting.agent(setting.upstream(), negative_ttl=60, lookup_timeout=0.2)
    stranger = cloud.guests["blue-5"]
    agent.change_ports(cloud.ports(stranger))
    assert stranger.ask("/nobody").status == 404

    def looked_up() -> int:
        return len(agent.logged(f"{stranger.address} belongs to no certain instance"))

    count = looked_up()
    assert stranger.ask("/nobody").status == 404
    assert looked_up() == count
    agent.reload(negative_ttl=0)
    for more in (1, 2):
        assert stranger.ask("/nobody").status == 404
        assert looked_up() == count + more


def test_a_rate_limit(served: Served) -> None:
    guest = served.guests["blue-5"]
    assert [guest.ask("/a").status for _ in range(4)] == [200] * 4
    line = served.agent.reload(RATES)
    assert "[metadata_rate_limiting] rate_limit_enabled = true" in line
    assert "[metadata_rate_limiting] base_query_rate_limit = 2" in line
    assert served.agent.logged("allows 2 requests in a window")
    assert [guest.ask("/b").status for _ in range(4)] == [200, 200, 429, 429]
    assert served.guests["green-5"].is_served()
    served.agent.reload()
    assert [guest.ask("/c").status for _ in range(4)] == [200] * 4


def test_the_metadata_api_moves(served: Served) -> None:
    """From the next request on, on connections of guests that are there, too; what is in progress ends where it is."""
    other = served.setting.upstream()
    release = threading.Event()
    served.upstream.scripts["slow"] = lambda exchange: (
        release.wait(20) and exchange.send(exchange.whole()) is None
    )
    guest = served.guests["blue-5"]
    with guest.connect() as slow, guest.connect() as kept:
        slow.get("/slow")
        served.upstream.until_asked("/slow")
        kept.get("/before")
        assert kept.answer().body == guest.mark("/before")
        line = served.agent.reload(default={"nova_metadata_port": str(other.tcp_port)})
        assert line.endswith(f"taken up: nova_metadata_port = {other.tcp_port}")
        kept.get("/after")
        assert kept.answer().body == guest.mark("/after")
        assert ask_all(served, "/moved") == [200] * len(served.guests)
        release.set()
        assert slow.answer().body == guest.mark("/slow")
    assert len(other.asked("/after")) == 1
    assert len(other.asked("/moved")) == len(served.guests)
    assert served.upstream.asked("/moved") == []


def test_the_metadata_api_gets_a_name(served: Served) -> None:
    """The Host header is another one; the address may be the same."""
    hosts = set()

    def named(exchange: Exchange) -> bool:
        hosts.add(exchange.request.value("host"))
        exchange.send(exchange.whole())
        return True

    served.upstream.scripts["named"] = named
    assert ask_all(served, "/named") == [200] * len(served.guests)
    served.agent.reload(default={"nova_metadata_host": "localhost"})
    served.agent.until_logged("Nova's metadata API: http://localhost:")
    assert ask_all(served, "/named") == [200] * len(served.guests)
    assert hosts == {f"{name}:{served.upstream.tcp_port}" for name in ("127.0.0.1", "localhost")}
    served.upstream.wrong.clear()  # it knows itself by address only


def test_the_level_of_the_log(served: Served) -> None:
    agent = served.agent
    assert agent.logged(" DEBUG ")
    assert agent.reload(default={"debug": "false"}).endswith("taken up: debug = false")
    count = len(agent.logged(" DEBUG "))
    stranger = served.guests["blue-5"]
    agent.change_ports(served.cloud.ports(stranger))
    assert stranger.ask("/quiet").status == 404
    assert len(agent.logged(" DEBUG ")) == count
    agent.reload(default={"debug": "true"})
    agent.change_ports(served.cloud.ports())
    agent.change_ports(served.cloud.ports(stranger))
    assert stranger.ask("/loud").status == 404
    agent.until_logged(r" DEBUG .* belongs to no certain instance")


def test_the_access_log(served: Served) -> None:
    agent, guest = served.agent, served.guests["red-8"]
    agent.reload(access_log=False)
    assert guest.is_served("/not-logged")
    agent.reload(access_log=True)
    assert guest.is_served("/logged")
    agent.until_logged("GET /logged")
    assert not agent.logged("GET /not-logged")


def test_a_secret_is_for_all_that_comes(served: Served) -> None:
    """Also for those who are known and on connections that are open; and the log does not say it."""
    new = f"new-{uuid.uuid4()}"
    with served.guests["blue-5"].connect() as wire:
        wire.get("/before")
        assert wire.answer().status == 200
        served.upstream.secrets = {new}
        line = served.agent.reload(default={"metadata_proxy_shared_secret": new})
        assert line.endswith("taken up: metadata_proxy_shared_secret")
        wire.get("/after")
        assert wire.answer().status == 200
    assert ask_all(served, "/new") == [200] * len(served.guests)
    assert new not in served.agent.log


def test_a_secret_while_requests_are_in_flight(served: Served) -> None:
    """A GET that has no answer yet is signed anew and sent again; a POST is not sent twice: 503, to be repeated."""
    new = f"new-{uuid.uuid4()}"
    old_signatures = {signature(SECRET, guest.instance_id) for guest in served.guests.values()}

    def slow(exchange: Exchange) -> bool:
        if exchange.request.value("x-instance-id-signature") in old_signatures:
            exchange.gone(20)
            return False
        exchange.send(exchange.whole())
        return True

    served.upstream.scripts["slow"] = slow
    guest = served.guests["green-5"]
    with guest.connect() as got, guest.connect() as posted:
        got.get("/slow/get")
        posted.get("/slow/post", method="POST", body=b"x")
        served.upstream.until_asked("/slow", 2)
        served.upstream.secrets.add(new)
        served.agent.reload(default={"metadata_proxy_shared_secret": new})
        assert got.answer().body == guest.mark("/slow/get")
        assert posted.answer().status == 503
    assert len(served.upstream.asked("/slow/get")) == 2
    assert len(served.upstream.asked("/slow/post")) == 1


def test_a_secret_that_is_rotated_under_load(served: Served) -> None:
    """Twenty times, as one does it: Nova takes both for a while. No request fails, and none that was asked after a
    reload is signed with an older secret."""
    secrets = [SECRET]
    since = [0.0]
    with load(served) as pollers:
        for _ in range(20):
            secrets.append(f"new-{uuid.uuid4()}")
            served.upstream.secrets.add(secrets[-1])
            served.agent.reload(default={"metadata_proxy_shared_secret": secrets[-1]})
            since.append(time.monotonic())
            counts = [len(poller.asked) for poller in pollers]
            until(lambda: all(len(p.asked) > n or p.failures for p, n in zip(pollers, counts, strict=True)))  # noqa: B023
    ages = {}
    for request in served.upstream.asked("/"):
        instance, found = request.instance, request.value("x-instance-id-signature")
        age = next(age for age, secret in enumerate(secrets) if signature(secret, instance) == found)
        ages[request.target] = max(age, ages.get(request.target, 0))
    for poller in pollers:
        for asked_at, target in poller.asked:
            assert ages[target] >= max(age for age, began in enumerate(since) if began < asked_at)
    assert set(ages.values()) == set(range(21))


def test_no_request_fails_while_everything_changes(served: Served) -> None:
    """Fifty reloads under load, each with other bounds, times, places."""
    other = served.setting.upstream()
    with load(served):
        for turn in range(50):
            served.agent.reload(
                RATES.replace("= 2\n", "= 1000000\n").replace("= 100\n", "= 1000000\n") if turn % 2 else "",
                default={
                    "nova_metadata_port": str((served.upstream, other)[turn % 2].tcp_port),
                    "debug": ("true", "false")[turn % 2],
                },
                max_connections=10_000 + turn,
                max_connections_per_scope=1000 - turn,
                max_upstream_connections=(64, 8)[turn % 2],
                max_head=(8192, 1000)[turn % 2],
                access_log=turn % 3 == 0,
                identity_ttl=(60, 5)[turn % 2],
                keepalive_timeout=30 + turn,
            )
    assert other.received
    assert len(served.agent.logged("reload: taken up: ")) == 50


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("max_connections = many", "max_connections: 'many' is not a number from 1 to 1000000"),
        ("identity_ttl = 1", "identity_ttl = 1: must be longer than lookup_timeout"),
        ("what is this", "not a line of a configuration file"),
        ("[DEFAULT]\ndebug = perhaps", "Invalid Boolean value: perhaps"),
        ("[DEFAULT]\nnova_metadata_port = 0", "nova_metadata_port: '0' is not a TCP port"),
    ],
)
def test_what_is_invalid_changes_nothing(served: Served, more: str, reason: str) -> None:
    """Nor does what is valid beside it; the log says what is wrong. When it is right, all of it is taken up."""
    guest = served.guests["blue-5"]
    line = served.agent.reload(more, max_body=99)
    assert "nothing is taken up, what was read before stays in force" in line
    assert line.count(reason) == 1
    assert " ERROR " in line
    assert guest.ask("/a", method="POST", body=b"x" * 100).status == 200
    assert ask_all(served, "/still") == [200] * len(served.guests)
    assert served.agent.reload().endswith("taken up: [fastmeta] max_body = 99")
    assert guest.ask("/a", method="POST", body=b"x" * 100).status == 413


def test_a_file_that_others_may_write(served: Served) -> None:
    """Rule 11, while running: it is refused, with a line that says what to do."""
    served.agent.config.chmod(0o622)
    os.kill(served.agent.pid, signal.SIGHUP)
    (line,) = served.agent.until_logged("reload: nothing is taken up")
    assert "chmod go-w" in line
    served.agent.config.unlink()
    os.kill(served.agent.pid, signal.SIGHUP)
    served.agent.until_logged("reload: nothing is taken up", 2)
    assert ask_all(served, "/still") == [200] * len(served.guests)


def test_doubts_are_said_although_nothing_is_new(served: Served) -> None:
    """A mistyped option changes nothing, which is what its operator should hear about, each time."""
    mistyped = r" WARNING .*max_bdoy is no option there, and has no effect; is it mistyped\?$"
    for count in (1, 2):
        assert served.agent.reload(max_bdoy=99).endswith("taken up: nothing, all is as it was")
        served.agent.until_logged(mistyped, count)


def test_what_needs_a_restart(served: Served) -> None:
    """It is named, each time, and stays as it was; the rest is taken up."""
    agent = served.agent
    del agent.listen[0]
    for _ in range(2):
        agent.reload(loops=3, netns_dir="/elsewhere", max_body=7)
    lines = agent.logged("needs a restart")
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("until then: [fastmeta] listen, [fastmeta] netns_dir, [fastmeta] loops")
        assert " WARNING " in line
    assert [line.rpartition(": ")[2] for line in agent.logged("reload: taken up")] == [
        "[fastmeta] max_body = 7",
        "nothing, all is as it was",
    ]
    assert ask_all(served, "/still") == [200] * len(served.guests)


def test_signals_that_come_together(served: Served) -> None:
    """Whatever comes together or one after the other: in the end the last file is in force."""

    def hang_up(agent: Agent, limit: int) -> None:
        agent.options["max_body"] = limit
        agent.write_config()
        os.kill(agent.pid, signal.SIGHUP)

    guest = served.guests["blue-5"]
    for limit in range(1, 101):
        hang_up(served.agent, limit)
    served.agent.until_logged(r"taken up: \[fastmeta\] max_body = 100$")
    assert guest.ask("/a", method="POST", body=b"x" * 101).status == 413
    assert guest.ask("/a", method="POST", body=b"x" * 100).status == 200


def test_a_signal_while_it_ends(served: Served) -> None:
    """It is ignored, with a line that says so; what is in progress ends."""
    release = threading.Event()
    served.upstream.scripts["slow"] = lambda exchange: (
        release.wait(20) and exchange.send(exchange.whole()) is None
    )
    guest = served.guests["red-5"]
    with guest.connect() as wire:
        wire.get("/slow")
        served.upstream.until_asked("/slow")
        served.agent.terminate()
        served.agent.until_logged("requests in progress have")
        os.kill(served.agent.pid, signal.SIGHUP)
        served.agent.until_logged("ending, the configuration is not read again")
        release.set()
        assert wire.answer().body == guest.mark("/slow")
    assert served.agent.exit_status() == 0
