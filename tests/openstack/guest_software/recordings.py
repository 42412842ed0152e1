"""What cloud-init asks for when an instance boots, kept for the bench: bench/recordings.

Usage: python -m tests.openstack.guest_software.recordings: records anew, with the servers of tests/openstack.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.openstack.conftest import new_setting
from tests.openstack.scene import Guest
from tests.openstack.stack.instances import Instances
from tests.openstack.stack.stack import PROJECT, Stack

from . import running
from .capture import Capture
from .software import Software

FOLDER = PROJECT / "bench/recordings"
RECORDED = "22.4"
"""The version of cloud-init. What later ones ask is the same so far."""
DATA_SOURCES = ("OpenStack", "Ec2")


@dataclass(frozen=True)
class Request:
    """new_connection: it is the first one on its connection."""

    new_connection: bool
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Recording:
    software: str
    data_source: str
    requests: tuple[Request, ...]

    @property
    def without_software(self) -> tuple[tuple[bool, str, str], ...]:
        """The requests without what software says about itself."""
        return tuple((each.new_connection, each.method, each.target) for each in self.requests)

    @property
    def without_versions(self) -> tuple[tuple[bool, str, str, tuple[tuple[str, str], ...]], ...]:
        """The requests without what differs between two builds of the same software."""
        return tuple(
            (
                each.new_connection,
                each.method,
                each.target,
                tuple(
                    (name, value.partition("/")[0] if name == "User-Agent" else value)
                    for name, value in each.headers
                ),
            )
            for each in self.requests
        )

    def write(self, path: Path) -> None:
        """One request a line."""
        lines = [
            "{",
            f'"software": {json.dumps(self.software)},',
            f'"data_source": {json.dumps(self.data_source)},',
            '"requests": [',
            ",\n".join(json.dumps(vars(request)) for request in self.requests),
            "]",
            "}",
        ]
        path.write_text("\n".join([*lines, ""]))


def path_of(data_source: str) -> Path:
    return FOLDER / f"cloud_init_{data_source.lower()}.json"


def read(path: Path) -> Recording:
    kept = json.loads(path.read_text())
    requests = [
        Request(
            item["new_connection"],
            item["method"],
            item["target"],
            tuple((name, value) for name, value in item["headers"]),
        )
        for item in kept["requests"]
    ]
    return Recording(kept["software"], kept["data_source"], tuple(requests))


def record(guest: Guest, software: Software, version: str, data_source: str, folder: Path) -> Recording:
    """A boot of a guest that is served, by IPv4; version: of cloud-init; folder: for what it writes."""
    # Where it asks by IPv6, too, it is chance whether the other family's answer comes in time.
    settings = {"metadata_urls": ["http://169.254.169.254"]}
    with Capture(guest.namespace) as capture:
        program = running.cloud_init(guest, software.modules(version), data_source, folder, **settings)
        try:
            found = program.result()
        finally:
            program.end()
    assert found["found"], program.log
    requests = []
    seen: set[int] = set()
    for request in capture.requests:
        new = request.connection not in seen
        seen.add(request.connection)
        requests.append(Request(new, request.method, request.target, request.headers))
    return Recording(f"cloud-init {found['version']}", data_source, tuple(requests))


def main() -> None:
    software = Software()
    software.unpack()
    stack = Stack()
    ran = stack.running
    stack.start()
    try:
        api = stack.api()
        with Instances(stack.layout) as instances, new_setting(stack, api, instances) as setting:
            scene = setting.scene
            network = scene.isolated("network", "10.0.0.0/24", agent_address="10.0.0.2")
            guest = scene.guest(network, "10.0.0.5")
            setting.agent("rpc")
            FOLDER.mkdir(exist_ok=True)
            for data_source in DATA_SOURCES:
                with tempfile.TemporaryDirectory(prefix="fmg-", dir="/tmp") as folder:
                    recording = record(guest, software, RECORDED, data_source, Path(folder))
                recording.write(path_of(data_source))
                print(f"{path_of(data_source)}: {len(recording.requests)} requests")
        api.close()
    finally:
        if not ran:
            stack.stop()


if __name__ == "__main__":
    main()
