"""Section [neutron]: which names are taken, what is refused at the start, how Keystone is found, and over which TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import warnings
from pathlib import Path

import pytest
from keystoneauth1 import loading
from oslo_config import cfg
from oslo_log import versionutils

from fastmeta.conf.neutron import ADAPTER_OPTS, AUTH_OPTS, SESSION_OPTS
from fastmeta.conf.settings import Settings, load
from fastmeta.exceptions import ConfigError, LookupFailedError, UnsafeFileError
from fastmeta.lookup.neutron_rest import RestSource
from fastmeta.models import Answer
from tests.nova_side.certificates import Authority

from .cloud import PASSWORD, PROJECT, USER, Cloud
from .ports import BLUE, network, port, questions
from .rigs import NETWORK, configuration, rest_source

GUEST = port(1, "10.0.0.5")


def instances(folder: Path, cloud: Cloud, conf: cfg.ConfigOpts | None = None, **neutron: str) -> list[str]:
    """What a source of this configuration finds."""

    async def body() -> Answer:
        async with rest_source(folder, cloud, conf=conf, **neutron) as source:
            return await source.ports(network(BLUE), questions("10.0.0.5"))

    return [one.device_id for one in asyncio.run(body()).ports]


def refusal(folder: Path, cloud: Cloud, **neutron: str) -> str:
    with pytest.raises(LookupFailedError) as caught:
        instances(folder, cloud, **neutron)
    return str(caught.value)


def old_style(folder: Path, *lines: str) -> cfg.ConfigOpts:
    """As a metadata_agent.ini of 2014."""
    path = folder / "metadata_agent.ini"
    listen = f"[fastmeta]\nlisten = network:{NETWORK}@127.0.0.1:8080\n"
    path.write_text("\n".join(("[DEFAULT]", "metadata_proxy_shared_secret = s3cret", *lines, listen)))
    path.chmod(0o600)
    return load(["--config-file", str(path)], prog="fastmeta agent", version="0")


class TestNames:
    def test_are_keystoneauth_s(self) -> None:
        """And what is a secret there is one here."""
        theirs = {
            option.dest: option
            for kind in ("password", "v3applicationcredential")
            for option in loading.get_auth_plugin_conf_options(kind)
        }
        theirs |= {option.dest: option for option in loading.get_auth_common_conf_options()}
        assert {option.dest for option in AUTH_OPTS} == set(theirs)
        for option in AUTH_OPTS:
            assert option.secret == theirs[option.dest].secret, option.dest
        assert {option.dest for option in SESSION_OPTS} <= {
            o.dest for o in loading.get_session_conf_options()
        }
        assert {option.dest for option in ADAPTER_OPTS} <= {
            o.dest for o in loading.get_adapter_conf_options()
        }

    def test_another_kind_of_authentication(self, tmp_path: Path) -> None:
        with Cloud([GUEST]) as cloud:
            assert instances(tmp_path, cloud, auth_type="v3password") == ["instance-1"]

    def test_without_keystone(self, tmp_path: Path) -> None:
        """auth_type = none: for labs."""
        with Cloud([GUEST]) as cloud:
            cloud.valid.add("notused")
            assert instances(tmp_path, cloud, auth_type="none", endpoint_override=cloud.neutron.url) == [
                "instance-1"
            ]
            assert cloud.keystone.requests == []

    def test_of_another_section(self, tmp_path: Path) -> None:
        with Cloud([GUEST]) as cloud:
            conf = old_style(
                tmp_path,
                f"[keystone]\nauth_url = {cloud.keystone.url}\nusername = {USER}\npassword = {PASSWORD}",
                f"project_name = {PROJECT}\n[neutron]\nauth_section = keystone",
            )
            assert Settings.from_conf(conf).lookup == "rest"
            assert instances(tmp_path, cloud, conf) == ["instance-1"]

    @pytest.mark.parametrize("names", ["user_name tenant_name", "username project_name"])
    def test_keystoneauth_s_own_old_names(self, tmp_path: Path, names: str) -> None:
        user, project = names.split()
        with Cloud([GUEST]) as cloud:
            given = {"username": "", "project_name": ""} | {user: USER, project: PROJECT}
            assert instances(tmp_path, cloud, **given) == ["instance-1"]


class TestOldNames:
    def test_still_work(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Those of the first metadata agents, with Keystone's URL of their time, which finds version 3."""
        monkeypatch.setattr(versionutils, "_deprecated_messages_sent", {})  # each is said once in a process
        with Cloud([GUEST]) as cloud:
            conf = old_style(
                tmp_path,
                f"auth_url = {cloud.keystone.url}/v2.0",
                "auth_region = RegionOne",
                f"admin_tenant_name = {PROJECT}",
                f"admin_user = {USER}",
                f"admin_password = {PASSWORD}",
                "nova_metadata_ip = 127.0.0.1",
            )
            assert Settings.from_conf(conf).lookup == "rest"
            assert instances(tmp_path, cloud, conf) == ["instance-1"]
        for old, new in {
            "auth_url": "auth_url",
            "auth_region": "region_name",
            "admin_tenant_name": "project_name",
            "admin_user": "username",
            "admin_password": "password",
        }.items():
            expected = f'"{old}" from group "DEFAULT" is deprecated. Use option "{new}" from group "neutron".'
            assert sum(expected in record.getMessage() for record in caplog.records) == 1, caplog.text
        assert PASSWORD not in caplog.text

    def test_their_region_counts(self, tmp_path: Path) -> None:
        with Cloud([GUEST]) as cloud:
            conf = old_style(
                tmp_path,
                f"auth_url = {cloud.keystone.url}/v2.0\nauth_region = Elsewhere\nadmin_tenant_name = {PROJECT}",
                f"admin_user = {USER}\nadmin_password = {PASSWORD}",
            )
            with pytest.raises(LookupFailedError, match="in region Elsewhere"):
                instances(tmp_path, cloud, conf)

    def test_their_authority(self, tmp_path: Path) -> None:
        """auth_ca_cert was Keystone's and Neutron's in their time, before it was Nova's."""
        authority = Authority(tmp_path, "authority")
        with Cloud([GUEST], authority.sign("server", "IP:127.0.0.1").server()) as cloud:
            lines = [
                f"auth_url = {cloud.keystone.url}/v2.0",
                f"admin_tenant_name = {PROJECT}",
                f"admin_user = {USER}",
                f"admin_password = {PASSWORD}",
            ]
            with pytest.raises(LookupFailedError, match="certificate is not taken"):
                instances(tmp_path, cloud, old_style(tmp_path, *lines))
            lines.append(f"auth_ca_cert = {authority.certificate}")
            assert instances(tmp_path, cloud, old_style(tmp_path, *lines)) == ["instance-1"]


class TestFinding:
    @pytest.mark.parametrize("path", ["", "/", "/v3", "/v3/", "/v2.0", "/v2.0/"])
    def test_keystone(self, tmp_path: Path, path: str) -> None:
        with Cloud([GUEST]) as cloud:
            assert instances(tmp_path, cloud, auth_url=cloud.keystone.url + path) == ["instance-1"]

    @pytest.mark.parametrize("path", ["", "/", "/v2.0", "/v2.0/"])
    def test_neutron(self, tmp_path: Path, path: str) -> None:
        with Cloud([GUEST]) as cloud:
            cloud.regions = ()
            override = cloud.neutron.url + path
            assert instances(tmp_path, cloud, endpoint_override=override) == ["instance-1"]
            assert "there is none at all" in refusal(tmp_path, cloud)

    def test_a_catalogue_with_the_version(self, tmp_path: Path) -> None:
        with Cloud([GUEST]) as cloud:
            cloud.versioned_endpoint = True
            assert instances(tmp_path, cloud) == ["instance-1"]

    @pytest.mark.parametrize("path", ["/v9", "/identity/v3"])
    def test_no_keystone_there(self, tmp_path: Path, path: str) -> None:
        with Cloud([GUEST]) as cloud:
            text = refusal(tmp_path, cloud, auth_url=cloud.keystone.url + path)
            assert "there is no Keystone there" in text
            assert "auth_url in [neutron]" in text

    def test_a_name_that_cannot_be_resolved(self, tmp_path: Path) -> None:
        with Cloud([GUEST]) as cloud:
            text = refusal(tmp_path, cloud, auth_url="http://keystone.invalid:5000/v3")
            assert text.startswith("Keystone at http://keystone.invalid:5000/v3: the name cannot be resolved")

    def test_discovery_is_not_complained_of_by_others(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """keystoneauth would warn of each try."""
        with Cloud([GUEST]) as cloud:
            refusal(tmp_path, cloud, auth_url=f"{cloud.keystone.url}/v9")
        others = [
            r for r in caplog.records if r.levelno >= logging.WARNING and not r.name.startswith("fastmeta")
        ]
        assert others == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


class TestTls:
    def test_the_right_authority(self, tmp_path: Path, authority: Authority) -> None:
        with Cloud([GUEST], authority.sign("right", "IP:127.0.0.1").server()) as cloud:
            assert instances(tmp_path, cloud, cafile=authority.certificate) == ["instance-1"]

    @pytest.mark.parametrize(
        ("names", "days", "text"),
        [
            (["IP:127.0.0.1"], -1, "certificate has expired"),
            (["IP:127.0.0.2"], 2, "IP address mismatch"),
        ],
    )
    def test_wrong_certificates(
        self, tmp_path: Path, authority: Authority, names: list[str], days: int, text: str
    ) -> None:
        with Cloud([GUEST], authority.sign("wrong", *names, days=days).server()) as cloud:
            said = refusal(tmp_path, cloud, cafile=authority.certificate)
            assert text in said
            assert "[neutron] cafile" in said

    def test_another_authority(
        self, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also when the environment names the right one: that is not where we are told."""
        other = Authority(tmp_path, "other")
        with Cloud([GUEST], authority.sign("right", "IP:127.0.0.1").server()) as cloud:
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority.certificate)
            monkeypatch.setenv("CURL_CA_BUNDLE", authority.certificate)
            for cafile in (other.certificate, ""):
                said = refusal(tmp_path, cloud, cafile=cafile)
                assert "its certificate is not taken: unable to get local issuer certificate" in said

    def test_insecure(self, tmp_path: Path, authority: Authority) -> None:
        """Taken, and not complained of with each request."""
        with (
            Cloud([GUEST], authority.sign("right", "IP:127.0.0.2").server()) as cloud,
            warnings.catch_warnings(),
        ):
            assert instances(tmp_path, cloud, insecure="true") == ["instance-1"]

    def test_a_server_that_speaks_no_tls(self, tmp_path: Path, authority: Authority) -> None:
        with Cloud([GUEST]) as cloud:
            url = cloud.keystone.url.replace("http:", "https:")
            text = refusal(tmp_path, cloud, auth_url=url, cafile=authority.certificate)
            assert "does it speak https at all" in text

    @pytest.mark.parametrize("in_one_file", [True, False])
    def test_a_certificate_of_our_own(self, tmp_path: Path, authority: Authority, in_one_file: bool) -> None:
        ours = authority.sign("ours")
        server = authority.sign("right", "IP:127.0.0.1").server(clients=authority.certificate)
        if in_one_file:
            both = tmp_path / "ours.pem"
            both.write_text(Path(ours.certificate).read_text() + Path(ours.key).read_text())
            files = {"certfile": str(both)}
        else:
            files = {"certfile": ours.certificate, "keyfile": ours.key}
        with Cloud([GUEST], server) as cloud:
            assert instances(tmp_path, cloud, cafile=authority.certificate, **files) == ["instance-1"]
            refusal(tmp_path, cloud, cafile=authority.certificate)

    def test_a_handshake_that_hangs_is_cut_off(self, tmp_path: Path, authority: Authority) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening, Cloud([GUEST]) as cloud:
            url = f"https://127.0.0.1:{listening.getsockname()[1]}/v3"

            async def body() -> None:
                async with rest_source(tmp_path, cloud, lookup_timeout=0.5, auth_url=url) as source:
                    with pytest.raises(LookupFailedError, match="does not answer in time"):
                        await source.ports(network(BLUE), questions("10.0.0.5"))
                    assert len(source._started._running) == 1
                    await source.stop()
                    assert not source._started._running

            asyncio.run(body())


class TestRefusedAtTheStart:
    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"auth_url": ""}, r"\[neutron\] auth_url is not set"),
            ({"auth_url": "keystone:5000"}, r"\[neutron\] auth_url is not like https://"),
            ({"auth_url": "ftp://keystone/v3"}, "auth_url is not like"),
            ({"auth_url": "http://user:s3cr3t@keystone/v3"}, "auth_url is not like"),
            ({"auth_url": "http://keystone:99999/v3"}, "auth_url is not like"),
            ({"auth_url": "http://[::1/v3"}, "auth_url is not like"),
            ({"endpoint_override": "neutron"}, r"\[neutron\] endpoint_override is not like"),
            ({"username": ""}, r"username \(or user_id\) is not set"),
            ({"password": ""}, "password is not set"),
            ({"password": "pa$$word$x"}, r"\[neutron\] password: \$ in it names no option"),
            ({"project_name": ""}, r"project_name \(or project_id, system_scope"),
            ({"auth_type": "v3nothing"}, "auth_type = v3nothing: keystoneauth has no such plugin"),
            ({"auth_type": "v3applicationcredential"}, r"\[neutron\]: .*application credential ID"),
            ({"auth_type": "v3totp", "auth_url": ""}, "auth_type = v3totp needs auth_url"),
            ({"cafile": "/nowhere/ca.pem"}, r"\[neutron\] cafile = /nowhere/ca.pem: No such file"),
            ({"keyfile": "/dev/null"}, "keyfile = /dev/null: not a regular file"),
            ({"insecure": "perhaps"}, r"\[neutron\] insecure"),
        ],
        ids=str,
    )
    def test_what_cannot_work(self, tmp_path: Path, wrong: dict[str, str], text: str) -> None:
        with Cloud() as cloud, pytest.raises(ConfigError, match=text) as caught:
            RestSource(configuration(tmp_path, cloud, **wrong), lambda: 3.0)
        assert "s3cr3t" not in str(caught.value)
        assert "pa$" not in str(caught.value)

    def test_keyfile_alone(self, tmp_path: Path) -> None:
        key = tmp_path / "key.pem"
        key.write_text("x")
        key.chmod(0o600)
        with Cloud() as cloud, pytest.raises(ConfigError, match="keyfile is set without certfile"):
            RestSource(configuration(tmp_path, cloud, keyfile=str(key)), lambda: 3.0)

    def test_a_file_that_others_may_write(self, tmp_path: Path) -> None:
        path = tmp_path / "ca.pem"
        path.write_text("x")
        path.chmod(0o666)
        with Cloud() as cloud, pytest.raises(UnsafeFileError, match=r"\[neutron\] cafile = .*chmod go-w"):
            RestSource(configuration(tmp_path, cloud, cafile=str(path)), lambda: 3.0)
