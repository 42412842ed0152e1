"""A boot storm: many guests at once. Each asks as it would when it boots, one request after the other, each on a
connection of its own; nothing is repeated."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastmeta.lab.namespaces import inside
from fastmeta.lab.topology import METADATA_ADDRESS

from .stack.cloud import Instance

LIMIT = 60.0
"""Seconds for each request."""


def targets(instance: Instance) -> dict[str, bytes]:
    """What is asked for, and what must be in the answer."""
    [address] = instance.addresses
    name = instance.name.encode()
    meta_data = "/latest/meta-data/"
    return {
        "/openstack": b"latest",
        "/openstack/latest/meta_data.json": instance.instance_id.encode(),
        "/openstack/latest/user_data": instance.instance_id.encode(),
        "/openstack/latest/vendor_data.json": b"{",
        "/openstack/latest/vendor_data2.json": b"{",
        "/openstack/latest/network_data.json": instance.port_id.encode(),
        meta_data: b"instance-id",
        f"{meta_data}ami-launch-index": b"0",
        f"{meta_data}hostname": name,
        f"{meta_data}instance-id": b"i-",
        f"{meta_data}instance-type": b"m1.tiny",
        f"{meta_data}local-hostname": name,
        f"{meta_data}local-ipv4": address.encode(),
        f"{meta_data}placement/availability-zone": b"nova",
        "/latest/user-data": instance.instance_id.encode(),
    }


@dataclass(frozen=True)
class Request:
    """problem: "" when it got what it had to get. at: seconds since the storm began."""

    address: str
    target: str
    at: float
    seconds: float
    problem: str

    def __str__(self) -> str:
        return f"{self.address} {self.target}, sent at {self.at:.1f} s, after {self.seconds:.1f} s: {self.problem}"


def storm(crowds: Mapping[str, list[Instance]]) -> list[Request]:
    """All requests of all guests. crowds: the instances whose addresses a namespace has, by its name."""
    together = threading.Barrier(len(crowds))

    def run(namespace: str) -> list[Request]:
        return inside(namespace, lambda: asyncio.run(_crowd(crowds[namespace], together)))

    with ThreadPoolExecutor(len(crowds)) as pool:
        return [request for found in pool.map(run, crowds) for request in found]


async def _crowd(instances: list[Instance], together: threading.Barrier) -> list[Request]:
    together.wait()
    began = time.monotonic()
    found = await asyncio.gather(*(_guest(instance, began) for instance in instances))
    return [request for requests in found for request in requests]


async def _guest(instance: Instance, began: float) -> list[Request]:
    [address] = instance.addresses
    requests = []
    for target, expected in targets(instance).items():
        sent = time.monotonic()
        try:
            problem = _judge(await asyncio.wait_for(_ask(address, target), LIMIT), expected)
        except (TimeoutError, asyncio.TimeoutError):
            problem = "no answer"
        except OSError as error:
            problem = str(error)
        requests.append(Request(address, target, sent - began, time.monotonic() - sent, problem))
    return requests


async def _ask(address: str, target: str) -> bytes:
    """All bytes until the end of the connection."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.bind((address, 0))
        await loop.sock_connect(connection, (METADATA_ADDRESS, 80))
        head = f"GET {target} HTTP/1.1\r\nHost: {METADATA_ADDRESS}\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(connection, head.encode())
        data = b""
        while piece := await loop.sock_recv(connection, 65536):
            data += piece
        return data


def _judge(data: bytes, expected: bytes) -> str:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    lengths = [int(line[15:]) for line in lines if line.lower().startswith("content-length:")]
    if " 200 " not in first:
        return first or "closed"
    if lengths != [len(body)]:
        return f"{len(body)} bytes, not {lengths}"
    return "" if expected in body else f"another's: {body[:200]!r}"
