"""Figures of bench.lookups made of samples, and what it says when it cannot measure."""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path

import pytest

from bench import lookup_figures, lookups
from bench.lookup_figures import BEHIND, KEYSTONE, NEUTRON, PROXIES, Figures, Idle, Single, Storm
from bench.lookup_peers import TITLES
from bench.peers import PeerMissing

CPU = dict.fromkeys((*NEUTRON, *BEHIND, *KEYSTONE, *PROXIES), 0.25)


def storm(peer: str, run: int = 0, calls: int = 2, failed: int = 0, guests: int = 10) -> Storm:
    answers = [("200", 0.1 * number) for number in range(1, guests - failed + 1)]
    answers += [("503", 9.0)] * failed
    counted = {"get_ports": calls, "GET /v2.0/ports": 1, "GET /": 7, "get_networks": 5}
    return Storm(run, peer, guests, answers, counted, 0, CPU, 1.0, 0.5)


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_only_questions_for_ports_are_calls():
    assert storm("rpc").asked == 3


def test_failures_and_times_of_a_storm():
    found = storm("stock", failed=3)
    assert (found.failed, found.last, found.kinds()) == (3, 9.0, {"200": 7, "503": 3})
    assert found.middle == pytest.approx(0.4)  # of those that were answered
    assert storm("stock", failed=10).middle is None


def test_storms_show_medians_and_extremes():
    figures = Figures([storm("rpc", run, calls) for run, calls in enumerate((1, 9, 2))])
    figures.storms.append(storm("stock", failed=10))
    shown = rows(lookup_figures.storms(figures, [10, 100], ["rpc", "stock"], TITLES))
    assert shown[1] == "10 fastmeta, rpc 3 (2 to 10) 0.50 0.50 0.25 0.25 0 0.55 1.00"
    assert shown[2] == "10 stock pair 3 0.50 0.50 0.25 0.25 10 - 9.00"
    assert shown[3] == "100 fastmeta, rpc - - - - - - - -"
    assert lookup_figures.failures(figures, TITLES).endswith("stock pair, 10 guests, run 1: 10 503")
    assert lookup_figures.failures(Figures([storm("rpc")]), TITLES) == ""


def test_from_a_miss_to_an_identity_is_the_difference_of_two_requests():
    figures = Figures(
        singles=[
            Single(0, "rest", [0.030, 0.031], [0.001, 0.003], 0.5),
            Single(1, "rest", [0.032], [0.002], 0.5),
            Single(0, "stock", [0.02], [0.02], 0.5),
        ]
    )
    shown = rows(lookup_figures.singles(figures, ["rest", "rpc", "stock"], TITLES))
    assert shown[1] == "fastmeta, rest 31.0 (30.5 to 31.5) 2.0 (1.5 to 2.5) 29.0 (28.5 to 29.5)"
    assert shown[2] == "fastmeta, rpc - - -"
    assert shown[3] == "stock pair 20.0 (20.0 to 20.0) 20.0 (20.0 to 20.0) -"


def test_idle_is_for_each_second():
    figures = Figures(idle=[Idle("rpc", 2.0, CPU)])
    assert rows(lookup_figures.idle(figures, ["rpc"], TITLES))[1] == "fastmeta, rpc 250.0 250.0 125.0 125.0"


def test_figures_are_json():
    figures = Figures([storm("rpc")], [Single(0, "rpc", [0.1], [0.2], 0.5)], [Idle("rpc", 2.0, CPU)], ["gap"])
    found = json.loads(json.dumps(figures.as_dict()))
    assert found["storms"][0]["answers"][0] == ["200", 0.1]
    assert found["gaps"] == ["gap"]


def test_without_a_stack_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert lookups.main(["--folder", str(tmp_path), "--environment", str(tmp_path)]) == 2
    assert "make test-openstack sets it up" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [["--runs", "0"], ["--guests", "0"], ["--guests", "5000"], ["--limit", "0"]]
)
def test_wrong_options(wrong: list[str]):
    with pytest.raises(SystemExit) as ended:
        lookups.parse(wrong)
    assert ended.value.code == 2


def test_two_do_not_work_with_one_stack(tmp_path: Path):
    options = lookups.parse(["--folder", str(tmp_path), "--environment", str(tmp_path)])
    with (tmp_path / "bench.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(PeerMissing, match=r"another bench\.lookups"),
            lookups.running_stack(options, contextlib.nullcontext),
        ):
            pass
