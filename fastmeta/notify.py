"""Tells whoever started us that we are ready: systemd, or a parent that listens on NOTIFY_SOCKET
(sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(*lines: str) -> bool:
    """Sends lines such as ``READY=1`` to NOTIFY_SOCKET; False when there is none or it does not take them.

    A service works without its supervisor's attention, so nothing is raised.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            sender.connect(address)
            sender.send("\n".join(lines).encode())
    except OSError:
        return False
    return True
