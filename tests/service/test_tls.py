"""TLS towards Nova by Neutron's options, and certificates that change while the agent runs."""

from __future__ import annotations

import re
import shutil
import ssl
from pathlib import Path

import pytest

from tests.nova_side.certificates import Authority

from .agents import Agent
from .conftest import Setting
from .upstream import Upstream


class ServedByTls:
    """nova_metadata_host = 127.0.0.1, as the other tests have it; the authority's certificate is in ca.pem."""

    def __init__(self, setting: Setting, folder: Path, *, mutual: bool = False, days: int = 30) -> None:
        self.folder = folder
        self.old, self.new = Authority(folder, "old"), Authority(folder, "new")
        self.guest = setting.cloud.guests["blue-5"]
        self.upstream: Upstream = setting.upstream()
        self.ca_file = folder / "ca.pem"
        self.trust(self.old)
        default = ["nova_metadata_host = 127.0.0.1", "nova_metadata_protocol = https"]
        default.append(f"auth_ca_cert = {self.ca_file}")
        if mutual:
            ours = self.old.sign("ours", days=days)
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


def test_tls_that_does_not_work_is_no_question_of_the_place(setting: Setting, private_folder: Path) -> None:
    """What is wrong is said, and then not asked whether the server is there at all."""
    served = ServedByTls(setting, private_folder)
    served.trust(served.new)
    served.agent.reload()
    assert served.guest.ask("/refused").status == 503
    (line, *_) = served.agent.until_logged("certificate of Nova's metadata API")
    assert "auth_ca_cert must be" in line
    (line, *_) = served.agent.until_logged("is away, guests wait")
    assert line.endswith(": TLS with it does not work, a line about its certificate or about TLS says why")


def test_our_certificate_has_expired(setting: Setting, private_folder: Path) -> None:
    """The other side's alert is about ours, and so is the line. (TLS 1.2: in 1.3 the server refuses it after the
    handshake, and its kernel's reset may overtake the alert.)"""
    served = ServedByTls(setting, private_folder, mutual=True)
    served.old.sign("ours", days=-1)
    context = served.old.sign("one", "IP:127.0.0.1").server(clients=served.old.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    served.upstream.tls = context
    assert "the content of nova_client_cert" in served.agent.reload()
    (line,) = served.agent.logged("nova_client_cert = ")
    assert re.search(rf"{served.folder}/ours.pem: it expired on 20\S+ \S+ UTC; Nova's side refuses", line)
    assert served.guest.ask("/refused").status == 503
    (line, *_) = served.agent.until_logged("refuses us for our certificate")
    assert re.search(r"alert certificate expired; renew it, or look at the clocks of both machines$", line)


def test_our_certificate_expires_soon(setting: Setting, private_folder: Path) -> None:
    """Said while there is time, whenever the files are read."""
    served = ServedByTls(setting, private_folder, mutual=True, days=6)
    (line,) = served.agent.logged("nova_client_cert = ")
    assert "ours.pem: it expires on " in line
    served.agent.reload()
    assert len(served.agent.logged("nova_client_cert = ")) == 2
    served.old.sign("ours", days=30)
    served.agent.reload()
    assert len(served.agent.logged("nova_client_cert = ")) == 2
    assert served.guest.is_served()


def test_http_to_a_server_that_wants_tls(setting: Setting, private_folder: Path) -> None:
    """It closes without an answer, which is a hint."""
    upstream = setting.upstream()
    upstream.tls = Authority(private_folder, "any").sign("one", "IP:127.0.0.1").server()
    agent = setting.agent(upstream, park_timeout=1)
    assert setting.cloud.guests["blue-5"].ask("/clear").status in (502, 503)
    (line, *_) = agent.until_logged("closed the connection without an answer")
    assert "or does it speak TLS there (nova_metadata_protocol = https" in line
