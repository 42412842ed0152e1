"""Real servers in Nova's place, each on a free TCP port of 127.0.0.1: uwsgi by itself, uwsgi behind nginx and behind
Apache, and a server of HTTP/1.0. All of them run the application of application.py.

What differs is when and how they end connections; each entry of SERVERS says what that means for a pool.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import processes

SECRET = "secret"
APPLICATION = Path(__file__).with_name("application.py")
START_S = 15.0


def find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert path is not None, f"{program} is not installed: tools/setup.sh does that, as root"
    return path


class Server:
    """What a loop is told to ask. stop: for who ends a loop and its upstream together; the fixture ends the server."""

    host = "127.0.0.1"

    def __init__(self, tcp_port: int) -> None:
        self.tcp_port = tcp_port

    def stop(self) -> None:
        pass


class Machine:
    """The programs of one server: they, and their files, are gone when it is left."""

    def __init__(self) -> None:
        self.stack = ExitStack()

    def __enter__(self) -> Machine:
        # Apache's children, and nginx's workers, are other users: what they need is theirs to read.
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="fmn-", dir="/tmp")))
        return self

    def __exit__(self, *ignored: object) -> None:
        self.stack.close()

    def run(self, name: str, command: Sequence[str], tcp_port: int) -> None:
        """Starts a program and returns when it listens."""
        log_path = self.folder / f"{name}.log"
        log = self.stack.enter_context(log_path.open("ab"))
        process = processes.start(
            ["setpriv", "--pdeathsig", "TERM", "--", *command], log, {"SECRET": SECRET, "PYTHONPATH": ""}
        )
        self.stack.callback(processes.end, process)
        end = time.monotonic() + START_S
        while True:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.connect(("127.0.0.1", tcp_port))
                return
            assert process.poll() is None, f"{name} ended:\n{log_path.read_text(errors='replace')}"
            assert time.monotonic() < end, f"{name} did not listen:\n{log_path.read_text(errors='replace')}"
            time.sleep(0.02)

    def uwsgi(self, *options: str, kind: str = "http-socket", workers: int = 4) -> int:
        """kind: the option that says where it listens and how it speaks."""
        tcp_port = processes.free_port()
        lines = [
            "[uwsgi]",
            "plugins = python3,http",
            f"{kind} = 127.0.0.1:{tcp_port}",
            f"wsgi-file = {APPLICATION}",
            "need-app = true",
            "master = true",
            "die-on-term = true",
            "no-orphans = true",
            "worker-reload-mercy = 1",
            "buffer-size = 65535",
            "disable-logging = true",
            f"processes = {workers}",
            *options,
        ]
        path = self.folder / f"uwsgi-{tcp_port}.ini"
        path.write_text("\n".join([*lines, ""]))
        self.run(f"uwsgi-{tcp_port}", [find("uwsgi"), "--ini", str(path)], tcp_port)
        return tcp_port

    def nginx(self, location: str, *server: str) -> int:
        """location, server: what stands in these blocks."""
        tcp_port = processes.free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "\n".join(f"{kind}_temp_path {self.folder}/{kind}-{tcp_port};" for kind in kinds)
        lines = "\n".join(server)
        path = self.folder / f"nginx-{tcp_port}.conf"
        path.write_text(
            f"{user} daemon off; worker_processes 1; pid {self.folder}/nginx-{tcp_port}.pid;\n"
            f"error_log stderr error; events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off;\n{temporary}\n"
            f"server {{ listen 127.0.0.1:{tcp_port}; {lines}\n"
            f"client_max_body_size 4m; location / {{ {location} }} }} }}\n"
        )
        self.run(
            f"nginx-{tcp_port}",
            [find("nginx"), "-e", "stderr", "-p", str(self.folder), "-c", str(path)],
            tcp_port,
        )
        return tcp_port

    def apache(self, proxy: str, *lines: str, mpm: str = "event") -> int:
        tcp_port = processes.free_port()
        modules = (f"mpm_{mpm}", "authz_core", "env", "proxy", "proxy_http", "proxy_uwsgi")
        load = "\n".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules
        )
        user = "User nobody\nGroup nogroup" if os.geteuid() == 0 else ""
        path = self.folder / f"apache-{tcp_port}.conf"
        text = "\n".join(lines)
        path.write_text(
            f"ServerRoot {self.folder}\nServerName localhost\nListen 127.0.0.1:{tcp_port}\n{load}\n{user}\n"
            f"PidFile {self.folder}/apache-{tcp_port}.pid\nDefaultRuntimeDir {self.folder}\nMutex sem default\n"
            f"ErrorLog {self.folder}/apache-{tcp_port}.errors\n{text}\n"
            f"ProxyPass / {proxy}\n"
        )
        self.run(f"apache-{tcp_port}", [find("apache2"), "-DFOREGROUND", "-f", str(path)], tcp_port)
        return tcp_port

    def version_1_0(self) -> int:
        """Python's own WSGI server: HTTP/1.0, a thread for each connection, each of one request."""
        tcp_port = processes.free_port()
        command = [sys.executable, str(Path(__file__).with_name("version_1_0.py")), str(tcp_port)]
        self.run("version-1.0", command, tcp_port)
        return tcp_port


UWSGI_PASS = """
    uwsgi_param QUERY_STRING $query_string; uwsgi_param REQUEST_METHOD $request_method;
    uwsgi_param CONTENT_TYPE $content_type; uwsgi_param CONTENT_LENGTH $content_length;
    uwsgi_param REQUEST_URI $request_uri; uwsgi_param PATH_INFO $document_uri;
    uwsgi_param SERVER_PROTOCOL $server_protocol; uwsgi_param REMOTE_ADDR $remote_addr;
    uwsgi_param SERVER_PORT $server_port; uwsgi_param SERVER_NAME $server_name;
    uwsgi_pass 127.0.0.1:{};"""

PROXY_PASS = """
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://127.0.0.1:{};"""


@dataclass(frozen=True)
class Kind:
    """start gives the TCP port. keeps: it takes further requests on a connection. says: when it does not, it says so
    in the answer. good_204: an answer without content has no framing (RFC 9112 section 6.1). frames: an answer whose
    length the application does not say ends at once. (Nova says the length, always.)"""

    start: Callable[[Machine], int]
    keeps: bool
    says: bool = True
    good_204: bool = True
    frames: bool = True

    def answers(self, target: str) -> bool:
        """Whether it can answer this one as it should."""
        return (self.good_204 or target != "/none") and (self.frames or not target.startswith("/chunked"))


SERVERS: dict[str, Kind] = {
    # As most deployments have it: HTTP/1.1 by name, but each connection is closed after its answer, without a word.
    "uwsgi": Kind(lambda machine: machine.uwsgi(), keeps=False, says=False),
    # As devstack has it.
    "uwsgi, says close": Kind(lambda machine: machine.uwsgi("add-header = Connection: close"), keeps=False),
    "uwsgi http": Kind(lambda machine: machine.uwsgi(kind="http"), keeps=False, says=False),
    "uwsgi http, kept": Kind(
        lambda machine: machine.uwsgi("http-keepalive = 5", "http-auto-chunked = true", kind="http"),
        keeps=True,
        good_204=False,
    ),
    "uwsgi http11": Kind(
        # Without a length it leaves the connection open, and closes it 4 s later.
        lambda machine: machine.uwsgi(kind="http11-socket", workers=16),
        keeps=True,
        frames=False,
    ),
    "nginx, uwsgi": Kind(
        lambda machine: machine.nginx(UWSGI_PASS.format(machine.uwsgi(kind="socket"))), keeps=True
    ),
    "nginx, uwsgi, not kept": Kind(
        lambda machine: machine.nginx(
            UWSGI_PASS.format(machine.uwsgi(kind="socket")), "keepalive_timeout 0;"
        ),
        keeps=False,
    ),
    "nginx, proxy": Kind(lambda machine: machine.nginx(PROXY_PASS.format(machine.uwsgi())), keeps=True),
    "nginx, few requests": Kind(
        lambda machine: machine.nginx(PROXY_PASS.format(machine.uwsgi()), "keepalive_requests 3;"), keeps=True
    ),
    "Apache, uwsgi": Kind(
        lambda machine: machine.apache(f"uwsgi://127.0.0.1:{machine.uwsgi(kind='socket')}/", "KeepAlive On"),
        keeps=True,
    ),
    "Apache, http": Kind(
        lambda machine: machine.apache(
            f"http://127.0.0.1:{machine.uwsgi('add-header = Connection: close')}/", "KeepAlive On"
        ),
        keeps=True,
    ),
    "Apache, not kept": Kind(
        lambda machine: machine.apache(f"uwsgi://127.0.0.1:{machine.uwsgi(kind='socket')}/", "KeepAlive Off"),
        keeps=False,
    ),
    "version 1.0": Kind(lambda machine: machine.version_1_0(), keeps=False),
}


@contextlib.contextmanager
def serving(name: str) -> Iterator[Server]:
    with Machine() as machine:
        yield Server(SERVERS[name].start(machine))
