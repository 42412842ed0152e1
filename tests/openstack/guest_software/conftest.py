"""Guests, and the software that they run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openstack.conftest import new_setting
from tests.openstack.stack.api import Api
from tests.openstack.stack.instances import Instances
from tests.openstack.stack.stack import Stack

from .places import Places
from .software import Software, traces


@pytest.fixture(scope="session")
def software() -> Iterator[Software]:
    before = traces()
    software = Software()
    software.unpack()
    yield software
    assert traces() == before, "something was installed, or has written where it must not"


@pytest.fixture(scope="module")
def places(stack: Stack, api: Api, nova: Instances) -> Iterator[Places]:
    with new_setting(stack, api, nova) as setting:
        yield Places(setting)


@pytest.fixture
def folders(places: Places) -> Iterator[dict[str, Path]]:
    """For what programs write, by guest."""
    with tempfile.TemporaryDirectory(prefix="fmg-", dir="/tmp") as home:
        found = {guest.name: Path(home) / str(at) for at, guest in enumerate(places.guests)}
        for folder in found.values():
            folder.mkdir()
        yield found
