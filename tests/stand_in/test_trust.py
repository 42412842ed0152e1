"""Only we give the agent sockets, and they must be what is said of them."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastmeta.exceptions import LabError
from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import Lab
from tests.service.agents import Agent, Cloud
from tests.service.conftest import Setting

from .kit import until
from .places import Scene

HOLDER = "6d0cb4b1-5f41-4e4c-a3b2-9b4b1f0ad0f3.0123456789abcdef"


def message(of_namespace: str, *sockets: str, **lines: str) -> bytes:
    """A good one, but for the lines that are given."""
    status = os.stat(f"/run/netns/{of_namespace}")
    said = {
        "first": "hand-over 1",
        "holder": f"holder {HOLDER}",
        "scope": f"scope network {HOLDER[:36]}",
        "namespace": f"namespace {status.st_dev} {status.st_ino}",
        "timeouts": "timeouts 30 30 32 32 30",
        **lines,
    }
    return "\n".join(
        [*said.values(), *(f"socket {one}" for one in sockets or ["127.0.0.7 80 0"]), ""]
    ).encode()


@dataclass
class Place:
    """An agent that several tests talk to."""

    scene: Scene
    agent: Agent
    namespace: str
    other: str
    quiet: int
    """Its descriptors when nothing is handed over."""

    def listener(self, address: str = "127.0.0.7", namespace: str = "") -> socket.socket:
        return inside(namespace or self.namespace, lambda: socket.create_server((address, 80)))

    def say(self, data: bytes, *descriptors: int) -> bytes:
        """What the agent answers; b"": nothing, it has closed."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(20)
            connection.connect(str(self.scene.control_dir / "stand-ins"))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            connection.sendmsg([data], rights if descriptors else [])
            return connection.recv(512)

    def is_refused(self, why: str, data: bytes, *descriptors: int) -> None:
        answer = self.say(data, *descriptors)
        assert answer.startswith(b"refused "), answer
        assert why in answer.decode()


@pytest.fixture(scope="module")
def module_place(lab: Lab) -> Iterator[Place]:
    setting = Setting(Cloud(lab))
    with setting.stack:
        scene = Scene(setting)
        agent = scene.agent(ports=[])
        names = [lab.add_namespace(f"trust-{number}") for number in range(2)]
        yield Place(scene, agent, *names, agent.quiet_descriptors(scene.upstream))


@pytest.fixture
def place(module_place: Place) -> Iterator[Place]:
    """Afterwards the agent has nothing of it."""
    yield module_place
    agent, scene = module_place.agent, module_place.scene
    until(lambda: agent.quiet_descriptors(scene.upstream) == module_place.quiet, "the agent's descriptors")
    agent.check_log()


def test_a_good_one_is_taken(place: Place) -> None:
    """What the others are measured by."""
    with place.listener() as listener:
        assert place.say(message(place.namespace), listener.fileno()) == b"taken"


def test_no_sockets_at_all(place: Place) -> None:
    kinds = {
        "not a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "is not a TCP socket that listens": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "TCP socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    }
    for why, make in kinds.items():
        with inside(place.namespace, make) as made:
            place.is_refused(why, message(place.namespace), made.fileno())
    with open("/dev/null", "rb") as file:
        place.is_refused("no socket", message(place.namespace), file.fileno())
    place.is_refused("0 descriptors came for 1 sockets", message(place.namespace))


def test_another_number_of_sockets(place: Place) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(place.listener(f"127.0.0.{number}")).fileno() for number in range(10, 30)]
        place.is_refused("2 descriptors came for 1", message(place.namespace), *many[:2])
        place.is_refused("too many descriptors", message(place.namespace), *many)


def test_another_place_than_is_said(place: Place) -> None:
    with place.listener() as listener:
        for said, why in (
            ("127.0.0.8 80 0", "127.0.0.8:80: the socket listens on 127.0.0.7:80"),
            ("127.0.0.7 81 0", "127.0.0.7:81: the socket listens on"),
            ("::ffff:127.0.0.7 80 3", "the socket listens on"),
            ("::1 80 0", "the socket listens on"),
        ):
            place.is_refused(why, message(place.namespace, said), listener.fileno())
    with place.listener(namespace=place.other) as listener:
        place.is_refused("in another namespace than was said", message(place.namespace), listener.fileno())


@pytest.mark.parametrize(
    "lines",
    [
        {"first": "hand-over 2"},
        {"first": "hand-over 1 "},
        {"holder": "holder ../../../etc/passwd"},
        {"holder": f"holder {HOLDER}0"},
        {"scope": "scope host 6d0cb4b1-5f41-4e4c-a3b2-9b4b1f0ad0f3"},
        {"scope": "scope network blue"},
        {"namespace": "namespace 4"},
        {"namespace": "namespace -4 7"},
        {"namespace": "namespace 4 7\nrate 5 1 1 1 1"},
        {"namespace": "namespace 4 7\nrate 4 0 1 1 1"},
        {"timeouts": "timeouts 1 2 3 4"},
        {"timeouts": "timeouts 1 2 3 4 five"},
        {"timeouts": "timeouts 1 2 3 4 5\nmore"},
        {"timeouts": "timeouts 1 2 3 4 5\nsocket 127.0.0.7 80 0 x"},
        {"timeouts": "timeouts 1 2 3 4 5\nsocket nowhere 80 0"},
        {"timeouts": "timeouts 1 2 3 4 5\nsocket 127.0.0.7 65536 0"},
        {"timeouts": "timeouts 1 2 3 4 5" + "\nsocket 127.0.0.7 80 0" * 4},
        {"timeouts": "timeouts 1 2 3 4 5\n"},
    ],
)
def test_messages_that_are_not_right(place: Place, lines: dict[str, str]) -> None:
    with place.listener() as listener:
        place.is_refused("message", message(place.namespace, **lines), listener.fileno())


def test_messages_that_are_none(place: Place) -> None:
    with place.listener() as listener:
        for data in (b"\0", b"\xff" * 100, b"\n\n\n", b"GET / HTTP/1.1\r\n\r\n", b"hand-over 1"):
            place.is_refused("message", data, listener.fileno())
        place.is_refused("too long", b"a" * 3000, listener.fileno())


def test_who_goes_without_a_word(place: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(place.scene.control_dir / "stand-ins"))


def test_who_says_nothing_is_not_kept(place: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(20)
        connection.connect(str(place.scene.control_dir / "stand-ins"))
        assert connection.recv(1) == b""
    place.agent.until_logged("a stand-in was silent")


def test_the_same_name_twice(place: Place) -> None:
    with place.listener() as listener, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
        first.settimeout(20)
        first.connect(str(place.scene.control_dir / "stand-ins"))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))]
        first.sendmsg([message(place.namespace)], rights)
        assert first.recv(512) == b"taken"
        place.is_refused("are here already", message(place.namespace), listener.fileno())


def test_other_users_are_turned_away(place: Place) -> None:
    """Even if the folder and the socket were open to them."""
    folder, path = place.scene.control_dir, place.scene.control_dir / "stand-ins"
    code = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"s.connect({str(path)!r}); sys.exit(len(s.recv(1)))"
    )
    modes = {one: one.stat().st_mode for one in (folder.parent, folder, path)}
    try:
        for one in modes:
            one.chmod(0o777)
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=20).returncode == 0
    finally:
        for one, mode in modes.items():
            one.chmod(mode)
    place.agent.until_logged("of user 65534 would hand over sockets, and was turned away")


@pytest.mark.parametrize("which", ["", "holders"], ids=["control_dir", "holders"])
@pytest.mark.parametrize(("mode", "owner"), [(0o755, 0), (0o700, 65534)], ids=["open", "another's"])
def test_a_folder_that_others_get_into(own_setting: Setting, which: str, mode: int, owner: int) -> None:
    """Nothing is served then: who could hand over sockets could be anybody."""
    scene = Scene(own_setting)
    folder = Path(scene.control_dir / which)
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(mode)
    os.chown(folder, owner, -1)
    with pytest.raises(LabError, match=r"and\s+have mode 0700"):
        scene.agent(ports=[])


def test_two_agents_cannot_share_a_folder(own_setting: Setting) -> None:
    scene = Scene(own_setting)
    scene.agent(ports=[])
    with pytest.raises(LabError, match="somebody listens there already"):
        scene.agent(ports=[])
