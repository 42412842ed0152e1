"""python -m bench page RESULT.json … --output REPORT.html: results as one page that needs nothing else, with plots."""

from __future__ import annotations

import argparse
import html
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.compare import CompareError, load
from bench.peers import AGAIN
from bench.rounds import Sample, ratios, spread
from bench.scenarios import SCENARIOS

mpl.rcParams["svg.hashsalt"] = "fastmeta"  # the same figures make the same page
mpl.rcParams["font.size"] = 9

COLORS = {"floor": "#999999", "fastmeta": "#1f6fb4", "haproxy": "#c5553c", "nginx": "#6b9a3b"}

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; }
td:not(:first-child), th:not(:first-child) { text-align: right; } th { font-weight: 600; }
.bad { color: #b00; font-weight: 600; } .origin { color: #666; font-size: 12px; } svg { max-width: 100%; height: auto; }
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench page", description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json")
    parser.add_argument("--output", type=Path, required=True, metavar="REPORT.html")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    try:
        documents = [load(path) for path in options.results]
    except CompareError as error:
        print(error)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(documents), encoding="utf-8")
    return 0


def page(documents: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    parts = [part for document in documents for part in _parts(document)]
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>fastmeta: measured</title>\n'
        f"<style>{STYLE}</style>\n<h1>fastmeta: measured</h1>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _parts(document: Mapping[str, Any]) -> list[str]:
    parts = []
    if document.get("samples"):
        samples = [Sample(**sample) for sample in document["samples"]]
        parts += [
            "<h2>CPU for each request</h2>",
            "<p>To the floor, the least that a relay on epoll can do. Bars are medians of rounds, lines the quartiles; "
            "shorter is better.</p>",
            _svg(_cpu(samples)),
            "<h2>Latency</h2>",
            "<p>What guests wait for an answer: medians of all rounds, on a logarithmic scale.</p>",
            _svg(_latency(samples)),
        ]
    if document.get("promises"):
        parts += ["<h2>Promises</h2>", _promises(document["promises"])]
    if document.get("figures"):
        parts += [
            "<h2>Many networks</h2>",
            _svg(_networks(document["figures"])),
            _network_table(document["figures"]),
        ]
    for gap in document.get("gaps", []):
        parts.append(f'<p class="bad">Not measured: {html.escape(gap)}</p>')
    machine = document["machine"]
    origin = (
        f"{document['time']} · commit {document['commit']} · {machine['processor']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, load {machine['load_average'][0]:.1f} · {document['command']}"
    )
    parts.append(f'<p class="origin">{html.escape(origin)}</p>')
    return parts


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _shown(samples: Sequence[Sample]) -> tuple[list[str], list[str]]:
    """Scenarios and peers, in the order in which they were measured."""
    scenarios = [name for name in SCENARIOS if any(sample.scenario == name for sample in samples)]
    return scenarios, [name for name in dict.fromkeys(sample.peer for sample in samples) if name != AGAIN]


def _cpu(samples: Sequence[Sample]) -> Figure:
    scenarios, names = _shown(samples)
    figure = Figure(figsize=(8, 0.55 * len(scenarios) + 1.2))
    axes = figure.subplots()
    height = 0.8 / len(names)
    for at, name in enumerate(names):
        for row, scenario in enumerate(scenarios):
            found = spread(ratios(samples, scenario, name, ("floor", AGAIN)))
            if found is None:
                continue
            axes.barh(
                row + at * height,
                found.median,
                height * 0.9,
                xerr=[[found.median - found.low], [found.high - found.median]],
                color=COLORS.get(name, "#888888"),
                label=name if row == 0 else None,
                error_kw={"lw": 0.8},
            )
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(scenarios))])
    axes.set_yticklabels([SCENARIOS[name].title for name in scenarios])
    axes.invert_yaxis()
    axes.axvline(1, color="#555555", lw=0.8)
    axes.set_xlabel("CPU for each request, floor = 1")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _latency(samples: Sequence[Sample]) -> Figure:
    scenarios, names = _shown(samples)
    percentiles = list(samples[0].latency_us)
    columns = min(4, len(scenarios))
    rows = -(-len(scenarios) // columns)
    figure = Figure(figsize=(8, 2.1 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    for at, axes in enumerate(grid.flat):
        if at >= len(scenarios):
            axes.set_visible(False)
            continue
        for name in names:
            own = [sample for sample in samples if (sample.scenario, sample.peer) == (scenarios[at], name)]
            if own:
                values = [statistics.median(sample.latency_us[key] for sample in own) for key in percentiles]
                axes.plot(
                    percentiles, values, "o-", ms=3, lw=1, color=COLORS.get(name, "#888888"), label=name
                )
        axes.set_yscale("log")
        axes.set_title(SCENARIOS[scenarios[at]].title, fontsize=8)
        axes.tick_params(labelsize=7)
    grid[0][0].set_ylabel("microseconds", fontsize=8)
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=8
    )
    figure.tight_layout(rect=(0, 0.12 / rows, 1, 1))
    return figure


def _networks(figures: Sequence[Mapping[str, Any]]) -> Figure:
    """Memory, and time until all listen, against their number; what is extrapolated is dotted."""
    figure = Figure(figsize=(8, 3))
    for axes, key, factor, title in zip(
        figure.subplots(1, 2),
        ("memory", "listening"),
        (1e-6, 1.0),
        ("MB (PSS)", "seconds until all listen"),
        strict=True,
    ):
        for who in dict.fromkeys(one["who"] for one in figures):
            own = [one for one in figures if one["who"] == who and one[key] is not None]
            for guessed in (False, True):
                points = [
                    one for one in own if one["extrapolated"] == guessed or (guessed and _last(own) is one)
                ]
                if len(points) > guessed:
                    axes.plot(
                        [one["networks"] for one in points],
                        [one[key] * factor for one in points],
                        "o:" if guessed else "o-",
                        ms=3,
                        color=COLORS.get(who, "#888888"),
                        label=None if guessed else who,
                    )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("networks")
        axes.set_title(title, fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _last(own: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The last one that was measured."""
    measured = [one for one in own if not one["extrapolated"]]
    return measured[-1] if measured else None


def _network_table(figures: Sequence[Mapping[str, Any]]) -> str:
    rows = [("", "networks", "all listen, s", "first answer, s", "MB", "idle, CPU ms/s", "CPU us/request")]
    for one in figures:
        mark = "~" if one["extrapolated"] else ""
        rows.append(
            (
                one["who"],
                f"{one['networks']:,}",
                _cell(one["listening"], 1, 2, mark),
                _cell(one["first_answer"], 1, 2, mark),
                _cell(one["memory"], 1e-6, 1, mark),
                _cell(one["idle"], 1e3, 2, mark),
                _cell(one["cpu_per_request"], 1e6, 0, mark),
            )
        )
    return _table(rows) + "<p>~ is extrapolated.</p>"


def _promises(promises: Sequence[Mapping[str, Any]]) -> str:
    rows = [("", "measured", "at most", "")]
    for promise in promises:
        verdict = {True: "holds", False: "does not hold", None: "not measured"}[promise["holds"]]
        digits = promise["digits"]
        rows.append(
            (
                promise["promise"],
                _cell(promise["measured"], 1, digits, ""),
                _cell(promise["limit"], 1, digits, ""),
                verdict,
            )
        )
    return _table(rows)


def _cell(value: float | None, factor: float, digits: int, mark: str) -> str:
    return "-" if value is None else f"{mark}{value * factor:,.{digits}f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for at, row in enumerate(rows):
        tag = "th" if at == 0 else "td"
        cells = "".join(
            f"<{tag}{' class=bad' if cell == 'does not hold' else ''}>{html.escape(cell)}</{tag}>"
            for cell in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
