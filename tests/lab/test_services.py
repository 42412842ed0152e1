"""Child processes that say when they are ready, and signals at chosen moments."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmeta.exceptions import LabError
from fastmeta.lab import services
from fastmeta.lab.interrupts import Interrupted, Interrupts
from fastmeta.lab.namespaces import in_thread, run_command
from fastmeta.lab.services import Service, write_private

READY = "from fastmeta.notify import notify; notify('READY=1', 'STATUS=all is well')"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Whether it runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ready(tmp_path: Path) -> None:
    with Service(
        "a", python(f"{READY}; print('hello', flush=True); import time; time.sleep(60)"), tmp_path
    ) as child:
        assert child.status == "all is well"
        assert alive(child.pid)
        deadline = time.monotonic() + 10
        while child.log() != "hello" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert child.log() == "hello"
        pid = child.pid
    assert not alive(pid)
    assert not (tmp_path / "a.notify").exists()


def test_one_that_ends_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"a ended before it was ready; its log:\nsorry"):
        Service("a", python("print('sorry')"), tmp_path).__enter__()
    with pytest.raises(LabError, match="b ended before it was ready"):
        Service("b", ["/no/such/program"], tmp_path).__enter__()


def test_one_that_is_not_ready_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "READY_TIMEOUT", 0.3)
    service = Service("a", python("print('well', flush=True); import time; time.sleep(60)"), tmp_path)
    with pytest.raises(LabError, match="a was not ready after 0 s"):
        service.__enter__()
    assert not alive(service.pid)


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "STOP_TIMEOUT", 0.2)
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; time.sleep(60)"
    with Service("a", python(code), tmp_path) as child:
        pid = child.pid
    assert not alive(pid)


def test_one_dies_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
from collections.abc import Iterator
from pathlib import Path
from fastmeta.lab.services import Service
code = "{READY}; import time; time.sleep(60)"
with Service("a", [sys.executable, "-c", code], Path({str(tmp_path)!r})) as child:
    print(child.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_private_files_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = write_private(tmp_path / "a", "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "secret"
    with pytest.raises(LabError, match="File exists"):
        write_private(path, "")


def test_commands_that_fail_are_explained() -> None:
    with pytest.raises(LabError, match="'no-such-program' is not installed"):
        run_command(["no-such-program"])
    with pytest.raises(LabError, match=r"ls .*/no/such: .*No such file"):
        run_command(["ls", "/no/such"])
    assert run_command(["cat"], "text") == "text"


def test_signals_wait_for_their_moment() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        with interrupts.allowed():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(Interrupted) as raised, interrupts.allowed():
            pytest.fail("not reached")
        assert raised.value.number == signal.SIGTERM
        assert str(raised.value) == "SIGTERM"
        # Once only: what cleans up after the first is not disturbed.
        os.kill(os.getpid(), signal.SIGINT)
        with interrupts.allowed():
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_signals_interrupt_what_they_may() -> None:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    with Interrupts() as interrupts, pytest.raises(Interrupted), interrupts.allowed():
        timer.start()
        time.sleep(30)
    timer.join()
    assert time.monotonic() - begin < 10


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt. A shell without job control starts what runs in its background with SIGINT
    ignored (POSIX, Shell Command Language 2.11), and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_work_in_a_thread_is_finished_before_an_interrupt_goes_on() -> None:
    steps = []

    def work() -> None:
        steps.append("begin")
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        steps.append("end")

    with pytest.raises(KeyboardInterrupt):
        in_thread(work)
    assert steps == ["begin", "end"]
    assert in_thread(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 // 0)
