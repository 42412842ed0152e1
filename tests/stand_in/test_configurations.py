"""What is read of haproxy's configurations: those of Neutron's agents to the last line, and no others."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from .configurations import EVERY, NETWORK, OVN, ROUTER, TAP, UUID, Configuration

TIMEOUT = 20


def read(reader: Path, text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    done = subprocess.run([str(reader)], input=data, capture_output=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "backslashreplace").splitlines()


def expected(configuration: Configuration) -> list[str]:
    kind = "router" if "Router" in configuration.headers[-1] else "network"
    lines = ["proxy", f"{kind} {UUID}", f"pidfile {configuration.pid_file}"]
    for bind in configuration.binds:
        place, _, interface = bind.partition(" interface ")
        host, _, port = place.rpartition(":")
        lines.append(f"bind {host.strip('[]')} {port} {interface or '-'}")
    limits = configuration.limits
    version = (6 if configuration.version == "ipv6" else 4) if limits else 0
    lines.append(" ".join(map(str, ["rate", version, *(limits or [0, 0, 0, 0])])))
    lines.append(" ".join(map(str, ["timeouts", *configuration.timeouts])))
    return lines


@pytest.mark.parametrize("name", EVERY)
def test_every_generation(reader: Path, name: str) -> None:
    assert read(reader, str(EVERY[name])) == expected(EVERY[name])


def test_without_a_newline_at_the_end(reader: Path) -> None:
    assert read(reader, str(Configuration()).rstrip()) == expected(Configuration())


FOREIGN = {
    "empty": "",
    "a proxy of somebody's": "global\n    daemon\nfrontend www\n    bind :80\n    default_backend app\n",
    "neutron's metadata_path": str(Configuration(headers=[f"http-request set-header X-Instance-ID {UUID}"])),
    "a header that only looks alike": str(
        Configuration(headers=[f"http-request set-header X-Neutron {UUID}"])
    ),
    "in a comment": str(Configuration(headers=[f"# http-request set-header X-Neutron-Network-ID {UUID}"])),
    "binary": b"\0" + str(Configuration()).encode(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_others_are_left_to_haproxy(reader: Path, name: str) -> None:
    assert read(reader, FOREIGN[name]) == ["foreign"]


UNKNOWN: dict[str, Configuration | str] = {
    "another line": Configuration(more=["    http-response set-header X-A b"]),
    "another section": Configuration(more=["frontend other", "    bind 0.0.0.0:81"]),
    "another bind option": Configuration(binds=["169.254.169.254:80 ssl"]),
    "a name in the place of an address": Configuration(binds=["localhost:80"]),
    "no port": Configuration(binds=["169.254.169.254"]),
    "port 0": Configuration(binds=["169.254.169.254:0"]),
    "a large port": Configuration(binds=["169.254.169.254:65536"]),
    "a range of ports": Configuration(binds=["169.254.169.254:80-90"]),
    "half a bracket": Configuration(binds=["[::1:80"]),
    "an interface that is too long": Configuration(binds=["169.254.169.254:80 interface " + "i" * 16]),
    "no bind": Configuration(binds=[]),
    "five binds": Configuration(binds=[f"127.0.0.{number}:80" for number in range(5)]),
    "two ids": Configuration(headers=[*NETWORK, *ROUTER]),
    "one id twice": Configuration(headers=[*NETWORK, *OVN]),
    "no uuid": Configuration(headers=["http-request set-header X-Neutron-Network-ID blue"]),
    "upper case": Configuration(headers=[f"http-request set-header X-Neutron-Network-ID {UUID.upper()}"]),
    "more behind the uuid": Configuration(headers=[f"http-request set-header X-Neutron-Network-ID {UUID}0"]),
    "ovn's router": Configuration(headers=[f"http-request add-header X-OVN-Router-ID {UUID}"]),
    "another id in log-tag": str(Configuration()).replace(
        f"proxy-{UUID}", "proxy-" + UUID.replace("6d", "7e")
    ),
    "relative pid file": Configuration(pid_file="pid"),
    "a pid file that is too long": Configuration(pid_file="/" + "p" * 600),
    "pid file twice": str(Configuration()).replace("    daemon", "    pidfile /a\n    daemon"),
    "no pid file": str(Configuration()).replace("pidfile", "maxconn 1 #"),
    "no daemon": str(Configuration()).replace("    daemon\n", ""),
    "no server": str(Configuration()).replace("    server metadata", "    # server metadata"),
    "a server of TCP": str(Configuration()).replace("/var/lib/neutron/metadata_proxy", "127.0.0.1:80"),
    "a server twice": Configuration(more=["    server metadata /tmp/other"]),
    "minutes": str(Configuration()).replace("timeout connect         30s", "timeout connect 1m"),
    "a timeout twice": str(Configuration()).replace("retries      ", "timeout connect 1s\n    retries "),
    "a huge timeout": Configuration(timeouts=(30, 99999999999, 32, 32, 30)),
    "a quote": Configuration(user='"neutron"'),
    "a variable": Configuration(user="$USER"),
    "an escape": Configuration(user="neu\\tron"),
    "a carriage return": str(Configuration()).replace("daemon\n", "daemon\r\n"),
    "a comment": str(Configuration()).replace("    daemon", "    daemon # yes"),
    "many words": Configuration(more=["    " + "w " * 20]),
    "tables of two versions": str(Configuration(limits=(1, 2, 3, 4))).replace("type ip ", "type ipv6 ", 1),
    "a limit that is not used": str(Configuration(limits=(1, 2, 3, 4))).replace("track-sc1", "track-sc0"),
    "one table": str(Configuration(limits=(1, 2, 3, 4))).replace("backend burst", "backend bust"),
    "a limit of none": Configuration(limits=(10, 0, 10, 10)),
    "another status": str(Configuration(limits=(1, 2, 3, 4))).replace("429", "403"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_not_guessed(reader: Path, name: str) -> None:
    kind, why = read(reader, str(UNKNOWN[name]))
    assert kind == "unknown"
    assert "line" in why or "missing" in why


def test_the_line_is_named(reader: Path) -> None:
    text = str(Configuration(binds=["169.254.169.254:80 ssl"]))
    number = text.split("\n").index("    bind 169.254.169.254:80 ssl") + 1
    assert read(reader, text)[1].startswith(f"line {number} ")


def test_cut_off_anywhere(reader: Path) -> None:
    """A configuration that is still being written is never taken for a whole one that says something else."""
    whole = str(replace(EVERY["master, brackets"], more=[]))
    good = expected(EVERY["master, brackets"])
    for length in range(0, len(whole), 7):
        found = read(reader, whole[:length])
        assert found[0] in ("foreign", "unknown") or found == good, whole[:length]


def test_damaged_anywhere(reader: Path) -> None:
    """The sanitizers see no wrong step, whatever is read."""
    generator = random.Random(7)
    whole = str(EVERY["master, brackets"]).encode()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 6)):
            at = generator.randrange(len(damaged))
            if generator.random() < 0.5:
                damaged[at] = generator.choice(b"\0 \n:[]{}()%s09azAZ\xff")
            else:
                del damaged[at : at + generator.randint(1, 40)]
        assert read(reader, bytes(damaged))[0] in ("foreign", "unknown", "proxy")


def test_tap_names_are_taken_as_they_are(reader: Path) -> None:
    assert f"bind fe80::a9fe:a9fe 80 {TAP}" in read(reader, str(EVERY["ovn, with IPv6"]))
