"""Rule 11: files that others may change are refused, and nothing of the agent can be read by others.

That the secret (and every signature) is in no log is checked after each test of this folder, all of which run
with debug = true: Agent.check_log.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .agents import SECRET, until
from .conftest import Setting
from .upstream import Exchange, Upstream, signature

WITHOUT_CAPABILITIES = ["setpriv", "--inh-caps", "-all", "--bounding-set", "-all", "--"]
"""Root by name only: an ordinary user, as far as its processes may look into each other."""

READ = """
import sys
pid, *names = sys.argv[1:]
for name in names:
    try:
        if name == "mem":
            with open(f"/proc/{pid}/maps") as maps:
                start = int(maps.readline().partition("-")[0], 16)
            with open(f"/proc/{pid}/mem", "rb", 0) as memory:
                memory.seek(start)
                memory.read(16)
        else:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                file.read()
        print(name, "read")
    except PermissionError:
        print(name, "refused")
"""


def look_into(pid: int) -> set[str]:
    """What a process of the same user is told about this one."""
    done = subprocess.run(
        [*WITHOUT_CAPABILITIES, sys.executable, "-I", "-c", READ, str(pid), "environ", "maps", "mem"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.splitlines())


def test_the_process_is_not_readable_for_its_own_user(setting: Setting) -> None:
    """PR_SET_DUMPABLE: neither memory nor environment; an ordinary process of the same user shows all of it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        tcp_port = reserved.getsockname()[1]
    # Without capabilities it listens in the namespace that it is in.
    listen = f"network:11111111-1111-4111-8111-111111111111@127.0.0.1:{tcp_port}"
    agent = setting.agent(listen=[listen], prefix=WITHOUT_CAPABILITIES)
    with subprocess.Popen([*WITHOUT_CAPABILITIES, "sleep", "60"]) as ordinary:
        try:
            until(lambda: Path(f"/proc/{ordinary.pid}/comm").read_text() == "sleep\n")
            assert look_into(ordinary.pid) == {"environ read", "maps read", "mem read"}
        finally:
            ordinary.kill()
    assert look_into(agent.pid) == {"environ refused", "maps refused", "mem refused"}
    with open(f"/proc/{agent.pid}/cmdline", "rb") as file:
        assert SECRET.encode() not in file.read()


def test_errors_do_not_tell_the_secret(setting: Setting) -> None:
    """A metadata API that refuses the signature, shows it, talks nonsense and is away; a ports file with it in it."""

    def refuses(exchange: Exchange) -> bool:
        shown = f"{SECRET} {signature(SECRET, exchange.request.instance)}"
        exchange.send(
            exchange.head("Content-Length: 0", f"X-Shown: {shown}", status=f"403 Forbidden {shown}")
        )
        return True

    upstream: Upstream = setting.upstream()
    upstream.scripts["refuses"] = refuses
    upstream.scripts["nonsense"] = lambda exchange: exchange.send(f"{SECRET}\r\n\r\n".encode())
    agent = setting.agent(upstream)
    guest = setting.cloud.guests["blue-5"]
    assert guest.ask("/refuses").status == 403
    agent.until_logged("refuses our signature")
    assert guest.ask("/nonsense").status == 502
    agent.until_logged("is not valid HTTP")
    agent.write_ports(f'{{"ports": [{{"id": "{guest.port.port_id}", "metadata": "{SECRET}"}}]}}'.encode())
    agent.until_logged("is not taken")
    agent.check_log()


@pytest.mark.parametrize("file", ["agent.conf", "ports.json"])
@pytest.mark.parametrize(
    ("mode", "owner", "advice"),
    [(0o602, 0, "chmod go-w"), (0o620, 0, "chmod go-w"), (0o600, 12345, "chown it")],
)
def test_files_that_others_may_change(
    private_folder: Path, file: str, mode: int, owner: int, advice: str
) -> None:
    """The start is refused, with one line that says why and what to do."""
    (private_folder / "ports.json").write_text('{"ports": []}')
    (private_folder / "agent.conf").write_text(
        f"[DEFAULT]\ndebug = true\nmetadata_proxy_shared_secret = {SECRET}\n[fastmeta]\n"
        f"ports_file = {private_folder}/ports.json\n"
        "listen = network:11111111-1111-4111-8111-111111111111@no-such-namespace/10.0.0.2:80\n"
    )
    for name in ("ports.json", "agent.conf"):
        (private_folder / name).chmod(0o600)
    wrong = private_folder / file
    wrong.chmod(mode)
    os.chown(wrong, owner, 0)
    done = subprocess.run(
        [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(private_folder / "agent.conf")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"fastmeta agent: {wrong}: ")
    assert advice in last
    assert "Traceback" not in done.stderr + done.stdout
    assert SECRET not in done.stderr + done.stdout
