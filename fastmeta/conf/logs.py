"""oslo.log, set up by its own options; what of them cannot be done here is done in another way, and said."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from fastmeta import __version__
from fastmeta.exceptions import ConfigError


def set_up_logging(conf: cfg.ConfigOpts) -> None:
    """Raises ConfigError when there would be no log as the options want it."""
    # Its errors are not for the message bus: conf.stock says so of this option.
    instead: dict[str, Any] = {"publish_errors": False}
    if "watch_log_file" in conf:  # up to oslo.log 7; from 6 on an error, though it would be done all the same
        instead["watch_log_file"] = False
    if not _can_use_journal(conf):
        # As a service of systemd we have the journal there, too.
        instead |= {"use_journal": False, "use_stderr": True}
    for name, value in instead.items():
        conf.set_override(name, value)
    try:
        logging.setup(conf, "fastmeta", __version__)
    except (logging.LogConfigError, OSError, RuntimeError, TypeError, ValueError) as error:
        # What oslo.log and Python's logging say of a value that they cannot use is no error of theirs.
        raise ConfigError(f"logging cannot be set up: {error}") from error
    finally:
        for name in instead:  # or a reload would find them changed
            conf.clear_override(name)


def doubts_of_the_log(conf: cfg.ConfigOpts) -> Iterator[str]:
    """As of conf.doubts."""
    if not _can_use_journal(conf):
        yield (
            "use_journal is true, and the package systemd-python is not installed: the log goes to standard error "
            "instead, which systemd hands to the journal, but without the fields of a record"
        )


def _can_use_journal(conf: cfg.ConfigOpts) -> bool:
    """Or need not."""
    return not conf.use_journal or importlib.util.find_spec("systemd") is not None
