"""The proxies that are compared: how each is started, and whether it is there at all."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import configs, job, load, processes

LONGEST_TTL = 3600


class PeerMissing(Exception):
    """A peer is not installed, did not start or does not do the job; the text says which."""


@dataclass(frozen=True)
class Front:
    """What stands before the stub and speaks TLS: its ports, and the certificate that it has."""

    port: int
    tls_port: int
    certificate: Path


@dataclass(frozen=True)
class Setting:
    """What all peers of one run share.

    lasting: identities of fastmeta do not end during the run, and nginx is one process, as counting wants it. idle:
    namespaces in which fastmeta has a listener more each. local: a unix socket of the stub. front: what some peers ask
    in its place."""

    programs: dict[str, Path]
    core: int
    upstream_port: int
    fastmeta_command: tuple[str, ...]
    lasting: bool = False
    local: Path | None = None
    idle: tuple[str, ...] = ()
    front: Front | None = None


@dataclass(frozen=True)
class Plan:
    """How to start a peer. notifies: it says READY=1 on NOTIFY_SOCKET; others are ready when they listen."""

    command: list[str]
    notifies: bool = False


@dataclass
class Running:
    """A peer at work, which was seen to answer a request rightly."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        return processes.family(self.process.pid)


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise PeerMissing(f"{program} is not installed (make bench installs it as root)")
    return path


def _floor(setting: Setting, port: int, folder: Path) -> Plan:
    return _least(setting, "floor", port, str(setting.upstream_port), folder)


def _unix(setting: Setting, port: int, folder: Path) -> Plan:
    return _least(setting, "floor", port, str(setting.local), folder)


def _uring(setting: Setting, port: int, folder: Path) -> Plan:
    return _least(setting, "uring", port, str(setting.upstream_port), folder)


def _least(setting: Setting, program: str, port: int, upstream: str, folder: Path) -> Plan:
    head = folder / "head"
    head.write_bytes(job.floor_head(setting.upstream_port))
    answer = job.ANSWER_HEAD_BYTES + job.ANSWER_BODY_BYTES
    return Plan([str(setting.programs[program]), str(port), upstream, str(answer), str(head)])


def _haproxy(setting: Setting, port: int, folder: Path) -> Plan:
    config = folder / "haproxy.cfg"
    config.write_text(configs.haproxy(port, setting.upstream_port))
    return Plan([find("haproxy"), "-db", "-q", "-f", str(config)])


def _nginx(setting: Setting, port: int, folder: Path) -> Plan:
    config = folder / "nginx.conf"
    config.write_text(configs.nginx(port, setting.upstream_port, folder, one_process=setting.lasting))
    return Plan([find("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(config)])


def _fastmeta(setting: Setting, port: int, folder: Path) -> Plan:
    return _fastmeta_with(setting, port, folder, setting.upstream_port)


def _before_front(setting: Setting, port: int, folder: Path) -> Plan:
    return _fastmeta_with(setting, port, folder, _front(setting).port)


def _before_front_tls(setting: Setting, port: int, folder: Path) -> Plan:
    front = _front(setting)
    return _fastmeta_with(setting, port, folder, front.tls_port, front.certificate)


def _front(setting: Setting) -> Front:
    if setting.front is None:
        raise PeerMissing("there is nothing that speaks TLS")
    return setting.front


def _fastmeta_with(
    setting: Setting, port: int, folder: Path, upstream_port: int, certificate: Path | None = None
) -> Plan:
    ports = folder / "ports.json"
    ports.write_text(configs.fastmeta_ports())
    config = folder / "fastmeta.conf"
    config.write_text(
        configs.fastmeta(
            port,
            upstream_port,
            ports,
            identity_ttl=LONGEST_TTL if setting.lasting else 10,
            idle=setting.idle,
            certificate=certificate,
        )
    )
    # It refuses files that hold secrets or decide identities and that others may write.
    ports.chmod(0o600)
    config.chmod(0o600)
    return Plan([*setting.fastmeta_command, "agent", "--config-file", str(config)], notifies=True)


# The second floor is the same program measured under another name: what differs between the two is noise.
FLOOR = "floor"
AGAIN = "floor again"
# Beside each other only: what listeners cost that nobody asks.
IDLE = "fastmeta with idle listeners"
NONE_IDLE = "fastmeta without"
# Of probes.py.
UNIX = "floor, unix upstream"
URING = "floor, io_uring"
BEFORE_FRONT = "fastmeta, nginx behind it"
BEFORE_FRONT_TLS = "fastmeta, nginx behind it, TLS"
PEERS: dict[str, Callable[[Setting, int, Path], Plan]] = {
    FLOOR: _floor,
    AGAIN: _floor,
    "fastmeta": _fastmeta,
    "haproxy": _haproxy,
    "nginx": _nginx,
    IDLE: _fastmeta,
    NONE_IDLE: _fastmeta,
    UNIX: _unix,
    URING: _uring,
    BEFORE_FRONT: _before_front,
    BEFORE_FRONT_TLS: _before_front_tls,
}
COMPARED = (FLOOR, AGAIN, "fastmeta", "haproxy", "nginx")


def _stub_command(programs: dict[str, Path], where: str) -> list[str]:
    sizes = [str(job.ANSWER_HEAD_BYTES), str(job.ANSWER_BODY_BYTES)]
    return [str(programs["stub"]), where, *sizes, *job.EXPECTED_VALUES]


@contextmanager
def local_stub(programs: dict[str, Path], core: int) -> Iterator[Path]:
    """The same upstream on a unix socket; gives its path."""
    with tempfile.TemporaryDirectory(prefix="fastmeta-stub-") as folder, tempfile.TemporaryFile() as log:
        path = Path(folder) / "socket"
        process = processes.start(processes.pinned(core, _stub_command(programs, str(path))), log, {})
        try:
            for _ in range(500):
                if path.exists() or process.poll() is not None:
                    break
                time.sleep(0.02)
            else:
                raise PeerMissing("the stub upstream did not start on a unix socket")
            yield path
        finally:
            processes.end(process)


_SELF_SIGNED = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
    *("-subj", "/CN=front", "-addext", "subjectAltName=IP:127.0.0.1"),
)


@contextmanager
def front(core: int, upstream_port: int) -> Iterator[Front]:
    """nginx before the upstream, with a certificate of its own. Raises PeerMissing."""
    with tempfile.TemporaryDirectory(prefix="fastmeta-front-") as name, tempfile.TemporaryFile() as log:
        folder = Path(name)
        found = Front(processes.free_port(), processes.free_port(), folder / "certificate.pem")
        try:
            subprocess.run(
                [
                    find("openssl"),
                    *_SELF_SIGNED,
                    "-keyout",
                    str(folder / "key.pem"),
                    "-out",
                    str(found.certificate),
                ],
                check=True,
                capture_output=True,
            )
        except subprocess.CalledProcessError as error:
            raise PeerMissing(f"openssl makes no certificate: {error.stderr.decode().strip()}") from error
        config = folder / "nginx.conf"
        config.write_text(configs.front(upstream_port, folder, found.port, found.tls_port))
        command = [find("nginx"), "-e", "stderr", "-p", name, "-c", str(config)]
        process = processes.start(processes.pinned(core, command), log, {})
        try:
            if not processes.wait_until_listening(found.tls_port, process, 10):
                raise PeerMissing("nginx did not start before the stub")
            yield found
        finally:
            processes.end(process)


@contextmanager
def stub(programs: dict[str, Path], core: int) -> Iterator[int]:
    """The upstream of all; gives its port."""
    port = processes.free_port()
    command = _stub_command(programs, str(port))
    with tempfile.TemporaryFile() as log:
        process = processes.start(processes.pinned(core, command), log, {})
        try:
            if not processes.wait_until_listening(port, process, 10):
                raise PeerMissing("the stub upstream did not start")
            yield port
        finally:
            processes.end(process)


@contextmanager
def running(
    name: str, setting: Setting, wrapper: Sequence[str] = (), patience: float = 30
) -> Iterator[Running]:
    """Starts a peer, behind wrapper (such as valgrind), and sees that it does the job. Raises PeerMissing."""
    port = processes.free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastmeta-bench-")))
        plan = PEERS[name](setting, port, folder)
        log = folder / "log"
        environment = {}
        notify = None
        if plan.notifies:
            notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notify.bind(str(folder / "notify"))
            environment["NOTIFY_SOCKET"] = str(folder / "notify")
        try:
            with log.open("wb") as output:
                command = processes.pinned(setting.core, [*wrapper, *plan.command])
                process = processes.start(command, output, environment)
        except OSError as error:
            raise PeerMissing(f"{name} does not start: {error}") from error
        stack.callback(processes.end, process)
        if notify is not None:
            ready = notified(notify, process, patience)
        else:
            ready = processes.wait_until_listening(port, process, patience)
        if not ready:
            raise PeerMissing(f"{name} did not get ready; its last words: {last_words(log)}")
        wrong = load.once(setting.programs["load"], setting.core, port)
        if wrong:
            raise PeerMissing(f"{name} does not do the job: {wrong}; its last words: {last_words(log)}")
        yield Running(name, port, process, log)


def last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-5:]) or "(none)"


def notified(notify: socket.socket, process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether the process has said READY=1 in that time."""
    notify.settimeout(0.1)
    for _ in range(int(seconds * 10)):
        if process.poll() is not None:
            return False
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in notify.recv(4096).split(b"\n"):
                return True
    return False
