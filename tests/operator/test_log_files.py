"""Log files: oslo.log's options with a real ``fastmeta agent``."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from oslo_log import _options

from fastmeta.conf.settings import load

from .kit import Nova
from .logging_agent import FASTMETA, SECONDS, Agent, is_whole, run


def test_without_options_it_is_standard_error(folder: Path, nova: Nova) -> None:
    assert is_whole(run(folder, nova))


def test_a_file(folder: Path, nova: Nova) -> None:
    assert run(folder, nova, f"log_file = {folder}/agent.log") == ""
    assert is_whole((folder / "agent.log").read_text())


def test_a_folder(folder: Path, nova: Nova) -> None:
    """With the name of a file in it, or else that of the program."""
    (folder / "log").mkdir()
    assert run(folder, nova, f"log_dir = {folder}/log", "log_file = agent.log") == ""
    assert run(folder, nova, f"log_dir = {folder}/log") == ""
    assert sorted(path.name for path in (folder / "log").iterdir()) == ["agent.log", "fastmeta.log"]
    assert all(is_whole(path.read_text()) for path in (folder / "log").iterdir())


def test_a_folder_that_is_not_there(folder: Path, nova: Nova) -> None:
    """Said, and nothing is served without a log."""
    config = Agent(folder, nova, f"log_dir = {folder}/log")._config
    done = subprocess.run(
        [FASTMETA, "agent", "--config-file", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "logging cannot be set up" in done.stderr
    assert "Traceback" not in done.stderr


def test_formats(folder: Path, nova: Nova) -> None:
    log = run(
        folder,
        nova,
        "logging_default_format_string = <%(asctime)s> %(message)s",
        "log_date_format = at %H-%M",
    )
    assert all(re.match(r"<at \d\d-\d\d> ", line) for line in log.splitlines())
    assert is_whole(log)


def test_as_json(folder: Path, nova: Nova) -> None:
    messages = [json.loads(line)["message"] for line in run(folder, nova, "use_json = true").splitlines()]
    assert is_whole("\n".join(messages))


def test_levels(folder: Path, nova: Nova) -> None:
    assert run(folder, nova, "default_log_levels = fastmeta=ERROR") == ""


def test_a_configuration(folder: Path, nova: Nova) -> None:
    """Of Python's logging, with all that it can do."""
    path = folder / "logging.conf"
    path.write_text(
        f"""\
[loggers]
keys = root
[handlers]
keys = own
[formatters]
keys = own
[logger_root]
level = INFO
handlers = own
[handler_own]
class = FileHandler
args = ({str(folder / "own.log")!r},)
formatter = own
[formatter_own]
format = own %(message)s
"""
    )
    assert run(folder, nova, f"log_config_append = {path}") == ""
    log = (folder / "own.log").read_text()
    assert is_whole(log)
    assert all(line.startswith("own ") for line in log.splitlines())


def test_options_of_the_library(folder: Path) -> None:
    """oslo.log has all of its own, and reads them itself."""
    path = folder / "empty.conf"
    path.touch()
    conf = load(["--config-file", str(path)], prog="fastmeta", version="0")
    for options in (
        _options.common_cli_opts,
        _options.logging_cli_opts,
        _options.generic_log_opts,
        _options.log_opts,
    ):
        for option in options:
            assert option.dest in conf
