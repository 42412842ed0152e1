"""State reports: what Neutron's server gets, and what failures do."""

from __future__ import annotations

import asyncio
import datetime
import logging
from pathlib import Path

import pytest

from fastmeta.reports import Reporter

from .kit import Running, configuration, lines, run
from .neutron import NeutronServer
from .rabbit import RabbitMQ


def test_a_report_is_the_stock_agent_s(tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
    async def test(running: Running) -> None:
        await running.until(lambda: len(neutron.calls("report_state")) >= 3)

    conf = configuration(
        tmp_path, rabbit.url, agent="report_interval = 0.2", default="nova_metadata_host = nova.example.org"
    )
    run(conf, test)
    first, second = neutron.calls("report_state")[:2]
    state = dict(first["arguments"]["agent_state"]["agent_state"])
    assert len(state.pop("uuid")) == 36
    assert state == {
        "binary": "neutron-metadata-agent",
        "agent_type": "Metadata agent",
        "topic": "N/A",
        "host": "node-1",
        "configurations": {
            "metadata_proxy_socket": "/var/lib/neutron/metadata_proxy",
            "nova_metadata_host": "nova.example.org",
            "nova_metadata_port": 8775,
            "log_agent_heartbeats": False,
        },
        "start_flag": True,
        "resource_versions": {"Port": "1.4"},
    }
    later = second["arguments"]["agent_state"]["agent_state"]
    assert later.keys() == state.keys() - {"start_flag"} | {"uuid"}
    assert later["uuid"] != first["arguments"]["agent_state"]["agent_state"]["uuid"]
    sent_at = datetime.datetime.strptime(first["arguments"]["time"], "%Y-%m-%dT%H:%M:%S.%f")
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    assert abs((now - sent_at).total_seconds()) < 60
    assert first["context"]["is_admin"] is True


def test_failures_are_said_once_and_delay_nothing(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    neutron.tell(mode="fail")

    async def test(running: Running) -> None:
        await running.until(lambda: len(neutron.calls("report_state")) >= 5)
        neutron.tell(mode="answer")
        await running.ask()
        await running.until(lambda: "takes them again" in caplog.text)

    run(configuration(tmp_path, rabbit.url, agent="report_interval = 0.2"), test)
    failures = [line for line in lines(caplog) if line.startswith("state reports fail")]
    assert len(failures) == 1
    assert "report_state (Refused)" in failures[0]
    assert "hunter2" not in caplog.text
    # It is the first one that a server got which says that we have started.
    starts = [
        "start_flag" in call["arguments"]["agent_state"]["agent_state"]
        for call in neutron.calls("report_state")
    ]
    assert starts == [True] * (starts.count(True)) + [False] * starts.count(False)


def test_an_agent_that_asks_in_another_way_reports_too(
    tmp_path: Path, rabbit: RabbitMQ, neutron: NeutronServer
) -> None:
    async def body() -> None:
        reporter = Reporter(configuration(tmp_path, rabbit.url))
        try:
            reporter.start()
            while not neutron.calls("report_state"):
                await asyncio.sleep(0.02)
        finally:
            await reporter.stop()

    asyncio.run(asyncio.wait_for(body(), 30))
    (report,) = neutron.calls("report_state")
    assert "resource_versions" not in report["arguments"]["agent_state"]["agent_state"]


def test_without_a_bus_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def body() -> None:
        reporter = Reporter(configuration(tmp_path, ""))
        reporter.start()
        await reporter.stop()

    asyncio.run(body())
    assert "openstack network agent list does not show us" in caplog.text
