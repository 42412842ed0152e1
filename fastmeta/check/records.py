"""Warnings that our own parts log while they are tried: they are findings, too."""

from __future__ import annotations

import logging
from types import TracebackType


class Records(logging.Handler):
    """While entered it keeps the texts of what fastmeta logs as a warning; nothing of it is printed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._logger = logging.getLogger("fastmeta")

    def __enter__(self) -> Records:
        self._logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.texts.append(record.getMessage())
