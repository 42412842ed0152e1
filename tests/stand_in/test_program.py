"""What the stand-in leaves to the real haproxy, and how it fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta.lab.namespaces import inside
from fastmeta.stand_in import program as installed

from .configurations import UUID, Configuration
from .kit import PROGRAM, WAIT, Ground, connect, is_alive, receive

LOOPBACK = Configuration(binds=["127.0.0.6:80"])

REAL = """\
#!/bin/sh
echo "the real one: $0 $*"
[ -z "$INHERITED" ] || cat "/proc/self/fd/$INHERITED"
exit 3
"""


@pytest.fixture
def real(ground: Ground) -> Path:
    """In haproxy's place: says how it was started."""
    path = ground.folder / "real" / "haproxy"
    path.parent.mkdir()
    path.write_text(REAL)
    path.chmod(0o755)
    return path


def run(ground: Ground, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ground.program), *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        **{"env": ground.environment, **options},
    )


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-v"],
        ["-c", "-f", "CONFIG"],
        ["-f", "CONFIG", "-p", "/run/pid"],
        ["-f", "FOREIGN"],
        ["-f", "MISSING"],
        ["-f", "/"],
        ["-W", "-f", "CONFIG", "-f", "FOREIGN"],
        ["-f"],
    ],
    ids=" ".join,
)
def test_other_haproxies_do_not_notice(ground: Ground, real: Path, arguments: list[str]) -> None:
    """The same arguments, the same exit status, and what was open stays so."""
    ground.set_options(f"haproxy = {real}")
    foreign = ground.folder / "FOREIGN"
    foreign.write_text("global\n    daemon\n")
    names = {"CONFIG": str(ground.write(LOOPBACK)), "FOREIGN": str(foreign)}
    given = [names.get(argument, argument) for argument in arguments]
    reading, writing = os.pipe()
    os.write(writing, b"inherited\n")
    os.close(writing)
    try:
        environment = ground.environment | {"INHERITED": str(reading)}
        done = run(ground, *given, pass_fds=[reading], env=environment)
    finally:
        os.close(reading)
    assert done.stdout == f"the real one: {real} {' '.join(given)}\ninherited\n"
    assert (done.returncode, done.stderr) == (3, "")


def test_what_is_not_known_is_left_to_haproxy_with_a_word(ground: Ground, real: Path) -> None:
    ground.set_options(f"haproxy = {real}")
    path = ground.write(Configuration(more=["    http-request deny"]))
    done = run(ground, "-f", str(path))
    assert done.returncode == 3
    assert "the real one" in done.stdout
    assert "line" in done.stderr
    assert str(path) in done.stderr


def test_the_real_one_is_found_behind_us(ground: Ground, real: Path) -> None:
    """On PATH, where the first one is us, also by another name."""
    ours = ground.folder / "first"
    ours.mkdir()
    (ours / "haproxy").symlink_to(ground.program)
    path = f"{ground.program.parent}:{ours}:{real.parent}"
    done = run(ground, "-v", env=ground.environment | {"PATH": f"{path}:{os.environ['PATH']}"})
    assert done.stdout.startswith(f"the real one: {real}")


def test_diverted(ground: Ground, real: Path) -> None:
    """dpkg-divert --rename has given it another name, and its own one is us."""
    real.rename(real.parent / "haproxy.distrib")
    (real.parent / "haproxy").symlink_to(ground.program)
    done = run(ground, "-v", env=ground.environment | {"PATH": f"{real.parent}:{os.environ['PATH']}"})
    assert done.stdout.startswith(f"the real one: {real.parent / 'haproxy.distrib'}")


def test_copies_of_us_do_not_execute_each_other_for_ever(ground: Ground) -> None:
    places = [ground.folder / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
        shutil.copy(ground.program, place / "haproxy")
    path = f"{places[0]}:{places[1]}"
    done = subprocess.run(
        [str(places[0] / "haproxy"), "-v"],
        env=ground.environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no real haproxy" in done.stderr


def test_fails_as_haproxy_when_fastmeta_is_not_running(ground: Ground, namespace: str) -> None:
    done = ground.start(namespace, LOOPBACK)
    assert done.returncode == 1
    assert done.stderr.startswith("[ALERT] ")
    assert "fastmeta is not running" in done.stderr
    assert not ground.pid_file(UUID).exists()
    assert ground.sockets() == []


def test_fails_without_a_control_folder(ground: Ground, namespace: str) -> None:
    shutil.rmtree(ground.control_dir)
    done = ground.start(namespace, LOOPBACK)
    assert done.returncode == 1
    assert f"{ground.control_dir}: No such file or directory" in done.stderr


def test_runs_the_real_one_when_fastmeta_is_not_running(ground: Ground, namespace: str, real: Path) -> None:
    """Which finds the port free."""
    ground.set_options(f"haproxy = {real}", "when_away = haproxy")
    real.write_text(
        "#!/bin/sh\nexec python3 -c 'import socket; socket.create_server((\"127.0.0.6\", 80)); print(1)'\n"
    )
    done = ground.start(namespace, LOOPBACK)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_holds_when_fastmeta_is_not_running(ground: Ground, namespace: str) -> None:
    """An agent that starts later finds the sockets, and who has connected meanwhile."""
    ground.set_options("when_away = hold")
    done = ground.start(namespace, LOOPBACK)
    assert done.returncode == 0, done.stderr
    assert is_alive(ground.holder())
    with inside(namespace, lambda: socket.create_connection(("127.0.0.6", 80), WAIT)):
        (name,) = ground.sockets()
        handed = receive(connect(ground, name))
    assert handed.claim.holder == name
    handed.close()


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        (LOOPBACK, "cannot bind socket (Address already in use) [127.0.0.6:80]"),
        (
            Configuration(binds=["fe80::a9fe:a9fe:80 interface tap-not-there"]),
            "cannot bind listener to device (No such device)",
        ),
    ],
    ids=["another has the port", "there is no such interface"],
)
def test_cannot_listen(ground: Ground, namespace: str, configuration: Configuration, said: str) -> None:
    ground.set_options("when_away = hold")
    with inside(namespace, lambda: socket.create_server(("127.0.0.6", 80))):
        done = ground.start(namespace, configuration)
    assert done.returncode == 1
    assert said in done.stderr
    assert not ground.pid_file(UUID).exists()


def test_a_pid_file_is_not_written_through_a_link(ground: Ground, namespace: str) -> None:
    """Its folder belongs to Neutron's user, and we are root."""
    ground.set_options("when_away = hold")
    precious = ground.folder / "precious"
    precious.write_text("as it was")
    ground.pid_file(UUID).symlink_to(precious)
    assert ground.start(namespace, LOOPBACK).returncode == 0
    assert precious.read_text() == "as it was"
    assert is_alive(ground.holder())


def test_a_pid_file_that_cannot_be_written(ground: Ground, namespace: str) -> None:
    """Neutron would never find the holder: it does not stay."""
    ground.set_options("when_away = hold")
    ground.pid_file(UUID).mkdir()
    done = ground.start(namespace, LOOPBACK)
    assert done.returncode == 1
    assert "cannot write the pid file" in done.stderr
    (name,) = ground.sockets()  # which the next agent removes
    with pytest.raises(ConnectionRefusedError):
        connect(ground, name)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        ("control_dir = relative\n", 0o644),
        ("when_away = perhaps\n", 0o644),
        ("nonsense\n", 0o644),
        ("colour = blue\n", 0o644),
        ("", 0o666),
        ("#" * 70000, 0o644),
    ],
    ids=["relative", "no such choice", "no =", "no such option", "writable", "too long"],
)
def test_options_that_cannot_be_used(
    ground: Ground, namespace: str, real: Path, content: str, mode: int
) -> None:
    """Neutron is told; other haproxies go on."""
    ground.options.write_text(content)
    ground.options.chmod(mode)
    done = ground.start(namespace, LOOPBACK)
    assert done.returncode == 1
    assert str(ground.options) in done.stderr
    path = f"{real.parent}:{os.environ['PATH']}"
    assert run(ground, "-v", env=ground.environment | {"PATH": path}).returncode == 3


def test_comments_and_spaces_in_options(ground: Ground, namespace: str) -> None:
    ground.set_options("# a comment", "", "   when_away=hold  ")
    assert ground.start(namespace, LOOPBACK).returncode == 0


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o777])
def test_a_control_folder_that_others_get_into(ground: Ground, namespace: str, mode: int) -> None:
    ground.control_dir.chmod(mode)
    done = ground.start(namespace, LOOPBACK)
    assert done.returncode == 1
    assert "chmod 0700" in done.stderr


def test_a_stranger_in_fastmetas_place_gets_nothing(ground: Ground, namespace: str) -> None:
    """Whoever listens there must be root or the folder's owner."""
    code = (
        "import socket, os\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"s.bind('{ground.control_dir}/stand-ins')\n"
        "os.setuid(65533)\n"
        "s.listen()\n"
        "print('listens', flush=True)\n"
        "s.accept()[0].recv(1)\n"
    )
    stranger = subprocess.Popen(["python3", "-c", code], stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == b"listens\n"
        done = ground.start(namespace, LOOPBACK)
        assert done.returncode == 1
        assert "Operation not permitted" in done.stderr
    finally:
        stranger.kill()
        stranger.wait()
        stranger.stdout.close()


def test_the_name_fastmeta_haproxy() -> None:
    """It is installed with that name, says where the folder is, and does what haproxy would."""
    command = [str(Path(sys.executable).parent / "fastmeta-haproxy")]
    said = subprocess.run([*command, "--where"], capture_output=True, text=True, check=True, timeout=WAIT)
    assert Path(said.stdout.strip()) == installed.FOLDER == PROGRAM.parent
    assert sorted(path.name for path in installed.FOLDER.iterdir()) == ["fastmeta-holder", "haproxy"]
    version = subprocess.run([*command, "-v"], capture_output=True, text=True, check=True, timeout=WAIT)
    assert version.stdout.startswith("HAProxy version")
