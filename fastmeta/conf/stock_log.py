"""The rows of oslo.log's options: a part of the table in ``fastmeta.conf.stock``."""

from __future__ import annotations

from fastmeta.conf.stock_rows import StockOption
from fastmeta.conf.stock_rows import no_effect as _none
from fastmeta.conf.stock_rows import same as _same

_LOG = "tests/operator/test_log_files.py"
_ROTATION = "tests/operator/test_log_rotation.py"
_LOG_OPTION = "tests/operator/test_log_options.py"
_OURS = "oslo.log's own, with its meaning"
NO_NOTIFICATIONS = "errors are in the log, and not sent over the message bus as well"

LOG_OPTIONS: tuple[StockOption, ...] = (
    _same("DEFAULT", "debug", "true", "tests/service/test_reload.py::test_the_level_of_the_log", _OURS),
    _same(
        "DEFAULT", "log_config_append", "/etc/neutron/logging.conf", f"{_LOG}::test_a_configuration", _OURS
    ),
    _same("DEFAULT", "log_date_format", "%H:%M:%S", f"{_LOG}::test_formats", _OURS),
    _same("DEFAULT", "log_file", "metadata-agent.log", f"{_LOG}::test_a_file", _OURS),
    _same("DEFAULT", "log_dir", "/var/log/neutron", f"{_LOG}::test_a_folder", _OURS),
    _same("DEFAULT", "log_rotation_type", "size", f"{_ROTATION}::test_rotated_by_size", _OURS),
    _same("DEFAULT", "log_rotate_interval", "7", f"{_ROTATION}::test_rotated_by_time", _OURS),
    _same("DEFAULT", "log_rotate_interval_type", "hours", f"{_ROTATION}::test_rotated_by_time", _OURS),
    _same("DEFAULT", "max_logfile_count", "7", f"{_ROTATION}::test_rotated_by_time", _OURS),
    _same("DEFAULT", "max_logfile_size_mb", "50", f"{_ROTATION}::test_rotated_by_size", _OURS),
    _same("DEFAULT", "logging_default_format_string", "%(message)s", f"{_LOG}::test_formats", _OURS),
    _same("DEFAULT", "default_log_levels", "fastmeta=ERROR", f"{_LOG}::test_levels", _OURS),
    _same("DEFAULT", "use_syslog", "true", f"{_LOG_OPTION}::test_syslog", _OURS),
    _same("DEFAULT", "syslog_log_facility", "LOG_DAEMON", f"{_LOG_OPTION}::test_syslog", _OURS),
    _same(
        "DEFAULT",
        "use_journal",
        "true",
        f"{_LOG_OPTION}::test_journal",
        f"{_OURS}; without the package systemd-python the log goes to standard error, with a warning",
    ),
    _same("DEFAULT", "use_json", "true", f"{_LOG}::test_as_json", _OURS),
    _same("DEFAULT", "use_stderr", "true", f"{_LOG_OPTION}::test_standard_error", _OURS),
    _same("DEFAULT", "log_color", "true", f"{_LOG_OPTION}::test_color", _OURS),
    _same(
        "DEFAULT",
        "logging_debug_format_suffix",
        "%(lineno)d",
        f"{_LOG_OPTION}::test_suffix_of_debug_lines",
        _OURS,
    ),
    _same(
        "DEFAULT",
        "logging_exception_prefix",
        "%(name)s",
        f"{_LOG_OPTION}::test_prefix_of_tracebacks",
        f"{_OURS}; for tracebacks, which only a defect makes",
    ),
    *(
        _same("DEFAULT", name, example, f"{_LOG_OPTION}::test_rate_limit", _OURS)
        for name, example in (
            ("rate_limit_interval", "1"),
            ("rate_limit_burst", "100"),
            ("rate_limit_except_level", "ERROR"),
        )
    ),
    *(
        _none("DEFAULT", name, example, f"oslo.log's own, for lines about {what}; there are none in this log")
        for name, example, what in (
            ("logging_context_format_string", "context %(message)s", "a request of OpenStack's API"),
            ("logging_user_identity_format", "%(user)s", "a request of OpenStack's API"),
            ("instance_format", "%(uuid)s", "an instance of Nova's compute service"),
            ("instance_uuid_format", "%(uuid)s", "an instance of Nova's compute service"),
        )
    ),
    _none(
        "DEFAULT",
        "watch_log_file",
        "true",
        "without meaning since oslo.log 6.0 (2024.2): a log file that somebody has moved is followed in any case",
    ),
    _none("DEFAULT", "publish_errors", "true", NO_NOTIFICATIONS),
)
