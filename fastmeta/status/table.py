"""A snapshot as text for a terminal."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

_HEADINGS = (
    "network or router",
    "way in",
    "namespace",
    "listeners",
    "connections",
    "requests",
    "identities",
    "5xx",
)


def as_text(snapshot: Mapping[str, Any]) -> str:
    """What `fastmeta status` prints: what is served by whom, then a line for each network and router, then the last
    error of each that has one."""
    scopes = sorted(
        snapshot["scopes"], key=lambda scope: (scope["kind"], scope["id"], scope["namespace"] or "")
    )
    parts = ["\n".join(_head(snapshot))]
    if scopes:
        parts.append(columns([_HEADINGS, *map(_row, scopes)]))
    complaints = [complaint for scope in scopes for complaint in _complaints(scope)]
    if complaints:
        parts.append("\n".join(complaints))
    return "\n\n".join(parts)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, under each other; columns that hold numbers only, but for the heading, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [
        all(cell.replace(",", "").isdigit() for cell in column[1:]) for column in zip(*rows, strict=True)
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    )


def _head(snapshot: Mapping[str, Any]) -> list[str]:
    totals = snapshot["totals"]
    up = datetime.timedelta(seconds=round(snapshot["taken"] - snapshot["started"]))
    lines = [
        f"fastmeta {snapshot['version']}, process {snapshot['pid']}, since {_time(snapshot['started'])} ({up})",
        f"lookups: {snapshot['lookup']['source']}, {snapshot['lookup']['health']}",
        *(f"Nova's metadata API: {server['server']}: {server['state']}" for server in snapshot["upstreams"]),
    ]
    if snapshot["metadata_proxy_socket"]:
        lines.append(f"metadata_proxy_socket: {snapshot['metadata_proxy_socket']}")
    lines.append(
        f"{len(snapshot['scopes']):,} networks and routers, {totals['known']:,} addresses are known, "
        f"{totals['connections']:,} connections, {totals['waiting']:,} requests wait; "
        f"{totals['requests']:,} requests so far, {totals['answers_5xx']:,} answered 5xx"
    )
    return lines


def _row(scope: Mapping[str, Any]) -> tuple[str, ...]:
    listeners = scope["listeners"]
    opened = sum(listener["open"] for listener in listeners)
    return (
        f"{scope['kind']} {scope['id']}",
        scope["way"],
        scope["namespace"] or "-",
        f"{opened} of {len(listeners)} open" if listeners else "-",
        f"{scope['connections']:,}",
        f"{scope['requests']:,}",
        f"{scope['known']:,}",
        f"{scope['answers_5xx']:,}",
    )


def _complaints(scope: Mapping[str, Any]) -> list[str]:
    name = f"{scope['kind']} {scope['id']}"
    found = [f"{name}: {listener['error']}" for listener in scope["listeners"] if listener["error"]]
    error = scope["last_error"]
    if error is not None:
        found.append(f"{name}: {_time(error['at'])}: {error['text']}")
    return found


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
