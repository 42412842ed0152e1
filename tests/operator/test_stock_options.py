"""The table of what the stock agent's options mean here, row by row against what is done with them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta.check.options import ignored_options, used_options, written_options
from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import load
from fastmeta.conf.stock import STOCK_OPTIONS, row_of
from fastmeta.conf.stock_rows import ANY, Effect, StockOption

from .kit import write_config

ROOT = Path(__file__).resolve().parents[2]
TRANSPORT = "rabbit://127.0.0.1:9/"
RUNNING = ("operator", "relay", "service")
"""Folders of tests whose agents are processes that run, with files as an operator writes them."""


def line_of(row: StockOption) -> str:
    return row.example if row.is_section else f"{row.name} = {row.example}"


def name_of(row: StockOption) -> str:
    return row.example.split(" = ")[0] if row.is_section else row.name


def configuration(folder: Path, *rows: StockOption) -> RunningConfiguration:
    """One in which the options of the rows are all that is special. Nothing is read that is not in its file."""
    folder.mkdir(exist_ok=True)
    more = [f"[{row.section}]\n{line_of(row)}" for row in rows]
    path = write_config(
        folder, default=[f"transport_url = {TRANSPORT}"], fastmeta=["lookup = static"], more="\n".join(more)
    )

    def read() -> object:
        return load(["--config-file", str(path)], prog="fastmeta", version="0")

    return RunningConfiguration(read(), read)  # type: ignore[arg-type]


def values(made: RunningConfiguration) -> dict[str, object]:
    """Of everything that decides what is done, but for where the files are."""
    settings = {
        name: getattr(made.settings, name) for name in made.settings.__slots__ if name != "ports_file"
    }
    own = {"state_path": made.conf.state_path, "[fastmeta] ports_file": "", "config_file": ""}
    return dict(made._values) | settings | own


ROWS = [pytest.param(row, id=row.shown) for row in STOCK_OPTIONS]


@pytest.mark.parametrize("row", ROWS)
def test_a_row(folder: Path, row: StockOption) -> None:
    """One with a meaning changes what is in force, one without changes nothing; the check says which it is.

    Of what oslo.messaging reads by itself only the latter can be seen here.
    """
    plain, made = configuration(folder / "plain", *()), configuration(folder / "made", row)
    before, after = values(plain), values(made)
    different = {name for name in after if after[name] != before.get(name)}
    library = row.section == "oslo_messaging_rabbit" or row.name == "control_exchange"
    of_the_bus = {(row.section, name_of(row)): False} if library else {}
    written = written_options([str(folder / "made" / "fastmeta.conf")])
    used = [one.name for one in used_options(made.conf, written, of_the_bus)]
    ignored = [
        (names, one.why) for one in ignored_options(made.conf, written, of_the_bus) for names in one.names
    ]
    if row.effect is Effect.NONE:
        assert different <= {row.name}, "where the library has it, nothing else may depend on it"
        assert ignored == [(_shown(row), row.why)]
    else:
        assert ignored == []
        assert different or of_the_bus, "the option is not read"
        assert any(name == _shown(row) for name in used) or row.why.startswith("removed from Neutron")


def _shown(row: StockOption) -> str:
    name = name_of(row)
    return name if row.section == "DEFAULT" else f"[{row.section}] {name}"


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_its_test(row: StockOption) -> None:
    """One with the same meaning names a test that is there, of an agent that runs, in a file that names the option; one
    without effect has a reason, and is among those that test_options_without_effect.py starts an agent with."""
    if row.effect is Effect.NONE:
        assert row.why
        assert not row.shown_by
        return
    path, _, name = row.shown_by.partition("::")
    assert path.split("/")[1] in RUNNING
    text = (ROOT / path).read_text()
    tests = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert name.startswith("test_")
    assert name in tests
    assert (row.section if row.is_section else row.name) in text, "nothing of it is about this"


def test_no_option_has_two_rows() -> None:
    names = [(row.section, row.name) for row in STOCK_OPTIONS]
    assert len(set(names)) == len(names)
    assert all(section == "DEFAULT" or section == section.lower() for section, _ in names)
    assert not {section for section, name in names if name == ANY} & {
        section for section, name in names if name != ANY
    }


def test_a_section_is_the_same_in_any_case() -> None:
    assert row_of("AGENT", "report_interval") is row_of("agent", "report_interval") is not None
    assert row_of("default", "debug") is None, "but for this one, as oslo.config compares them"


def test_the_files_are_up_to_date() -> None:
    """docs/options-of-neutron.md, docs/configuration.md and the sample configuration."""
    command = [sys.executable, str(ROOT / "tools" / "config_reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_sample_says_the_defaults(folder: Path) -> None:
    """Each line of it may be taken in as it is, and is then what it was."""
    lines = (ROOT / "etc" / "fastmeta.conf.sample").read_text().splitlines()
    assert not [line for line in lines if line and line[0] not in "#["], "nothing is set in it"
    taken = [line.lstrip("#") for line in lines if re.match(r"#[a-z_]+ =(?! <None>)", line)]
    assert len(taken) > 40
    sample = folder / "sample.conf"
    text = [line[1:] if re.match(r"#[a-z_]+ =(?! <None>)", line) else line for line in lines]
    # An empty listen is one more listener, and none at all.
    sample.write_text("\n".join(line for line in text if not line.startswith("listen =")))
    empty = folder / "empty.conf"
    empty.touch()
    read = [load(["--config-file", str(path)], prog="fastmeta", version="0") for path in (sample, empty)]
    groups = ("fastmeta", "metadata_rate_limiting", "neutron", "agent")
    for group in groups:
        assert dict(read[0][group]) == dict(read[1][group])
    for name in read[1]:
        if name not in (*groups, "config_file"):
            assert read[0][name] == read[1][name], name
