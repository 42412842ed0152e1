"""What a killed lab leaves is removed by the next one; what lives, or is somebody else's, is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta.lab.namespaces import NETNS_FOLDER, inode_of, make_namespace, remove_namespace
from fastmeta.lab.registry import REGISTRY_FOLDER, remove_leftovers
from fastmeta.lab.topology import Lab

BUILD = """
import sys
from fastmeta.lab.topology import Lab
with Lab() as lab:
    network = lab.add_network("blue")
    print(lab.add_dhcp_namespace(network, "10.0.0.2/24").namespace, flush=True)
    sys.stdin.read()
"""


def test_a_killed_lab_is_removed_and_a_living_one_is_not(clean_machine: None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        namespace = process.stdout.readline().strip()
        try:
            assert (NETNS_FOLDER / namespace).exists()
            with Lab() as lab:
                assert namespace not in lab.leftovers, "its owner lives"
                assert (NETNS_FOLDER / namespace).exists()
        finally:
            process.kill()
    assert (NETNS_FOLDER / namespace).exists()
    with Lab() as lab:
        assert namespace in lab.leftovers
        assert any(name.endswith("-switch") for name in lab.leftovers)
        assert not (NETNS_FOLDER / namespace).exists()


def registry_file(*lines: str) -> Path:
    REGISTRY_FOLDER.mkdir(mode=0o700, exist_ok=True)
    path = REGISTRY_FOLDER / "fmt-test.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_only_what_was_made_is_removed(clean_machine: None, caplog: pytest.LogCaptureFixture) -> None:
    name = "fmt-leftover"
    make_namespace(name)
    try:
        inode = inode_of(name)
        assert inode is not None
        made = json.dumps({"made": name, "inode": inode})
        other = json.dumps({"made": name, "inode": inode + 1})
        for lines in (
            [json.dumps({"planned": name})],
            [json.dumps({"planned": name}), '{"made": "fmt-lef'],
            [json.dumps({"planned": name}), json.dumps({"removed": name})],
            [made, json.dumps({"removed": name})],
            [other],
        ):
            path = registry_file(*lines)
            assert remove_leftovers() == []
            assert not path.exists()
            assert inode_of(name) == inode, lines
        assert "left alone" in caplog.text
        registry_file(made)
        assert remove_leftovers() == [name]
        assert inode_of(name) is None
    finally:
        if inode_of(name) is not None:
            remove_namespace(name)
