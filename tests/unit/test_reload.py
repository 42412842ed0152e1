"""What is told to whom at a reload, and in which order."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import Settings, load
from fastmeta.exceptions import ConfigError
from fastmeta.reload import Reloader

BASE = """[DEFAULT]
metadata_proxy_shared_secret = s3cret
[fastmeta]
listen = network:11111111-1111-4111-8111-111111111111@127.0.0.1:8080
ports_file = /nowhere
"""


class Told:
    """Stands for core, resolver and upstreams; remembers who was told what, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.unusable = False

    def prepare(self, settings: Settings) -> object:
        if self.unusable:
            raise ConfigError("auth_ca_cert = /ca.pem: no certificate in it")
        return [str(spec) for spec in settings.upstreams]

    def take(self, prepared: object) -> None:
        self.told.append(("upstreams", prepared))

    def set_times(self, **times: float) -> None: ...

    def revoke_all(self) -> None:
        self.told.append(("revoke",))

    def set_settings(self, settings: Any) -> None:
        self.told.append(("settings",))

    def set_secret(self, secret: bytes, next_secret: bytes | None = None) -> None:
        self.told.append(("secret", secret, next_secret))


class Rig:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "fastmeta.conf"
        self.write("")
        read = functools.partial(load, ["--config-file", str(self.path)], prog="fastmeta agent", version="0")
        self.configuration = RunningConfiguration(read(), read)
        self.told = Told()
        told: Any = self.told
        self.reloader = Reloader(self.configuration, told, told, told, lambda settings: settings.core)

    def write(self, more: str) -> None:
        self.path.write_text(BASE + more)
        self.path.chmod(0o640)

    def reload(self, more: str) -> list[tuple[Any, ...]]:
        """What was told."""
        self.write(more)
        self.told.told.clear()
        self.reloader.reload()
        return self.told.told


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


HERE = ("upstreams", ["http://127.0.0.1:8775"])


def test_nothing(rig: Rig) -> None:
    assert rig.reload("") == [HERE]


def test_both_secrets(rig: Rig) -> None:
    """Identities hold signatures of both; and the present one stays when only the other is another."""
    assert rig.reload("next_shared_secret = n3xt") == [("secret", b"s3cret", b"n3xt"), ("revoke",), HERE]
    assert rig.reload("next_shared_secret = n3xt") == [HERE]
    assert rig.reload("[DEFAULT]\nmetadata_proxy_shared_secret = n3xt") == [
        ("secret", b"n3xt", None),
        ("revoke",),
        HERE,
    ]
    assert rig.reload("") == [("secret", b"s3cret", None), ("revoke",), HERE]


def test_secrets_come_before_upstreams(rig: Rig) -> None:
    """Whoever is at the new place never sees a signature made with the old secret. (Settings first: they bound what
    is opened there, and the descriptors of guests with the number of upstreams.)"""
    more = "upstreams = http://192.0.2.1,http://192.0.2.2\nnext_shared_secret = n3xt\n"
    assert rig.reload(more) == [
        ("settings",),
        ("secret", b"s3cret", b"n3xt"),
        ("revoke",),
        ("upstreams", ["http://192.0.2.1", "http://192.0.2.2"]),
    ]


@pytest.mark.parametrize(
    "line", ["second_try_after = 0", "warm_connections = 0", "max_upstream_connections = 7"]
)
def test_settings_of_the_core(rig: Rig, line: str) -> None:
    assert rig.reload(line) == [("settings",), HERE]


def test_certificates_that_cannot_be_used(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """All or nothing, although it shows only when all options have been read."""
    rig.told.unusable = True
    before = rig.configuration.settings
    assert rig.reload("identity_ttl = 11\nnext_shared_secret = n3xt") == []
    assert rig.configuration.settings is before
    assert (
        "reload: nothing is taken up, what was read before stays in force: auth_ca_cert = /ca.pem: no"
        in caplog.text
    )
    rig.told.unusable = False
    assert rig.reload("identity_ttl = 11") == [HERE]
    assert rig.configuration.settings.identity_ttl == 11
