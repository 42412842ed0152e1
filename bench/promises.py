"""What fastmeta promises, held against what was measured, beside what the peers need."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bench.peers import FLOOR, IDLE, NONE_IDLE
from bench.results import Results
from bench.rounds import Spread
from bench.scenarios import SCENARIOS

SUBJECT = "fastmeta"
OTHERS = ("haproxy", "nginx")

CPU = {
    "keep-1": 1.10,
    "keep-16": 1.10,
    "keep-256": 1.10,
    "close-1": 1.15,
    "close-16": 1.15,
    "fresh-1": 1.15,
    "fresh-16": 1.15,
}
# With one connection the number itself; with more, how much may be above the floor's of the same run: how many
# events one epoll_wait gives depends on the moment.
CALLS_OF_ONE = {"keep-1": 6.0, "close-1": 9.0}
CALLS_OF_MORE = {"keep-16": 0.15, "close-16": 0.5}
# The loop's clock ticks about once a second, which costs three calls.
TICKS = 0.02
INSTRUCTIONS = {"close-1": 6000.0}
PARSE_NS = 200.0
OPENED_S = 0.050
MEMORY = 64e6
MEMORY_RPC = 110e6
FURTHER = 4096.0
IDLE_TO_NONE = 1.05
# Scenarios of the promise on idle listeners.
IDLE_SCENARIOS = ("keep-16", "close-16")


@dataclass(frozen=True)
class Verdict:
    """holds is None when it could not be measured. uncertainty: how far measured may be off. peers: what they need."""

    promise: str
    measured: float | None
    limit: float | None
    holds: bool | None
    uncertainty: float = 0
    peers: str = ""
    digits: int = 2

    @property
    def close_call(self) -> bool:
        """Measured, but nearer to the limit than the measurement is exact: more rounds would tell."""
        if self.measured is None or self.limit is None:
            return False
        return abs(self.measured - self.limit) < self.uncertainty

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(results: Results) -> list[Verdict]:
    """One verdict for each promise, always all of them."""
    return [
        *(_cpu(results, scenario, limit) for scenario, limit in CPU.items()),
        *(_calls(results, scenario, limit) for scenario, limit in CALLS_OF_ONE.items()),
        *(_calls_to_floor(results, scenario, more) for scenario, more in CALLS_OF_MORE.items()),
        *(_instructions(results, scenario, limit) for scenario, limit in INSTRUCTIONS.items()),
        _parse(results),
        _opened(results),
        *_memory(results),
        *(_idle(results, scenario) for scenario in IDLE_SCENARIOS),
        _no_errors(results),
    ]


def _verdict(
    promise: str, measured: float | None, limit: float | None, peers: str, digits: int, slack: float = 0
) -> Verdict:
    holds = None if measured is None or limit is None else measured <= limit + slack
    return Verdict(promise, measured, limit, holds, 0, peers, digits)


def _of_others(value: Callable[[str], float | None], digits: int, names: Iterable[str] = OTHERS) -> str:
    """ "haproxy 1.43, nginx 1.21", without those that were not measured."""
    found = [(name, value(name)) for name in names]
    return ", ".join(f"{name} {number:,.{digits}f}" for name, number in found if number is not None)


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None


def _cpu(results: Results, scenario: str, limit: float) -> Verdict:
    ratio = results.to_floor(scenario, SUBJECT)
    peers = _of_others(lambda name: _median(results.to_floor(scenario, name)), 2)
    promise = f"CPU/request to the floor, {SCENARIOS[scenario].title}"
    if ratio is None:
        return Verdict(promise, None, limit, None, 0, peers)
    return Verdict(promise, ratio.median, limit, ratio.median <= limit, ratio.uncertainty, peers)


def _calls(results: Results, scenario: str, limit: float) -> Verdict:
    promise = f"system calls/request of the loop, {SCENARIOS[scenario].title}"
    measured = _median(results.loop_system_calls(scenario, SUBJECT))
    return _verdict(promise, measured, limit, _calls_of_others(results, scenario), 2, TICKS)


def _calls_to_floor(results: Results, scenario: str, more: float) -> Verdict:
    floor = _median(results.loop_system_calls(scenario, FLOOR))
    promise = f"the same, {SCENARIOS[scenario].title}: the floor's + {more:.2f}"
    measured = _median(results.loop_system_calls(scenario, SUBJECT))
    limit = None if floor is None else floor + more
    return _verdict(promise, measured, limit, _calls_of_others(results, scenario), 2)


def _calls_of_others(results: Results, scenario: str) -> str:
    return _of_others(lambda name: _median(results.system_calls(scenario, name)), 2, (FLOOR, *OTHERS))


def _instructions(results: Results, scenario: str, limit: float) -> Verdict:
    peers = _of_others(lambda name: results.loop_instructions(scenario, name), 0, (FLOOR, *OTHERS))
    promise = f"user instructions/request of the loop, {SCENARIOS[scenario].title}"
    return _verdict(promise, results.loop_instructions(scenario, SUBJECT), limit, peers, 0)


def _parse(results: Results) -> Verdict:
    found = results.parsing
    if found is None:
        return _verdict("head parse, ns", None, PARSE_NS, "", 0)
    times = {"llhttp": found.llhttp, "httptools from Python": found.httptools}
    promise = f"head parse of {found.head_bytes} bytes, ns"
    return _verdict(promise, found.fastmeta, PARSE_NS, _of_others(times.__getitem__, 0, times), 0)


def _opened(results: Results) -> Verdict:
    found = results.namespaces
    if found is None:
        return _verdict("listeners in namespaces opened, ms", None, OPENED_S * 1000, "", 0)
    seconds = {"ip netns exec": found.ip_netns_exec, "haproxy": found.haproxy_start}
    times = {name: None if each is None else each * 1000 * found.number for name, each in seconds.items()}
    promise = f"{found.number:,} listeners in as many namespaces opened, ms"
    measured = None if found.opened is None else found.opened * 1000
    peers = _extrapolated(_of_others(times.__getitem__, 0, times))
    return _verdict(promise, measured, OPENED_S * 1000, peers, 0)


def _memory(results: Results) -> list[Verdict]:
    found = results.namespaces
    if found is None:
        return [
            _verdict("memory of the service with namespaces, MB PSS", None, MEMORY / 1e6, "", 1),
            _verdict("memory with lookup = rpc, MB PSS", None, MEMORY_RPC / 1e6, "", 1),
            _verdict("memory of each further namespace, KiB", None, FURTHER / 1024, "", 1),
        ]
    each = found.haproxy_memory
    whole = {"haproxy": None if each is None else each * found.number / 1e6}
    one = {"haproxy": None if each is None else each / 1024}
    return [
        _verdict(
            f"memory of the service with {found.number:,} namespaces, MB PSS",
            None if found.memory is None else found.memory / 1e6,
            MEMORY / 1e6,
            _extrapolated(_of_others(whole.__getitem__, 0, whole)),
            1,
        ),
        _verdict(
            f"the same with lookup = rpc, {found.number:,} namespaces, MB PSS",
            None if found.memory_rpc is None else found.memory_rpc / 1e6,
            MEMORY_RPC / 1e6,
            "",
            1,
        ),
        _verdict(
            "memory of each further namespace, KiB PSS",
            None if found.further is None else found.further / 1024,
            FURTHER / 1024,
            _of_others(one.__getitem__, 0, one),
            1,
        ),
    ]


def _extrapolated(peers: str) -> str:
    return f"{peers} (extrapolated from a few)" if peers else ""


def _idle(results: Results, scenario: str) -> Verdict:
    ratio = results.ratio(scenario, IDLE, NONE_IDLE)
    number = results.namespaces.number if results.namespaces else 0
    promise = f"CPU/request with {number:,} idle listeners to none, {SCENARIOS[scenario].title}"
    if ratio is None:
        return Verdict(promise, None, IDLE_TO_NONE, None)
    return Verdict(promise, ratio.median, IDLE_TO_NONE, ratio.median <= IDLE_TO_NONE, ratio.uncertainty)


def _no_errors(results: Results) -> Verdict:
    ours = (SUBJECT, IDLE, NONE_IDLE)
    runs = [sample for sample in results.samples if sample.peer in ours]
    errors = sum(sample.errors for sample in runs)
    return Verdict(
        "wrong or missing answers", errors if runs else None, 0, errors == 0 if runs else None, digits=0
    )
