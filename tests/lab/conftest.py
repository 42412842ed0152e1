"""Namespaces need root; where CI runs, nothing may be skipped."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest

from fastmeta.lab.namespaces import NETNS_FOLDER
from fastmeta.lab.registry import REGISTRY_FOLDER, remove_leftovers
from fastmeta.lab.topology import Lab


def made_by_labs() -> set[str]:
    """Namespaces, registry files, and the interfaces that a lab would have left in the machine's own
    namespace."""
    found = {path.name for path in NETNS_FOLDER.glob("fastmeta-*")}
    found |= {path.name for path in NETNS_FOLDER.glob("fmt-*")}
    found |= {path.name for path in REGISTRY_FOLDER.glob("*.jsonl")}
    return found | {
        name for name in os.listdir("/sys/class/net") if re.fullmatch("v[0-9a-f]{12}|(qr-|tap).*", name)
    }


@pytest.fixture
def clean_machine() -> Iterator[None]:
    """Root, and whatever the test does: of it no namespace, registry file or interface is left on the
    machine."""
    if os.geteuid() != 0:
        if os.environ.get("FASTMETA_CI") == "1":
            pytest.fail("CI must run as root")
        pytest.skip("needs root")
    before = made_by_labs()
    yield
    left = made_by_labs() - before
    deadline = time.monotonic() + 10
    while left and time.monotonic() < deadline:  # perhaps somebody else's lab that runs meanwhile
        time.sleep(0.1)
        left &= made_by_labs()
    if left:
        remove_leftovers()
    assert left == set()


@pytest.fixture
def lab(clean_machine: None) -> Iterator[Lab]:
    with Lab() as built:
        yield built
