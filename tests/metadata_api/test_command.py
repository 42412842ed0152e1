"""The command as a process: its options, its readiness, its end."""

from __future__ import annotations

import hashlib
import hmac
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastmeta.cmd.metadata_api import parse_listen
from fastmeta.exceptions import MetadataApiError

ID = "8f0c5f2e-3a55-4f0e-9c8e-0d6f5d0a1b01"
COMMAND = [sys.executable, "-m", "fastmeta", "metadata-api"]


def private(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text)
    return path


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    return private(tmp_path / "i.yaml", f"instances:\n  - id: {ID}\n    project_id: p1\n")


@contextmanager
def running(tmp_path: Path, *arguments: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """TCP port and process; ready when sd_notify says so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        path = tmp_path / "notify"
        receiver.bind(str(path))
        receiver.settimeout(20)
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments), "--listen", "127.0.0.1:0"],
            stderr=subprocess.PIPE,
            text=True,
            env={"NOTIFY_SOCKET": str(path)},
        )
        with process:
            try:
                message = receiver.recv(4096).decode()
                assert "READY=1" in message
                match = re.search(r"127\.0\.0\.1:([0-9]+)", message)
                assert match
                yield int(match[1]), process
            finally:
                process.kill()


def ask(tcp_port: int, secret: str, path: str = "/latest/meta-data/instance-id") -> tuple[int, bytes]:
    signature = hmac.new(secret.encode(), ID.encode(), hashlib.sha256).hexdigest()
    headers = {"X-Instance-ID": ID, "X-Tenant-ID": "p1", "X-Instance-ID-Signature": signature}
    request = urllib.request.Request(f"http://127.0.0.1:{tcp_port}{path}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_serves_and_ends_on_sigterm(tmp_path: Path, instances: Path) -> None:
    secret = private(tmp_path / "secret", "s3cret\n")
    arguments = ("--instances", instances, "--shared-secret-file", secret, "--access-log")
    with running(tmp_path, *arguments) as (tcp_port, process):
        assert ask(tcp_port, "s3cret") == (200, b"i-00000001")
        assert ask(tcp_port, "other")[0] == 403
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
    assert "metadata API ready on 127.0.0.1:" in log
    assert f"GET /latest/meta-data/instance-id instance {ID}: 200, 10 bytes" in log
    assert "s3cret" not in log


@pytest.mark.parametrize(
    "text",
    [
        "[DEFAULT]\nmetadata_proxy_shared_secret = s3cret\n",
        "[neutron]\nmetadata_proxy_shared_secret = s3cret\nunknown = x\n",
        "[DEFAULT]\nmetadata_proxy_shared_secret=s3cret\n[neutron]\nmetadata_proxy_shared_secret = s3cret\n",
    ],
)
def test_secret_of_a_config_file(tmp_path: Path, instances: Path, text: str) -> None:
    config = private(tmp_path / "a.conf", text)
    with running(tmp_path, "--instances", instances, "--config-file", config) as (tcp_port, _):
        assert ask(tcp_port, "s3cret")[0] == 200


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[DEFAULT]\n", "no metadata_proxy_shared_secret"),
        (
            "[DEFAULT]\nmetadata_proxy_shared_secret=hidden\n[neutron]\nmetadata_proxy_shared_secret=hidden2\n",
            "metadata_proxy_shared_secret differs",
        ),
        ("metadata_proxy_shared_secret hidden", "not a usable oslo.config file"),
        ("[DEFAULT\nmetadata_proxy_shared_secret = hidden", "not a usable oslo.config file"),
    ],
)
def test_config_files_that_are_refused(tmp_path: Path, instances: Path, text: str, problem: str) -> None:
    config = private(tmp_path / "a.conf", text)
    done = subprocess.run(
        [*COMMAND, "--instances", str(instances), "--config-file", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert f"{config}: {problem}" in done.stderr
    assert "hidden" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_refusals(tmp_path: Path, instances: Path) -> None:
    secret = private(tmp_path / "secret", "s3cret")
    empty = private(tmp_path / "empty", "\n")
    open_to_all = private(tmp_path / "open", "s3cret")
    open_to_all.chmod(0o666)
    broken = private(tmp_path / "broken.yaml", "instances: 5")
    given = ["--instances", str(instances), "--shared-secret-file", str(secret)]
    for arguments, status, problem in [
        ([], 2, "--instances"),
        (["--instances", str(instances)], 2, "--shared-secret-file"),
        (["--instances", str(instances), "--shared-secret-file", str(empty)], 1, "holds no secret"),
        (["--instances", str(instances), "--shared-secret-file", str(open_to_all)], 1, "chmod"),
        (["--instances", str(broken), "--shared-secret-file", str(secret)], 1, "instances: must be a list"),
        ([*given, "--listen", "localhost:80"], 1, "--listen localhost:80"),
        ([*given, "--listen", "192.0.2.1:80"], 1, "cannot listen on 192.0.2.1:80"),
        ([*given, "--keep-alive-timeout", "0"], 1, "--keep-alive-timeout"),
    ]:
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == status, done.stderr
        assert problem in done.stderr
        assert "s3cret" not in done.stderr
        assert "Traceback" not in done.stderr


def test_a_tcp_port_in_use(tmp_path: Path, instances: Path) -> None:
    """One line that says how to find out who it is."""
    secret = private(tmp_path / "secret", "s3cret")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        done = subprocess.run(
            [*COMMAND, "--instances", str(instances), "--shared-secret-file", str(secret), "--listen", place],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert f"fastmeta metadata-api: cannot listen on {place}: somebody else listens there" in done.stderr
    assert f"ss -ltnp 'sport = :{place.rpartition(':')[2]}' names it\n" in done.stderr


def test_listen_addresses() -> None:
    assert parse_listen("127.0.0.1:8775") == ("127.0.0.1", 8775)
    assert parse_listen("[::1]:0") == ("::1", 0)
    for wrong in (
        "",
        "127.0.0.1",
        ":80",
        "::1:80",
        "[127.0.0.1]:80",
        "[::1]:65536",
        "[::1]:x",
        "1.2.3:80",
        "a:80",
    ):
        with pytest.raises(MetadataApiError):
            parse_listen(wrong)


def test_help_describes_the_file() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=30, check=True)
    assert "instances:" in done.stdout
    assert "--shared-secret-file" in done.stdout
