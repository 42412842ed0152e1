"""What ``fastmeta config check`` says of what would be found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from fastmeta.lab.namespaces import inside
from fastmeta.lab.services import write_private
from fastmeta.lab.topology import METADATA_ADDRESS
from tests.service.agents import SECRET

from .scene import IsolatedNetwork, Router, Scene, listens, ours

PART = "What is found by itself"


def findings(scene: Scene, discover: str, *more: str) -> list[str]:
    folder = scene.ha_confs.parent
    write_private(folder / "ports.json", json.dumps({"ports": scene.cloud.ports()}))
    lines = [
        "[DEFAULT]",
        f"metadata_proxy_shared_secret = {SECRET}",
        f"ha_confs_path = {scene.ha_confs}",
        *more,
    ]
    lines += ["[fastmeta]", f"discover = {discover}", f"netns_dir = {scene.namespaces.folder}"]
    config = write_private(
        folder / "agent.conf", "\n".join([*lines, f"ports_file = {folder / 'ports.json'}", ""])
    )
    command = [sys.executable, "-m", "fastmeta", "config", "check", "--offline", "--format", "json"]
    done = subprocess.run(
        [*command, "--config-file", str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "ports.json").unlink()
    Path(config).unlink()
    found = [finding for finding in json.loads(done.stdout)["findings"] if finding["part"] == PART]
    assert {finding["state"] for finding in found} == {"ok"}
    return [finding["text"] for finding in found]


def test_each_namespace(scene: Scene) -> None:
    """It is said what would become of it; and nothing is changed."""
    router, backup, primary = Router(scene), Router(scene), Router(scene)
    backup.set_state("backup")
    primary.set_state("primary")
    wanted = IsolatedNetwork(scene).make().add_metadata_addresses()
    plain = IsolatedNetwork(scene).make()
    taken = IsolatedNetwork(scene, addresses="169.254.100").make().add_metadata_addresses()
    before = os.listdir(scene.namespaces.folder)
    with inside(taken.path, lambda: socket.create_server((METADATA_ADDRESS, 80))):
        texts = findings(scene, "router, dhcp", "enable_metadata_network = true")
    folder = scene.namespaces.folder
    for text in (
        f"3 routers in {folder}; others as they come",
        f"{router.name}: served, on TCP port 9697",
        f"{primary.name}: served, on TCP port 9697",
        f"{backup.name}: not served: it is an HA router, and its state here is backup",
        f"3 networks in {folder}; others as they come",
        f"{wanted.name}: served, on TCP port 80",
        f"{plain.name}: not served: no interface in it has {METADATA_ADDRESS}",
        f"{taken.name}: somebody listens on TCP port 80 there already; if that is no agent of ours, it is not served; "
        "a metadata network: Neutron is asked for the router that is attached",
    ):
        assert text in texts, texts
    assert any(text.startswith("rules of IPv6 are put by /") for text in texts)
    assert ours(router.path) == []
    assert not listens(wanted.path, 80)
    assert os.listdir(scene.namespaces.folder) == before


def test_many_are_not_all_named(scene: Scene) -> None:
    for number in range(25):
        scene.namespaces.add(f"qdhcp-11111111-1111-4111-8111-{number:012}")
    texts = findings(scene, "dhcp")
    assert texts[0].startswith("25 networks")
    assert texts[-1] == "and 5 more"
    assert len(texts) == 22
