"""What ``fastmeta config check`` says of files, options and this machine; no server is asked but Nova's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fastmeta.check.findings import Finding, State
from fastmeta.cmd import config_check
from fastmeta.lab.services import Service

from .kit import LISTEN, NETWORK, SECRET, Nova, check, free_tcp_port, run_check, write_config

NOVA = "Nova's metadata API"
LISTENERS = "Where guests are listened to"


def test_all_is_right(folder: Path, nova: Nova) -> None:
    config = write_config(folder, default=[f"nova_metadata_port = {nova.tcp_port}"])
    done = run_check("--config-file", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    lines = done.stdout.splitlines()
    assert f"  {config}" in lines
    (line,) = [line for line in lines if line.startswith("  nova_metadata_port = ")]
    assert line.split("#")[0].strip() == f"nova_metadata_port = {nova.tcp_port}"
    assert line.endswith(f"# {config}")
    assert any(line.startswith("  metadata_proxy_shared_secret = (secret, not shown)") for line in lines)
    assert any("it answers, and takes our signature" in line for line in lines)
    assert any("1 ports in 1 networks" in line for line in lines)
    assert lines[-1] == "0 wrong, 0 doubts"


def test_defaults_are_not_listed(folder: Path) -> None:
    report = check(write_config(folder), "--offline").report
    assert {option["name"] for option in report["used"]} == {
        "metadata_proxy_shared_secret",
        "[fastmeta] listen",
        "[fastmeta] ports_file",
    }


def test_where_an_option_is_set(folder: Path) -> None:
    """The last file wins, also where a section is written as Neutron writes it; old names are said."""
    config = write_config(folder, default=["nova_metadata_port = 1", "nova_metadata_ip = 192.0.2.1"])
    other = folder / "other.conf"
    other.write_text("[DEFAULT]\nnova_metadata_port = 2\n[AGENT]\nreport_interval = 15\n")
    other.chmod(0o600)
    report = check(config, "--offline", "--config-file", str(other), "--debug").report
    used = {option["name"]: (option["value"], option["where"]) for option in report["used"]}
    assert report["files"] == [str(config), str(other)]
    assert used["nova_metadata_port"] == ("2", str(other))
    assert used["nova_metadata_host"] == ("192.0.2.1", f"{config} (by its old name, nova_metadata_ip)")
    assert used["[agent] report_interval"] == ("15.0", str(other))
    assert used["debug"] == ("true", "the command line")


def test_the_order_on_the_command_line_counts(folder: Path) -> None:
    """As with the agent: a file that is given after a folder wins over what is in it."""
    config = write_config(folder, default=["nova_metadata_port = 1"])
    (folder / "more").mkdir()
    more = folder / "more" / "a.conf"
    more.write_text("[DEFAULT]\nnova_metadata_port = 2\n")
    more.chmod(0o600)
    files, folders = ["--config-file", str(config)], ["--config-dir", str(more.parent)]
    for arguments, value, file in ((files + folders, "2", more), (folders + files, "1", config)):
        done = run_check(*arguments, "--offline")
        assert done.returncode == 0
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("  nova_metadata_port = ")]
        assert line.split() == ["nova_metadata_port", "=", value, "#", str(file)]


def test_listeners_of_several_files_are_all_used(folder: Path) -> None:
    config = write_config(folder)
    other = folder / "other.conf"
    other.write_text(f"[fastmeta]\n{LISTEN.format(8081)}\n")
    other.chmod(0o600)
    report = check(config, "--offline", "--config-file", str(other)).report
    (listen,) = [option for option in report["used"] if option["name"] == "[fastmeta] listen"]
    assert ":8080, network:" in listen["value"]
    assert listen["where"] == f"{config}, {other}"


def test_what_has_no_effect(folder: Path) -> None:
    config = write_config(
        folder,
        default=["metadata_workers = 4", "core_plugin = ml2", "rabbit_hosts = a", "log-dir = /tmp"],
        more="[database]\nconnection = mysql://neutron:hidden@db/neutron\n[oslo_messaging_rabbit]\nssl = true",
    )
    checked = check(config, "--offline", secrets=[SECRET, "hidden"])
    assert checked.status == 0
    ignored = {tuple(one["names"]): one["why"] for one in checked.report["ignored"]}
    assert ignored.pop(("metadata_workers",)).startswith("one process answers all guests at once")
    assert ignored.pop(("[oslo_messaging_rabbit] ssl",)).startswith("transport_url is not set")
    # With hyphens an option is none in a file.
    assert ignored == {("core_plugin", "rabbit_hosts", "log-dir", "[database] connection"): ""}


def test_options_of_oslo_messaging_are_no_strangers(folder: Path) -> None:
    config = write_config(
        folder,
        default=["transport_url = rabbit://neutron:hidden@127.0.0.1:9/", "control_exchange = other"],
        fastmeta=["lookup = static"],
        more="[oslo_messaging_rabbit]\nheartbeat_rate = 3",
    )
    checked = check(config, "--offline", secrets=[SECRET, "hidden"])
    assert checked.report["ignored"] == []
    used = {option["name"]: option["value"] for option in checked.report["used"]}
    assert used["transport_url"] == "(secret, not shown)"
    assert used["control_exchange"] == "other"
    assert used["[oslo_messaging_rabbit] heartbeat_rate"] == "3"


def test_doubts_are_said_and_do_not_count_as_wrong(folder: Path) -> None:
    checked = check(write_config(folder, fastmeta=["idnetity_ttl = 5"], secret=""), "--offline", secrets=())
    assert checked.status == 0
    texts = checked.texts("doubt")
    assert any("metadata_proxy_shared_secret is empty" in text for text in texts)
    assert any("[fastmeta] idnetity_ttl is no option there" in text for text in texts)


def test_a_password_in_a_url_is_not_shown(folder: Path) -> None:
    """Whatever option it is in: here the agent would refuse it, and the check lists what is set."""
    config = write_config(folder, fastmeta=["upstreams = http://nova:hidden@192.0.2.1:8775"])
    checked = check(config, "--offline", secrets=[SECRET, "hidden"])
    assert checked.status == 2
    assert "user and password mean nothing" in checked.wrong


def test_every_value_that_cannot_be_used_is_named(folder: Path) -> None:
    """The agent stops at the first one."""
    config = write_config(
        folder,
        default=["nova_metadata_port = many"],
        fastmeta=["park_timeout = soon", "max_connections = 0"],
    )
    checked = check(config)
    assert checked.status == 2
    assert [text.split(": ")[1] for text in checked.texts("wrong")] == [
        "nova_metadata_port",
        "[fastmeta] park_timeout",
        "[fastmeta] max_connections",
    ]
    assert checked.findings(NOVA) == []


@pytest.mark.parametrize(
    ("fastmeta", "static", "text"),
    [
        (["identity_ttl = 2"], True, "must be longer than lookup_timeout"),
        (["listen = nonsense"], True, "right is network:<uuid>@"),
        ([], False, "there is nothing to ask who has which address"),
        (["upstreams = https://nova.example.org"], True, ""),
    ],
)
def test_what_the_agent_refuses(folder: Path, fastmeta: list[str], static: bool, text: str) -> None:
    default = [] if text else ["auth_ca_cert = /etc/passwd"]
    checked = check(write_config(folder, default=default, fastmeta=fastmeta, static=static))
    assert checked.status == 2
    assert (text or "/etc/passwd: cannot be used as certificates") in checked.wrong
    assert checked.findings(NOVA) == []


def test_files_that_cannot_be_read(folder: Path) -> None:
    absent = check(folder / "absent.conf")
    assert absent.status == 2
    assert "Failed to find some config files" in absent.wrong
    config = write_config(folder)
    config.chmod(0o620)
    unsafe = check(config)
    assert unsafe.status == 2
    assert "chmod go-w" in unsafe.wrong
    assert "is that the user that the agent runs as?" in unsafe.texts("note")[0]


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("check", "--format", "xml"), ("check", "--bogus")])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastmeta", "config", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_odd_bytes_do_nothing_to_a_terminal(folder: Path) -> None:
    config = write_config(folder, more="[\x1b[31mred]\noption\x1b[0m = 1")
    done = run_check("--config-file", str(config), "--offline")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred" in done.stdout


@contextlib.contextmanager
def namespace(path: Path) -> Iterator[None]:
    """A namespace that is mounted on a file."""
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "true"], check=True, timeout=60)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_namespaces(folder: Path) -> None:
    """Those that are not there yet are no fault: they are waited for."""
    netns = folder / "netns"
    netns.mkdir()
    (netns / "file").touch()
    with namespace(netns / "there"):
        listen = [
            f"listen = network:{NETWORK}@{name}/169.254.169.254:80" for name in ("none", "file", "there")
        ]
        config = write_config(folder, fastmeta=[f"netns_dir = {netns}", *listen])
        checked = check(config, "--offline")
    assert checked.status == 0
    assert checked.states(LISTENERS) == ["ok", "note", "note"]
    assert [finding["text"].split("/")[0] for finding in checked.findings(LISTENERS)] == [
        f"network:{NETWORK}@there",
        f"network:{NETWORK}@none",
        f"network:{NETWORK}@file",
    ]


def test_stand_ins_are_a_place_to_listen(folder: Path) -> None:
    config = write_config(folder, fastmeta=["stand_in = true", f"control_dir = {folder}/control"])
    checked = check(config, "--offline")
    assert (checked.status, checked.states(LISTENERS)) == (0, ["ok", "ok"])  # and its listen
    assert f"{folder}/control" in checked.findings(LISTENERS)[0]["text"]


def test_log_files(folder: Path) -> None:
    log = folder / "log"
    config = write_config(folder, default=[f"log_dir = {log}", "log_file = agent.log"])
    assert f"there is no folder {log}" in check(config, "--offline").wrong
    log.mkdir()
    checked = check(config, "--offline")
    assert checked.findings("Log") == [{"part": "Log", "state": "ok", "text": f"{log}/agent.log"}]
    assert list(log.iterdir()) == [], "a check writes no log"


def test_a_running_agent_is_not_touched(folder: Path, nova: Nova) -> None:
    """It has the address that it is told to listen on; the check neither wants it nor asks there."""
    config = write_config(
        folder,
        default=[f"nova_metadata_port = {nova.tcp_port}", "debug = true"],
        fastmeta=[LISTEN.format(free_tcp_port()), "access_log = true", "warm_connections = 0"],
    )
    command = [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(config)]
    with Service("agent", command, folder) as agent:
        before = agent.log_path.read_text()
        assert check(config).status == 0
        assert agent.log_path.read_text() == before


def test_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server does; what has been found until then is said."""

    async def findings() -> AsyncIterator[Finding]:
        yield Finding("part", State.OK, "first")
        await asyncio.Event().wait()

    monkeypatch.setattr(config_check, "PATIENCE", 0.05)
    found = asyncio.run(config_check._in_time("part", findings()))
    assert [(finding.state, finding.text) for finding in found] == [
        (State.OK, "first"),
        (State.WRONG, "not everything has been answered in 0.05 s"),
    ]
