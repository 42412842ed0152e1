"""What an operator sees with `openstack network agent list`."""

from __future__ import annotations

from ..service.agents import until
from .conftest import Setting


def test_the_agent_is_in_the_list(setting: Setting, source: str) -> None:
    """Alive, on its host; with REST, too, when it has transport_url."""
    scene = setting.scene
    scene.isolated("a", "10.0.0.0/24", agent_address="10.0.0.2")
    agent = setting.agent(source, transport_url=setting.stack.layout.transport_url, report_interval=2)
    api = setting.cloud.api
    [found] = until(lambda: api.items("agent", host=agent.host), "the agent in the list")
    try:
        assert (found["agent_type"], found["binary"]) == ("Metadata agent", "neutron-metadata-agent")
        assert (found["alive"], found["admin_state_up"]) == (True, True)
        # It goes on reporting.
        first = found["heartbeat_timestamp"]
        until(
            lambda: api.items("agent", host=agent.host)[0]["heartbeat_timestamp"] > first, "a further report"
        )
    finally:
        api.delete("agent", found["id"])
