"""What docs/metadata-api.md and the command's help say about the file is true."""

from __future__ import annotations

import re
from pathlib import Path

from fastmeta.cmd.metadata_api import _EPILOG
from fastmeta.metadata_api.instances import load_instances

DOCUMENT = Path(__file__).parents[2] / "docs" / "metadata-api.md"


def load(tmp_path: Path, text: str) -> None:
    file = tmp_path / "instances.yaml"
    file.touch(0o600)
    file.chmod(0o600)
    file.write_text(text)
    assert len(load_instances(file)) == 1


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    match = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert match
    load(tmp_path, match[1])


def test_the_example_of_the_help(tmp_path: Path) -> None:
    match = re.search(r"  instances:\n.*?\n\n", _EPILOG, re.DOTALL)
    assert match
    load(tmp_path, match[0])


def test_every_key_is_documented() -> None:
    source = Path(load_instances.__code__.co_filename).read_text()
    keys = set(re.findall(r'place\.(?:take|need)\("(\w+)"', source)) - {"instances"}
    assert len(keys) > 20
    documented = set(re.findall(r"`(\w+)`", DOCUMENT.read_text()))
    assert keys <= documented
