"""How a request head is to be read, said a second time: slowly, with regular expressions, line after line."""

from __future__ import annotations

import re
from typing import Any

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9112 section 3; "#" is visible, but in no form of a target.
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/1\.([01])")
# RFC 9112 section 3.2.2.
ABSOLUTE = re.compile(rb"(?i:http)://[^/?]+(.*)")
# RFC 9112 section 5; optional white space is no part of the value.
HEADER = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)[ \t]*")


def members(values: list[bytes]) -> set[bytes]:
    """Of comma-separated lists: RFC 9110 section 5.6.1."""
    return {member.strip(b" \t").lower() for value in values for member in value.split(b",")}


def values_of(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def read_request_line(line: bytes) -> dict[str, Any] | int:
    match = REQUEST_LINE.fullmatch(line)
    if match is None or len(match[1]) > 32 or match[1].upper() == b"CONNECT":
        return 400
    if len(match[2]) > 4096:
        return 414
    target = match[2]
    if not target.startswith(b"/"):
        absolute = ABSOLUTE.fullmatch(target)
        if absolute is None:
            return 400
        target = absolute[1]
    return {"method": match[1], "target": target, "version": 10 + int(match[3])}


def read_header(line: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """Adds the line's header to those before it; returns the status that refuses it, or 0."""
    match = HEADER.fullmatch(line)
    if match is None:
        return 400
    if len(headers) == 100:
        return 431
    name, value = match[1].lower(), match[2]
    folded = name.replace(b"_", b"-")
    if folded in (b"content-length", b"transfer-encoding"):
        if folded != name or values_of(headers, name):
            return 400
        if name == b"content-length" and not re.fullmatch(rb"[0-9]{1,18}", value):
            return 400
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            return 501 if value else 400
    headers.append((match[1], value))
    return 0


def read_end(head: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> dict[str, Any] | int:
    hosts = len(values_of(headers, b"host"))
    lengths = values_of(headers, b"content-length")
    chunked = bool(values_of(headers, b"transfer-encoding"))
    new = head["version"] == 11
    if hosts > 1 or (new and hosts == 0) or (chunked and (lengths or not new)):
        return 400
    says = members(values_of(headers, b"connection"))
    expects = b"100-continue" in [value.lower() for value in values_of(headers, b"expect")]
    return {
        **head,
        "chunked": chunked,
        "content_length": int(lengths[0]) if lengths else -1,
        "keep_alive": b"close" not in says and (new or b"keep-alive" in says),
        "expect_continue": expects and new,
        "headers": headers,
    }


def read_request(data: bytes) -> dict[str, Any] | int:
    """What _parse_request returns for data shorter than its bound."""
    *lines, _ = data.split(b"\n")
    head: dict[str, Any] | int | None = None
    headers: list[tuple[bytes, bytes]] = []
    used = 0
    for number, line in enumerate(lines):
        used += len(line) + 1
        if not line.endswith(b"\r"):
            return 400
        line = line[:-1]
        if head is None:
            if line or number > 0:
                head = read_request_line(line)
                if isinstance(head, int):
                    return head
        elif line:
            status = read_header(line, headers)
            if status:
                return status
        else:
            return read_end({"length": used, **head}, headers)
    return 0
