"""Every option that neutron-metadata-agent reads (or once read), and what it means to fastmeta.

The one place for this: docs/options-of-neutron.md is made of it, ``fastmeta config check`` says it of each option that
is set, and tests/operator goes through all rows.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

ANY = "*"
"""In place of an option's name: all of a section."""


class Effect(enum.Enum):
    """What becomes of an option."""

    SAME = "means the same"
    NONE = "no effect"


@dataclass(frozen=True, slots=True)
class StockOption:
    """One row. section: in lower case, but DEFAULT. example: a value that is not the default; with ANY an option with
    its value.

    why: of one without effect the reason, of others what may differ in detail. shown_by: the test, or the folder of
    tests, that shows the effect.
    """

    section: str
    name: str
    example: str
    effect: Effect
    why: str = ""
    shown_by: str = ""

    @property
    def is_section(self) -> bool:
        """Whether it stands for all options of a section."""
        return self.name == ANY

    @property
    def shown(self) -> str:
        """As texts name it."""
        if self.is_section:
            return f"[{self.section}] (all of it)"
        return self.name if self.section == "DEFAULT" else f"[{self.section}] {self.name}"

    def is_about(self, section: str, name: str) -> bool:
        """Whether an option of a file is of this row. section, name: as of a row."""
        return section == self.section and self.name in (ANY, name)


def _same(section: str, name: str, example: str, shown_by: str, why: str = "") -> StockOption:
    return StockOption(section, name, example, Effect.SAME, why, shown_by)


def _none(section: str, name: str, example: str, why: str) -> StockOption:
    return StockOption(section, name, example, Effect.NONE, why)


_SETTINGS = "tests/unit/test_settings.py"
_LOG = "tests/operator/test_log_files.py"
_OURS = "oslo.log's own, with its meaning"

_REMOVED = "removed from Neutron in "

STOCK_OPTIONS: tuple[StockOption, ...] = (
    # Nova's metadata API.
    _same(
        "DEFAULT",
        "nova_metadata_host",
        "192.0.2.10",
        f"{_SETTINGS}::test_the_upstream_of_neutrons_options",
        "a name with several addresses: all of them are used; no effect where [fastmeta] upstreams is set",
    ),
    _same(
        "DEFAULT",
        "nova_metadata_port",
        "8776",
        f"{_SETTINGS}::test_the_upstream_of_neutrons_options",
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
        "tests/nova_side/test_tls.py::test_insecure_takes_any",
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
        "tests/nova_side/test_tls.py::test_our_certificate_is_shown",
    ),
    _same(
        "DEFAULT",
        "nova_client_priv_key",
        "/etc/neutron/client.key",
        "tests/nova_side/test_tls.py::test_our_certificate_is_shown",
        "not encrypted",
    ),
    _same(
        "DEFAULT",
        "metadata_proxy_shared_secret",
        "s3cret",
        "tests/service/test_trust.py::test_answers_carry_the_guests_own_identity",
        "the file that it is in must belong to root or to the service's user, and nobody else may be able to write it",
    ),
    # What Neutron's services have in common.
    _same(
        "DEFAULT",
        "state_path",
        "/srv/neutron",
        f"{_SETTINGS}::test_later_files_win_and_neutrons_are_taken",
        "for $state_path in other options",
    ),
    _same("DEFAULT", "host", "node-7", "tests/bus/test_reports.py::test_a_report_is_the_stock_agent_s"),
    _same(
        "DEFAULT",
        "transport_url",
        "rabbit://neutron:secret@192.0.2.20:5672/",
        "tests/bus/test_questions.py::test_a_question_is_asked_as_the_stock_agent_asks",
    ),
    _same(
        "agent",
        "report_interval",
        "15",
        "tests/bus/test_reports.py::test_a_report_is_the_stock_agent_s",
        "0: no reports, and so no port events either",
    ),
    _same(
        "agent",
        "log_agent_heartbeats",
        "true",
        "tests/bus/test_reports.py::test_a_report_is_the_stock_agent_s",
    ),
    # Limits: Neutron's L3 and DHCP agents give them to their haproxies.
    *(
        _same(
            "metadata_rate_limiting",
            name,
            example,
            shown_by,
            "also for guests whom fastmeta itself listens to; 4,6 is taken and limits both",
        )
        for name, example, shown_by in (
            ("rate_limit_enabled", "true", "tests/service/test_reload.py::test_a_rate_limit"),
            ("ip_versions", "6", "tests/core/test_loop_rates.py::test_versions"),
            ("base_window_duration", "60", "tests/core/test_loop_rates.py::test_base_limit"),
            ("base_query_rate_limit", "100", "tests/core/test_loop_rates.py::test_base_limit"),
            (
                "burst_window_duration",
                "5",
                "tests/core/test_loop_rates.py::test_burst_limit_under_a_larger_base_limit",
            ),
            (
                "burst_query_rate_limit",
                "50",
                "tests/core/test_loop_rates.py::test_burst_limit_under_a_larger_base_limit",
            ),
        )
    ),
    # oslo.log.
    _same("DEFAULT", "debug", "true", "tests/service/test_reload.py::test_the_level_of_the_log", _OURS),
    _same(
        "DEFAULT", "log_config_append", "/etc/neutron/logging.conf", f"{_LOG}::test_a_configuration", _OURS
    ),
    _same("DEFAULT", "log_date_format", "%H:%M:%S", f"{_LOG}::test_formats", _OURS),
    _same("DEFAULT", "log_file", "metadata-agent.log", f"{_LOG}::test_a_file", _OURS),
    _same("DEFAULT", "log_dir", "/var/log/neutron", f"{_LOG}::test_a_folder", _OURS),
    _same("DEFAULT", "log_rotation_type", "size", f"{_LOG}::test_rotated_by_size", _OURS),
    _same("DEFAULT", "log_rotate_interval", "7", f"{_LOG}::test_rotated_by_time", _OURS),
    _same("DEFAULT", "log_rotate_interval_type", "hours", f"{_LOG}::test_rotated_by_time", _OURS),
    _same("DEFAULT", "max_logfile_count", "7", f"{_LOG}::test_rotated_by_time", _OURS),
    _same("DEFAULT", "max_logfile_size_mb", "50", f"{_LOG}::test_rotated_by_size", _OURS),
    _same("DEFAULT", "logging_default_format_string", "%(message)s", f"{_LOG}::test_formats", _OURS),
    _same("DEFAULT", "default_log_levels", "fastmeta=ERROR", f"{_LOG}::test_levels", _OURS),
    _same("DEFAULT", "use_syslog", "true", f"{_LOG}::test_options_of_the_library", _OURS),
    _same("DEFAULT", "syslog_log_facility", "LOG_DAEMON", f"{_LOG}::test_options_of_the_library", _OURS),
    _same("DEFAULT", "use_journal", "true", f"{_LOG}::test_options_of_the_library", _OURS),
    _same("DEFAULT", "use_json", "true", f"{_LOG}::test_as_json", _OURS),
    *(
        _same("DEFAULT", name, example, f"{_LOG}::test_options_of_the_library", _OURS)
        for name, example in (
            ("use_stderr", "true"),
            ("log_color", "true"),
            ("logging_context_format_string", "%(message)s"),
            ("logging_debug_format_suffix", "%(lineno)d"),
            ("logging_exception_prefix", "%(name)s"),
            ("logging_user_identity_format", "%(user)s"),
            ("publish_errors", "true"),
            ("instance_format", "%(uuid)s"),
            ("instance_uuid_format", "%(uuid)s"),
            ("rate_limit_interval", "1"),
            ("rate_limit_burst", "100"),
            ("rate_limit_except_level", "ERROR"),
        )
    ),
    # oslo.messaging.
    _same(
        "oslo_messaging_rabbit",
        ANY,
        "ssl = true",
        "tests/bus",
        "oslo.messaging's own; where the files say nothing, four have other defaults: docs/bus.md",
    ),
    _same("DEFAULT", "control_exchange", "neutron-2", "tests/bus", "oslo.messaging's own"),
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
    # Old names. Neutron ignores them all today.
    _same(
        "DEFAULT",
        "nova_metadata_ip",
        "192.0.2.10",
        f"{_SETTINGS}::test_old_name_of_the_host",
        f"{_REMOVED}2017; the old name of nova_metadata_host",
    ),
    *(
        _same(
            "DEFAULT",
            name,
            example,
            "tests/lookup/test_keystone.py::TestOldNames",
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
        f"{_REMOVED}2017; a log file that somebody else has moved is not followed: let oslo.log rotate it",
    ),
)

NOT_YET = (
    "metadata_proxy_socket",
    "metadata_proxy_socket_mode",
    "metadata_proxy_user",
    "metadata_proxy_group",
)
"""Options of [DEFAULT] that the stock agent reads, and fastmeta does not yet."""


def row_of(section: str, name: str) -> StockOption | None:
    """section, name: as a file has them."""
    section = section if section == "DEFAULT" else section.lower()
    return next((row for row in STOCK_OPTIONS if row.is_about(section, name)), None)


def rows(effect: Effect) -> Iterator[StockOption]:
    """In the order of the table."""
    return (row for row in STOCK_OPTIONS if row.effect is effect)
