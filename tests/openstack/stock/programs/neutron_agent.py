"""Run by the stack's own interpreter: the part of Neutron's L3, DHCP and OVN agents that keeps metadata proxies, as
they have it: MetadataDriver, ProcessManager and ProcessMonitor. It lives until its standard input ends.

Usage: neutron_agent.py CONFIG, a file with Neutron's options. On standard input a line of JSON for each order:
"command" is "spawn", "destroy" or "active"; "uuid" of the network or router; "namespace"; "ovn"; for spawn "arguments"
for spawn_monitored_metadata_proxy, and perhaps "options" that are set before, of "group". To each a line of JSON
answers, with "result" or "error". The first line says that it is ready.
"""

import json
import sys

from neutron import privileged
from neutron.agent import l3_agent
from neutron.agent.linux import external_process
from neutron.agent.metadata import driver
from neutron.agent.ovn.metadata import driver as ovn_driver
from neutron.conf.agent import common
from oslo_config import cfg


def answer(text: object) -> None:
    print(json.dumps(text), flush=True)


class Agent:
    def __init__(self, config: str) -> None:
        self.conf = cfg.CONF
        l3_agent.register_opts(self.conf)
        common.register_process_monitor_opts(self.conf)
        common.register_root_helper(self.conf)
        self.conf(["--config-file", config], project="neutron")
        # We are root already: neither sudo nor a daemon of oslo.privsep is needed.
        self.conf.set_override("root_helper", "", "AGENT")
        privileged.default.set_client_mode(False)
        self.monitor = external_process.ProcessMonitor(self.conf, "metadata")

    def do(self, order: dict) -> object:
        uuid, namespace = order["uuid"], order.get("namespace")
        chosen = (ovn_driver if order.get("ovn") else driver).MetadataDriver
        if order["command"] == "spawn":
            for name, value in order.get("options", {}).items():
                self.conf.set_override(name, value, order.get("group"))
            chosen.spawn_monitored_metadata_proxy(
                self.monitor, namespace, conf=self.conf, **order["arguments"]
            )
            return uuid in chosen.monitors
        if order["command"] == "destroy":
            chosen.destroy_monitored_metadata_proxy(self.monitor, uuid, self.conf, namespace)
            return True
        manager = chosen.monitors.get(uuid)
        return manager is not None and manager.active


def main() -> None:
    agent = Agent(sys.argv[1])
    answer({"result": "ready"})
    for line in sys.stdin:
        try:
            answer({"result": agent.do(json.loads(line))})
        except Exception as error:  # whatever Neutron raises is for the test to judge
            answer({"error": f"{type(error).__name__}: {error}"})
    agent.monitor.stop()


main()
