"""Every option: what is taken, and what is refused with a text that says option, value and what is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from oslo_config import cfg

from fastmeta import _core
from fastmeta.conf import list_opts
from fastmeta.conf.discovery import DiscoverySpec
from fastmeta.conf.options import FASTMETA_GROUP, FASTMETA_OPTS
from fastmeta.conf.settings import Settings, load
from fastmeta.conf.types import Seconds, Whole
from fastmeta.conf.upstreams import MAX_HOST, UpstreamSpec
from fastmeta.exceptions import ConfigError, UnsafeFileError

NETWORK = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
LISTEN = f"network:{NETWORK}@127.0.0.1:8080"


def settings_of(
    folder: Path, fastmeta: str = "", default: str = "", *, listen: str = LISTEN, mode: int = 0o640
) -> Settings:
    """The settings of a file with these lines in [fastmeta] and [DEFAULT]."""
    lines = ["[DEFAULT]", "metadata_proxy_shared_secret = s3cret", default, "[fastmeta]"]
    lines += [f"listen = {listen}" if listen else "", "ports_file = /nowhere/ports.json", fastmeta]
    path = folder / "fastmeta.conf"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(mode)
    return Settings.from_conf(load(["--config-file", str(path)], prog="fastmeta agent", version="0"))


def test_defaults(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert settings.upstreams == (UpstreamSpec("http", "127.0.0.1", 8775),)
    assert settings.tls is None
    assert (settings.secret, settings.next_secret) == (b"s3cret", None)
    assert [str(spec) for spec in settings.listen] == [LISTEN]
    assert settings.lookup == "static"
    assert settings.netns_dir == "/run/netns"
    assert (settings.identity_ttl, settings.negative_ttl, settings.lookup_timeout) == (10.0, 2.0, 3.0)
    assert settings.park_timeout == 8.0
    assert settings.core["park_timeout_ms"] == 8000
    assert settings.core["upstream_timeout_ms"] == 60000
    assert settings.core["access_log"] == 0
    # What nobody sets is the core's own default, and every setting has the name that it has there.
    defaults = {name: _core.SETTINGS[name][0] for name in settings.core}
    assert settings.core == defaults | {"warm_connections": 2}


def test_values(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        f"listen = router:{OTHER}@qrouter-{OTHER}/[::]:9697\nidentity_ttl = 5.5\nlookup_timeout = "
        "0.5\naccess_log = true\nmax_connections = 7\nmax_parked = 8\nmax_upstream_connections = "
        "9\nhead_timeout = 0.25",
        "nova_metadata_host = nova.example.org\nnova_metadata_port = 80\ntransport_url = rabbit://unknown\n"
        "state_path = /srv",
    )
    assert [spec.namespace for spec in settings.listen] == [None, f"qrouter-{OTHER}"]
    assert (settings.identity_ttl, settings.lookup_timeout) == (5.5, 0.5)
    assert settings.upstreams == (UpstreamSpec("http", "nova.example.org", 80),)
    assert settings.core["access_log"] == 1
    assert settings.core["head_timeout_ms"] == 250
    assert [settings.core[f"max_{name}"] for name in ("connections", "parked", "upstream_connections")] == [
        7,
        8,
        9,
    ]


def test_later_files_win_and_neutrons_are_taken(tmp_path: Path) -> None:
    (tmp_path / "neutron.conf").write_text("[DEFAULT]\nstate_path = /srv\n[database]\nconnection = x\n")
    (tmp_path / "agent.ini").write_text(
        "[DEFAULT]\nnova_metadata_port = 1\n[fastmeta]\nports_file = $state_path/ports.json\n"
        + f"listen = {LISTEN}\n"
    )
    (tmp_path / "last.ini").write_text("[DEFAULT]\nnova_metadata_port = 2\n")
    argv = [f"--config-file={tmp_path / name}" for name in ("neutron.conf", "agent.ini", "last.ini")]
    settings = Settings.from_conf(load(argv, prog="fastmeta agent", version="0"))
    assert (settings.upstreams[0].tcp_port, settings.ports_file) == (2, "/srv/ports.json")


def test_old_name_of_the_host(tmp_path: Path) -> None:
    (spec,) = settings_of(tmp_path, default="nova_metadata_ip = 192.0.2.1").upstreams
    assert spec.host == "192.0.2.1"


def test_secret_is_not_shown(tmp_path: Path) -> None:
    assert "s3cret" not in repr(settings_of(tmp_path, "next_shared_secret = other-s3cret"))


@pytest.mark.parametrize(
    ("line", "next_secret"),
    [
        ("", None),
        ("next_shared_secret =", None),
        ("next_shared_secret = s3cret", None),
        ("next_shared_secret = ä", "ä".encode()),
    ],
)
def test_next_secret(tmp_path: Path, line: str, next_secret: bytes | None) -> None:
    """None as well when it is the present one: there is nothing to be tried then."""
    assert settings_of(tmp_path, line).next_secret == next_secret


@pytest.mark.parametrize(
    ("default", "spec"),
    [
        ("nova_metadata_host = 2001:DB8::1", UpstreamSpec("http", "2001:db8::1", 8775)),
        ("nova_metadata_host = Nova\nnova_metadata_protocol = https", UpstreamSpec("https", "nova", 8775)),
    ],
)
def test_the_upstream_of_neutrons_options(tmp_path: Path, default: str, spec: UpstreamSpec) -> None:
    assert settings_of(tmp_path, default=default).upstreams == (spec,)


def test_upstreams(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, "upstreams = http://nova, https://192.0.2.1:8775,unix:/run/nova", "nova_metadata_port = 7"
    )
    assert [str(spec) for spec in settings.upstreams] == [
        "http://nova",
        "https://192.0.2.1:8775",
        "unix:/run/nova",
    ]
    assert settings.tls is not None
    assert settings_of(tmp_path, "upstreams =").upstreams == (UpstreamSpec("http", "127.0.0.1", 8775),)


def test_name_that_is_too_long_for_a_header(tmp_path: Path) -> None:
    long = ".".join(["a" * 49] * 5)
    assert len(long) == MAX_HOST
    assert settings_of(tmp_path, default=f"nova_metadata_host = {long}").upstreams[0].host == long
    for longer in (f"{long[:-1]}.a", ".".join(["a" * 62] * 4)):
        with pytest.raises(ConfigError, match="nova_metadata_host: the name has more than 249 characters"):
            settings_of(tmp_path, default=f"nova_metadata_host = {longer}")


def test_global_configuration_is_left_alone(tmp_path: Path) -> None:
    settings_of(tmp_path)
    assert "fastmeta" not in cfg.CONF
    assert "metadata_proxy_shared_secret" not in cfg.CONF


SECONDS = [option.name for option in FASTMETA_OPTS if isinstance(option.type, Seconds)]
NUMBERS = [option.name for option in FASTMETA_OPTS if isinstance(option.type, Whole)]
assert len(SECONDS) >= 12
assert len(NUMBERS) >= 12


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "1e9", "", "1 s", "0x10"])
def test_bad_seconds(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"\[fastmeta\] {name}: .*is not a number of seconds from"
    ) as caught:
        settings_of(tmp_path, f"{name} = {value}")
    assert repr(value) in str(caught.value)
    assert str(tmp_path / "fastmeta.conf") in str(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "many", "1.5", "1_000", "9" * 12, "\u0661", ""])
def test_bad_numbers(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"\[fastmeta\] {name}: .*is not a number( of bytes)? from \d+ to"
    ) as caught:
        settings_of(tmp_path, f"{name} = {value}")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["0", "65536", "http", "-1", ""])
def test_bad_nova_port(tmp_path: Path, value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"nova_metadata_port: .*is not a TCP port from 1 to 65535"
    ) as caught:
        settings_of(tmp_path, default=f"nova_metadata_port = {value}")
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["nova host", "-nova", "[::1]", "http://nova", "a..b/"])
def test_bad_nova_host(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="nova_metadata_host: ") as caught:
        settings_of(tmp_path, default=f"nova_metadata_host = {value}")
    assert value in str(caught.value)


@pytest.mark.parametrize(
    ("default", "fastmeta", "text"),
    [
        ("nova_metadata_protocol = ftp", "", "nova_metadata_protocol: .*http.*https.*ftp"),
        ("", "lookup = dns", r"\[fastmeta\] lookup: .*auto.*rpc.*rest.*static.*dns"),
        ("", "access_log = perhaps", r"\[fastmeta\] access_log: .*perhaps"),
        ("", "netns_dir = netns", r"netns_dir = 'netns': must be an absolute path"),
        ("", "ports_file =\nlookup = static", "lookup = static needs ports_file"),
        (
            "",
            "identity_ttl_with_events = 3",
            "identity_ttl_with_events = 3: must be longer than lookup_timeout",
        ),
        ("", "ports_file = $nothing/ports", r"\[fastmeta\] ports_file: \$ in it names no option"),
        ("", "identity_ttl = 3", "identity_ttl = 3: must be longer than lookup_timeout"),
        ("", f"listen = {LISTEN}", "the same place is given already"),
        ("", f"listen = network:{OTHER}@127.0.0.1:8080", f"already, for network {NETWORK}"),
        ("", "listen = nonsense", "listen = 'nonsense': there is no @"),
        ("", "upstreams = http://a,ftp://b", r"\[fastmeta\] upstreams, entry 'ftp://b': it begins with none"),
        ("", f"listen = network:{OTHER}@qdhcp-{NETWORK}/1.2.3.4:80", f"right is qdhcp-{OTHER}"),
        ("", f"listen = router:{OTHER}@qrouter-{NETWORK}/1.2.3.4:80", f"right is qrouter-{OTHER}"),
    ],
)
def test_bad_choices(tmp_path: Path, default: str, fastmeta: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        settings_of(tmp_path, fastmeta, default)


RATE_LIMITS = "[metadata_rate_limiting]\n"


def test_rate_limits_are_off(tmp_path: Path) -> None:
    assert settings_of(tmp_path).core["rate_versions"] == 0
    assert settings_of(tmp_path, f"{RATE_LIMITS}ip_versions = 4,6").core["rate_versions"] == 0


@pytest.mark.parametrize(("versions", "number"), [("4", 1), ("6", 2), ("4,6", 3), ("6, 4", 3), ("4,4", 1)])
def test_rate_limits(tmp_path: Path, versions: str, number: int) -> None:
    core = settings_of(
        tmp_path,
        f"{RATE_LIMITS}rate_limit_enabled = True\nip_versions = {versions}\nbase_window_duration = 60\n"
        "base_query_rate_limit = 50\nburst_window_duration = 5\nburst_query_rate_limit = 30\n",
    ).core
    assert core["rate_versions"] == number
    assert (core["base_window_ms"], core["base_limit"]) == (60_000, 50)
    assert (core["burst_window_ms"], core["burst_limit"]) == (5_000, 30)


@pytest.mark.parametrize("versions", ["5", "4,5", "", "v4", "7", "4;6"])
def test_bad_ip_versions(tmp_path: Path, versions: str) -> None:
    with pytest.raises(ConfigError, match=r"\[metadata_rate_limiting\] ip_versions"):
        settings_of(tmp_path, f"{RATE_LIMITS}ip_versions = {versions}")


@pytest.mark.parametrize(
    "name",
    ["base_window_duration", "base_query_rate_limit", "burst_window_duration", "burst_query_rate_limit"],
)
@pytest.mark.parametrize("value", ["0", "-1", "ten", "1.5", ""])
def test_bad_rate_limits(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[metadata_rate_limiting\] {name}: .*from 1 to") as caught:
        settings_of(tmp_path, f"{RATE_LIMITS}{name} = {value}")
    assert repr(value) in str(caught.value)


def test_whatever_an_option_takes_the_core_takes(tmp_path: Path) -> None:
    for option in dict(list_opts())[FASTMETA_GROUP]:
        for name, unit in ((option.name, 1), (f"{option.name}_ms", 1000), ("max_gathered", 1)):
            if name == "max_gathered" and option.name != "max_gathered_bodies":
                continue
            if name in _core.SETTINGS and isinstance(option.type, Seconds | Whole):
                _, smallest, largest = _core.SETTINGS[name]
                assert smallest <= option.type.min * unit, name
                assert option.type.max * unit <= largest, name


def test_nothing_to_listen_on(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="listen, discover and stand_in are not set, and metadata_proxy_socket"
    ):
        settings_of(tmp_path, default="metadata_proxy_socket =", listen="")


def test_stand_ins_are_enough(tmp_path: Path) -> None:
    """Without listen; the agent's unix socket is there only when it is asked for, and never with relay = false."""
    path = "metadata_proxy_socket = /run/m"
    settings = settings_of(tmp_path, "stand_in = true\n", listen="")
    assert settings.stand_in
    assert (settings.listen, settings.relay, settings.control_dir) == ((), None, "/run/fastmeta")
    assert settings_of(tmp_path, "stand_in = true\n", default=path, listen="").relay is not None
    assert settings_of(tmp_path, "stand_in = true\nrelay = false\n", default=path, listen="").relay is None
    assert settings_of(tmp_path, "relay = false\n", default=path).relay is None
    assert not settings_of(tmp_path).stand_in
    with pytest.raises(ConfigError, match="there is nothing to serve"):
        settings_of(tmp_path, "relay = false\n", listen="")
    with pytest.raises(ConfigError, match="stand_in = true: needs control_dir"):
        settings_of(tmp_path, "stand_in = true\ncontrol_dir =\n")


def test_the_socket_is_wanted_when_it_is_given_or_nothing_else_is(tmp_path: Path) -> None:
    """So Neutron's files are enough, and who only listens needs no folder for it."""
    assert settings_of(tmp_path).relay is None
    assert settings_of(tmp_path, "discover = dhcp", listen="").relay is None
    for default in ("metadata_proxy_socket =", "state_path = /srv", "metadata_proxy_user = root"):
        assert settings_of(tmp_path, default=default).relay is None
    path = "metadata_proxy_socket = /run/m"
    for default, listen, expected in (
        (path, LISTEN, "/run/m"),
        (path, "", "/run/m"),
        ("metadata_proxy_socket = $state_path/metadata_proxy", LISTEN, "/var/lib/neutron/metadata_proxy"),
        ("", "", "/var/lib/neutron/metadata_proxy"),
        ("state_path = /srv", "", "/srv/metadata_proxy"),
    ):
        relay = settings_of(tmp_path, default=default, listen=listen).relay
        assert relay is not None
        assert relay.path == expected


def test_what_is_found_by_itself(tmp_path: Path) -> None:
    """Neutron's options with their defaults, and with other values."""
    assert settings_of(tmp_path, default="metadata_port = 9700").discover is None
    assert settings_of(tmp_path, "discover = router, dhcp").discover == DiscoverySpec(
        routers=True,
        networks=True,
        metadata_port=9697,
        mark=1,
        ha_confs_path="/var/lib/neutron/ha_confs",
        metadata_networks=False,
    )
    default = "metadata_port = 9700\nmetadata_access_mark = 0x8000\nstate_path = /srv\nenable_metadata_network = true"
    assert settings_of(tmp_path, "discover = dhcp", default, listen="").discover == DiscoverySpec(
        routers=False,
        networks=True,
        metadata_port=9700,
        mark=0x8000,
        ha_confs_path="/srv/ha_confs",
        metadata_networks=True,
    )


@pytest.mark.parametrize(
    ("fastmeta", "default", "text"),
    [
        ("discover = routers", "", "discover: .*routers"),
        ("discover = dhcp", "metadata_port = 0", "metadata_port: '0' is not a TCP port from 1 to 65535"),
        (
            "discover = router",
            "metadata_access_mark = 0",
            "metadata_access_mark = '0': right is a number from 0x1",
        ),
        ("discover = router", "metadata_access_mark = 0x10000", "right is a number from 0x1 to 0xffff"),
        ("discover = router", "metadata_access_mark = 0x1/0xf", "right is a number from 0x1 to 0xffff"),
        ("discover = router", "ha_confs_path = ha", "ha_confs_path = 'ha': must be an absolute path"),
    ],
)
def test_what_cannot_be_found(tmp_path: Path, fastmeta: str, default: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        settings_of(tmp_path, fastmeta, default)


def test_router_of_a_metadata_network_may_be_in_a_dhcp_namespace(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, f"listen = router:{OTHER}@qdhcp-{NETWORK}/169.254.169.254:80")
    assert len(settings.listen) == 2


def test_secret_with_a_dollar_is_not_shown_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(tmp_path, default="metadata_proxy_shared_secret = pa$word")
    assert "word" not in str(caught.value)
    assert "right is $$" in str(caught.value)


def test_line_that_cannot_be_read_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "broken.conf"
    path.write_text("[DEFAULT]\nmetadata_proxy_shared_secret s3cret\n")
    with pytest.raises(ConfigError) as caught:
        load(["--config-file", str(path)], prog="fastmeta agent", version="0")
    assert f"{path}:2" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        load(["--config-file", str(tmp_path / "absent")], prog="fastmeta agent", version="0")


@pytest.mark.parametrize(
    "mode",
    [
        # An ordinary user's own group may write: tests/operator/test_units.py.
        pytest.param(
            0o660, marks=pytest.mark.skipif(os.geteuid() != 0, reason="it depends on who is in our group")
        ),
        0o606,
        0o666,
    ],
)
def test_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UnsafeFileError, match=r"fastmeta\.conf: .*chmod go-w"):
        settings_of(tmp_path, mode=mode)


def test_file_in_a_config_dir_that_others_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "a.conf").write_text(f"[fastmeta]\nlisten = {LISTEN}\nports_file = /nowhere\n")
    (folder / "a.conf").chmod(0o666)
    with pytest.raises(UnsafeFileError, match=r"a\.conf"):
        Settings.from_conf(load(["--config-dir", str(folder)], prog="fastmeta agent", version="0"))


@pytest.mark.skipif(
    os.geteuid() != 0 and "FASTMETA_CI" not in os.environ, reason="only root can give a file away"
)
def test_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "fastmeta.conf"
    path.write_text("")
    os.chown(path, 12345, -1)
    with pytest.raises(UnsafeFileError, match="belongs to user 12345"):
        Settings.from_conf(load(["--config-file", str(path)], prog="fastmeta agent", version="0"))


def test_every_option_has_a_help_text() -> None:
    options = [option for _, group in list_opts() for option in group]
    assert len({option.name for option in options}) == len(options) > 15
    assert all(len(option.help) > 20 for option in options)


def test_sample_can_be_generated(tmp_path: Path) -> None:
    """oslo-config-generator reads list_opts() only; what it writes is a valid configuration."""
    script = (
        "from oslo_config import generator, cfg\nfrom unittest import mock\nimport fastmeta.conf, sys\n"
        "generator._list_opts = lambda namespaces: [('fastmeta', fastmeta.conf.list_opts())]\n"
        "generator.main(['--namespace', 'fastmeta', '--output-file', sys.argv[1]])\n"
    )
    sample = tmp_path / "sample.conf"
    subprocess.run([sys.executable, "-c", script, str(sample)], check=True, timeout=60)
    text = sample.read_text()
    assert "[fastmeta]" in text
    assert "#nova_metadata_port = 8775" in text
    load(["--config-file", str(sample)], prog="fastmeta agent", version="0")
