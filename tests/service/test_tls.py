"""TLS towards Nova by Neutron's options, and certificates that change while the agent runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.nova_side.certificates import Authority

from .agents import Agent
from .conftest import Setting
from .upstream import Upstream


class ServedByTls:
    """nova_metadata_host = 127.0.0.1, as the other tests have it; the authority's certificate is in ca.pem."""

    def __init__(self, setting: Setting, folder: Path, *, mutual: bool = False) -> None:
        self.folder = folder
        self.old, self.new = Authority(folder, "old"), Authority(folder, "new")
        self.guest = setting.cloud.guests["blue-5"]
        self.upstream: Upstream = setting.upstream()
        self.ca_file = folder / "ca.pem"
        self.trust(self.old)
        default = ["nova_metadata_host = 127.0.0.1", "nova_metadata_protocol = https"]
        default.append(f"auth_ca_cert = {self.ca_file}")
        if mutual:
            ours = self.old.sign("ours")
            default += [f"nova_client_cert = {ours.certificate}", f"nova_client_priv_key = {ours.key}"]
        self.upstream.tls = self.old.sign("one", "IP:127.0.0.1").server(
            clients=self.old.certificate if mutual else None
        )
        self.agent: Agent = setting.agent(self.upstream, default=default, park_timeout=1)

    def trust(self, authority: Authority) -> None:
        shutil.copy(authority.certificate, self.ca_file)


def test_by_neutrons_options(setting: Setting, private_folder: Path) -> None:
    """With a certificate of ours, which the server wants."""
    ServedByTls(setting, private_folder, mutual=True)
    for guest in setting.cloud.guests.values():
        assert guest.is_served()


def test_certificates_that_change(setting: Setting, private_folder: Path) -> None:
    """SIGHUP takes them up: connections by the old ones are used no more, and what is wrong is said by name."""
    served = ServedByTls(setting, private_folder)
    guest, agent = served.guest, served.agent
    assert guest.is_served("/old")
    served.upstream.tls = served.new.sign("two", "IP:127.0.0.1").server()
    served.trust(served.new)
    assert "taken up" in agent.reload()
    assert guest.is_served("/new")
    assert served.upstream.asked("/new")[0].connection != served.upstream.asked("/old")[0].connection
    served.trust(served.old)
    agent.reload()
    refused = guest.ask("/refused")
    assert refused.status == 503
    (line, *_) = agent.until_logged("certificate of Nova's metadata API")
    assert f"https://127.0.0.1:{served.upstream.tcp_port}" in line
    assert "unable to get local issuer certificate" in line or "self-signed" in line
    assert served.upstream.asked("/refused") == []
    served.trust(served.new)
    agent.reload()
    assert guest.is_served("/again")


@pytest.mark.parametrize("content", ["", "no certificate\n"])
def test_certificates_that_are_broken(setting: Setting, private_folder: Path, content: str) -> None:
    """The old ones stay in force, and the log names the option and the file."""
    served = ServedByTls(setting, private_folder)
    guest, agent = served.guest, served.agent
    assert guest.is_served("/before")
    served.ca_file.write_text(content)
    assert f"auth_ca_cert = {served.ca_file}" in agent.reload()
    assert agent.logged("reload: nothing is taken up")
    assert guest.is_served("/kept")
    served.upstream.close_connections()
    assert guest.is_served("/connected-anew")
    served.trust(served.old)
    assert "all is as it was" in agent.reload()
