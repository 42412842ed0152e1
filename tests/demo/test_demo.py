"""`fastmeta demo`, with nothing in it replaced: namespaces, metadata API, agent, core, curl."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fastmeta.lab.namespaces import NETNS_FOLDER

# The demo with one thing about its class Demo changed.
CHANGED = """
import sys
from fastmeta.cmd import demo
from fastmeta.lab.demo import Demo
class Changed(Demo):
{change}
demo.Demo = Changed
sys.exit(demo.main(sys.argv[1:]))
"""
WRONG_SECRET = CHANGED.format(
    change="""
    def __init__(self, **options):
        super().__init__(api_secret="another one", **options)
"""
)


def rows_of(text: str) -> list[dict[str, Any]]:
    """stdout must hold the JSON and nothing else."""
    document = json.loads(text)
    assert list(document) == ["rows"]
    rows = document["rows"]
    assert isinstance(rows, list)
    return rows


def check_rows(rows: list[dict[str, Any]]) -> None:
    """All that the demo is to show is there, and right."""
    assert all(row["ok"] is True for row in rows), rows
    assert all(row["answered"] == row["expected"] for row in rows)
    guests = {(row["network"], row["address"]): row["expected"] for row in rows}
    assert len(set(guests.values())) == len(guests) == 5
    assert {("blue", "10.0.0.5"), ("green", "10.0.0.5"), ("red", "10.0.0.5")} < guests.keys()
    others = [address for network, address in guests if network != "red" and address != "10.0.0.5"]
    assert len(set(others)) == 2
    for network, address in guests:
        mine = [row for row in rows if (row["network"], row["address"]) == (network, address)]
        honest = [row["request"] for row in mine if not row["lie"]]
        assert honest == [
            "GET /openstack/latest/meta_data.json",
            "GET /latest/meta-data/instance-id",
            "GET /latest/user-data",
        ]
        lies = [row["lie"].partition(":")[0] for row in mine if row["lie"]]
        assert lies == [
            "X-Instance-ID",
            "X-Tenant-ID",
            "X-Forwarded-For",
            "X-Neutron-Network-ID",
            "X_Instance_ID",
        ]
        for row in mine:
            if "Instance" in row["lie"]:
                claimed = row["lie"].split()[1]
                assert claimed in guests.values()
                assert claimed != row["expected"]


def test_as_root(root_demo: Any) -> None:
    done = root_demo.run("--json")
    assert done.returncode == 0, done.stderr
    check_rows(rows_of(done.stdout))
    assert done.stderr == "fastmeta demo: building the lab\n"


def test_as_another_user(user_demo: Any) -> None:
    done = user_demo.run("--json")
    assert done.returncode == 0, done.stderr
    check_rows(rows_of(done.stdout))


def test_table(root_demo: Any) -> None:
    done = root_demo.run()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "network"
    assert "instance expected" in lines[0]
    assert "instance answered" in lines[0]
    assert sum(line.endswith("  ok") for line in lines) == 40
    assert re.search(
        r"blue +10\.0\.0\.5 +with X-Instance-ID of green-1 +blue-1 .* blue-1 .* ok\n", done.stdout
    )
    assert lines[-1] == "40 of 40 rows are right"


def test_a_wrong_shared_secret_shows(root_demo: Any) -> None:
    done = root_demo.run("--json", code=WRONG_SECRET)
    assert done.returncode == 1
    rows = rows_of(done.stdout)
    assert len(rows) == 40
    assert {row["answered"] for row in rows} == {"HTTP 403"}
    assert not any(row["ok"] for row in rows)
    assert "the end of the log of agent:" in done.stderr
    assert "another one" not in done.stderr
    done = root_demo.run(code=WRONG_SECRET)
    assert done.returncode == 1
    assert done.stdout.endswith("\n0 of 40 rows are right\n")


def test_swapped_identities_show(root_demo: Any) -> None:
    """The check itself: were a guest given another's data, its rows would be wrong."""
    change = """
    def _start_agent(self, listen, ports, tcp_port):
        last = list(ports[-1])
        other = list(ports[-2])
        last[2], other[2] = other[2], last[2]
        last[3], other[3] = other[3], last[3]
        super()._start_agent(listen, [*ports[:-2], tuple(other), tuple(last)], tcp_port)
"""
    done = root_demo.run("--json", code=CHANGED.format(change=change))
    assert done.returncode == 1
    rows = rows_of(done.stdout)
    wrong = {(row["network"], row["address"]) for row in rows if not row["ok"]}
    right = {(row["network"], row["address"]) for row in rows if row["ok"]}
    assert wrong == {("green", "10.0.0.7"), ("red", "10.0.0.5")}
    assert right == {("blue", "10.0.0.5"), ("blue", "10.0.0.6"), ("green", "10.0.0.5")}


def test_an_api_that_is_gone_ends_soon(root_demo: Any) -> None:
    change = """
    def rows(self):
        self.services[0]._process.kill()
        self.services[0]._process.wait()
        import fastmeta.lab.demo as module
        module._GIVE_UP = 1
        return super().rows()
"""
    done = root_demo.run("--json", code=CHANGED.format(change=change))
    assert done.returncode == 1
    answers = [row["answered"] for row in rows_of(done.stdout)]
    assert answers[0] in ("HTTP 503", "HTTP 502")
    assert set(answers[1:]) == {"not asked: there were too many failures"}


def test_a_service_that_does_not_start_shows_its_log(root_demo: Any) -> None:
    change = """
    def _start_agent(self, listen, ports, tcp_port):
        super()._start_agent(["nonsense"], ports, tcp_port)
"""
    done = root_demo.run(code=CHANGED.format(change=change))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "fastmeta demo: agent ended before it was ready; its log:" in done.stderr
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(root_demo: Any, number: signal.Signals, delay: float) -> None:
    with root_demo.start("--json") as process:
        assert process.stderr.readline() == "fastmeta demo: building the lab\n"
        time.sleep(delay)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    if process.returncode == 0:
        check_rows(rows_of(out))  # it was faster
    else:
        assert process.returncode == 128 + number, err
        assert err == f"fastmeta demo: ended by {number.name}; everything is cleaned up\n"
        assert out == ""


def until_up(process: subprocess.Popen[str]) -> list[str]:
    """What --keep says once the lab is up."""
    assert process.stderr is not None
    for line in process.stderr:
        if "the lab is up until Ctrl-C" in line:
            break
    lines = []
    for line in process.stderr:
        lines.append(line.strip())
        if line.strip().startswith("tail "):
            return lines
    raise AssertionError(f"the lab did not come up: {lines}")


def look_around(lines: list[str], prefix: list[str]) -> list[str]:
    """Runs the commands that --keep has printed; gives what they print."""
    commands = [line for line in lines if not line.startswith("#")]
    return [
        subprocess.run(
            [*prefix, "sh", "-c", command],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
            env={"PATH": "/usr/bin:/bin"},
        ).stdout
        for command in commands
    ]


def check_keep(demo: Any) -> None:
    others = {path.name for path in Path(NETNS_FOLDER).glob("*")}
    with demo.start("--keep", "--json", umask=0) as process:
        try:
            lines = until_up(process)
            outputs = look_around(lines, demo.prefix)
            assert len({json.loads(output)["uuid"] for output in outputs[:5]}) == 5
            served = set(re.findall(r"^(?:qdhcp|qrouter)-\S+", outputs[5], re.MULTILINE))
            assert len(served - others) == 3
            assert "agent.conf" in outputs[6].split()
            folder = Path(next(line for line in lines if line.startswith(f"ls {demo.tmpdir}"))[3:])
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()
            }
            assert set(modes.values()) == {0o600}, modes
            assert {"agent.conf", "ports.json", "instances.yaml", "metadata-api.secret"} < modes.keys()
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "cleaning up" in err
    check_rows(rows_of(out))


def test_keep_as_root(root_demo: Any) -> None:
    check_keep(root_demo)


def test_keep_as_another_user(user_demo: Any) -> None:
    check_keep(user_demo)


def test_an_earlier_run_that_was_killed_does_not_disturb(root_demo: Any) -> None:
    with root_demo.start("--keep") as process:
        try:
            lines = until_up(process)
        finally:
            process.kill()
    guests = re.findall(r"--net=/run/netns/(fastmeta-[0-9a-f]{6}-guest-[a-z]+-[0-9])", "\n".join(lines))
    assert len(guests) == 5
    assert all((NETNS_FOLDER / name).exists() for name in guests)
    done = root_demo.run("--json")
    assert done.returncode == 0, done.stderr
    check_rows(rows_of(done.stdout))
    assert "removed what a killed lab had left" in done.stderr
    removed = done.stderr.partition("had left: ")[2].split("\n")[0].split(", ")
    assert set(guests) < set(removed)
    assert len([name for name in removed if name.startswith(("qdhcp-", "qrouter-"))]) == 3
    assert not any((NETNS_FOLDER / name).exists() for name in removed)
    # What a killed process has in the temporary folder stays, as of any program.
    [folder] = root_demo.tmpdir.iterdir()
    shutil.rmtree(folder)


def test_two_at_once(root_demo: Any) -> None:
    with root_demo.start("--json") as first, root_demo.start("--json") as second:
        for process in (first, second):
            out, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
            check_rows(rows_of(out))


def test_a_kernel_that_forbids_user_namespaces_is_named(user_demo: Any) -> None:
    """In a user namespace that may hold one more, and holds it."""
    inner = 'echo 1 >/proc/sys/user/max_user_namespaces && exec unshare --user --map-user=1000 -- "$@"'
    user_demo.prefix += ["unshare", "--user", "--map-root-user", "--", "sh", "-c", inner, "sh"]
    done = user_demo.run()
    assert done.returncode == 1
    assert done.stdout == ""
    assert "does not let an ordinary user make namespaces (unshare: unshare failed: " in done.stderr
    assert "as root" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_programs_are_named(root_demo: Any) -> None:
    done = root_demo.run(env={**root_demo.environment, "PATH": "/nonexistent"})
    assert done.returncode == 1
    assert "curl" in done.stderr
    assert "apt-get install curl" in done.stderr


def test_wrong_arguments(root_demo: Any) -> None:
    assert root_demo.run("--nope").returncode == 2
    done = root_demo.run("--help")
    assert done.returncode == 0
    assert "--keep" in done.stdout
