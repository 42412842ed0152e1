"""Configurations of metadata proxies as Neutron's agents write them, by release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

UUID = "6d0cb4b1-5f41-4e4c-a3b2-9b4b1f0ad0f3"

NETWORK = (
    "http-request del-header X-Neutron-Router-ID",
    f"http-request set-header X-Neutron-Network-ID {UUID}",
)
ROUTER = (
    "http-request del-header X-Neutron-Network-ID",
    f"http-request set-header X-Neutron-Router-ID {UUID}",
)
OVN = (f"http-request add-header X-OVN-Network-ID {UUID}",)


@dataclass(frozen=True)
class Configuration:
    """What is different from one to the other."""

    headers: Sequence[str] = NETWORK
    binds: Sequence[str] = ("169.254.169.254:80",)
    tag: bool = True
    threads: bool = True
    timeouts: Sequence[int] = (30, 30, 32, 32, 30)
    """http-request, connect, client, server, http-keep-alive."""
    limits: Sequence[int] = ()
    """Base window and requests, burst window and requests."""
    version: str = "ip"
    pid_file: str = f"/var/lib/neutron/external/pids/{UUID}.pid.haproxy"
    user: str = "neutron"
    log_level: str = "info"
    more: Sequence[str] = field(default=())
    """Lines behind all others."""

    def __str__(self) -> str:
        request, connect, client, server, keep_alive = self.timeouts
        lines = [
            "",
            "global",
            f"    log         /dev/log local0 {self.log_level}",
            *([f"    log-tag     haproxy-metadata-proxy-{UUID}"] if self.tag else []),
            f"    user        {self.user}",
            f"    group       {self.user}",
            "    maxconn     1024",
            *(["    nbthread    2"] if self.threads else []),
            f"    pidfile     {self.pid_file}",
            "    daemon",
            "",
            "defaults",
            "    log global",
            "    mode http",
            "    option httplog",
            "    option dontlognull",
            "    option http-server-close",
            "    option forwardfor",
            "    retries                 3",
            f"    timeout http-request    {request}s",
            f"    timeout connect         {connect}s",
            f"    timeout client          {client}s",
            f"    timeout server          {server}s",
            f"    timeout http-keep-alive {keep_alive}s",
            "",
            *self._tables(),
            "listen listener",
            *(f"    bind {bind}" for bind in self.binds),
            "    ",
            *self._limits(),
            "    server metadata /var/lib/neutron/metadata_proxy",
            "",
            *(f"    {header}" for header in self.headers),
            *self.more,
            "",
        ]
        return "\n".join(lines)

    def _tables(self) -> list[str]:
        if not self.limits:
            return []
        base, _, burst, _ = self.limits
        expire = max(base, burst)
        lines = []
        for name, window in (("base", base), ("burst", burst)):
            lines += [
                f"backend {name}_rate_limiter",
                f"    stick-table type {self.version} size 10k expire {expire}s store http_req_rate({window}s)",
                "",
            ]
        return lines

    def _limits(self) -> list[str]:
        if not self.limits:
            return []
        _, base, _, burst = self.limits
        return [
            "    http-request track-sc0 src table base_rate_limiter",
            "    http-request track-sc1 src table burst_rate_limiter",
            f"    http-request deny deny_status 429 if {{ src_http_req_rate(base_rate_limiter) gt {base} }}",
            f"    http-request deny deny_status 429 if {{ src_http_req_rate(burst_rate_limiter) gt {burst} }}",
            "",
        ]


TAP = "tap3bcd2a1f-77"

EVERY: dict[str, Configuration] = {
    "pike, router": Configuration(
        (f"http-request add-header X-Neutron-Router-ID {UUID}",), ["0.0.0.0:9697"], tag=False, threads=False
    ),
    "pike, network": Configuration(
        (f"http-request add-header X-Neutron-Network-ID {UUID}",), ["0.0.0.0:80"], tag=False, threads=False
    ),
    "rocky, with log-tag": Configuration(
        (f"http-request add-header X-Neutron-Router-ID {UUID}",), ["0.0.0.0:9697"], threads=False
    ),
    "stein, network": Configuration((f"http-request add-header X-Neutron-Network-ID {UUID}",), threads=False),
    "ussuri, router without IPv6": Configuration(ROUTER, ["0.0.0.0:9697"], threads=False),
    "victoria, router": Configuration(ROUTER, [":::9697"], threads=False),
    "victoria, IPv6 of a network": Configuration(
        binds=["169.254.169.254:80", f"fe80::a9fe:a9fe:80 interface {TAP}"], threads=False
    ),
    "victoria, metadata network of a router": Configuration(
        ROUTER, ["169.254.169.254:80", f"fe80::a9fe:a9fe:80 interface {TAP}"], threads=False
    ),
    "ovn, ussuri": Configuration(OVN, tag=False, threads=False),
    "ovn, zed": Configuration(OVN, threads=False),
    "ovn, with IPv6": Configuration(OVN, ["169.254.169.254:80", f"fe80::a9fe:a9fe:80 interface {TAP}"]),
    "2023.1, rate limits": Configuration(limits=(10, 6, 5, 2), threads=False),
    "2023.1, rate limits of IPv6": Configuration(ROUTER, [":::9697"], limits=(60, 30, 10, 3), version="ipv6"),
    "2025.2, threads": Configuration(ROUTER, [":::9697"]),
    "2026.1, timeouts": Configuration(timeouts=(5, 31, 33, 240, 7)),
    "master, brackets": Configuration(
        binds=["169.254.169.254:80", f"[fe80::a9fe:a9fe]:80 interface {TAP}"], limits=(10, 10, 10, 10)
    ),
    "master, brackets of a router": Configuration(ROUTER, ["[::]:9697"], log_level="debug", user="nobody"),
}
