"""The agent's unix socket: behind it the whole agent, before it a client of ours or a haproxy as Neutron starts it."""

from collections.abc import Iterator

import pytest

from fastmeta.lab.topology import Lab
from tests.service import conftest as service

from .places import RelayCloud, Scene
from .users import BLUE

lab = service.lab
private_folder = service.private_folder
no_threads_left = service.no_threads_left


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    """For one test: an empty cloud, and what the test starts in it."""
    with Scene(RelayCloud(lab)) as made:
        yield made
        made.check()


@pytest.fixture
def known(scene: Scene) -> Scene:
    """With a guest whom the source knows."""
    scene.add_known(BLUE, "10.0.0.5")
    return scene
