"""oslo.log's options in neutron.conf, each set for a real agent: what is in the log, and where the log is."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fastmeta.lab.services import write_private
from tests.service.upstream import WAIT

from .node import SOMEBODY, Node

READY = "ready: 0 of 0 listeners are open"
BINDINGS = Path("/usr/lib/python3/dist-packages/systemd")
"""Of Debian's package python3-systemd."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a /dev/log of its own")


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    with Node(folder) as made:
        yield made


def log_file(node: Node) -> str:
    return f"log_file = {node.folder}/file.log\n"


def test_standard_error(node: Node) -> None:
    """Beside the file."""
    quiet = node.agent(neutron=log_file(node))
    quiet.end()
    assert quiet.log == ""
    both = node.agent(neutron=log_file(node) + "use_stderr = true")
    assert READY in both.log
    assert (node.folder / "file.log").read_text().count(READY) == 2


def test_color(node: Node) -> None:
    plain = node.agent()
    plain.end()
    assert "\x1b" not in plain.log
    colored = node.agent(neutron="log_color = true\nlogging_default_format_string = %(color)s%(message)s")
    colored.end()
    assert f"\x1b[00;36m{READY}" in colored.log


def test_suffix_of_debug_lines(node: Node) -> None:
    agent = node.agent(neutron="debug = true\nlogging_debug_format_suffix = <%(lineno)d>")
    node.ask(address=SOMEBODY)  # which is said in such a line
    agent.end()
    debug = [line for line in agent.log.splitlines() if " DEBUG fastmeta" in line]
    assert debug and all(re.search(r" <[0-9]+>$", line) for line in debug)
    assert not any(re.search(r" <[0-9]+>$", line) for line in agent.log.splitlines() if " INFO " in line)


def test_prefix_of_tracebacks(node: Node) -> None:
    """The agent has none to show; what sets its log up is given one."""
    files = node.files(neutron="logging_exception_prefix = <%(name)s>")
    program = f"""
from oslo_log import log
from fastmeta.conf.logs import set_up_logging
from fastmeta.conf.settings import load
set_up_logging(load({[f"--config-file={path}" for path in files]}, prog="fastmeta", version="0"))
try:
    1 / 0
except ZeroDivisionError:
    log.getLogger("fastmeta.defect").exception("of a defect")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    first, *traceback = (done.stdout + done.stderr).splitlines()
    assert first.endswith("of a defect: ZeroDivisionError: division by zero")
    assert len(traceback) >= 4
    assert all(line.startswith("<fastmeta.defect>") for line in traceback)


def test_rate_limit(node: Node) -> None:
    """Of all lines together rate_limit_burst come through in rate_limit_interval seconds; those of
    rate_limit_except_level, and above, always do."""
    strict = node.agent(neutron=limit(burst=5, interval=600, level="CRITICAL"))
    node.statuses(50)
    strict.end()
    assert strict.log.count(" INFO ") == 5
    assert "drop after 5 records/600 sec" in strict.log
    many = node.agent(neutron=limit(burst=100, interval=600, level="CRITICAL"))
    node.statuses(50)
    many.end()
    assert many.log.count('"GET /"') == 50
    short = node.agent(neutron=limit(burst=1, interval=1, level="CRITICAL"))
    short.until(lambda: node.statuses(1) and short.log.count('"GET /"') >= 2, "a line in each of two seconds")
    short.end()
    except_this = node.agent(neutron=limit(burst=5, interval=600, level="INFO"))
    node.statuses(50)
    except_this.end()
    assert except_this.log.count('"GET /"') == 50


def limit(*, burst: int, interval: int, level: str) -> str:
    return f"rate_limit_burst = {burst}\nrate_limit_interval = {interval}\nrate_limit_except_level = {level}"


IN_ITS_PLACE = """
set -e
mount -t tmpfs -o mode=755 none /dev
for device in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
  mknod -m 666 "/dev/${device% *}" c 1 "${device#* }"
done
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/systemd/journal
ln -s "$1/log" /dev/log
ln -s "$1/journal" /run/systemd/journal/socket
shift
exec "$@"
"""
"""A /dev and a /run of its own, with the test's sockets in them; then the command."""


@contextmanager
def receiver(path: Path) -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as receiving:
        receiving.bind(str(path))
        receiving.settimeout(WAIT)
        yield receiving


def in_its_place(folder: Path) -> list[str]:
    """What comes before a command that is to find our sockets."""
    script = write_private(folder / "in_its_place.sh", IN_ITS_PLACE)
    return ["unshare", "--mount", "--propagation", "private", "bash", str(script), str(folder)]


@needs_root
@pytest.mark.parametrize(("facility", "number"), [("LOG_USER", 1), ("LOG_DAEMON", 3), ("local6", 22)])
def test_syslog(node: Node, facility: str, number: int) -> None:
    """use_syslog, syslog_log_facility: a datagram for each line, which begins with its priority (RFC 3164 section
    4.1.1)."""
    with receiver(node.folder / "log") as log:
        node.agent(
            neutron=f"use_syslog = true\nsyslog_log_facility = {facility}", prefix=in_its_place(node.folder)
        )
        found = []
        while not found or READY not in found[-1]:
            found.append(log.recv(65536).decode())
    priority = number * 8 + 6  # 6: INFO
    assert found[-1].startswith(f"<{priority}>")
    assert " fastmeta" in found[-1] or "__main__" in found[-1]


@needs_root
def test_journal(node: Node) -> None:
    """use_journal, with systemd's own package: records with fields, and nothing on standard error."""
    assert BINDINGS.is_dir(), "python3-systemd is not installed: tools/setup.sh does that, as root"
    (node.folder / "path").mkdir()
    (node.folder / "path" / "systemd").symlink_to(BINDINGS)
    with receiver(node.folder / "journal") as journal:
        agent = node.agent(
            neutron="use_journal = true\nsyslog_log_facility = LOG_DAEMON",
            prefix=in_its_place(node.folder),
            environment={"PYTHONPATH": str(node.folder / "path")},
        )
        records = []
        while not records or READY not in records[-1]["MESSAGE"]:
            lines = journal.recv(65536).decode().splitlines()
            records.append(dict(line.split("=", 1) for line in lines if "=" in line))
        agent.end()
    assert records[-1]["LOGGER_NAME"] == "fastmeta.agent"
    assert (records[-1]["PRIORITY"], records[-1]["SYSLOG_FACILITY"]) == ("6", "24")
    assert agent.log == ""


def test_no_journal(node: Node) -> None:
    """Without that package the log is not lost, and no reload says that an option has changed."""
    agent = node.agent(neutron=log_file(node) + "use_journal = true")
    assert READY in agent.log
    assert READY in (node.folder / "file.log").read_text()
    (message,) = agent.messages
    assert "systemd-python is not installed: the log goes to standard error" in message
    os.kill(agent.service.pid, signal.SIGHUP)
    agent.until(lambda: "all is as it was" in agent.log)
    assert "needs a restart" not in agent.log


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("use_syslog = true\nsyslog_log_facility = nonsense", "syslog facility must be one of"),
        ("default_log_levels = fastmeta=LOUD", "Unknown level: 'LOUD'"),
        (
            "log_file = @/file.log\nlog_rotation_type = interval\n"
            "log_rotate_interval_type = weekday\nlog_rotate_interval = 9",
            "Invalid day specified",
        ),
    ],
)
def test_a_log_that_cannot_be(node: Node, lines: str, text: str) -> None:
    """Said in one line, and nothing is served without a log."""
    command = [sys.executable, "-m", "fastmeta", "agent"]
    for path in node.files(neutron=lines.replace("@", str(node.folder))):
        command += ["--config-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("fastmeta agent: logging cannot be set up: ")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_not_published(node: Node) -> None:
    """publish_errors, with which oslo.log hands each error to the message bus of another configuration than ours."""
    agent = node.agent(neutron="publish_errors = true\nuse_json = true")
    node.upstream.close_connections()
    node.ask()
    agent.end()
    assert all(json.loads(line)["message"] for line in agent.log.splitlines())
