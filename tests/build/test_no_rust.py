"""Nothing that fastmeta needs at run time (without its extras) is written in Rust."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fastmeta import _core

# What the compiler leaves in everything it links: paths of its own sources, its personality routine, its panics.
RUST_BYTES = (b"/rustc/", b"rust_eh_personality", b"rust_panic", b"RUST_BACKTRACE", b"__rust_alloc")
RUST_GENERATORS = ("maturin", "setuptools-rust", "setuptools_rust")


def find(name: str, path: list[str]) -> metadata.Distribution:
    for distribution in metadata.Distribution.discover(name=name, path=path):
        return distribution
    raise metadata.PackageNotFoundError(name)


def closure(name: str, path: list[str] | None = None) -> dict[str, metadata.Distribution]:
    """A distribution and all that it requires here: markers count, its own extras do not, those that are asked of a
    requirement do."""
    path = sys.path if path is None else path
    found: dict[str, metadata.Distribution] = {}
    visited: set[tuple[str, str]] = set()
    waiting = [(name, "")]
    while waiting:
        wanted, extra = waiting.pop()
        wanted = canonicalize_name(wanted)
        if (wanted, extra) in visited:
            continue
        visited.add((wanted, extra))
        distribution = found.setdefault(wanted, find(wanted, path))
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [
                    (requirement.name, ""),
                    *((requirement.name, more) for more in requirement.extras),
                ]
    return found


def is_rust(data: bytes) -> bool:
    return data[:4] == b"\x7fELF" and any(mark in data for mark in RUST_BYTES)


def rust_in(distribution: metadata.Distribution) -> list[str]:
    """What of it shows that it was made by Rust."""
    found = []
    for line in (distribution.read_text("WHEEL") or "").splitlines():
        if line.startswith("Generator:") and line.split(":")[1].strip().lower().startswith(RUST_GENERATORS):
            found.append(line)
    assert distribution.files is not None, f"{distribution.name} does not say what it holds"
    for file in distribution.files:
        path = Path(str(distribution.locate_file(file)))
        if path.is_file() and is_rust(path.read_bytes()):
            found.append(str(file))
    return found


def test_no_rust_at_run_time() -> None:
    needed = closure("fastmeta")
    # A few that it certainly needs: the walk is one.
    assert {"fastmeta", "oslo-config", "keystoneauth1", "pyroute2", "httptools"} <= set(needed)
    assert {name: marks for name, marks in ((name, rust_in(needed[name])) for name in needed) if marks} == {}
    assert not is_rust(Path(_core.__file__).read_bytes())


def test_a_rust_package_is_found() -> None:
    """ruff, which lints this project, is written in Rust; both of the marks must show it."""
    marks = rust_in(metadata.distribution("ruff"))
    assert any(mark.startswith("Generator:") for mark in marks)
    assert any(mark.endswith("ruff") for mark in marks)


def package(folder: Path, name: str, *requires: str, files: tuple[str, ...] = ()) -> None:
    info = folder / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir()
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1",
        *(f"Requires-Dist: {line}" for line in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def test_the_walk(tmp_path: Path) -> None:
    """Through names spelled differently, markers, extras that are asked for, and circles."""
    package(tmp_path, "top", "Middle_One", "never; python_version < '3'", "extra-only; extra == 'x'")
    package(tmp_path, "middle-one", "bottom[fast]; python_version >= '3'", "top")
    package(tmp_path, "bottom", "quick>=1; extra == 'fast'", "slow; extra == 'slow'")
    package(tmp_path, "quick")
    assert set(closure("top", [str(tmp_path)])) == {"top", "middle-one", "bottom", "quick"}
    package(tmp_path, "broken", "missing")
    with pytest.raises(metadata.PackageNotFoundError):
        closure("broken", [str(tmp_path)])


@pytest.mark.parametrize("mark", RUST_BYTES)
def test_a_shared_object_of_rust_is_found(tmp_path: Path, mark: bytes) -> None:
    package(tmp_path, "oxide", files=("oxide.so", "oxide.txt"))
    (tmp_path / "oxide.so").write_bytes(b"\x7fELF" + b"\0" * 100 + mark + b"\0")
    (tmp_path / "oxide.txt").write_bytes(mark)
    assert rust_in(find("oxide", [str(tmp_path)])) == ["oxide.so"]
    (tmp_path / "oxide.so").write_bytes(b"\x7fELF" + b"\0" * 100)
    assert rust_in(find("oxide", [str(tmp_path)])) == []
