"""What an operator gets wrong: one clear line on standard error, the right exit status, no traceback; or, where it can
mend itself, a service that starts and says what it waits for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta.conf.settings import load
from fastmeta.exceptions import ConfigError
from fastmeta.lab.topology import Lab
from tests.nova_side.certificates import Authority, openssl

from .agents import SECRET
from .conftest import Setting

UUID = "11111111-1111-4111-8111-111111111111"
PLACE = f"network:{UUID}@no-such-namespace/10.0.0.2:80"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastmeta", "agent", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refused(folder: Path, *lines: str, default: str = "", ports: str = '{"ports": []}') -> str:
    """The line that an agent ends with that is given this configuration."""
    config = folder / "agent.conf"
    (folder / "ports.json").write_text(ports)
    config.write_text(
        f"[DEFAULT]\nmetadata_proxy_shared_secret = {SECRET}\n{default}\n[fastmeta]\n"
        f"ports_file = {folder}/ports.json\n" + "".join(f"{line}\n" for line in lines)
    )
    done = run("--config-file", str(config))
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("fastmeta agent: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout
    assert SECRET not in done.stdout + done.stderr
    return done.stderr


def test_without_a_file() -> None:
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith("fastmeta agent: [fastmeta] lookup = auto: there is nothing to ask")
    assert done.stderr.count("\n") == 1


def test_with_a_file_that_is_not_there() -> None:
    done = run("--config-file", "/no/such/file.conf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fastmeta agent: Failed to find some config files: /no/such/file.conf\n"


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        ("nonsense", "right is network:<uuid>@"),
        ("network:blue@10.0.0.2:80", "'blue' is not a UUID"),
        (f"port:{UUID}@10.0.0.2:80", "right is network:<uuid>@"),
        (f"network:{UUID}@10.0.0.2", "does not end with a colon and a TCP port"),
        (f"network:{UUID}@10.0.0.2:0", "does not end with a colon and a TCP port"),
        (f"network:{UUID}@10.0.0.256:80", "is not <IPv4>:<tcp port>"),
        (f"network:{UUID}@../10.0.0.2:80", "is not the name of a namespace"),
        (f"network:{UUID}@[fe80::1]:80", "needs its interface"),
        (f"network:{UUID}@qdhcp-{UUID.replace('1', '2')}/10.0.0.2:80", "is that of another network"),
    ],
)
def test_listen_that_cannot_be_used(private_folder: Path, listen: str, text: str) -> None:
    line = refused(private_folder, f"listen = {PLACE}", f"listen = {listen}")
    assert f"[fastmeta] listen = {listen!r}: " in line
    assert text in line


def test_listen_twice_the_same(private_folder: Path) -> None:
    """Also for another network: who would ask there?"""
    for other in (PLACE, PLACE.replace(UUID, UUID.replace("1", "2"), 1)):
        line = refused(private_folder, f"listen = {PLACE}", f"listen = {other}")
        assert "the same place is given already" in line


def test_a_tcp_port_in_use(private_folder: Path) -> None:
    """Outside of namespaces nothing changes by itself: it ends, and names place and way to find out who it is."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        tcp_port = other.getsockname()[1]
        line = refused(private_folder, f"listen = network:{UUID}@127.0.0.1:{tcp_port}")
    assert f"cannot listen on 127.0.0.1:{tcp_port}: somebody else listens there" in line
    assert f"ss -ltnp 'sport = :{tcp_port}'" in line


@pytest.mark.parametrize("where", ["", "log_file", "use_stderr = true"])
def test_an_error_after_the_log_has_begun(private_folder: Path, where: str) -> None:
    """It is said once in each place: not also by the log where that goes to standard output or error itself."""
    log = private_folder / "agent.log"
    default = f"log_file = {log}" if where == "log_file" else where
    config = private_folder / "agent.conf"
    (private_folder / "ports.json").write_text('{"ports": []}')
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config.write_text(
            f"[DEFAULT]\nmetadata_proxy_shared_secret = {SECRET}\n{default}\n[fastmeta]\n"
            f"ports_file = {private_folder}/ports.json\n"
            f"listen = network:{UUID}@127.0.0.1:{other.getsockname()[1]}\n"
        )
        done = run("--config-file", str(config))
    assert done.returncode == 1
    assert (done.stdout + done.stderr).count("cannot listen on") == 1
    assert done.stderr.splitlines()[-1].startswith("fastmeta agent: cannot listen on")
    if where == "log_file":
        assert " CRITICAL " in log.read_text()
        assert log.read_text().count("cannot listen on") == 1


@pytest.mark.parametrize("ports", ["", "garbage", "[]", '{"ports": [1]}', '{"ports": [{}]}', "[" * 100_000])
def test_garbage_as_ports_file(private_folder: Path, ports: str) -> None:
    line = refused(private_folder, f"listen = {PLACE}", ports=ports)
    assert f"{private_folder}/ports.json: " in line
    assert len(line) < 300


def test_ports_file_that_is_none(private_folder: Path) -> None:
    """A folder in its place."""
    line = refused(private_folder, f"listen = {PLACE}", f"ports_file = {private_folder}")
    assert line == f"fastmeta agent: {private_folder}: not a regular file\n"


def test_configuration_that_is_none(private_folder: Path) -> None:
    """A folder in its place, or bytes that are no text."""
    done = run("--config-file", str(private_folder))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fastmeta agent: {private_folder}: Is a directory\n"
    config = private_folder / "binary.conf"
    config.write_bytes(f"[DEFAULT]\nmetadata_proxy_shared_secret = {SECRET}".encode() + b"\xff\n")
    done = run("--config-file", str(config))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fastmeta agent: a configuration file is not text in UTF-8\n"


def test_configuration_that_we_may_not_read(private_folder: Path) -> None:
    """Not as root, whom every file obeys; the folder above it is the test's, too."""
    config = private_folder / "agent.conf"
    config.write_text("")
    config.chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        with pytest.raises(ConfigError) as raised:
            load(["--config-file", str(config)], prog="fastmeta agent", version="0")
    finally:
        os.seteuid(user)
    assert str(raised.value).startswith(
        f"{config}: permission denied: the user that fastmeta runs as must be"
    )
    assert "chmod 640" in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "nova_metadata_port: '0' is not a TCP port from 1 to 65535",
        "nova_metadata_host: a b is not a valid host address",
        "nova_metadata_protocol: Valid values are [http, https], but found 'ftp'",
    ],
)
def test_where_nova_is_not(private_folder: Path, line: str) -> None:
    """The option that is wrong is named, once, and no other."""
    name = line.partition(":")[0]
    value = {"nova_metadata_port": "0", "nova_metadata_host": "a b", "nova_metadata_protocol": "ftp"}[name]
    said = refused(private_folder, f"listen = {PLACE}", default=f"{name} = {value}")
    assert said == f"fastmeta agent: {private_folder}/agent.conf: {line}\n"


@pytest.mark.parametrize("kind", ["pkcs8", "traditional"])
def test_a_key_that_is_encrypted(private_folder: Path, kind: str) -> None:
    authority = Authority(private_folder, "ours")
    key = private_folder / "encrypted.key"
    form = ("-traditional",) if kind == "traditional" else ()
    openssl("pkey", "-in", authority.key, "-aes256", "-passout", "pass:word", *form, "-out", str(key))
    default = f"nova_metadata_protocol = https\nnova_client_cert = {authority.certificate}\n"
    said = refused(private_folder, f"listen = {PLACE}", default=f"{default}nova_client_priv_key = {key}")
    assert said.startswith(f"fastmeta agent: nova_client_priv_key = {key}: it is encrypted, and nobody")


def test_certificates_are_named_once(private_folder: Path) -> None:
    said = refused(
        private_folder,
        f"listen = {PLACE}",
        default="nova_metadata_protocol = https\nauth_ca_cert = /etc/passwd",
    )
    assert said.startswith("fastmeta agent: auth_ca_cert = /etc/passwd: cannot be used as certificates: ")
    assert said.count("/etc/passwd") == 1


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("park_timeout = soon", "[fastmeta] park_timeout: 'soon' is not a number of seconds from 0.1 to 300"),
        ("max_connections = 0", "[fastmeta] max_connections: '0' is not a number from 1"),
        ("identity_ttl = 2", "must be longer than lookup_timeout"),
        ("lookup = magic", "lookup"),
        ("netns_dir = run/netns", "must be an absolute path"),
    ],
)
def test_values_that_cannot_be_used(private_folder: Path, line: str, text: str) -> None:
    assert text in refused(private_folder, f"listen = {PLACE}", line)


def test_a_metadata_api_whose_name_cannot_be_resolved(own_setting: Setting, lab: Lab) -> None:
    """It starts, guests wait and get 503, and the log says which name it is.

    The agent is in a namespace of its own, from which no question about a name gets out.
    """
    setting = own_setting
    setting.cloud.add_network(f"unresolved-{lab.tag}", ["10.0.0.5"])
    namespace = lab.add_namespace(f"fmt-{lab.tag}-without-dns")
    agent = setting.agent(
        None, namespace=namespace, default=["nova_metadata_host = nova.invalid"], park_timeout=0.5
    )
    assert agent.logged("ready: 1 of 1 listeners are open")
    (guest,) = setting.cloud.guests.values()
    answer = guest.ask("/unresolved")
    assert answer.status == 503
    assert 1 <= int(answer.values("retry-after")[0]) <= 3
    agent.until_logged("the name nova.invalid of Nova's metadata API cannot be resolved")
