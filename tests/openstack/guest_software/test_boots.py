"""cloud-init while Nova is away; what it asks for; and that nothing of it runs on the machine itself."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.openstack.agents import PARK_TIMEOUT
from tests.openstack.forwarder import Forwarder
from tests.service.agents import until

from . import running
from .places import Places, boot, check_openstack, for_a_while
from .recordings import DATA_SOURCES, RECORDED, path_of, read, record
from .running import Running
from .software import RELEASES, Software


def test_nova_is_away_for_a_moment(places: Places, software: Software, folders: dict[str, Path]) -> None:
    """cloud-init before 25.1 asks once, and what it then gets is final: it waits, and notices nothing."""

    def meanwhile(programs: list[Running]) -> None:
        time.sleep(PARK_TIMEOUT / 2)  # not what is waited for, but how long Nova is away
        assert all(program.goes_on for program in programs)
        nova.resume()

    with nova_away(places) as nova:
        modules = software.modules("22.4")
        for guest, program, found in boot(places, folders, modules, "OpenStack", meanwhile=meanwhile):
            check_openstack(guest, found)
            assert not re.search("Calling .* failed|Please wait", program.log), "it had to ask again"


def test_nova_is_away_for_longer(places: Places, software: Software, folders: dict[str, Path]) -> None:
    """cloud-init since 25.1 takes our 503 for what it is, and asks again when it was told to."""

    def meanwhile(programs: list[Running]) -> None:
        def refused() -> bool:
            return all("Endpoint returned a 503 error" in program.log for program in programs)

        until(refused, "503 for everybody", PARK_TIMEOUT * 4)
        nova.resume()

    with nova_away(places) as nova:
        modules = software.modules("25.1")
        for guest, _, found in boot(places, folders, modules, "OpenStack", meanwhile=meanwhile):
            check_openstack(guest, found)


@contextmanager
def nova_away(places: Places) -> Iterator[Forwarder]:
    """An agent whose Nova is behind this, and not there yet. Guests must have gone on when this is left."""
    with (
        Forwarder(places.setting.stack.layout.tcp_ports.nova) as nova,
        for_a_while(places.setting) as setting,
    ):
        nova.cut()
        setting.agent("rpc", nova_port=nova.tcp_port)
        yield nova


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("data_source", DATA_SOURCES)
def test_the_recordings(
    places: Places, software: Software, tmp_path: Path, version: str, data_source: str
) -> None:
    """What the bench takes for a boot is one: of every version, but for what it says of itself."""
    with for_a_while(places.setting) as setting:
        setting.agent("rpc")
        new = record(places.guests[0], software, version, data_source, tmp_path)
    kept = read(path_of(data_source))
    assert (kept.data_source, kept.software.partition(" ")[0]) == (data_source, "cloud-init")
    assert new.without_software == kept.without_software
    if version == RECORDED:
        assert new.without_versions == kept.without_versions


@pytest.mark.parametrize("program", ["cloud_init", "botocore_credentials"])
def test_never_on_the_machine_itself(program: str, tmp_path: Path) -> None:
    """Where the network is that of the starter the programs do nothing. (That network is one without any interface
    here: whatever comes of it.)"""
    command = f"{running.PYTHON} -S -E -B {running.PROGRAMS / program}.py '{{}}'; exit $?"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the machine's own network" in done.stderr
