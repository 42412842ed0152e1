"""An agent that finds by itself what Neutron's agents have made, in real namespaces."""

from collections.abc import Iterator

import pytest

from fastmeta.lab.topology import Lab
from tests.service import conftest as service

from .scene import Scene

lab = service.lab
no_threads_left = service.no_threads_left


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    with Scene(lab) as made:
        yield made
        made.check()
