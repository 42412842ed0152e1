"""Servers that stop, freeze or are killed while guests ask: nobody gets another's data, nobody is told that there is no
such instance, no connection is dropped; afterwards everybody is served again, by the same agent."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from ..service.agents import until
from .agents import IDENTITY_TTL, PARK_TIMEOUT
from .asking import Asking
from .conftest import Setting, mend

OUTAGE = IDENTITY_TTL + 2
"""Seconds: long enough for all identities to end."""

CASES = {
    "rest": [("neutron_api", "stop"), ("neutron_api", "freeze"), ("keystone", "stop"), ("bus", "stop")],
    "rpc": [
        ("neutron_rpc", "stop"),
        ("neutron_rpc", "freeze"),
        ("bus", "kill"),
        ("bus", "freeze"),
        ("keystone", "stop"),
    ],
}
UNNEEDED = {("rest", "bus"), ("rpc", "keystone")}
"""What a source does without."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("source", "what", "how"), [(source, *case) for source, cases in CASES.items() for case in cases]
)
def test_outage(setting: Setting, source: str, what: str, how: str) -> None:
    scene = setting.scene
    networks = [scene.isolated(name, "10.0.0.0/24", agent_address="10.0.0.2") for name in ("a", "b")]
    networks.append(scene.routed(scene.router("router"), "c", "10.0.0.0/24", gateway="10.0.0.1"))
    guests = [scene.guest(network, f"10.0.0.{last}") for network in networks for last in (5, 6)]
    agent = setting.agent(source)
    pid = agent.service.pid
    service = getattr(setting.stack.services, what)
    with ExitStack() as stack:
        asking = [stack.enter_context(Asking(guest, pause=0.1)) for guest in guests]

        def all_served_since(moment: float) -> bool:
            return all(any(record.instance_id for record in one.since(moment)) for one in asking)

        until(lambda: all_served_since(0.0), "everybody served")
        began = time.monotonic()
        getattr(service, how)()
        # Not what is waited for, but how long the outage is.
        time.sleep(max(0.0, began + OUTAGE - time.monotonic()))
        mend(setting.stack)
        back = time.monotonic()
        until(lambda: all_served_since(back), "everybody served again", 60)
        served = time.monotonic()
    assert agent.service.pid == pid
    waited = 0.0
    failed = []
    for one in asking:
        own = one.guest.instance.instance_id
        assert {record.instance_id for record in one.records} <= {own, ""}, one.guest.name
        refused = [record for record in one.records if record.status != 200]
        bad = [record for record in refused if record.status != 503 or not record.retry_after]
        assert bad == [], "\n".join(map(str, bad))
        failed += refused
        waited = max(waited, *(record.ended - record.began for record in one.records))
    asked = sum(len(one.records) for one in asking)
    setting.note(
        f"{source}: {what} {how}, {back - began:.1f} s: {len(failed)} of {asked} got 503, the longest wait was "
        f"{waited:.1f} s, everybody served {served - back:.2f} s after it was back"
    )
    if (source, what) in UNNEEDED:
        assert failed == [], "\n".join(map(str, failed))
    # Guests wait rather than fail. Identities may have ended before, so nothing can be said of those who asked later.
    half = PARK_TIMEOUT / 2
    early = [each for each in failed if each.ended - each.began < half and each.ended < began + half]
    assert early == [], "\n".join(map(str, early))
