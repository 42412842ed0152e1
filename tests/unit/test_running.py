"""What reading the configuration again finds, and what it leaves as it was."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from fastmeta.conf.running import FIXED, FREE, OURS, Changes, RunningConfiguration, shown
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

    def read_again(self) -> Changes:
        changes = self.configuration.read_again()
        self.configuration.take_up(changes)
        return changes

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
    changes = files.read_again()
    assert (changes.taken_up, changes.needs_restart) == ((), ())
    assert changes.settings == changes.before == before == files.configuration.settings


OTHER_VALUES = {
    "nova_metadata_host": "nova.example.org",
    "nova_metadata_port": "1234",
    "nova_metadata_protocol": "https",
    "nova_metadata_insecure": "true",
    "auth_ca_cert": "other.pem",
    "nova_client_cert": "other.pem",
    "nova_client_priv_key": "other.pem",
    "[fastmeta] upstreams": "http://192.0.2.7,unix:/run/nova",
    "[fastmeta] next_shared_secret": "n3xt",
    "metadata_proxy_shared_secret": "n3w",
    "debug": "true",
    "[fastmeta] identity_ttl": "20.0",
    "[fastmeta] identity_ttl_with_events": "70.0",
    "[fastmeta] negative_ttl": "3.5",
    "[fastmeta] lookup_timeout": "2.5",
    "[fastmeta] prefetch": "true",
    "[fastmeta] access_log": "true",
    "[metadata_rate_limiting] rate_limit_enabled": "true",
    "[metadata_rate_limiting] ip_versions": "4,6",
} | {
    name: {"Seconds": "1.5", "Whole": "100"}[type(option.type).__name__]
    for name, option in OURS.items()
    if type(option.type).__name__ in ("Seconds", "Whole")
    and name.rpartition(" ")[2]
    not in (
        "identity_ttl",
        "identity_ttl_with_events",
        "negative_ttl",
        "lookup_timeout",
        "nova_metadata_port",
        "loops",
        "max_headers",
        "warm_connections",
        "report_interval",
        "metadata_port",
    )
}
OTHER_VALUES["[fastmeta] warm_connections"] = "3"
OTHER_VALUES["[fastmeta] max_head"] = "300"
OTHER_VALUES["[fastmeta] max_headers"] = "99"


def test_every_free_option_is_tried() -> None:
    assert set(OTHER_VALUES) == FREE - {"state_path"}
    assert len(OTHER_VALUES) > 30


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_an_option_that_is_taken_up(tmp_path: Path, name: str) -> None:
    """It is in the settings then, and is named with its value (but for the secret's)."""
    base = {"[metadata_rate_limiting] rate_limit_enabled": "true", "nova_metadata_protocol": "https"}
    for option, file in {
        "auth_ca_cert": "ca.pem",
        "nova_client_cert": "our.pem",
        "nova_client_priv_key": "our.key",
    }.items():
        base[option] = str(tmp_path / file)
    for file in ("ca.pem", "our.pem", "our.key", "other.pem"):
        (tmp_path / file).write_text(file)
    base.pop(name, None)
    files = Files(tmp_path, **base)
    before = files.configuration.settings
    value = OTHER_VALUES[name].replace("other.pem", f"{tmp_path}/other.pem")
    files.write(**{name: value})
    changes = files.read_again()
    with_value = name if "secret" in name else f"{name} = {value}"
    assert (changes.taken_up, changes.needs_restart) == ((with_value,), ())
    assert changes.settings != before
    assert files.configuration.settings == changes.settings
    assert files.read_again().taken_up == ()


@pytest.mark.parametrize(
    ("name", "value"), [("[fastmeta] upstreams", "http://192.0.2.1"), ("auth_ca_cert", "/nowhere")]
)
def test_an_option_that_is_taken_out(tmp_path: Path, name: str, value: str) -> None:
    files = Files(tmp_path, **{name: value})
    del files.options[name]
    files.write()
    assert files.read_again().taken_up == (f"{name} is not set",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("[fastmeta] listen", OTHER),
        ("[fastmeta] ports_file", "/elsewhere"),
        ("[fastmeta] netns_dir", "/elsewhere"),
        ("[fastmeta] discover", "dhcp"),
        ("metadata_access_mark", "0x2"),
        ("[fastmeta] loops", "2"),
        ("[neutron] region_name", "Elsewhere"),
        ("[neutron] password", "an0ther"),
        ("transport_url", "rabbit://fastmeta:other@192.0.2.1:5672/"),
        ("host", "elsewhere"),
        ("[agent] report_interval", "10"),
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
    changes = files.read_again()
    assert (changes.taken_up, changes.needs_restart) == (("[fastmeta] identity_ttl = 11.0",), (name,))
    assert changes.settings.identity_ttl == 11
    for fixed in FIXED:
        assert getattr(changes.settings, fixed) == getattr(before, fixed)
    again = files.read_again()
    assert (again.taken_up, again.needs_restart) == ((), (name,))
    files.options = first
    files.write(**{"[fastmeta] identity_ttl": "11"})
    back = files.read_again()
    assert (back.taken_up, back.needs_restart) == ((), ())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"[fastmeta] max_body": "-1"}, ConfigError),
        ({"[fastmeta] identity_ttl": "1"}, ConfigError),
        ({"nova_metadata_port": "0"}, ConfigError),
        ({"metadata_proxy_shared_secret": "$nothing"}, ConfigError),
        ({"nova_metadata_protocol": "https", "auth_ca_cert": "/nowhere/ca.pem"}, ConfigError),
        ({"[fastmeta] upstreams": "http://a/b"}, ConfigError),
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
    with pytest.raises(error, match=next(reversed(options)).rpartition(" ")[2]):
        files.read_again()
    assert files.configuration.settings is before
    files.options = old
    files.write(**{"[fastmeta] park_timeout": "7"})
    assert files.read_again().taken_up == ("[fastmeta] park_timeout = 7.0",)


@pytest.mark.parametrize(
    "options",
    [{"nova_metadata_port": "0"}, {"nova_metadata_insecure": "perhaps"}, {"nova_metadata_protocol": "ftp"}],
)
def test_what_has_no_effect_must_be_valid_too(tmp_path: Path, options: dict[str, str]) -> None:
    """With upstreams given, and none of them https: at start, and when it is read again."""
    (name,) = options
    files = Files(tmp_path, **{"[fastmeta] upstreams": "http://127.0.0.1:8775"})
    files.write(**options)
    with pytest.raises(ConfigError, match=name):
        files.read_again()
    with pytest.raises(ConfigError, match=name):
        Files(tmp_path, **{"[fastmeta] upstreams": "http://127.0.0.1:8775"}, **options)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    before = files.configuration.settings
    files.path.chmod(0o666)
    with pytest.raises(UnsafeFileError):
        files.read_again()
    files.path.write_text("[DEFAULT]\nwhat is this\n")
    files.path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"fastmeta\.conf:2: not a line"):
        files.read_again()
    files.path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text"):
        files.read_again()
    files.path.unlink()
    with pytest.raises(ConfigError, match="Failed to find"):
        files.read_again()
    assert files.configuration.settings is before


def test_nothing_is_in_force_before_it_is_taken_up(tmp_path: Path) -> None:
    files = Files(tmp_path)
    before = files.configuration.settings
    files.write(metadata_proxy_shared_secret="", **{"[fastmeta] identity_ttl": "11"})
    for _ in range(2):
        changes = files.configuration.read_again()
        assert changes.taken_up == ("metadata_proxy_shared_secret", "[fastmeta] identity_ttl = 11.0")
        assert changes.doubts
        assert (files.configuration.settings, files.configuration.doubts) == (before, ())
    files.configuration.take_up(changes)
    assert files.configuration.settings == changes.settings
    assert files.configuration.doubts == changes.doubts


def test_a_certificate_that_is_another(tmp_path: Path) -> None:
    """Under the same name; only what is used is looked at."""
    for name in ("ca.pem", "unused.pem"):
        (tmp_path / name).write_text("first")
    files = Files(
        tmp_path,
        nova_metadata_protocol="https",
        auth_ca_cert=str(tmp_path / "ca.pem"),
        nova_client_cert=str(tmp_path / "unused.pem"),
    )
    before = files.configuration.settings
    (tmp_path / "unused.pem").write_text("second")
    assert files.read_again().settings == before
    (tmp_path / "ca.pem").write_text("second")
    changes = files.read_again()
    assert changes.taken_up == ("the content of auth_ca_cert",)
    assert changes.settings != before
    assert files.read_again().taken_up == ()
    (tmp_path / "ca.pem").chmod(0o666)
    with pytest.raises(UnsafeFileError, match=r"auth_ca_cert = .*/ca\.pem: mode 0666 lets .*chmod go-w"):
        files.read_again()


def test_no_value_of_the_secret_is_kept_where_it_shows(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(metadata_proxy_shared_secret="n3w-s3cret", **{"[fastmeta] next_shared_secret": "n3xt-s3cret"})
    changes = files.read_again()
    assert changes.settings.secret == b"n3w-s3cret"
    assert changes.settings.next_secret == b"n3xt-s3cret"
    assert "s3cret" not in repr(changes) + repr(files.configuration)


def test_names() -> None:
    assert shown("DEFAULT", "debug") == "debug"
    assert {shown("fastmeta", name) for name in FIXED} <= set(OURS)
