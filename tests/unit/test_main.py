"""The command line: one clear line for what its user can mend, never a traceback."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta import __version__
from fastmeta.cmd.main import COMMANDS

NETWORK = "11111111-1111-4111-8111-111111111111"


def fastmeta(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastmeta", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_every_command() -> None:
    result = fastmeta("--help")
    assert result.returncode == 0
    assert all(command in result.stdout for command in COMMANDS)


def test_version() -> None:
    assert fastmeta("--version").stdout == f"fastmeta {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("\x1b[31m",), ("--bogus",)])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    result = fastmeta(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "agent" in result.stderr
    assert "\x1b" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str) -> None:
    result = fastmeta(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "usage: fastmeta" in result.stdout


@pytest.mark.parametrize("command", ["agent", "metadata-api"])
def test_only_the_chosen_command_is_imported(command: str) -> None:
    script = (
        "import sys\nfrom fastmeta.cmd.main import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in sys.modules if name.startswith('fastmeta.cmd.')], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    expected = sorted(["fastmeta.cmd.main", COMMANDS[command]])
    assert sorted(ast.literal_eval(result.stderr)) == expected


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("", "there is nothing to ask who has which address"),
        ("listen = blue", "listen = 'blue'"),
        (f"listen = network:{NETWORK}@127.0.0.1:1\nidentity_ttl = x", "identity_ttl"),
        ("[[[", "not a line of a configuration file"),
        ("listen", "not a line of a configuration file"),
        ("ports_file = @", "not a JSON object"),
        ("ports_file = !", "chmod go-w"),
    ],
)
def test_agent_says_what_is_wrong_in_one_line(tmp_path: Path, lines: str, text: str) -> None:
    ports = tmp_path / "ports.json"
    ports.write_text("[]")
    if lines.endswith("!"):
        ports.chmod(0o666)
    if lines[-1:] in ("@", "!"):
        lines = f"listen = network:{NETWORK}@127.0.0.1:1\nports_file = {ports}"
    config = tmp_path / "fastmeta.conf"
    config.write_text(f"[DEFAULT]\nmetadata_proxy_shared_secret = s3cret\n[fastmeta]\n{lines}\n")
    result = fastmeta("agent", "--config-file", str(config))
    assert result.returncode == 1
    assert result.stderr.startswith("fastmeta agent: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert "s3cret" not in result.stdout + result.stderr


def test_agent_without_its_file() -> None:
    result = fastmeta("agent", "--config-file", "/absent.conf")
    assert result.returncode == 1
    assert result.stderr == "fastmeta agent: Failed to find some config files: /absent.conf\n"


def test_agent_with_an_unknown_option() -> None:
    result = fastmeta("agent", "--bogus")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_agent_whose_place_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = tmp_path / "fastmeta.conf"
        (tmp_path / "ports.json").write_text('{"ports": []}')
        config.write_text(
            f"[fastmeta]\nlisten = network:{NETWORK}@127.0.0.1:{other.getsockname()[1]}\n"
            f"ports_file = {tmp_path}/ports.json\n"
        )
        result = fastmeta("agent", "--config-file", str(config))
    assert result.returncode == 1
    assert "somebody else listens there" in result.stderr
    assert result.stderr.count("\n") == 1
