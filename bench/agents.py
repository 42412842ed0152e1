"""Agents that listen in many namespaces."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import configs, peers, processes

GUEST = "10.0.0.5"
ASKING = 20
"""Networks that have a guest."""
PATIENCE = 120.0


@contextlib.contextmanager
def started(
    names: Sequence[str], upstream: int, core: int, transport_url: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """An agent that listens in all of these namespaces, and knows a guest in the first ones; with a transport_url it
    asks there instead (lookup = rpc). Raises PeerMissing."""
    with tempfile.TemporaryDirectory(prefix="fastmeta-scale-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ports, config, log = folder / "ports.json", folder / "fastmeta.conf", folder / "log"
        known = [
            {**json.loads(configs.fastmeta_ports())["ports"][0], **own_port(number)}
            for number in range(min(ASKING, len(names)))
        ]
        ports.write_text(json.dumps({"ports": known}))
        config.write_text(
            configs.fastmeta(
                processes.free_port(),
                upstream,
                ports,
                identity_ttl=10,
                idle=names,
                transport_url=transport_url,
            )
        )
        for path in (ports, config):
            path.chmod(0o600)
        notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notify.bind(str(folder / "notify"))
        command = [sys.executable, "-m", "fastmeta", "agent", "--config-file", str(config)]
        with log.open("wb") as output:
            process = processes.start(
                processes.pinned(core, command), output, {"NOTIFY_SOCKET": str(folder / "notify")}
            )
        stack.callback(processes.end, process)
        if not peers.notified(notify, process, PATIENCE):
            raise peers.PeerMissing(f"fastmeta did not get ready; its last words: {peers.last_words(log)}")
        yield process


def own_port(number: int) -> dict[str, Any]:
    """What is different from the job's one port."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012x}",
        "network_id": configs.network_id(number),
        "fixed_ips": [{"ip_address": GUEST}],
    }
