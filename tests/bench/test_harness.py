"""The harness: figures made of samples, verdicts, and one short run from end to end."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import configs, instructions, job, namespaces, parsing, promises, report, rounds, syscalls
from bench.instructions import Instructions
from bench.namespaces import Figures
from bench.parsing import ParseTimes
from bench.peers import COMPARED, FLOOR, IDLE, NONE_IDLE
from bench.promises import judge
from bench.results import Results
from bench.scenarios import SCENARIOS


def sample(
    peer: str, number: int, cpu_us: float, scenario: str = "keep-16", errors: int = 0
) -> rounds.Sample:
    latency = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "p99.9": 1.0, "max": 1.0}
    return rounds.Sample(number, scenario, peer, 100, errors, {}, 0, 1.0, cpu_us, latency)


def traced(peer: str, scenario: str, calls: float) -> syscalls.Count:
    return syscalls.Count(scenario, peer, 100, calls, calls, {}, {}, [])


def results(
    ours: float = 10.9, floor: float = 10.0, calls: float = 6.0, more: float = 4.2, instructed: float = 5900
) -> Results:
    """Of a fastmeta that keeps its promises, but for what is given."""
    found = Results(list(SCENARIOS), list(COMPARED))
    for scenario in SCENARIOS:
        for peer, cpu_us in ((FLOOR, floor), ("fastmeta", ours), ("haproxy", 20.0)):
            found.samples += [sample(peer, number, cpu_us * (1 + number), scenario) for number in range(3)]
        both = (4.1, more) if SCENARIOS[scenario].connections > 1 else (6.0, calls)
        found.counts += [traced(FLOOR, scenario, both[0]), traced("fastmeta", scenario, both[1])]
    for scenario in promises.IDLE_SCENARIOS:
        found.samples += [sample(peer, 0, 10, scenario) for peer in (IDLE, NONE_IDLE)]
    found.instructions.append(Instructions("close-1", "fastmeta", 1, instructed, instructed, {}))
    found.parsing = ParseTimes(176, 199, 250, None)
    found.namespaces = Figures(1000, 0.049, 0.005, 0.03, 63_000_000, 4095.0, 4e6, 109_000_000)
    return found


def many(*, opened: float = 0.04, memory: int = 1, further: float = 1.0, memory_rpc: int = 1) -> Figures:
    """Of 1,000 namespaces that keep their promises, but for what is given."""
    return Figures(1000, opened, memory=memory, further=further, memory_rpc=memory_rpc)


def broken(found: Results) -> list[str]:
    return [verdict.promise for verdict in judge(found) if not verdict.holds]


def test_ratios_are_of_one_round_each():
    samples = [
        sample("a", 0, 10),
        sample("b", 0, 5),
        sample("a", 1, 60),
        sample("b", 1, 20),
        sample("a", 2, 1),
    ]
    assert rounds.ratios(samples, "keep-16", "a", ["b"]) == [2, 3]
    assert rounds.ratios(samples, "keep-16", "a", ["a", "b"]) == [10 / 7.5, 60 / 40, 1]
    assert rounds.ratios(samples, "close-1", "a", ["b"]) == []


def test_spread():
    assert rounds.spread([]) is None
    assert rounds.spread([3]) == rounds.Spread(3, 3, 3, 1)
    assert rounds.spread([1, 2, 3, 4, 100]) == rounds.Spread(3, 2, 4, 5)


def test_promises_that_hold():
    assert broken(results()) == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (results(ours=11.1), ["to the floor, kept alive, 1", "kept alive, 16", "kept alive, 256"]),
        (results(calls=6.1), ["of the loop, kept alive, 1"]),
        (results(calls=9.1), ["of the loop, kept alive, 1", "of the loop, closing, 1"]),
        (results(more=4.3), ["the same, kept alive, 16"]),
        (results(more=4.7), ["the same, kept alive, 16", "the same, closing, 16"]),
        (results(instructed=6001), ["user instructions"]),
        (replace(results(), parsing=ParseTimes(176, 201, None, None)), ["head parse"]),
        (replace(results(), namespaces=many(opened=0.051)), ["namespaces opened"]),
        (replace(results(), namespaces=many(memory=64_000_001)), ["of the service"]),
        (replace(results(), namespaces=many(memory_rpc=110_000_001)), ["lookup = rpc"]),
        (replace(results(), namespaces=many(further=4097.0)), ["of each further"]),
    ],
)
def test_promises_that_do_not_hold(found, expected):
    names = broken(found)
    assert len(names) == len(expected)
    assert all(part in name for part, name in zip(expected, names, strict=True))


def test_idle_listeners_that_cost_break_a_promise():
    found = results()
    found.samples.append(sample(IDLE, 1, 13, "keep-16"))
    found.samples.append(sample(NONE_IDLE, 1, 10, "keep-16"))
    assert broken(found) == ["CPU/request with 1,000 idle listeners to none, kept alive, 16"]


def test_a_close_call_is_called_one():
    found = results()
    found.samples += [sample("fastmeta", 3, 50, "keep-1"), sample(FLOOR, 3, 40, "keep-1")]
    first = judge(found)[0]
    assert first.holds is True
    assert first.close_call
    assert "holds (close" in report.promises([first])
    assert not judge(results())[0].close_call


def test_wrong_answers_break_a_promise():
    found = results()
    found.samples.append(sample("fastmeta", 3, 10, errors=1))
    assert broken(found) == ["wrong or missing answers"]


def test_peers_stand_beside_the_promises():
    text = report.promises(judge(results()))
    for part in (
        "haproxy 2.00",
        "llhttp 250",
        "ip netns exec 5,000, haproxy 30,000 (extrapolated",
        "haproxy 4,000",
    ):
        assert part in text


def test_what_was_not_measured_is_said_and_is_no_promise_kept():
    verdicts = judge(Results(list(SCENARIOS), [FLOOR]))
    assert [verdict.holds for verdict in verdicts] == [None] * len(judge(results()))
    assert report.promises(verdicts).count("NOT MEASURED") == len(verdicts)


def test_figures_name_every_scenario_and_peer():
    text = report.figures(results())
    for scenario in SCENARIOS.values():
        assert scenario.title in text
    assert text.count("  floor again") == len(SCENARIOS)


def test_system_calls_are_tallied_by_thread_and_name():
    trace = (
        "7 epoll_wait(3,  <unfinished ...>\n"
        "9 futex(0x1, FUTEX_WAIT) = 0\n"
        "7 <... epoll_wait resumed>[], 256, -1) = 1\n"
        '7 recvfrom(5, ""..., 65536, 0, NULL, NULL) = 176\n'
        "7 --- SIGINT ---\n"
        "7 +++ exited with 0 +++\n"
    )
    count = syscalls.tally(trace, "floor", "keep-1", 2)
    assert (count.all_threads, count.busiest_thread) == (1.5, 1)
    assert count.by_name == {"epoll_wait": 0.5, "recvfrom": 0.5, "futex": 0.5}
    assert count.busiest_by_name == {"epoll_wait": 0.5, "recvfrom": 0.5}
    assert len(count.excerpt) == 2
    with pytest.raises(syscalls.StraceError):
        syscalls.tally("", "floor", "keep-1", 2)


def test_instructions_are_those_of_each_function_alone():
    dump = "thread: 2\nfn=a\n10 5\n13 3\ncfn=b\ncalls=7 20\n11 100\n\nfn=b\n20 100\n"
    assert instructions.by_function(dump) == {"a": 8, "b": 100}


def test_heads_are_parsed():
    found = parsing.measure(0)
    assert found.head_bytes == len(job.TYPICAL_HEAD) == 176
    assert found.fastmeta > 0
    assert found.llhttp is not None
    assert found.httptools is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make namespaces")
def test_many_namespaces(tmp_path: Path):
    """In a process of its own: it moves into a mount namespace for good."""
    file = tmp_path / "result.json"
    command = [
        sys.executable,
        "-m",
        "bench",
        "--part=namespaces",
        "--namespaces=22",
        "--rounds=1",
        f"--json={file}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert "GAP" not in done.stdout
    document = json.loads(file.read_text())
    figures = document["namespaces"]
    assert figures["number"] == 22
    assert all(value is not None for value in figures.values())
    assert figures["opened"] > 0
    # One of each is a whole process, the other a part of one.
    assert figures["further"] < figures["haproxy_memory"] < figures["memory"] < figures["memory_rpc"]
    assert {one["peer"] for one in document["samples"]} == {IDLE, NONE_IDLE}
    assert not any(one["errors"] for one in document["samples"])
    # None was ever where others could see it.
    folder = Path("/run/netns")
    assert not any((folder / name).exists() for name in namespaces.names(66))


@pytest.mark.parametrize("scenario", ["keep-1", "close-16", "fresh-1"])
def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], scenario: str):
    file = tmp_path / "result.json"
    options = ["--rounds=2", "--seconds=0.05", "--part=cpu", f"--scenario={scenario}", f"--json={file}"]
    peers = ["--peer=floor", "--peer=floor again"]
    assert command.main([*options, *peers]) == 0
    output = capsys.readouterr().out
    assert "GAP" not in output
    document = json.loads(file.read_text())
    assert {"time", "command", "commit", "machine", "versions", "promises", "gaps"} < document.keys()
    assert len(document["samples"]) == 4
    for one in document["samples"]:
        assert one["scenario"] == scenario
        assert one["requests"] > 0
        assert one["errors"] == 0
        assert one["cpu_us"] > 0


def test_a_peer_that_does_not_start_is_a_gap_and_fails_the_gate(capsys: pytest.CaptureFixture[str]):
    options = ["--rounds=1", "--seconds=0.02", "--part=cpu", "--scenario=keep-1", "--gate"]
    assert command.main([*options, "--peer=floor", "--peer=fastmeta", "--fastmeta=false"]) == 1
    assert "GAP: fastmeta: not measured: fastmeta did not get ready" in capsys.readouterr().out


@pytest.mark.skipif(
    shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None, reason="haproxy is not installed"
)
def test_haproxy_takes_its_configuration(tmp_path: Path):
    file = tmp_path / "haproxy.cfg"
    file.write_text(configs.haproxy(20001, 20002))
    subprocess.run(["/usr/sbin/haproxy", "-c", "-f", file], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed")
def test_nginx_takes_its_configuration(tmp_path: Path):
    file = tmp_path / "nginx.conf"
    file.write_text(configs.nginx(20001, 20002, tmp_path))
    subprocess.run(["/usr/sbin/nginx", "-t", "-e", "stderr", "-c", file], check=True, capture_output=True)
