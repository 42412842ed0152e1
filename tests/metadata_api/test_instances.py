"""The file of instances: what is taken, and that what is wrong is named with file and place."""

from __future__ import annotations

import base64
import gzip
import os
from pathlib import Path

import pytest

from fastmeta.exceptions import MetadataApiError, UnsafeFileError
from fastmeta.metadata_api import instances
from fastmeta.metadata_api.instances import load_instances

ID = "8f0c5f2e-3a55-4f0e-9c8e-0d6f5d0a1b01"
MINIMAL = f"instances:\n  - id: {ID}\n    project_id: p1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "instances.yaml"
    path.touch(0o600)
    path.chmod(0o600)
    return path


def test_defaults(file: Path) -> None:
    file.write_text(MINIMAL)
    loaded = load_instances(file)
    assert list(loaded) == [ID]
    instance = loaded[ID]
    assert (instance.instance_id, instance.project_id) == (ID, "p1")
    assert (instance.name, instance.hostname) == ("instance-1", "instance-1")
    assert (instance.ec2_id, instance.reservation_id) == ("i-00000001", "r-00000001")
    assert instance.user_data is None
    assert instance.vendor_data2 == {"static": {}}


def test_every_key(file: Path) -> None:
    (file.parent / "data.gz").write_bytes(gzip.compress(b"\xff\x00data"))
    file.write_text(
        MINIMAL
        + """
    name: web
    hostname: web.example.org
    ec2_id: i-0000002a
    ami_id: ami-0000000b
    kernel_id: aki-1
    ramdisk_id: ari-1
    reservation_id: r-x
    launch_index: 3
    instance_type: m1.tiny
    availability_zone: az 1
    local_ipv4: 10.0.0.5
    public_ipv4: 192.0.2.1
    security_groups: [default, web]
    block_device_mapping: {ami: sda}
    public_keys: {laptop: ssh-ed25519 AAAA me}
    meta: {role: web, empty: ""}
    admin_pass: secret
    user_data_file: data.gz
    password: old
    vendor_data: {a: [1, 2.5, null, true]}
    vendor_data2: {dynamic: {}}
    network_data: {links: []}
    files:
      - {path: /etc/motd, content: hello}
      - {path: /bin/x, content_base64: AAH/}
      - {path: /etc/y, content_file: data.gz}
"""
    )
    instance = load_instances(file)[ID]
    assert gzip.decompress(instance.user_data or b"") == b"\xff\x00data"
    assert instance.public_key == ("laptop", "ssh-ed25519 AAAA me")
    assert instance.security_groups == ("default", "web")
    assert [entry.content for entry in instance.files] == [b"hello", b"\x00\x01\xff", instance.user_data]
    assert instance.vendor_data2 == {"dynamic": {}}
    assert "secret" not in repr(instance)
    assert "old" not in repr(instance)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a map, not nothing"),
        ("[]", "must be a map, not a list"),
        ("{}", "instances: is missing"),
        ("instances: []", "instances: must hold at least one instance"),
        ("instances: {}", "instances: must be a list, not a map"),
        ("instances: [a]", "instances[0]: must be a map, not a string"),
        ("instances: [{}]", "instances[0].id: is missing"),
        (f"instances: [{{id: {ID}}}]", "instances[0].project_id: is missing"),
        (MINIMAL + "other: 1\n", "unknown key 'other'"),
        (MINIMAL + "    nmae: x\n", "instances[0]: unknown key 'nmae'"),
        (MINIMAL + "    name: 5\n", "instances[0].name: must be a string, not a number (put it in quotes)"),
        (MINIMAL + "    name: yes\n", "instances[0].name: must be a string, not true or false"),
        (MINIMAL + "    name: 2020-01-01\n", "instances[0].name: must be a string, not a date"),
        (MINIMAL + "    name: ''\n", "instances[0].name: must be one line"),
        (MINIMAL + '    name: "a\\nb"\n', "instances[0].name: must be one line"),
        (MINIMAL + "    ec2_id: a b\n", "instances[0].ec2_id: 'a b' must be letters"),
        (MINIMAL + "    launch_index: -1\n", "instances[0].launch_index: must be a number"),
        (MINIMAL + "    launch_index: true\n", "instances[0].launch_index: must be a number"),
        (MINIMAL + "    security_groups: default\n", "instances[0].security_groups: must be a list"),
        (MINIMAL + "    meta: {a: 1}\n", "instances[0].meta: must be a string, not a number"),
        (MINIMAL + "    public_keys: {}\n", "instances[0].public_keys: must hold exactly one key"),
        (MINIMAL + "    user_data_base64: '*'\n", "instances[0].user_data_base64: is not base64"),
        (MINIMAL + "    user_data_file: nope\n", "nope: No such file or directory"),
        (MINIMAL + "    user_data_file: .\n", "instances[0].user_data_file: cannot read"),
        (MINIMAL + "    user_data: a\n    user_data_file: b\n", "cannot both be given"),
        (MINIMAL + "    vendor_data: {a: {b: [2020-01-01]}}\n", "instances[0].vendor_data: a.b[0] is a date"),
        (MINIMAL + "    vendor_data: {1: a}\n", "has a key that is no string"),
        (MINIMAL + "    vendor_data: {a: .nan}\n", "a is no finite number"),
        (MINIMAL + "    files: [{path: /a}]\n", "instances[0].files[0]: one of content"),
        (
            MINIMAL + "    files: [{path: /a, content: b, mode: 1}]\n",
            "instances[0].files[0]: unknown key 'mode'",
        ),
        (MINIMAL + f"    password: {'x' * 1021}\n", "instances[0].password: must have at most 1020"),
        (MINIMAL + f"  - {{id: {ID}, project_id: p2}}\n", "instances[1].id: " + ID + " is given twice"),
        (MINIMAL + "    name: a\n    name: b\n", "line 5, column 5: the key 'name' is written twice"),
        ("instances: [", "line 1"),
        ("a: \x00", "not YAML"),
        ("? [a]\n: b", "a key is a list or a map"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    with pytest.raises(MetadataApiError) as raised:
        load_instances(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert problem in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MetadataApiError, match=r"nope\.yaml: No such file"):
        load_instances(tmp_path / "nope.yaml")


def test_others_may_not_write_it(file: Path) -> None:
    file.write_text(MINIMAL)
    for mode in (0o620, 0o602):
        file.chmod(mode)
        with pytest.raises(UnsafeFileError, match="chmod"):
            load_instances(file)


def test_a_fifo_does_not_hang(file: Path) -> None:
    os.mkfifo(file.parent / "fifo")
    file.write_text(MINIMAL + "    user_data_file: fifo\n")
    with pytest.raises(MetadataApiError, match="not a regular file"):
        load_instances(file)


def test_content_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "MAX_CONTENT", 10)
    (file.parent / "data").write_bytes(b"x" * 11)
    for line in ("user_data_file: data", f"user_data_base64: {base64.b64encode(b'x' * 11).decode()}"):
        file.write_text(MINIMAL + f"    {line}\n")
        with pytest.raises(MetadataApiError, match="more than 10 bytes"):
            load_instances(file)
    monkeypatch.setattr(instances, "MAX_INSTANCES_FILE", 10)
    with pytest.raises(MetadataApiError, match="more than 10 bytes"):
        load_instances(file)
