"""Run by the stack's own interpreter: neutron-metadata-agent itself, which writes down which options it reads.

Usage: traced_agent.py FILE ARGUMENT...: the agent's arguments. FILE gets a line "section name" for each option that is
read, and for each that is declared as one of this agent's.
"""

import sys

from neutron.cmd.agents.metadata import main
from neutron.conf.agent import common
from neutron.conf.agent.metadata import config
from oslo_config import cfg

seen: set[tuple[str, str]] = set()
output = open(sys.argv.pop(1), "w", buffering=1)  # noqa: SIM115 - it is written until the end


def write(section: str, name: str) -> None:
    if (section, name) not in seen:
        seen.add((section, name))
        print(section, name, file=output)


read = cfg.ConfigOpts._get


def read_and_write(self, name, group=None, namespace=None):
    value = read(self, name, group, namespace)
    if not isinstance(value, cfg.ConfigOpts.GroupAttr):
        write(getattr(group, "name", group) or "DEFAULT", name)
    return value


cfg.ConfigOpts._get = read_and_write
# It reads all that there are, to write them into the log.
cfg.ConfigOpts.log_opt_values = lambda *ignored, **more: None
for options in (
    config.SHARED_OPTS,
    config.UNIX_DOMAIN_METADATA_PROXY_OPTS,
    config.METADATA_PROXY_HANDLER_OPTS,
):
    for option in options:
        write("DEFAULT", option.dest)
for option in common.AGENT_STATE_OPTS:
    write("AGENT", option.dest)
main()
