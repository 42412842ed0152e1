"""The C programs, compiled once for all tests here with every warning an error."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from bench import build, job, processes

Start = Callable[..., int]
RunLoad = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bench-bin")
    return {name: build.compile_program(name, folder, "-Werror") for name in (*build.PROGRAMS, "uring")}


@pytest.fixture
def start(programs: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    """Starts floor or stub on a free port, which is given back; all end with the test."""
    children: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def start_one(name: str, *arguments: object) -> int:
        port = processes.free_port()
        log = (tmp_path / f"{name}.log").open("wb")
        command = [str(programs[name]), str(port), *map(str, arguments)]
        process = processes.start(command, log, {})
        children.append((process, log))
        assert processes.wait_until_listening(port, process, 10)
        return port

    yield start_one
    for process, log in children:
        still_running = process.poll() is None
        processes.end(process)
        log.close()
        assert still_running, "a program ended before its test did"


@pytest.fixture
def start_floor(start: Start, tmp_path: Path) -> Start:
    def start_it(
        upstream: int | str,
        answer_bytes: int = job.ANSWER_HEAD_BYTES + job.ANSWER_BODY_BYTES,
        program: str = "floor",
    ) -> int:
        head = tmp_path / "head"
        head.write_bytes(job.floor_head(80 if isinstance(upstream, str) else upstream))
        return start(program, upstream, answer_bytes, head)

    return start_it


@pytest.fixture
def run_load(programs: dict[str, Path]) -> RunLoad:
    def run(port: int, mode: str, connections: int, count: int, *more: str) -> dict[str, Any]:
        command = [
            str(programs["load"]),
            f"--port={port}",
            f"--mode={mode}",
            f"--connections={connections}",
            f"--count={count}",
            *more,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(result, dict)
        return result

    return run
