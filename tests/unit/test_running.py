"""What reading the configuration again finds, and what it leaves as it was."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from fastmeta.conf.running import FIXED, FREE, OURS, RunningConfiguration, shown
from fastmeta.conf.settings import load
from fastmeta.exceptions import ConfigError, FastmetaError, UnsafeFileError

LISTEN = "network:11111111-1111-4111-8111-111111111111@127.0.0.1:8080"
OTHER = "network:22222222-2222-4222-8222-222222222222@127.0.0.1:8081"


class Files:
    """One file with these lines, and the configuration that was read of it first."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.path = folder / "fastmeta.conf"
        self.options = {"metadata_proxy_shared_secret": "s3cret", "[fastmeta] listen": LISTEN}
        self.options |= {"[fastmeta] ports_file": "/nowhere/ports.json"}
        self.write(**options)
        read = functools.partial(load, ["--config-file", str(self.path)], prog="fastmeta agent", version="0")
        self.configuration = RunningConfiguration(read(), read)

    def write(self, **options: str) -> None:
        self.options |= options
        sections: dict[str, list[str]] = {}
        for name, value in self.options.items():
            section, _, option = name.rpartition("] ")
            sections.setdefault(section.strip("[") or "DEFAULT", []).append(f"{option} = {value}")
        text = "".join("\n".join((f"[{section}]", *lines, "")) for section, lines in sections.items())
        self.path.write_text(text)
        self.path.chmod(0o640)


def test_nothing_is_different(tmp_path: Path) -> None:
    files = Files(tmp_path)
    before = files.configuration.settings
    changes = files.configuration.read_again()
    assert (changes.taken_up, changes.needs_restart) == ((), ())
    assert changes.settings == changes.before == before == files.configuration.settings


OTHER_VALUES = {
    "nova_metadata_host": "nova.example.org",
    "nova_metadata_port": "1234",
    "metadata_proxy_shared_secret": "n3w",
    "debug": "true",
    "[fastmeta] identity_ttl": "20.0",
    "[fastmeta] negative_ttl": "3.5",
    "[fastmeta] lookup_timeout": "2.5",
    "[fastmeta] access_log": "true",
    "[metadata_rate_limiting] rate_limit_enabled": "true",
    "[metadata_rate_limiting] ip_versions": "4,6",
} | {
    name: {"Seconds": "1.5", "Whole": "100"}[type(option.type).__name__]
    for name, option in OURS.items()
    if type(option.type).__name__ in ("Seconds", "Whole")
    and name.rpartition(" ")[2]
    not in ("identity_ttl", "negative_ttl", "lookup_timeout", "nova_metadata_port", "loops", "max_headers")
}
OTHER_VALUES["[fastmeta] max_head"] = "300"
OTHER_VALUES["[fastmeta] max_headers"] = "99"


def test_every_free_option_is_tried() -> None:
    assert set(OTHER_VALUES) == FREE - {"state_path", "nova_metadata_protocol"}
    assert len(OTHER_VALUES) > 30


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_an_option_that_is_taken_up(tmp_path: Path, name: str) -> None:
    """It is in the settings then, and is named with its value (but for the secret's)."""
    base = {"[metadata_rate_limiting] rate_limit_enabled": "true"}
    files = Files(tmp_path, **({} if name in base else base))
    before = files.configuration.settings
    files.write(**{name: OTHER_VALUES[name]})
    changes = files.configuration.read_again()
    with_value = name if "secret" in name else f"{name} = {OTHER_VALUES[name]}"
    assert (changes.taken_up, changes.needs_restart) == ((with_value,), ())
    assert changes.settings != before
    assert files.configuration.settings == changes.settings
    assert files.configuration.read_again().taken_up == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("[fastmeta] listen", OTHER),
        ("[fastmeta] ports_file", "/elsewhere"),
        ("[fastmeta] netns_dir", "/elsewhere"),
        ("[fastmeta] loops", "2"),
        ("log_file", "/elsewhere"),
        ("default_log_levels", "fastmeta=DEBUG"),
    ],
)
def test_an_option_that_needs_a_restart(tmp_path: Path, name: str, value: str) -> None:
    """It is named each time, until it is what it was; others are taken up beside it."""
    files = Files(tmp_path)
    before = files.configuration.settings
    first = dict(files.options)
    files.write(**{name: value, "[fastmeta] identity_ttl": "11"})
    changes = files.configuration.read_again()
    assert (changes.taken_up, changes.needs_restart) == (("[fastmeta] identity_ttl = 11.0",), (name,))
    assert changes.settings.identity_ttl == 11
    for fixed in FIXED:
        assert getattr(changes.settings, fixed) == getattr(before, fixed)
    again = files.configuration.read_again()
    assert (again.taken_up, again.needs_restart) == ((), (name,))
    files.options = first
    files.write(**{"[fastmeta] identity_ttl": "11"})
    back = files.configuration.read_again()
    assert (back.taken_up, back.needs_restart) == ((), ())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"[fastmeta] max_body": "-1"}, ConfigError),
        ({"[fastmeta] identity_ttl": "1"}, ConfigError),
        ({"nova_metadata_port": "0"}, ConfigError),
        ({"metadata_proxy_shared_secret": "$nothing"}, ConfigError),
        ({"nova_metadata_protocol": "https"}, ConfigError),
        ({"debug": "perhaps"}, ConfigError),
        ({"use_syslog": "perhaps"}, ConfigError),
        ({"[fastmeta] listen": "nowhere"}, ConfigError),
        ({"[fastmeta] loops": "0"}, ConfigError),
        ({"[metadata_rate_limiting] ip_versions": "5"}, ConfigError),
    ],
)
def test_what_is_invalid_changes_nothing(
    tmp_path: Path, options: dict[str, str], error: type[FastmetaError]
) -> None:
    """All or nothing: what is valid beside it is not taken up either, until all is."""
    files = Files(tmp_path)
    before = files.configuration.settings
    old = dict(files.options)
    files.write(**options, **{"[fastmeta] park_timeout": "7"})
    with pytest.raises(error, match=next(iter(options)).rpartition(" ")[2]):
        files.configuration.read_again()
    assert files.configuration.settings is before
    files.options = old
    files.write(**{"[fastmeta] park_timeout": "7"})
    assert files.configuration.read_again().taken_up == ("[fastmeta] park_timeout = 7.0",)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    before = files.configuration.settings
    files.path.chmod(0o666)
    with pytest.raises(UnsafeFileError):
        files.configuration.read_again()
    files.path.write_text("[DEFAULT]\nwhat is this\n")
    files.path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"fastmeta\.conf:2: not a line"):
        files.configuration.read_again()
    files.path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        files.configuration.read_again()
    files.path.unlink()
    with pytest.raises(ConfigError, match="Failed to find"):
        files.configuration.read_again()
    assert files.configuration.settings is before


def test_no_value_of_the_secret_is_kept_where_it_shows(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(metadata_proxy_shared_secret="n3w-s3cret")
    changes = files.configuration.read_again()
    assert changes.settings.secret == b"n3w-s3cret"
    assert "s3cret" not in repr(changes) + repr(files.configuration)


def test_names() -> None:
    assert shown("DEFAULT", "debug") == "debug"
    assert {shown("fastmeta", name) for name in FIXED} <= set(OURS)
