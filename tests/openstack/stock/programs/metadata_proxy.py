"""Run by the stack's own interpreter: lets the code of Neutron's L3 and DHCP agents start or end a metadata proxy.

Usage: metadata_proxy.py JSON, an object: "command" is "spawn" or "destroy"; "config" is a file with Neutron's
options; "namespace"; "uuid" of the network or router; for spawn "arguments" for spawn_monitored_metadata_proxy.
"""

import json
import sys

from neutron import privileged
from neutron.agent import l3_agent
from neutron.agent.linux import external_process
from neutron.agent.metadata import driver
from neutron.conf.agent import common
from oslo_config import cfg


def main() -> None:
    given = json.loads(sys.argv[1])
    conf = cfg.CONF
    l3_agent.register_opts(conf)
    common.register_process_monitor_opts(conf)
    common.register_root_helper(conf)
    conf(["--config-file", given["config"]], project="neutron")
    # We are root already: neither sudo nor a daemon of oslo.privsep is needed.
    conf.set_override("root_helper", "", "AGENT")
    conf.set_override("check_child_processes_interval", 0, "AGENT")
    privileged.default.set_client_mode(False)
    monitor = external_process.ProcessMonitor(conf, "metadata")
    if given["command"] == "spawn":
        driver.MetadataDriver.spawn_monitored_metadata_proxy(
            monitor, given["namespace"], conf=conf, **given["arguments"]
        )
        if given["uuid"] not in driver.MetadataDriver.monitors:
            sys.exit("Neutron could not start haproxy; it has logged why")
    else:
        driver.MetadataDriver.destroy_monitored_metadata_proxy(
            monitor, given["uuid"], conf, given["namespace"]
        )


main()
