"""``fastmeta config check``: reads what ``fastmeta agent`` would read, and says what comes of it."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from oslo_config import cfg

from fastmeta import __version__
from fastmeta.check import places
from fastmeta.check.findings import Finding, Report, State
from fastmeta.check.options import (
    current_user,
    files_in_order,
    ignored_options,
    used_options,
    values_that_cannot_be_used,
    written_options,
)
from fastmeta.check.records import Records
from fastmeta.conf.doubts import doubts
from fastmeta.conf.settings import Settings, load
from fastmeta.exceptions import ConfigError, UnsafeFileError
from fastmeta.process import forbid_dumps

SUMMARY = "check: say what a configuration means, and whether the servers that it names answer"

CONFIGURATION = "Configuration"

PATIENCE = 55.0
"""Seconds that all servers together have."""

_FILES = ("--config-file", "--config-dir")

_DESCRIPTION = """\
Reads the configuration as fastmeta agent would, with the same arguments, and says which options are set and where,
which have no effect and why, and what is wrong or doubtful. Then it connects to each server that the agent would use:
Nova's metadata API, and Keystone with Neutron's API or the message bus; and looks for the namespaces to listen in.
Takes a minute at most.

It changes nothing, and does not touch an agent that is running. Run it as the user that the agent runs as: whose a
file is, and who may read it, counts.

Exit status: 0 all is right (there may be doubts), 1 something is wrong that the agent would start with all the same,
2 the agent would not start, or the arguments make no sense.
"""


def main(argv: list[str]) -> int:
    """See _DESCRIPTION for the exit status. stdout has the report."""
    options, others = _parser().parse_known_args(argv)
    others += options.files
    forbid_dumps()  # before the secret is read
    # oslo.messaging and keystoneauth1 log, too; what counts is in the report.
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    report = Report(__version__, current_user())
    try:
        asyncio.run(_check(report, others, connect=not options.offline))
    except ConfigError as error:
        _add(report, State.WRONG, str(error), ends=True)
        if isinstance(error, UnsafeFileError):
            _add(
                report,
                State.NOTE,
                f"this was checked as {report.user}: is that the user that the agent runs as?",
            )
    print(report.as_json() if options.format == "json" else report.as_text(), flush=True)
    return report.status


class _InOrder(argparse.Action):
    """Keeps options with their values in the order in which they are given: of files and folders the last one wins."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = [*getattr(namespace, self.dest), option_string, values]
        setattr(namespace, self.dest, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastmeta config",
        usage="fastmeta config check [--config-file FILE] [--config-dir FOLDER] [--format {text,json}] [--offline]",
        description=_DESCRIPTION,
        epilog="All other arguments are those of fastmeta agent.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=["check"])
    # Known here so that their values are not taken for the action, wherever they stand.
    for name in _FILES:
        parser.add_argument(
            name, action=_InOrder, dest="files", default=[], help="as of fastmeta agent; may be repeated"
        )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the report")
    parser.add_argument("--offline", action="store_true", help="connect to no server")
    return parser


async def _check(report: Report, argv: list[str], *, connect: bool) -> None:
    conf = load(argv, prog="fastmeta config check", version=__version__)
    report.files += files_in_order(conf, argv)
    written = written_options(report.files)
    wrong = list(values_that_cannot_be_used(conf))
    for text in wrong:
        _add(report, State.WRONG, text, ends=True)
    if wrong:
        return
    settings = _settings(report, conf)
    if settings is not None:
        # Before the options are listed: some of [neutron] become known only with the kind of authentication.
        found = await _servers(conf, settings) if connect else []
    of_the_bus = _options_of_the_bus(conf)
    report.used += used_options(conf, written, of_the_bus)
    report.ignored += ignored_options(conf, written, of_the_bus)
    if settings is None:
        return
    report.findings += places.listeners(settings)
    report.findings += places.discovery(settings)
    report.findings += found
    report.findings += places.log_files(conf)


def _settings(report: Report, conf: cfg.ConfigOpts) -> Settings | None:
    """None when the agent would not start with them."""
    # It loads the compiled core, which other commands and --help need not.
    from fastmeta.check import nova

    try:
        settings = Settings.from_conf(conf)
        with Records() as records:  # of a certificate that ends soon
            nova.check_certificates(settings)
    except UnsafeFileError:
        raise
    except ConfigError as error:
        _add(report, State.WRONG, str(error), ends=True)
        return None
    for doubt in [*doubts(conf, settings), *records.texts]:
        _add(report, State.DOUBT, doubt)
    if not any(finding.part == CONFIGURATION for finding in report.findings):
        _add(report, State.OK, "every option can be used")
    return settings


async def _servers(conf: cfg.ConfigOpts, settings: Settings) -> list[Finding]:
    """Both at once, so that the whole takes no longer than the slower one."""
    from fastmeta.check import lookups, nova

    parts = [(nova.PART, nova.ask(settings)), (lookups.PART, lookups.ask(conf, settings))]
    found = await asyncio.gather(*(_in_time(part, source) for part, source in parts))
    return [finding for findings in found for finding in findings]


async def _in_time(part: str, source: AsyncIterator[Finding]) -> list[Finding]:
    """What it finds in PATIENCE; each server has less, but several times of several options may come together."""
    found: list[Finding] = []

    async def gather() -> None:
        async for finding in source:
            found.append(finding)

    try:
        await asyncio.wait_for(gather(), PATIENCE)
    except asyncio.TimeoutError:
        found.append(Finding(part, State.WRONG, f"not everything has been answered in {PATIENCE:g} s"))
    return found


def _options_of_the_bus(conf: cfg.ConfigOpts) -> dict[tuple[str, str], bool]:
    """oslo.messaging's options, by section and name, and whether they are secret; none when it is not used."""
    if not conf.transport_url:
        return {}
    from fastmeta.bus.connection import import_library

    try:
        library = import_library()
    except ConfigError:
        return {}
    found: dict[tuple[str, str], bool] = {}
    for group, options in library.opts.list_opts():
        section = str(getattr(group, "name", group) or "DEFAULT")
        for option in options:
            names = {(section, option.dest)}
            names |= {(old.group or section, old.name or option.dest) for old in option.deprecated_opts}
            found |= dict.fromkeys(names, bool(option.secret))
    return found


def _add(report: Report, state: State, text: str, *, ends: bool = False) -> None:
    report.findings.append(Finding(CONFIGURATION, state, text, ends))
