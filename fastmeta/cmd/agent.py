"""``fastmeta agent``: the service."""

from __future__ import annotations

import functools
import logging as python_logging
import sys

from oslo_log import log as logging

from fastmeta import __version__
from fastmeta.conf.logs import set_up_logging
from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import load
from fastmeta.exceptions import FastmetaError
from fastmeta.process import forbid_dumps

SUMMARY = "serve the metadata addresses of networks and routers"

LOG = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again. argv: oslo.config's, above all
    --config-file. Raises FastmetaError."""
    forbid_dumps()  # before the secret is read
    load_again = functools.partial(load, argv, prog="fastmeta agent", version=__version__)
    conf = load_again()
    set_up_logging(conf)
    configuration = RunningConfiguration(conf, load_again)
    settings = configuration.settings
    # The compiled core is loaded only when there is something to serve.
    from fastmeta.agent import serve

    LOG.info(
        "fastmeta agent %s starts: %d listeners%s%s, lookup %s",
        __version__,
        len(settings.listen),
        f", {settings.relay.path}" if settings.relay is not None else "",
        ", others as they are found" if settings.discover is not None else "",
        settings.lookup,
    )
    failure: FastmetaError | None = None
    try:
        serve(configuration)
    except FastmetaError as error:
        failure = error
    if failure is not None:
        # A log elsewhere may be all that an operator sees of a service; where standard error is, cmd.main says it.
        # (Outside of except, where oslo.log would say it twice.)
        if _logs_elsewhere():
            LOG.critical("%s", failure)
        raise failure
    return 0


def _logs_elsewhere() -> bool:
    """Whether the log goes to another place than our standard output and standard error."""
    ours = (sys.stdout, sys.stderr)
    handlers = python_logging.getLogger().handlers
    return any(getattr(handler, "stream", None) not in ours for handler in handlers)
