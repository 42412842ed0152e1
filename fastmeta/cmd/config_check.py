"""``fastmeta config check``: reads what ``fastmeta agent`` would read, and says what comes of it."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator

from oslo_config import cfg

from fastmeta import __version__
from fastmeta.check import places
from fastmeta.check.findings import Finding, Report, State
from fastmeta.check.options import (
    current_user,
    ignored_options,
    used_options,
    values_that_cannot_be_used,
    written_options,
)
from fastmeta.check.records import Records
from fastmeta.conf.doubts import doubts
from fastmeta.conf.settings import Settings, config_files, load
from fastmeta.exceptions import ConfigError, UnsafeFileError
from fastmeta.process import forbid_dumps

SUMMARY = "check: say what a configuration means, and whether the servers that it names answer"

CONFIGURATION = "Configuration"

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
    for name in _FILES:
        for value in getattr(options, name.strip("-").replace("-", "_")):
            others += [name, value]
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
        parser.add_argument(name, action="append", default=[], help="as of fastmeta agent; may be repeated")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the report")
    parser.add_argument("--offline", action="store_true", help="connect to no server")
    return parser


async def _check(report: Report, argv: list[str], *, connect: bool) -> None:
    conf = load(argv, prog="fastmeta config check", version=__version__)
    report.files += config_files(conf)
    written = written_options(conf)
    wrong = list(values_that_cannot_be_used(conf))
    for text in wrong:
        _add(report, State.WRONG, text, ends=True)
    if wrong:
        return
    settings = _settings(report, conf)
    if settings is not None:
        # Before the options are listed: some of [neutron] become known only with the kind of authentication.
        found = [finding async for finding in _servers(conf, settings)] if connect else []
    report.used += used_options(conf, written)
    report.ignored += ignored_options(conf, written, of_the_bus=_options_of_the_bus(conf))
    if settings is None:
        return
    report.findings += places.listeners(settings)
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
        _add(report, State.OK, "nothing is wrong in it")
    return settings


async def _servers(conf: cfg.ConfigOpts, settings: Settings) -> AsyncIterator[Finding]:
    from fastmeta.check import lookups, nova

    for source in (nova.ask(settings), lookups.ask(conf, settings)):
        async for finding in source:
            yield finding


def _options_of_the_bus(conf: cfg.ConfigOpts) -> frozenset[str]:
    """oslo.messaging's options of [DEFAULT], when it is used."""
    if not conf.transport_url:
        return frozenset()
    from fastmeta.bus.connection import import_library

    try:
        library = import_library()
    except ConfigError:
        return frozenset()
    names = set()
    for group, options in library.opts.list_opts():
        for option in options:
            names |= {option.dest} if group is None else set()
            names |= {old.name for old in option.deprecated_opts if old.group == "DEFAULT"}
    return frozenset(names)


def _add(report: Report, state: State, text: str, *, ends: bool = False) -> None:
    report.findings.append(Finding(CONFIGURATION, state, text, ends))
