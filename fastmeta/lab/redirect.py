"""The rules by which Neutron's L3 agent leads a guest's 169.254.169.254:80 (and [fe80::a9fe:a9fe]:80) to the
metadata proxy of its router.

From neutron/agent/metadata/driver.py (metadata_mangle_rules, metadata_nat_rules, metadata_filter_rules),
neutron/agent/l3/router_info.py (the scope chains) and neutron/agent/linux/iptables_manager.py (the wrapped
chains named after the agent's program).
"""

from __future__ import annotations

METADATA_PORT = 9697
"""Neutron's option metadata_port: the TCP port of the proxy in a router's namespace."""
METADATA_ACCESS_MARK = "0x1"
"""Neutron's option metadata_access_mark."""

_WRAP = "neutron-l3-agent"


def redirect_rules(
    tcp_port: int = METADATA_PORT,
    mark: str = METADATA_ACCESS_MARK,
    destination: str = "169.254.169.254/32",
) -> str:
    """Input for `iptables-restore --noflush` (ip6tables-restore) in a router's namespace."""
    match = f"-d {destination} -i qr-+ -p tcp -m tcp --dport 80"
    tables: dict[str, tuple[list[str], list[str]]] = {
        "mangle": (
            ["PREROUTING", "scope"],
            [
                "-A PREROUTING -j {wrap}-PREROUTING",
                "-A {wrap}-PREROUTING -j {wrap}-scope",
                f"-A {{wrap}}-PREROUTING {match} -j MARK --set-xmark {mark}/0xffff",
            ],
        ),
        "nat": (
            ["PREROUTING"],
            [
                "-A PREROUTING -j {wrap}-PREROUTING",
                f"-A {{wrap}}-PREROUTING {match} -j REDIRECT --to-ports {tcp_port}",
            ],
        ),
        "filter": (
            ["INPUT", "FORWARD", "scope"],
            [
                "-A INPUT -j {wrap}-INPUT",
                "-A FORWARD -j {wrap}-FORWARD",
                "-A {wrap}-FORWARD -j {wrap}-scope",
                f"-A {{wrap}}-INPUT -m mark --mark {mark}/0xffff -j ACCEPT",
                f"-A {{wrap}}-INPUT -p tcp -m tcp --dport {tcp_port} -j DROP",
                # What is marked for the proxy never leaves the router.
                f"-A {{wrap}}-scope -m mark --mark {mark}/0xffff -j DROP",
            ],
        ),
    }
    lines = []
    for table, (chains, rules) in tables.items():
        lines.append(f"*{table}")
        lines += [f":{_WRAP}-{chain} - [0:0]" for chain in chains]
        lines += [rule.format(wrap=_WRAP) for rule in rules]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"
