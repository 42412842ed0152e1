"""Namespaces need root; where CI runs, nothing may be skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.lab.namespaces import NETNS_FOLDER
from fastmeta.lab.registry import REGISTRY_FOLDER
from fastmeta.lab.topology import Lab


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture
def clean_machine() -> Iterator[None]:
    """Root, and whatever the test does: of it no namespace, registry file or interface is left on the
    machine."""
    if os.geteuid() != 0:
        if os.environ.get("FASTMETA_CI") == "1":
            pytest.fail("CI must run as root")
        pytest.skip("needs root")
    before = names(NETNS_FOLDER), names(REGISTRY_FOLDER), names(Path("/sys/class/net"))
    yield
    after = names(NETNS_FOLDER), names(REGISTRY_FOLDER), names(Path("/sys/class/net"))
    assert [new - old for new, old in zip(after, before, strict=True)] == [set(), set(), set()]


@pytest.fixture
def lab(clean_machine: None) -> Iterator[Lab]:
    with Lab() as built:
        yield built
