"""What is made of results that were written: comparisons, the page, and the figures of many networks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import namespaces, scale
from bench.compare import Change, changes, text
from bench.page import page
from bench.rounds import Sample

ORIGIN = {
    "time": "2026-01-01T00:00:00+00:00",
    "commit": "abc",
    "command": "python -m bench",
    "machine": {"processor": "a <fast> one", "cores": 2, "kernel": "6.1", "load_average": [0.5, 0.5, 0.5]},
}


def document(
    ours: float = 1.05, again: float = 1.0, instructions: float = 5900, **more: Any
) -> dict[str, Any]:
    """Of a run in which fastmeta needs so much more CPU than the floor, and the floor so much more than itself."""
    samples = []
    for number in range(20):
        cost = 10 * (1 + 0.01 * (number % 3))
        for peer, factor in (("floor", 1.0), ("floor again", again), ("fastmeta", ours), ("haproxy", 1.5)):
            latency = {"p50": 30.0 * factor, "p90": 40.0, "p99": 60.0, "p99.9": 90.0, "max": 200.0}
            one = Sample(number, "keep-16", peer, 100, 0, {}, 0, 1.0, cost * factor, latency)
            samples.append(one.as_dict())
    counted = [{"scenario": "close-1", "peer": "fastmeta", "busiest_thread": instructions}]
    return {**ORIGIN, "samples": samples, "instructions": counted, "gaps": [], **more}


def networks(memory: int = 30_000_000) -> list[dict[str, Any]]:
    measured = scale.Figures("haproxy", 100, 4.0, None, 400_000_000, 0.001)
    figures = [
        scale.Figures("fastmeta", 1, 0.2, 0.2, 24_000_000, 0.0001, 40e-6, [1e-4], 0),
        scale.Figures("fastmeta", 1000, 0.3, 0.3, memory, 0.0001, 40e-6, [1e-4], 0),
        measured,
        scale.extrapolated(measured, 1000),
    ]
    return scale.Results(figures, []).as_dict()["figures"]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command_line = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=100, check=False)


def of(found: list[Change], what: str) -> Change:
    [change] = [change for change in found if change.what == what]
    return change


class TestCompare:
    def test_what_is_within_noise_is_equal(self) -> None:
        """Noise is what the floor differs from itself, in either run."""
        assert {change.verdict for change in changes(document(), document())} == {"equal"}
        found = list(changes(document(1.05), document(1.08, again=1.05)))
        assert of(found, "CPU to the floor, keep-16 fastmeta").verdict == "equal"

    def test_what_is_beyond_noise_is_said(self) -> None:
        slower = of(list(changes(document(1.05), document(1.15))), "CPU to the floor, keep-16 fastmeta")
        assert (round(slower.before, 2), round(slower.after, 2), slower.verdict) == (1.05, 1.15, "WORSE")
        assert of(list(changes(document(1.15), document(1.05))), slower.what).verdict == "better"

    def test_counts_are_exact(self) -> None:
        what = "user instructions, close-1 fastmeta"
        for after, verdict in ((5901, "equal"), (5950, "WORSE"), (5800, "better")):
            assert of(list(changes(document(), document(instructions=after))), what).verdict == verdict

    def test_many_networks(self) -> None:
        """What was extrapolated is not compared."""
        found = list(changes({"figures": networks()}, {"figures": networks(40_000_000)}))
        assert of(found, "MB, fastmeta, 1,000 networks").verdict == "WORSE"
        assert of(found, "MB, haproxy, 100 networks").verdict == "equal"
        assert not [change for change in found if "haproxy, 1,000" in change.what]
        assert "WORSE" in text(found).splitlines()[1]

    def test_as_a_command(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before, after = tmp_path / "before.json", tmp_path / "after.json"
        before.write_text(json.dumps(document(1.05)))
        after.write_text(json.dumps(document(1.2)))
        assert command.main(["compare", str(before), str(after)]) == 0
        assert "WORSE" in capsys.readouterr().out
        assert command.main(["compare", "--gate", str(before), str(after)]) == 1
        assert command.main(["compare", "--gate", str(after), str(before)]) == 0

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"samples": []}'])
    def test_what_is_no_result(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
    ) -> None:
        path = tmp_path / "other.json"
        path.write_text(content)
        assert command.main(["compare", str(path), str(path)]) == 2
        assert str(path) in capsys.readouterr().out
        assert command.main(["page", str(path), "--output", str(tmp_path / "page.html")]) == 2


class TestPage:
    def test_everything_is_in_it(self) -> None:
        """Plots as SVG, tables, gaps and where it comes from; nothing is loaded from elsewhere."""
        promise = {"promise": "CPU <1>", "measured": 1.2, "limit": 1.1, "holds": False, "digits": 2}
        made = page(
            [document(promises=[promise], gaps=["nginx is <missing>"]), {**ORIGIN, "figures": networks()}]
        )
        for found in (
            "CPU &lt;1&gt;",
            "does not hold",
            "nginx is &lt;missing&gt;",
            "a &lt;fast&gt; one",
            "~4,000.0",
        ):
            assert found in made
        plots = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
        assert len(plots) == 3
        for plot in plots:
            ElementTree.fromstring(plot)  # noqa: S314 - our own
        assert not re.search(r'(src|href)="(?!#)', made.replace("http://www.w3.org/1999/xlink", ""))

    def test_as_a_command(self, tmp_path: Path) -> None:
        result = tmp_path / "result.json"
        result.write_text(json.dumps(document()))
        output = tmp_path / "deeper" / "report.html"
        assert command.main(["page", str(result), "--output", str(output)]) == 0
        assert "CPU for each request" in output.read_text()


class TestScale:
    def test_steps_end_with_what_was_asked_for(self) -> None:
        assert scale.steps(1) == [1]
        assert scale.steps(250) == [1, 10, 100, 250]
        assert scale.steps(5000)[-2:] == [2000, 5000]

    def test_extrapolation_is_in_proportion_and_marked(self) -> None:
        found = scale.extrapolated(scale.Figures("haproxy", 10, 1.0, None, 40, 0.5), 100)
        assert (found.listening, found.memory, found.idle, found.extrapolated) == (10.0, 400, 5.0, True)
        assert "~10.00" in scale.text(scale.Results([found], []))

    def test_a_short_run(self, tmp_path: Path) -> None:
        """In a process of its own, which hides its namespaces: every guest has its answer."""
        result = tmp_path / "scale.json"
        done = run(["scale", "--networks", "12", "--haproxies", "1", "--json", str(result)])
        assert done.returncode == 0, done.stdout + done.stderr
        figures = json.loads(result.read_text())["figures"]
        assert [(one["who"], one["networks"]) for one in figures] == [
            ("fastmeta", 1),
            ("fastmeta", 10),
            ("fastmeta", 12),
            ("haproxy", 1),
            ("haproxy", 10),
            ("haproxy", 12),
        ]
        for one in figures[:3]:
            assert one["failed"] == 0
            assert len(one["latencies"]) == min(one["networks"], scale.ASKING) * scale.REQUESTS
            assert one["listening"] <= one["first_answer"]
            assert one["memory"] > 1_000_000
        assert [one["extrapolated"] for one in figures[3:]] == [False, True, True]
        assert not namespaces.FOLDER.joinpath(namespaces.names(1)[0]).exists()
