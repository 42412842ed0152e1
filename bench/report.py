"""The results for a person, as plain text."""

from collections.abc import Sequence

from bench.peers import AGAIN, FLOOR
from bench.promises import Verdict
from bench.results import Results
from bench.rounds import Spread
from bench.scenarios import SCENARIOS

# What Cython puts before the names of the core's functions.
CORE = "__pyx_f_8fastmeta_5_core_"
COLUMNS = (
    "",
    "CPU us/req",
    "to floor (quartiles)",
    "to haproxy",
    "requests/s",
    "p50 us",
    "p99 us",
    "system calls/req",
    "errors",
)


def table(rows: Sequence[Sequence[str]], left: int | None = None) -> str:
    """The first column is aligned to the left, and so are those from left on."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at == 0 or (left is not None and at >= left) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def figures(results: Results) -> str:
    """A block of lines for each scenario. "-" is what was not measured; the gaps say why."""
    rows: list[Sequence[str]] = [COLUMNS]
    for scenario in results.scenarios:
        rows.append((SCENARIOS[scenario].title, *[""] * (len(COLUMNS) - 1)))
        rows.extend(_row(results, scenario, peer) for peer in results.peers)
    return table(rows)


def _row(results: Results, scenario: str, peer: str) -> Sequence[str]:
    measured = bool(results.of(scenario, peer))
    calls = _number(results.system_calls(scenario, peer), 2)
    loop = _number(results.loop_system_calls(scenario, peer), 2)
    return (
        f"  {peer}",
        _number(results.cpu_us(scenario, peer), 1),
        _with_quartiles(results.to_floor(scenario, peer)),
        _number(results.ratio(scenario, peer, "haproxy"), 2),
        _number(results.per_second(scenario, peer), 0),
        _number(results.latency_us(scenario, peer, "p50"), 0),
        _number(results.latency_us(scenario, peer, "p99"), 0),
        calls if calls == loop else f"{calls} ({loop} in one thread)",
        str(results.errors(scenario, peer)) if measured else "-",
    )


def noise(results: Results) -> str:
    """The floor against itself: a difference that is smaller than this one is none."""
    found = []
    for scenario in results.scenarios:
        ratio = results.ratio(scenario, AGAIN, FLOOR)
        if ratio is not None:
            found.append(f"{scenario} {_with_quartiles(ratio)}")
    return "Noise (the floor against itself): " + ("; ".join(found) or "not measured")


def calls_by_name(results: Results) -> str:
    lines = []
    for count in results.counts:
        names = ", ".join(f"{name} {each:.2f}" for name, each in count.by_name.items() if each >= 0.005)
        lines.append(f"  {count.scenario} {count.peer}: {names}")
    return "System calls/request by name:\n" + "\n".join(lines) if lines else ""


def instructions_by_function(results: Results) -> str:
    lines = []
    for count in results.instructions:
        lines.append(f"  {count.scenario} {count.peer}: {count.busiest_thread:,.1f}")
        lines += [
            f"    {each:8,.1f} {name.removeprefix(CORE)}"
            for name, each in count.by_function.items()
            if each >= 1
        ]
    return (
        "User instructions/request of the busiest thread by function:\n" + "\n".join(lines) if lines else ""
    )


def instructions(results: Results) -> str:
    rows = [("scenario", "peer", "user instructions/req", "busiest thread")]
    rows += [
        (i.scenario, i.peer, f"{i.all_threads:,.0f}", f"{i.busiest_thread:,.0f}")
        for i in results.instructions
    ]
    return table(rows) if results.instructions else ""


def promises(verdicts: Sequence[Verdict]) -> str:
    words = {True: "holds", False: "DOES NOT HOLD", None: "NOT MEASURED"}
    rows = [("promise", "measured", "at most", "", "  peers")]
    for verdict in verdicts:
        measured = _plain(verdict.measured, verdict.digits)
        if verdict.uncertainty:
            measured += f" +- {verdict.uncertainty:.2f}"
        word = words[verdict.holds] + (" (close: take more --rounds)" if verdict.close_call else "")
        limit = _plain(verdict.limit, verdict.digits)
        rows.append((verdict.promise, measured, limit, word, f"  {verdict.peers}"))
    return table(rows, left=4)


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _number(value: Spread | None, digits: int) -> str:
    return "-" if value is None else f"{value.median:,.{digits}f}"


def _with_quartiles(value: Spread | None) -> str:
    return "-" if value is None else f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"
