"""Whether it can be found out who has an address: by the source that the agent would use.

It is asked a question that changes nothing: for the port with the metadata address in a network of this node. Nobody is
told that we are there: no report, no queue but the one for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
import uuid
from collections.abc import AsyncIterator

from oslo_config import cfg

from fastmeta.check.findings import Finding, State
from fastmeta.check.records import Records
from fastmeta.conf.settings import Settings
from fastmeta.exceptions import ConfigError, FastmetaError, LookupMalformedError
from fastmeta.lookup.static import Content
from fastmeta.models import Question, Scope, ScopeKind, parse_uuid
from fastmeta.trusted_files import read_trusted_file

PART = "Who has which address"
REPORTS = "Reports to Neutron"

PATIENCE = 15.0
"""Seconds that Keystone and Neutron have here. A question of the agent has lookup_timeout."""
BUS_PATIENCE = 30.0
"""The same, attempts to connect included, which oslo.messaging cannot be told to give up sooner."""
CLOSING = 2.0
MOST_ASKED = 20
"""Networks and routers whose ports are asked for."""

_QUESTION = Question(ipaddress.ip_address("169.254.169.254"))

# As fastmeta.lookup.neutron_rpc asks; that module is imported only where the bus is used.
_TOPIC, _VERSION = "q-plugin", "1.0"


async def ask(conf: cfg.ConfigOpts, settings: Settings) -> AsyncIterator[Finding]:
    """Asks whom the agent would ask."""
    yield Finding(PART, State.OK, f"lookup is {settings.lookup}{_because(conf, settings)}")
    if settings.lookup == "rpc":
        yield await _ask_bus(conf, settings, PART, "Neutron's servers answer over")
        return
    if settings.lookup == "rest":
        async for finding in _ask_neutron(conf, settings):
            yield finding
    else:
        yield _read_ports_file(settings)
    if conf.transport_url:
        yield await _ask_bus(conf, settings, REPORTS, "Neutron's servers answer over")
    else:
        text = "transport_url is not set: openstack network agent list does not show us"
        yield Finding(REPORTS, State.NOTE, text)


def _because(conf: cfg.ConfigOpts, settings: Settings) -> str:
    if conf.fastmeta.lookup != "auto":
        return ""
    what = {"rpc": "transport_url", "rest": "credentials in [neutron]", "static": "ports_file"}
    return f" (auto, because of {what[settings.lookup]})"


def _read_ports_file(settings: Settings) -> Finding:
    path = settings.ports_file
    try:
        content = Content.parse(read_trusted_file(path))
    except ConfigError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            text = f"ports file {path} is not there yet: guests wait until it is"
            return Finding(PART, State.WRONG, text)
        return Finding(PART, State.WRONG, f"ports file {error}", ends=True)
    except LookupMalformedError as error:
        return Finding(PART, State.WRONG, f"ports file {path}: {error}", ends=True)
    count = sum(map(len, content.by_network.values()))
    text = f"ports file {path}: {count} ports in {len(content.by_network)} networks"
    return Finding(PART, State.OK if count else State.DOUBT, text)


async def _ask_neutron(conf: cfg.ConfigOpts, settings: Settings) -> AsyncIterator[Finding]:
    from fastmeta.lookup.neutron_rest import RestSource

    found = _scopes(settings)
    # Of one that we have made up nothing can be visible.
    scopes = found[:MOST_ASKED] or [Scope(ScopeKind.NETWORK, str(uuid.uuid4()))]
    try:
        source = RestSource(conf, lambda: PATIENCE)
    except ConfigError as error:
        yield Finding(PART, State.WRONG, str(error), ends=True)
        return
    began = time.monotonic()
    with Records() as records:
        try:
            await source.start(lambda change: None, lambda announcing: None)
            await source.ports(scopes[0], [_QUESTION])
            token = time.monotonic()
            await source.ports(scopes[0], [_QUESTION])
            took = time.monotonic() - token
            for scope in scopes[1:]:
                await source.ports(scope, [_QUESTION])
        except FastmetaError as error:
            yield Finding(PART, State.WRONG, str(error))
            return
        finally:
            await source.stop()
    yield Finding(
        PART,
        State.OK,
        f"Keystone gives us a token, and Neutron's API answers ({token - began:.1f} s with the token, {took:.2f} s "
        "without)",
    )
    if took > settings.lookup_timeout:
        yield _too_slow(took, settings)
    if found:
        for text in dict.fromkeys(records.texts):
            yield Finding(PART, State.WRONG, text)
        yield Finding(
            PART,
            State.NOTE,
            f"{len(scopes)} of {len(found)} networks and routers of this node were asked for",
        )
    else:
        yield Finding(
            PART,
            State.NOTE,
            "whether the credentials may see all ports cannot be told: there is no namespace of a network or router "
            "on this node; they need the role admin or service",
        )


def _scopes(settings: Settings) -> list[Scope]:
    """Those to ask about: of the configuration, else those whose namespaces are on this node."""
    scopes = [spec.scope for spec in settings.listen]
    if not scopes:
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(settings.netns_dir)):
                prefix, _, rest = name.partition("-")
                kind = {"qdhcp": ScopeKind.NETWORK, "qrouter": ScopeKind.ROUTER}.get(prefix)
                known = parse_uuid(rest)
                if kind is not None and known is not None:
                    scopes.append(Scope(kind, known))
    return list(dict.fromkeys(scopes))


async def _ask_bus(conf: cfg.ConfigOpts, settings: Settings, part: str, success: str) -> Finding:
    # None of it is loaded where there is no bus.
    from fastmeta.bus.connection import Bus
    from fastmeta.bus.failures import explain
    from fastmeta.bus.workers import Workers
    from fastmeta.reports import close

    try:
        bus = Bus(conf)
    except ConfigError as error:
        return Finding(part, State.WRONG, str(error), ends=True)
    workers = Workers("check", 1)
    # Of a network that nobody has: an answer without ports, whatever the size of the cloud.
    filters = {"network_id": [str(uuid.uuid4())], "fixed_ips": {"ip_address": [str(_QUESTION.address)]}}

    def call() -> float:
        began = time.monotonic()
        bus.call(_TOPIC, _VERSION, "get_ports", PATIENCE, filters=filters)
        return time.monotonic() - began

    try:
        took = await asyncio.wait_for(workers.run(call), BUS_PATIENCE)
    except asyncio.TimeoutError:
        return Finding(part, State.WRONG, f"{bus.place} does not answer")
    except Exception as error:
        text = str(explain(error, place=bus.place, call="get_ports", timeout=PATIENCE))
        return Finding(part, State.WRONG, text)
    finally:
        workers.stop()
        await close(workers.join, bus.close, seconds=CLOSING)
    if took > settings.lookup_timeout and part == PART:
        return _too_slow(took, settings)
    return Finding(part, State.OK, f"{success} {bus.place} ({took:.2f} s, with the connection)")


def _too_slow(took: float, settings: Settings) -> Finding:
    return Finding(
        PART,
        State.WRONG,
        f"the answer took {took:.1f} s, longer than lookup_timeout ({settings.lookup_timeout:g} s): guests get 503",
    )
