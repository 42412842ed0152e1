"""The instances that the metadata API knows: a YAML file, read strictly. docs/metadata-api.md describes its
shape."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fastmeta.exceptions import ConfigError, MetadataApiError
from fastmeta.trusted_files import read_trusted_file

MAX_INSTANCES_FILE = 4 * 1024 * 1024
"""Bytes of the YAML file itself."""
MAX_CONTENT = 16 * 1024 * 1024
"""Bytes of one instance's user data or of one file's content. Nova takes 64 KiB; labs want large answers
too."""
MAX_PASSWORD = 1020
"""Bytes: Nova keeps a password in four pieces of 255."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
"""What can be the value of a header, and of a path, without any quoting."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class File:
    """A file that is injected into the instance: its path there, and its content."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Instance:
    """One instance, as Nova's database would describe it. Fields without a value are left out of the
    answers."""

    instance_id: str
    project_id: str
    name: str
    hostname: str
    ec2_id: str
    ami_id: str
    kernel_id: str | None
    ramdisk_id: str | None
    reservation_id: str
    launch_index: int
    instance_type: str
    availability_zone: str
    local_ipv4: str | None
    public_ipv4: str
    security_groups: tuple[str, ...]
    block_device_mapping: Mapping[str, str]
    public_key: tuple[str, str] | None
    """Name and OpenSSH line."""
    meta: Mapping[str, str]
    admin_pass: str | None = field(repr=False)
    user_data: bytes | None = field(repr=False)
    password: str = field(repr=False)
    vendor_data: Mapping[str, Any] = field(repr=False)
    vendor_data2: Mapping[str, Any] = field(repr=False)
    network_data: Mapping[str, Any] = field(repr=False)
    files: tuple[File, ...] = field(repr=False)


class _StrictLoader(yaml.SafeLoader):
    """As SafeLoader, but a key that is written twice is an error instead of the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or a map", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Place:
    """A map in the file and where it is; its keys are taken one by one, and what is left over is an error."""

    def __init__(self, file: Path, place: str, value: object) -> None:
        self.file = file
        self.place = place
        if not isinstance(value, dict):
            raise self.error(f"must be a map, not {_kind(value)}")
        self._rest: dict[object, object] = dict(value)

    def error(self, problem: str, key: str = "") -> MetadataApiError:
        place = f"{self.place}.{key}" if self.place and key else self.place or key
        return MetadataApiError(f"{self.file}: {place}: {problem}" if place else f"{self.file}: {problem}")

    def has(self, key: str) -> bool:
        return key in self._rest

    def take(self, key: str, check: Callable[[object], _T], default: _T) -> _T:
        """The value of an optional key; check raises ValueError with what is wrong about it."""
        if key not in self._rest:
            return default
        try:
            return check(self._rest.pop(key))
        except ValueError as error:
            raise self.error(str(error), key) from error

    def need(self, key: str, check: Callable[[object], _T]) -> _T:
        if key not in self._rest:
            raise self.error("is missing", key)
        try:
            return check(self._rest.pop(key))
        except ValueError as error:
            raise self.error(str(error), key) from error

    def end(self) -> None:
        if self._rest:
            raise self.error(f"unknown key {sorted(map(str, self._rest))[0]!r}")


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number (put it in quotes)"
    names: dict[type, str] = {str: "a string", list: "a list", dict: "a map", bytes: "binary data"}
    return names.get(type(value), "a date (put it in quotes)")


def _line(value: object) -> str:
    """A string of one line, not empty: it may become a line of the EC2 tree."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_kind(value)}")
    if not value or not value.isprintable():
        raise ValueError("must be one line of printable text, not empty")
    return value


def _identifier(value: object) -> str:
    if not _ID.fullmatch(text := _line(value)):
        raise ValueError(f"{text!r} must be letters, digits, '.', '_' or '-' (at most 255)")
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_kind(value)}")
    return value


def _password(value: object) -> str:
    if len(text := _text(value)) > MAX_PASSWORD:
        raise ValueError(f"must have at most {MAX_PASSWORD} characters")
    return text


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("must be a number, 0 or more")
    return value


def _list(value: object) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list, not {_kind(value)}")
    return tuple(value)


def _lines(value: object) -> tuple[str, ...]:
    return tuple(map(_line, _list(value)))


def _line_map(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a map, not {_kind(value)}")
    return {_line(key): _text(content) for key, content in value.items()}


def _public_key(value: object) -> tuple[str, str]:
    keys = _line_map(value)
    if len(keys) != 1:
        raise ValueError("must hold exactly one key, as name: line")
    return next(iter(keys.items()))


def _json_map(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a map, not {_kind(value)}")
    _check_json(value, "")
    return value


def _check_json(value: object, place: str) -> None:
    """Raises ValueError for what JSON has no words for: YAML makes dates and binary data of some plain
    scalars."""
    if isinstance(value, dict):
        for key, content in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{place or 'it'} has a key that is no string: {key!r}")
            _check_json(content, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, content in enumerate(value):
            _check_json(content, f"{place}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place} is no finite number")
    elif value is not None and not isinstance(value, (str, int)):
        raise ValueError(f"{place} is {_kind(value)}, which JSON does not have")


def _base64(value: object) -> bytes:
    text = "".join(_text(value).split())
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error
    if len(content) > MAX_CONTENT:
        raise ValueError(f"has more than {MAX_CONTENT} bytes")
    return content


def _read_content(path: Path) -> bytes:
    """Raises ValueError when it cannot be read whole."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            content = file.read(MAX_CONTENT + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    # A pipe that is open for reading without a writer gives nothing, without an error.
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    if len(content) > MAX_CONTENT:
        raise ValueError(f"{path} has more than {MAX_CONTENT} bytes")
    return content


def _instances(value: object) -> tuple[object, ...]:
    if not (instances := _list(value)):
        raise ValueError("must hold at least one instance")
    return instances


def _content(place: _Place, key: str) -> bytes | None:
    """Content given as key (text), key_base64 or key_file (a path, from the folder of the YAML file on)."""
    forms = [form for form in (key, f"{key}_base64", f"{key}_file") if place.has(form)]
    if len(forms) > 1:
        raise place.error(f"{forms[0]} and {forms[1]} cannot both be given")
    text = place.take(key, lambda value: _text(value).encode(), None)
    binary = place.take(f"{key}_base64", _base64, None)
    folder = place.file.parent
    from_file = place.take(f"{key}_file", lambda value: _read_content(folder / _line(value)), None)
    return next((content for content in (text, binary, from_file) if content is not None), None)


def _files(place: _Place) -> tuple[File, ...]:
    files = []
    none: tuple[object, ...] = ()
    for index, value in enumerate(place.take("files", _list, none)):
        entry = _Place(place.file, f"{place.place}.files[{index}]", value)
        path = entry.need("path", _line)
        content = _content(entry, "content")
        if content is None:
            raise entry.error("one of content, content_base64, content_file is missing")
        entry.end()
        files.append(File(path, content))
    return tuple(files)


def _instance(place: _Place, number: int) -> Instance:
    instance_id = place.need("id", _identifier)
    project_id = place.need("project_id", _identifier)
    name = place.take("name", _line, f"instance-{number}")
    nothing: Mapping[str, Any] = {}
    vendor_data = place.take("vendor_data", _json_map, nothing)
    instance = Instance(
        instance_id=instance_id,
        project_id=project_id,
        name=name,
        hostname=place.take("hostname", _line, name),
        # Nova numbers instances and images for EC2's sake, in hexadecimal.
        ec2_id=place.take("ec2_id", _identifier, f"i-{number:08x}"),
        ami_id=place.take("ami_id", _identifier, "ami-00000001"),
        kernel_id=place.take("kernel_id", _identifier, None),
        ramdisk_id=place.take("ramdisk_id", _identifier, None),
        reservation_id=place.take("reservation_id", _identifier, f"r-{number:08x}"),
        launch_index=place.take("launch_index", _number, 0),
        instance_type=place.take("instance_type", _line, "m1.small"),
        availability_zone=place.take("availability_zone", _line, "nova"),
        local_ipv4=place.take("local_ipv4", _line, None),
        public_ipv4=place.take("public_ipv4", _line, ""),
        security_groups=place.take("security_groups", _lines, ("default",)),
        block_device_mapping=place.take(
            "block_device_mapping", _line_map, {"ami": "vda", "root": "/dev/vda"}
        ),
        public_key=place.take("public_keys", _public_key, None),
        meta=place.take("meta", _line_map, {}),
        admin_pass=place.take("admin_pass", _text, None),
        user_data=_content(place, "user_data"),
        password=place.take("password", _password, ""),
        vendor_data=vendor_data,
        # Nova's default: vendordata_providers = StaticJSON.
        vendor_data2=place.take("vendor_data2", _json_map, {"static": vendor_data}),
        network_data=place.take("network_data", _json_map, nothing),
        files=_files(place),
    )
    place.end()
    return instance


def load_instances(path: str | os.PathLike[str]) -> dict[str, Instance]:
    """All instances of the file, by instance id.

    Raises MetadataApiError that names the file, the place in it and what is wrong; UnsafeFileError when
    others than root and we could have written the file (it decides which project owns an instance).
    """
    file = Path(path)
    try:
        content = read_trusted_file(file, MAX_INSTANCES_FILE)
        # _StrictLoader is a SafeLoader.
        document = yaml.load(content, Loader=_StrictLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise MetadataApiError(f"{file}:{line} {error.problem or 'not YAML'}") from error
    except yaml.YAMLError as error:
        raise MetadataApiError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:
        raise MetadataApiError(f"{file}: not usable YAML: {error}") from error
    except ConfigError as error:
        if type(error) is not ConfigError:
            raise
        raise MetadataApiError(str(error)) from error

    top = _Place(file, "", document)
    instances: dict[str, Instance] = {}
    for index, value in enumerate(top.need("instances", _instances)):
        place = _Place(file, f"instances[{index}]", value)
        instance = _instance(place, index + 1)
        if instance.instance_id in instances:
            raise place.error(f"{instance.instance_id} is given twice", "id")
        instances[instance.instance_id] = instance
    top.end()
    return instances


def dump_json(value: object) -> bytes:
    """JSON as Nova writes it: on one line, other than ASCII escaped."""
    return json.dumps(value).encode("ascii")
