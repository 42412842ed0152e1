"""Plays Neutron's server on a message bus, with the servers and clients of oslo.messaging that Neutron uses.

Usage: neutron_server.py TRANSPORT_URL CONTROL_EXCHANGE. Reads commands as lines of JSON from standard input, and writes
what it was asked, and "ready", as such lines to standard output.

  {"ports": [...]}             all ports from now on, as get_ports answers them
  {"mode": "answer"}           how get_ports and report_state behave: answer, silent, garbage, fail, fail_builtin
  {"push": [resources, event_type, topic]}
"""

import json
import sys
import threading
import time
import warnings

warnings.simplefilter("ignore")

import oslo_messaging  # noqa: E402
import oslo_messaging.opts  # noqa: E402
from oslo_config import cfg  # noqa: E402


class Refused(Exception):
    """Of a module that the asking side does not know."""


class Server:
    """What is said is written under a lock: several threads of oslo.messaging call."""

    def __init__(self):
        self.ports = []
        self.mode = "answer"
        self.released = threading.Event()
        self.lock = threading.Lock()

    def say(self, **what):
        with self.lock:
            print(json.dumps(what), flush=True)

    def behave(self):
        """None: go on and answer; otherwise the answer, in a tuple."""
        if self.mode == "silent":
            self.released.wait(30)
        if self.mode == "garbage":
            return ({"ports": "are not what you asked for"},)
        if self.mode == "fail":
            raise Refused("no database: mysql://neutron:hunter2@db")
        if self.mode == "fail_builtin":
            raise KeyError("hunter2")
        return None

    def get_ports(self, context, filters):
        self.say(call="get_ports", filters=filters, context=context)
        answer = self.behave()
        return answer[0] if answer else [port for port in self.ports if matches(port, filters)]

    def report_state(self, context, **arguments):
        self.say(call="report_state", arguments=arguments, context=context)
        answer = self.behave()
        return answer[0] if answer else "alive"


def matches(port, filters):
    """As ML2 does: an empty filter is none. Of a port that is none at all nobody can tell."""
    try:
        return _matches(port, filters)
    except (AttributeError, KeyError, TypeError):
        return True


def _matches(port, filters):
    for name, values in filters.items():
        if name == "fixed_ips":
            values = values["ip_address"]
            if values and not {ip["ip_address"] for ip in port["fixed_ips"]} & set(values):
                return False
        elif values and port[name] not in values:
            return False
    return True


class Endpoint:
    def __init__(self, server, version, **methods):
        self.target = oslo_messaging.Target(version=version)
        for name, method in methods.items():
            setattr(self, name, method)


def main():
    conf = cfg.ConfigOpts()
    for group, options in oslo_messaging.opts.list_opts():
        conf.register_opts(options, group=group)
    for group, name in (
        ("oslo_messaging_tracing", "tracing_enabled"),
        ("oslo_messaging_metrics", "metrics_enabled"),
    ):
        conf.register_opt(cfg.BoolOpt(name, default=False), group=group)
    conf.set_default("control_exchange", sys.argv[2])
    conf.set_default("rabbit_interval_max", 1, group="oslo_messaging_rabbit")
    conf([], project="neutron", default_config_files=[], default_config_dirs=[])
    transport = oslo_messaging.get_rpc_transport(conf, sys.argv[1])
    server = Server()
    servers = [
        oslo_messaging.get_rpc_server(
            transport,
            oslo_messaging.Target(topic=topic, server="neutron"),
            [Endpoint(server, version, **methods)],
        )
        for topic, version, methods in (
            ("q-plugin", "1.0", {"get_ports": server.get_ports}),
            ("q-reports-plugin", "1.4", {"report_state": server.report_state}),
        )
    ]
    for one in servers:
        one.start()
    pusher = oslo_messaging.get_rpc_client(transport, oslo_messaging.Target())
    server.say(ready=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "ports" in command:
            server.ports = command["ports"]
        if "mode" in command:
            server.mode = command["mode"]
            server.released.set() if server.mode != "silent" else server.released.clear()
        if "push" in command:
            resources, event_type, topic = command["push"]
            client = pusher.prepare(fanout=True, topic=topic, version="1.1")
            server.say(pushed_at=time.monotonic())
            client.cast({}, "push", resource_list=resources, event_type=event_type)
        if "cast" in command:
            topic, method, arguments = command["cast"]
            pusher.prepare(fanout=True, topic=topic, version="1.1").cast({}, method, **arguments)
        server.say(done=True)


if __name__ == "__main__":
    main()
    # Threads of oslo.messaging may wait for a bus that is gone.
    import os

    os._exit(0)
