"""The harness: figures made of samples, verdicts, and one short run from end to end."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import __main__ as command
from bench import configs, report, rounds, syscalls
from bench.promises import judge
from bench.results import Results
from bench.scenarios import SCENARIOS


def sample(
    peer: str, number: int, cpu_us: float, scenario: str = "keep-16", errors: int = 0
) -> rounds.Sample:
    latency = {"p50": 1.0, "p90": 1.0, "p99": 1.0, "p99.9": 1.0, "max": 1.0}
    return rounds.Sample(number, scenario, peer, 100, errors, {}, 0, 1.0, cpu_us, latency)


def traced(peer: str, scenario: str, calls: float) -> syscalls.Count:
    return syscalls.Count(scenario, peer, 100, calls, calls, {}, [])


def results(ours: float, floor: float = 10.0, haproxy: float = 20.0, calls: float = 4.2) -> Results:
    found = Results(list(SCENARIOS), ["floor", "floor again", "fastmeta", "haproxy"])
    for peer, cpu_us in (("floor", floor), ("fastmeta", ours), ("haproxy", haproxy)):
        found.samples += [sample(peer, number, cpu_us * (1 + number)) for number in range(3)]
    for scenario in ("keep-16", "close-16"):
        found.counts += [traced("floor", scenario, 4.1), traced("fastmeta", scenario, calls)]
    return found


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
    assert [verdict.holds for verdict in judge(results(11.4))] == [True] * 5


@pytest.mark.parametrize(
    ("found", "broken"),
    [
        (results(11.6), [0]),
        (results(11.4, haproxy=14), [1]),
        (results(11.4, calls=4.3), [2]),
        (results(11.4, calls=4.7), [2, 3]),
    ],
)
def test_promises_that_do_not_hold(found, broken):
    assert [i for i, verdict in enumerate(judge(found)) if verdict.holds is False] == broken


def test_a_close_call_is_called_one():
    found = results(11.4)
    found.samples += [sample("fastmeta", 3, 50), sample("floor", 3, 40)]
    first = judge(found)[0]
    assert first.holds is True
    assert first.close_call
    assert "holds (close" in report.promises([first])
    assert not judge(results(11.4))[0].close_call


def test_wrong_answers_break_a_promise():
    found = results(11)
    found.samples.append(sample("fastmeta", 3, 11, errors=1))
    assert judge(found)[4].holds is False


def test_what_was_not_measured_is_said_and_is_no_promise_kept():
    verdicts = judge(Results(list(SCENARIOS), ["floor"]))
    assert [verdict.holds for verdict in verdicts] == [None] * 5
    assert report.promises(verdicts).count("NOT MEASURED") == 5


def test_figures_name_every_scenario_and_peer():
    text = report.figures(results(11))
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
    assert len(count.excerpt) == 2
    with pytest.raises(syscalls.StraceError):
        syscalls.tally("", "floor", "keep-1", 2)


@pytest.mark.parametrize("scenario", ["keep-1", "close-16", "fresh-1"])
def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], scenario: str):
    file = tmp_path / "result.json"
    options = ["--rounds=2", "--seconds=0.05", "--no-strace", f"--scenario={scenario}", f"--json={file}"]
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
    options = ["--rounds=1", "--seconds=0.02", "--no-strace", "--scenario=keep-1", "--gate"]
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
