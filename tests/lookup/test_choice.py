"""Which source it is, by what is configured; and that only its libraries are loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from fastmeta.conf.doubts import doubts
from fastmeta.conf.running import RunningConfiguration
from fastmeta.conf.settings import Settings, load
from fastmeta.exceptions import ConfigError
from fastmeta.folders import FolderWatcher
from fastmeta.lookup import choice
from fastmeta.lookup.neutron_rest import RestSource
from fastmeta.lookup.static import StaticSource

LISTEN = "network:11111111-1111-4111-8111-111111111111@127.0.0.1:8080"
RPC = "[DEFAULT]\ntransport_url = rabbit://user:s3cr3t@127.0.0.1:5672/\n"
REST = "[neutron]\nauth_url = http://127.0.0.1:1/v3\nusername = metadata\npassword = pa55word\nproject_name = service\n"
FILE = "[fastmeta]\nports_file = /nowhere/ports.json\n"


def configured(folder: Path, *texts: str, lookup: str = "") -> RunningConfiguration:
    """Each text is a file of its own: as neutron.conf and metadata_agent.ini are."""
    argv = []
    own = f"[DEFAULT]\nmetadata_proxy_shared_secret = x\n[fastmeta]\nlisten = {LISTEN}\n"
    if lookup:
        own += f"lookup = {lookup}\n"
    for number, text in enumerate((own, *texts)):
        path = folder / f"{number}.conf"
        path.write_text(text)
        path.chmod(0o600)
        argv += ["--config-file", str(path)]

    def read() -> object:
        return load(argv, prog="fastmeta agent", version="0")

    return RunningConfiguration(read(), read)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((RPC,), "rpc"),
        ((REST,), "rest"),
        ((FILE,), "static"),
        ((RPC, REST, FILE), "rpc"),
        ((REST, FILE), "rest"),
        ((RPC, "[DEFAULT]\ntransport_url =\n", FILE), "static"),
        (
            ("[DEFAULT]\ntransport-url = rabbit://\n", FILE),
            "static",
        ),  # with a hyphen it is no option in a file
        (("[neutron]\nauth_type = none\n",), "rest"),
        (("[neutron]\nregion_name = RegionOne\n", FILE), "static"),
        (("[DEFAULT]\nadmin_user = metadata\n",), "rest"),
        (("[neutron]\nservice_metadata_proxy = true\n", FILE), "static"),
    ],
    ids=str,
)
def test_auto(tmp_path: Path, texts: tuple[str, ...], expected: str) -> None:
    assert configured(tmp_path, *texts).settings.lookup == expected
    assert configured(tmp_path, *texts, lookup="auto").settings.lookup == expected


def test_auto_of_nothing_names_all_three(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path)
    for needed in ("transport_url", "auth_url, username, password", "ports_file"):
        assert needed in str(caught.value)


@pytest.mark.parametrize(
    ("lookup", "texts", "needed"),
    [
        ("rpc", (REST, FILE), "transport_url"),
        ("rest", (RPC, FILE), "credentials"),
        ("static", (RPC, REST), "ports_file"),
    ],
)
def test_one_that_is_asked_for_and_has_not_what_it_needs(
    tmp_path: Path, lookup: str, texts: tuple[str, ...], needed: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\[fastmeta\] lookup = {lookup} needs {needed}"):
        configured(tmp_path, *texts, lookup=lookup)


@pytest.mark.parametrize("lookup", ["rpc", "rest", "static"])
def test_one_that_is_asked_for_comes_before_others(tmp_path: Path, lookup: str) -> None:
    assert configured(tmp_path, RPC, REST, FILE, lookup=lookup).settings.lookup == lookup


@pytest.mark.parametrize(("text", "kind"), [(REST, RestSource), (FILE, StaticSource)])
def test_it_is_made(tmp_path: Path, text: str, kind: type) -> None:
    async def body() -> None:
        folders = FolderWatcher(asyncio.get_running_loop())
        try:
            assert type(choice.make_source(configured(tmp_path, text), folders)) is kind
        finally:
            folders.close()

    asyncio.run(body())


def test_the_extra_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install fastmeta\[rpc\]") as caught:
        choice.make_source(configured(tmp_path, RPC), None)  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value)


def test_it_holds_until_a_restart(tmp_path: Path) -> None:
    configuration = configured(tmp_path, REST, FILE)
    (tmp_path / "1.conf").write_text(REST.replace("pa55word", "an0ther"))
    changes = configuration.read_again()
    assert changes.needs_restart == ("[neutron] password",)
    (tmp_path / "1.conf").write_text("")
    changes = configuration.read_again()
    assert changes.settings.lookup == "rest"
    assert set(changes.needs_restart) == {
        f"[neutron] {name}" for name in ("auth_url", "username", "password", "project_name")
    }
    assert "an0ther" not in repr(changes)


def test_doubts(tmp_path: Path) -> None:
    def about(*texts: str) -> list[str]:
        configuration = configured(tmp_path, *texts)
        return list(doubts(configuration.conf, configuration.settings))

    assert about(REST) == []
    assert about(REST, FILE) == ["[fastmeta] ports_file has no effect: lookup is rest"]
    assert about(REST, "[fastmeta]\nprefetch = true\n") == []
    (said,) = about(REST, "[neutron]\ninsecure = true\n")
    assert said.startswith("[neutron] insecure is true")
    (said,) = about(REST, "[fastmeta]\nidentity_ttl_with_events = 5\n")
    assert "identity_ttl_with_events (5) is less than identity_ttl (10)" in said
    old = "[DEFAULT]\nauth_url = http://127.0.0.1:1/v2.0\nauth_ca_cert = /nowhere/ca.pem\n"
    assert about(old) == []
    assert Settings.from_conf(configured(tmp_path, old).conf).lookup == "rest"


def test_only_what_is_needed_is_loaded(tmp_path: Path) -> None:
    """keystoneauth1 costs 8 MB and 150 ms: a service that asks a file has neither."""
    (tmp_path / "f.conf").write_text(f"[fastmeta]\nlisten = {LISTEN}\n{FILE.partition(chr(10))[2]}")
    (tmp_path / "f.conf").chmod(0o600)
    script = (
        "import sys\nfrom fastmeta import agent\nfrom fastmeta.conf.running import RunningConfiguration\n"
        "from fastmeta.conf.settings import load\nfrom fastmeta.lookup.choice import make_source\n"
        "class Folders: pass\n"
        "conf = load(['--config-file', sys.argv[1]], prog='x', version='0')\n"
        "make_source(RunningConfiguration(conf, lambda: conf), Folders())\n"
        "print([name for name in ('keystoneauth1', 'requests', 'oslo_messaging') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "f.conf")], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
