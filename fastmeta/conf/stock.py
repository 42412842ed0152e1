"""Every option that neutron-metadata-agent reads (or once read), and what it means to fastmeta.

The one place for this: docs/options-of-neutron.md is made of it, ``fastmeta config check`` says it of each option that
is set, and tests/operator goes through all rows, with an agent that runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastmeta.conf.stock_log import LOG_OPTIONS, NO_NOTIFICATIONS
from fastmeta.conf.stock_rows import ANY, Effect, StockOption
from fastmeta.conf.stock_rows import no_effect as _none
from fastmeta.conf.stock_rows import same as _same

_AGENT = "tests/operator/test_agent_options.py"
_KEYSTONE = "tests/operator/test_keystone_options.py"
_BUS = "tests/operator/test_bus_options.py"
_SOCKET = "tests/relay/test_socket.py"
_COMMON = (
    "read by what all of Neutron's programs have in common, and of no use to neutron-metadata-agent either"
)

_REMOVED = "removed from Neutron in "

STOCK_OPTIONS: tuple[StockOption, ...] = (
    # Nova's metadata API.
    _same(
        "DEFAULT",
        "nova_metadata_host",
        "192.0.2.10",
        f"{_AGENT}::test_nova_metadata_host",
        "a name with several addresses: all of them are used; no effect where [fastmeta] upstreams is set",
    ),
    _same(
        "DEFAULT",
        "nova_metadata_port",
        "8776",
        f"{_AGENT}::test_nova_metadata_port",
        "no effect where [fastmeta] upstreams is set",
    ),
    _same(
        "DEFAULT",
        "nova_metadata_protocol",
        "https",
        "tests/service/test_tls.py::test_by_neutrons_options",
        "no effect where [fastmeta] upstreams is set",
    ),
    _same(
        "DEFAULT",
        "nova_metadata_insecure",
        "true",
        f"{_AGENT}::test_nova_metadata_insecure",
        "taken with a warning",
    ),
    _same(
        "DEFAULT",
        "auth_ca_cert",
        "/etc/ssl/certs/nova.pem",
        "tests/service/test_tls.py::test_by_neutrons_options",
        "a file, not a folder; not set: OpenSSL's authorities, and not those of the requests library",
    ),
    _same(
        "DEFAULT",
        "nova_client_cert",
        "/etc/neutron/client.pem",
        "tests/service/test_tls.py::test_by_neutrons_options",
    ),
    _same(
        "DEFAULT",
        "nova_client_priv_key",
        "/etc/neutron/client.key",
        "tests/service/test_tls.py::test_by_neutrons_options",
        "not encrypted",
    ),
    _same(
        "DEFAULT",
        "metadata_proxy_shared_secret",
        "s3cret",
        f"{_AGENT}::test_metadata_proxy_shared_secret",
        "the file that it is in must belong to root or to the service's user, and nobody else may be able to write it",
    ),
    # The socket for haproxies.
    _same(
        "DEFAULT",
        "metadata_proxy_socket",
        "/srv/neutron/metadata_proxy",
        f"{_AGENT}::test_metadata_proxy_socket",
        "its folder must be there",
    ),
    _same(
        "DEFAULT",
        "metadata_proxy_socket_mode",
        "all",
        f"{_SOCKET}::test_mode_as_an_ordinary_user",
        "deduce as root: such that haproxies of another user can open it",
    ),
    _same(
        "DEFAULT",
        "metadata_proxy_user",
        "nobody",
        f"{_SOCKET}::test_who_is_served",
        "also: whom the socket serves",
    ),
    _same(
        "DEFAULT",
        "metadata_proxy_group",
        "nogroup",
        f"{_SOCKET}::test_who_is_served",
        "also: whom the socket serves",
    ),
    # What Neutron's services have in common.
    _same(
        "DEFAULT",
        "state_path",
        "/srv/neutron",
        f"{_AGENT}::test_state_path",
        "for $state_path in other options",
    ),
    _same("DEFAULT", "host", "node-7", f"{_BUS}::test_what_neutron_is_told"),
    _same(
        "DEFAULT",
        "transport_url",
        "rabbit://neutron:secret@192.0.2.20:5672/",
        f"{_BUS}::test_transport_url",
    ),
    _same(
        "agent",
        "report_interval",
        "15",
        f"{_BUS}::test_report_interval",
        "0: no reports, and so no port events either",
    ),
    _same(
        "agent",
        "log_agent_heartbeats",
        "true",
        f"{_BUS}::test_what_neutron_is_told",
    ),
    # Limits: Neutron's L3 and DHCP agents give them to their haproxies.
    *(
        _same(
            "metadata_rate_limiting",
            name,
            example,
            f"{_AGENT}::{shown_by}",
            "also for guests whom fastmeta itself listens to; 4,6 is taken and limits both",
        )
        for name, example, shown_by in (
            ("rate_limit_enabled", "true", "test_rate_limit_enabled"),
            ("ip_versions", "6", "test_ip_versions"),
            ("base_window_duration", "60", "test_base_window_duration"),
            ("base_query_rate_limit", "100", "test_base_query_rate_limit"),
            ("burst_window_duration", "5", "test_burst_window_duration"),
            ("burst_query_rate_limit", "50", "test_burst_query_rate_limit"),
        )
    ),
    *LOG_OPTIONS,
    # oslo.messaging.
    _same(
        "oslo_messaging_rabbit",
        ANY,
        "ssl = true",
        f"{_BUS}::test_oslo_messaging_rabbit",
        "oslo.messaging's own; where the files say nothing, four have other defaults: docs/bus.md",
    ),
    _same(
        "DEFAULT", "control_exchange", "neutron-2", f"{_BUS}::test_control_exchange", "oslo.messaging's own"
    ),
    _none(
        "DEFAULT",
        "rpc_response_timeout",
        "90",
        "a question has [fastmeta] lookup_timeout: guests do not wait for a minute",
    ),
    _none(
        "DEFAULT",
        "rpc_response_max_timeout",
        "900",
        "the time of a question is never made longer; it is asked again, for as long as guests wait",
    ),
    _none("oslo_messaging_metrics", ANY, "metrics_enabled = true", "oslo.messaging's metrics are off"),
    _none("oslo_messaging_tracing", ANY, "tracing_enabled = true", "oslo.messaging's tracing is off"),
    _none("oslo_messaging_notifications", ANY, "driver = messagingv2", NO_NOTIFICATIONS),
    # What one process, that answers all guests at once, has no use for.
    _none(
        "DEFAULT",
        "metadata_workers",
        "4",
        "one process answers all guests at once, whatever their number; for more processors: [fastmeta] loops",
    ),
    _none(
        "DEFAULT",
        "metadata_backlog",
        "128",
        "the backlog is always 4,096, or net.core.somaxconn where that is less",
    ),
    _none(
        "cache",
        ANY,
        "enabled = true",
        "who has an address is remembered in this process, for [fastmeta] identity_ttl at most, and forgotten when the "
        "port changes; neutron-metadata-agent itself has used no cache since 2025.1",
    ),
    _none(
        "metadata_haproxy",
        ANY,
        "timeout_client = 60",
        "times of the haproxies that Neutron's L3 and DHCP agents start; those of fastmeta are [fastmeta] …_timeout",
    ),
    _none("DEFAULT", "setproctitle", "brief", "the process is called by its command line"),
    *(
        _none(section, ANY, example, "osprofiler is not used")
        for section, example in (
            ("profiler", "enabled = true"),
            ("profiler_jaeger", "service_name_prefix = neutron"),
            ("profiler_otlp", "service_name_prefix = neutron"),
        )
    ),
    _none(
        "oslo_reports",
        ANY,
        "log_dir = /var/log/neutron",
        "no Guru Meditation Reports are made; SIGUSR1 and SIGUSR2 do nothing but write a line into the log",
    ),
    _none("DEFAULT", "base_mac", "fa:16:3f:00:00:00", _COMMON),
    *(
        _none(section, ANY, example, _COMMON)
        for section, example in (
            ("nova", "region_name = RegionTwo"),
            ("ironic", "region_name = RegionTwo"),
            ("placement", "region_name = RegionTwo"),
            ("oslo_policy", "policy_file = policy.json"),
        )
    ),
    # Old names. Neutron ignores them all today.
    _same(
        "DEFAULT",
        "nova_metadata_ip",
        "192.0.2.10",
        f"{_AGENT}::test_nova_metadata_ip",
        f"{_REMOVED}2017; the old name of nova_metadata_host",
    ),
    *(
        _same(
            "DEFAULT",
            name,
            example,
            f"{_KEYSTONE}::{'test_auth_insecure' if name == 'auth_insecure' else 'test_an_old_name'}",
            f"{_REMOVED}2015; the old name of [neutron] {new}",
        )
        for name, example, new in (
            ("auth_url", "http://192.0.2.30:5000/v3", "auth_url"),
            ("auth_region", "RegionTwo", "region_name"),
            ("admin_tenant_name", "service", "project_name"),
            ("admin_user", "neutron", "username"),
            ("admin_password", "pa55word", "password"),
            ("auth_insecure", "true", "insecure"),
        )
    ),
    _none(
        "DEFAULT",
        "auth_strategy",
        "noauth",
        "for Neutron's servers; a Neutron without Keystone is [neutron] auth_type = none, with endpoint_override",
    ),
    _none("DEFAULT", "cache_url", "memory://?default_ttl=5", f"{_REMOVED}2017; as of section [cache]"),
    _none(
        "DEFAULT",
        "metadata_proxy_watch_log",
        "false",
        f"{_REMOVED}2017, with the processes that it was for; our own log file is followed when it is moved",
    ),
)


def row_of(section: str, name: str) -> StockOption | None:
    """section, name: as a file has them."""
    section = section if section == "DEFAULT" else section.lower()
    return next((row for row in STOCK_OPTIONS if row.is_about(section, name)), None)


def rows(effect: Effect) -> Iterator[StockOption]:
    """In the order of the table."""
    return (row for row in STOCK_OPTIONS if row.effect is effect)
