"""What it costs to parse a request's head: the core's parser, llhttp, and httptools as Python calls it."""

import json
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import job, processes
from bench.build import BINARIES, compile_parser

ROUNDS = 101
PARSES = 200


class ParseError(Exception):
    """The program that parses did not do its work."""


@dataclass(frozen=True)
class ParseTimes:
    """Nanoseconds for a head of so many bytes. None: not there."""

    head_bytes: int
    fastmeta: float
    llhttp: float | None
    httptools: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(core: int) -> ParseTimes:
    """Raises BuildError and ParseError."""
    program = compile_parser(BINARIES)
    library = _library()
    with tempfile.NamedTemporaryFile(prefix="fastmeta-head-") as file:
        file.write(job.TYPICAL_HEAD)
        file.flush()
        command = processes.pinned(core, [str(program), file.name, *([library] if library else [])])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise ParseError(done.stderr.strip() or f"exit status {done.returncode}")
    found = json.loads(done.stdout)
    return ParseTimes(found["head_bytes"], found["fastmeta"], found["llhttp"], _httptools())


def _library() -> str | None:
    """The shared object of httptools, which has llhttp in it."""
    try:
        from httptools.parser import parser
    except ImportError:
        return None
    return str(Path(parser.__file__))


class _Callbacks:
    """What a server needs of a head: its target and its headers."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def _httptools() -> float | None:
    try:
        import httptools
    except ImportError:
        return None
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(PARSES):
            httptools.HttpRequestParser(_Callbacks()).feed_data(job.TYPICAL_HEAD)
        times.append((time.perf_counter_ns() - start) / PARSES)
    return statistics.median(times)
