"""What guests themselves run gets, through fastmeta, what Nova has for them: cloud-init's data sources as at boot, and
botocore. Several at once, with the same addresses in different networks, so that a mix-up would be seen."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openstack.in_place import InPlace
from tests.openstack.scene import Guest

from . import running
from .capture import Capture
from .places import USER_DATA, Places, boot, check_openstack, for_a_while
from .software import RELEASES, Software

VERSIONS = tuple(RELEASES)
IPV4 = "http://169.254.169.254"
URLS = {
    # The first one to answer counts.
    "25.1": ("http://[fe80::a9fe:a9fe%25eth0]", IPV4),
    "22.4": (IPV4,),
}
"""What a version asks without being told."""
IPV6_URLS = {"25.1": "http://[fe80::a9fe:a9fe%25eth0]", "22.4": "http://[fe80::a9fe:a9fe%eth0]"}
"""As a version takes them: 22.4 asks the resolver for the interface "25eth0"."""


@pytest.fixture(scope="module", params=["our listeners", "Neutron's haproxies"])
def served(request: pytest.FixtureRequest, places: Places) -> Iterator[Places]:
    """An agent serves them, in one of its two places."""
    with for_a_while(places.setting) as setting:
        if request.param == "our listeners":
            setting.agent("rpc")
            yield places
        else:
            in_place = InPlace(setting)
            in_place.start_haproxies()
            with in_place.agent("rest"):
                yield places


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("urls", ["its own", "IPv6"])
def test_the_data_source_openstack(
    served: Places, software: Software, folders: dict[str, Path], version: str, urls: str
) -> None:
    expected = URLS[version] if urls == "its own" else (IPV6_URLS[version],)
    settings = {} if urls == "its own" else {"metadata_urls": expected}
    for guest, _, found in boot(served, folders, software.modules(version), "OpenStack", **settings):
        check_openstack(guest, found)
        assert found["metadata_address"] in expected
        assert found["version"].startswith(version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_data_source_ec2(
    served: Places, software: Software, folders: dict[str, Path], version: str
) -> None:
    booted = boot(served, folders, software.modules(version), "Ec2")
    for guest, _, found in booted:
        name = guest.instance.network.name
        assert base64.b64decode(found["user_data"]) == USER_DATA[name], name
        metadata = found["metadata"]
        assert metadata["hostname"].partition(".")[0] == guest.instance.name, name
        assert metadata["local-ipv4"] == "10.0.0.5"
        assert found["instance_id"] == metadata["instance-id"] == ec2_id(guest), name
        assert found["version"].startswith(version)
    assert len({found["instance_id"] for _, _, found in booted}) == len(booted)


def ec2_id(guest: Guest) -> str:
    """What Nova calls it in that tree."""
    answer = guest.ask("/latest/meta-data/instance-id")
    assert answer.status == 200 and answer.body.startswith(b"i-"), answer
    return answer.body.decode()


def test_botocore(served: Places, software: Software, folders: dict[str, Path]) -> None:
    """Nova has no tokens and says so with 404, which makes it ask without one, on the same connection; it has no
    credentials either."""
    for guest in served.guests:
        with Capture(guest.namespace) as capture:
            program = running.botocore(guest, software.modules("botocore"), folders[guest.name])
            try:
                found = program.result()
            finally:
                program.end()
        assert found["token"] is None
        assert found["instance_id"] == ec2_id(guest), guest.name
        assert found["region"] == "nov", "its availability zone, nova, without the last letter"
        assert found["credentials"] == {}
        assert [(request.connection, request.method, request.target) for request in capture.requests] == [
            (at, method, f"/latest/{target}")
            for at, path in enumerate(
                ("instance-id", "placement/availability-zone/", "iam/security-credentials/")
            )
            for method, target in (("PUT", "api/token"), ("GET", f"meta-data/{path}"))
        ]
