"""The rules that lead metadata requests of a router's guests to us: Neutron's own (neutron/agent/metadata/driver.py and
neutron/agent/l3/router_info.py), in chains of ours, as input for iptables-restore and ip6tables-restore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MARK_MASK = "0xffff"
"""Neutron's ROUTER_MARK_MASK: the upper bits belong to address scopes."""
DESTINATIONS = {4: "169.254.169.254/32", 6: "fe80::a9fe:a9fe/128"}
"""By IP version."""
PREFIX = "fastmeta-"
"""Of our chains; behind it the chain that they are called from."""

_CHAINS = {"mangle": ("PREROUTING",), "nat": ("PREROUTING",), "filter": ("INPUT", "FORWARD")}


@dataclass(frozen=True, slots=True)
class RouterRules:
    """What a router's rules depend on: the options metadata_port and metadata_access_mark."""

    tcp_port: int
    mark: int

    def fresh(self, version: int) -> str:
        """For a namespace without chains of ours; in one that has any it fails, and changes nothing."""
        return _document(
            (
                table,
                [
                    *(f"-N {PREFIX}{chain}" for chain in chains),
                    *self._rules(table, version),
                    *(f"-I {chain} -j {PREFIX}{chain}" for chain in chains),
                ],
            )
            for table, chains in _CHAINS.items()
        )

    def again(self, version: int, saved: str) -> str:
        """The same for a namespace in any state. saved: what iptables-save says of it. Our chains are emptied and
        filled in one step; each is called once, from where it is called already, or else before all other rules."""
        calls = _calls(saved)
        return _document(
            (
                table,
                [
                    *(f":{PREFIX}{chain} - [0:0]" for chain in chains),
                    *self._rules(table, version),
                    *(line for chain in chains for line in _one_call(chain, calls[table, chain])),
                ],
            )
            for table, chains in _CHAINS.items()
        )

    def _rules(self, table: str, version: int) -> list[str]:
        mark = f"0x{self.mark:x}/{MARK_MASK}"
        match = f"-d {DESTINATIONS[version]} -i qr-+ -p tcp -m tcp --dport 80"
        rules: Mapping[str, list[str]] = {
            "mangle": [f"-A {PREFIX}PREROUTING {match} -j MARK --set-xmark {mark}"],
            "nat": [f"-A {PREFIX}PREROUTING {match} -j REDIRECT --to-ports {self.tcp_port}"],
            "filter": [
                f"-A {PREFIX}INPUT -m mark --mark {mark} -j ACCEPT",
                # Nobody comes in but by the redirection: who does is not in one of the router's networks.
                f"-A {PREFIX}INPUT -p tcp -m tcp --dport {self.tcp_port} -j DROP",
                # What is marked never leaves the router.
                f"-A {PREFIX}FORWARD -m mark --mark {mark} -j DROP",
            ],
        }
        return rules[table]


def removal() -> str:
    """For a namespace with all of our chains; in one where the first is missing it fails, and changes nothing."""
    return _document(
        (
            table,
            [
                *(f"-D {chain} -j {PREFIX}{chain}" for chain in chains),
                *(f"-{command} {PREFIX}{chain}" for command in "FX" for chain in chains),
            ],
        )
        for table, chains in _CHAINS.items()
    )


def removal_of(saved: str) -> str:
    """The same for a namespace in any state; empty when there is nothing of ours. saved: as of RouterRules.again."""
    calls, ours = _calls(saved), _ours(saved)
    return _document(
        (
            table,
            [
                *(
                    line
                    for chain in chains
                    for line in calls[table, chain] * [f"-D {chain} -j {PREFIX}{chain}"]
                ),
                *(
                    f"-{command} {PREFIX}{chain}"
                    for command in "FX"
                    for chain in chains
                    if (table, f"{PREFIX}{chain}") in ours
                ),
            ],
        )
        for table, chains in _CHAINS.items()
    )


def _one_call(chain: str, there: int) -> Sequence[str]:
    if not there:
        return [f"-I {chain} -j {PREFIX}{chain}"]
    return (there - 1) * [f"-D {chain} -j {PREFIX}{chain}"]


def _document(tables: Iterator[tuple[str, list[str]]]) -> str:
    return "".join("\n".join([f"*{table}", *lines, "COMMIT", ""]) for table, lines in tables if lines)


def _lines(saved: str) -> Iterator[tuple[str, str]]:
    """Each line with its table."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        else:
            yield table, line


def _calls(saved: str) -> Counter[tuple[str, str]]:
    """How often each chain that we hook into calls ours."""
    expected = {f"-A {chain} -j {PREFIX}{chain}": chain for chains in _CHAINS.values() for chain in chains}
    return Counter((table, expected[line]) for table, line in _lines(saved) if line in expected)


def _ours(saved: str) -> set[tuple[str, str]]:
    """Our chains that are there, with their tables."""
    return {(table, line[1:].split(" ")[0]) for table, line in _lines(saved) if line.startswith(f":{PREFIX}")}
