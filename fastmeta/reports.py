"""State reports: Neutron lists us among its agents, and learns that we want port events.

As the stock agent's (neutron-metadata-agent), but that each one is a call, so that we know whether Neutron's server got
it: only then does it go on sending events.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from fastmeta.bus.connection import Bus
from fastmeta.bus.failures import explain
from fastmeta.bus.workers import Workers
from fastmeta.conf.bus import host_name

LOG = logging.getLogger(__name__)

TOPIC = "q-reports-plugin"
VERSION = "1.4"
CALL_TIMEOUT = 10.0
"""Seconds that Neutron's server has for one; never more than report_interval."""
SETTLE = 65.0
"""Seconds after which each process of Neutron's servers has read from the database which versions agents want: it does
so when it pushes something, if it did not in the last 60 s."""
MISSED = 2.2
"""In so many report intervals at least one report has to be confirmed. Then we count as alive (agent_down_time is 75 s
for an interval of 30 s), and only living agents are sent the version that they want."""


class StateReports:
    """One call each report_interval, in a thread of its own. Failures are logged once, and never fatal."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        bus: Bus,
        *,
        resource_versions: Mapping[str, str] | None = None,
        on_known: Callable[[bool], None] | None = None,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """resource_versions: of what Neutron shall send us. on_known(True): from now on all of Neutron's servers
        know that we want it; False: no longer. Called in the thread of the event loop."""
        self._bus = bus
        self._interval: float = conf.agent.report_interval
        self._timeout = min(CALL_TIMEOUT, self._interval)
        self._on_known = on_known
        self._settle = settle
        self._clock = clock
        self._workers = Workers("state-reports", 1)
        self._task: asyncio.Task[None] | None = None
        self._failure = ""
        self._known = False
        self._confirmed_since: float | None = None
        self._confirmed_at = 0.0
        self._state: dict[str, Any] = {
            "binary": "neutron-metadata-agent",
            "agent_type": "Metadata agent",
            "topic": "N/A",
            "host": host_name(conf),
            "configurations": {
                # What the stock agent would say; whether anything listens there is not for the server to know.
                "metadata_proxy_socket": conf.metadata_proxy_socket,
                "nova_metadata_host": conf.nova_metadata_host,
                "nova_metadata_port": conf.nova_metadata_port,
                "log_agent_heartbeats": conf.agent.log_agent_heartbeats,
            },
            "start_flag": True,
        }
        if resource_versions:
            self._state["resource_versions"] = dict(resource_versions)

    def start(self) -> None:
        """Begins, unless report_interval is 0."""
        if not self._interval:
            LOG.warning(
                "[agent] report_interval is 0: openstack network agent list does not show us, and Neutron sends us no "
                "port events"
            )
            return
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="state reports")

    def end(self) -> None:
        """No more reports, no callback. A call in progress ends by itself, in bounded time."""
        self._on_known = None
        if self._task is not None:
            self._task.cancel()
        self._workers.stop()

    def join(self, seconds: float) -> bool:
        """Waits for threads; False when not all have ended."""
        return self._workers.join(seconds)

    async def _keep(self) -> None:
        next_at = self._clock()
        while True:
            await self._report()
            self._judge()
            next_at = max(next_at + self._interval, self._clock())
            while (left := next_at - self._clock()) > 0:
                await asyncio.sleep(min(left, self._until_known() or left))
                self._judge()

    async def _report(self) -> None:
        began = self._clock()
        try:
            # The thread may take longer to give up than anyone should wait.
            status = await asyncio.wait_for(self._workers.run(self._call), self._timeout + 1)
        except asyncio.TimeoutError:
            self._failed(f"{self._bus.place} does not answer")
        except Exception as error:
            self._failed(
                str(explain(error, place=self._bus.place, call="report_state", timeout=self._timeout))
            )
        else:
            self._state.pop("start_flag", None)
            if self._confirmed_since is None or status == "revived":
                # Until now we may have counted as dead.
                self._confirmed_since = self._clock()
            self._confirmed_at = began
            if self._failure:
                LOG.info("state reports: Neutron's server takes them again")
            self._failure = ""

    def _call(self) -> Any:
        # As neutron_lib.constants.ISO8601_TIME_FORMAT has it: UTC, without a zone.
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
        state = {**self._state, "uuid": str(uuid.uuid4())}
        return self._bus.call(
            TOPIC, VERSION, "report_state", self._timeout, agent_state={"agent_state": state}, time=now
        )

    def _failed(self, reason: str) -> None:
        if reason != self._failure:
            self._failure = reason
            LOG.warning(
                "state reports fail: %s; openstack network agent list will show this agent as down", reason
            )

    def _until_known(self) -> float | None:
        """Seconds, while it is only a matter of time."""
        if self._confirmed_since is None or self._known:
            return None
        return max(0.001, self._confirmed_since + self._settle - self._clock())

    def _judge(self) -> None:
        """Tells on_known what has changed."""
        now = self._clock()
        if self._confirmed_since is not None and now - self._confirmed_at > MISSED * self._interval:
            self._confirmed_since = None
        known = self._confirmed_since is not None and now - self._confirmed_since >= self._settle
        if known != self._known:
            self._known = known
            if self._on_known is not None:
                self._on_known(known)


class Reporter:
    """State reports over a bus of their own: for an agent that asks Neutron in another way than over the bus."""

    STOP_GRACE = 3.0
    """Seconds that stop() waits for threads; they end by themselves some seconds later at the latest."""

    def __init__(self, conf: cfg.ConfigOpts, *, reports_itself: bool = False) -> None:
        """reports_itself: the lookup source does, and there is nothing to do here. Raises ConfigError when
        transport_url is set and cannot be used."""
        self._needed = not reports_itself
        self._bus = Bus(conf) if self._needed and conf.transport_url else None
        self._reports = StateReports(conf, self._bus) if self._bus is not None else None

    def start(self) -> None:
        """Begins, if there is a bus."""
        if self._reports is not None:
            self._reports.start()
        elif self._needed:
            LOG.info("transport_url is not set: openstack network agent list does not show us")

    async def stop(self) -> None:
        """Ends the reports, and returns soon."""
        if self._bus is None or self._reports is None:
            return
        self._reports.end()
        await close(self._reports.join, self._bus.close, seconds=self.STOP_GRACE)


async def close(
    join: Callable[[float], bool], close_bus: Callable[[], None], *, seconds: float, patience: float = 60.0
) -> None:
    """Closes a bus when nobody uses it any more, in a thread of its own; waits for that so many seconds only."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        try:
            join(patience)
            close_bus()
        except Exception as error:
            # Nothing is lost by it: the process ends, or the bus is gone.
            LOG.debug("closing the message bus: %s", type(error).__name__)
        finally:
            with contextlib.suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="bus-close", daemon=True).start()
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except asyncio.TimeoutError:
        LOG.warning("the message bus does not answer: its connections are left to end by themselves")
