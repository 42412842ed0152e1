"""``fastmeta config check`` before real servers, and before ones that are wrong in each way that it knows."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bus.neutron import NeutronServer
from tests.bus.rabbit import PASSWORD as BUS_PASSWORD
from tests.bus.rabbit import RabbitMQ
from tests.lookup import cloud as clouds
from tests.lookup.cloud import PASSWORD, PROJECT, USER, Cloud, Request, Server
from tests.nova_side.certificates import Authority

from .kit import PORT, SECRET, Checked, Nova, check, free_tcp_port, write_config

NOVA = "Nova's metadata API"
LOOKUP = "Who has which address"
REPORTS = "Reports to Neutron"


def as_nova(unsigned: int, signed: int) -> Callable[[Request], None]:
    """Answers a request by whether it is signed."""

    def answer(request: Request) -> None:
        request.say(signed if request.headers.get("X-Instance-ID-Signature") else unsigned, b"")

    return answer


@contextlib.contextmanager
def server(answer: Callable[[Request], None], **more: object) -> Iterator[Server]:
    started = Server(answer, **more)  # type: ignore[arg-type]
    try:
        yield started
    finally:
        started.end()


def of_nova(folder: Path, *default: str, fastmeta: tuple[str, ...] = (), **more: str) -> Checked:
    return check(write_config(folder, default=default, fastmeta=fastmeta, **more))  # type: ignore[arg-type]


def at(started: Server) -> str:
    return f"nova_metadata_port = {started.server_address[1]}"


class TestNova:
    def test_the_secret_is_another(self, folder: Path, nova: Nova) -> None:
        checked = of_nova(folder, f"nova_metadata_port = {nova.tcp_port}", secret="another")
        assert checked.status == 1
        assert "refuses our signature (403): metadata_proxy_shared_secret is not the one" in checked.wrong

    def test_it_takes_the_next_secret(self, folder: Path, nova: Nova) -> None:
        line = f"next_shared_secret = {SECRET}"
        checked = of_nova(folder, f"nova_metadata_port = {nova.tcp_port}", secret="before", fastmeta=(line,))
        assert checked.status == 0
        assert "it is next_shared_secret that it takes" in checked.findings(NOVA)[0]["text"]

    @pytest.mark.parametrize(
        ("unsigned", "signed", "text"),
        [
            (404, 404, "it answers 404 to a request that nobody has signed"),
            (200, 200, "it answers 200 to a request that nobody has signed"),
            (400, 200, "it answers 200 to a request that is signed for an instance that is none"),
            (400, 500, "it answers 500 to a signed request: its log says why"),
            (500, 404, "it answers 500 to a request that nobody has signed"),
        ],
    )
    def test_it_is_not_what_it_should_be(self, folder: Path, unsigned: int, signed: int, text: str) -> None:
        with server(as_nova(unsigned, signed)) as started:
            checked = of_nova(folder, at(started))
        assert checked.status == 1
        assert text in checked.wrong

    def test_what_is_asked(self, folder: Path) -> None:
        """Twice, and of an instance that nobody has, each time another one."""
        with server(as_nova(400, 404)) as started:
            assert of_nova(folder, at(started)).status == 0
            assert of_nova(folder, at(started)).status == 0
            asked = started.requests
        assert [request.command for request in asked] == ["GET"] * 4
        assert {request.path for request in asked} == {"/openstack/latest/meta_data.json"}
        signed = [request.headers["X-Instance-ID"] for request in asked if request.headers["X-Instance-ID"]]
        assert len(set(signed)) == 2

    def test_it_is_away(self, folder: Path) -> None:
        checked = of_nova(folder, f"nova_metadata_port = {free_tcp_port()}")
        assert checked.status == 1
        assert checked.wrong.endswith(": no connection: Connection refused")

    def test_its_name_cannot_be_resolved(self, folder: Path) -> None:
        checked = of_nova(folder, "nova_metadata_host = nova.invalid")
        assert checked.status == 1
        assert checked.wrong.startswith("http://nova.invalid:8775: the name cannot be resolved")

    def test_it_does_not_answer(self, folder: Path) -> None:
        with server(clouds.hang) as started:
            checked = of_nova(folder, at(started), fastmeta=("upstream_timeout = 1",))
        assert checked.status == 1
        assert checked.wrong.endswith(": no answer in 1 s")

    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            (clouds.drop, "it closes the connection without an answer"),
            (clouds.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "what it answers is not HTTP/1.1"),
            (clouds.raw(b"x" * 40_000), "what it answers is not HTTP/1.1"),
            (clouds.raw(b"HTTP/1.1 abc\r\n\r\n"), "what it answers is not HTTP/1.1"),
        ],
    )
    def test_what_it_answers_is_none(self, folder: Path, fault: clouds.Fault, text: str) -> None:
        with server(fault) as started:
            checked = of_nova(folder, at(started))
        assert checked.status == 1
        assert text in checked.wrong

    def test_each_of_several(self, folder: Path, nova: Nova) -> None:
        """Also a unix socket, and each address of a name."""
        path = folder / "nova.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        urls = f"http://127.0.0.1:{nova.tcp_port}, http://localhost:{nova.tcp_port}, unix:{path}"
        checked = of_nova(folder, fastmeta=(f"upstreams = {urls}",))
        found = [(finding["state"], finding["text"].split(": ")[0]) for finding in checked.findings(NOVA)]
        assert ("ok", f"http://127.0.0.1:{nova.tcp_port}") in found
        assert ("ok", f"http://localhost:{nova.tcp_port} (127.0.0.1)") in found
        assert ("wrong", f"unix:{path}") in found
        assert checked.status == 1


class TestTls:
    """As the agent would: the same files, the same refusals."""

    @pytest.fixture
    def authority(self, folder: Path) -> Authority:
        return Authority(folder, "authority")

    def https(self, started: Server, *more: str) -> list[str]:
        return ["nova_metadata_protocol = https", at(started), *more]

    def test_the_right_authority(self, folder: Path, authority: Authority) -> None:
        tls = authority.sign("nova", "IP:127.0.0.1").server()
        with server(as_nova(400, 404), tls=tls) as started:
            checked = of_nova(folder, *self.https(started, f"auth_ca_cert = {authority.certificate}"))
        assert checked.status == 0, checked.output
        assert checked.states(NOVA) == ["ok"]

    def test_another_authority(self, folder: Path, authority: Authority) -> None:
        tls = Authority(folder, "another").sign("nova", "IP:127.0.0.1").server()
        with server(as_nova(400, 404), tls=tls) as started:
            checked = of_nova(folder, *self.https(started, f"auth_ca_cert = {authority.certificate}"))
        assert checked.status == 1
        assert "its certificate is not accepted: unable to get local issuer certificate" in checked.wrong

    def test_another_name(self, folder: Path, authority: Authority) -> None:
        tls = authority.sign("nova", "DNS:nova.example.org").server()
        with server(as_nova(400, 404), tls=tls) as started:
            checked = of_nova(folder, *self.https(started, f"auth_ca_cert = {authority.certificate}"))
        assert checked.status == 1
        assert "its certificate is not accepted: IP address mismatch" in checked.wrong

    def test_insecure(self, folder: Path) -> None:
        tls = Authority(folder, "another").sign("nova", "DNS:nova.example.org").server()
        with server(as_nova(400, 404), tls=tls) as started:
            checked = of_nova(folder, *self.https(started, "nova_metadata_insecure = true"))
        assert checked.status == 0
        assert any("nova_metadata_insecure is true" in text for text in checked.texts("doubt"))

    @pytest.mark.parametrize("shown", [True, False])
    def test_our_certificate(self, folder: Path, authority: Authority, shown: bool) -> None:
        ours = authority.sign("ours")
        tls = authority.sign("nova", "IP:127.0.0.1").server(clients=authority.certificate)
        lines = [f"auth_ca_cert = {authority.certificate}"]
        if shown:
            lines += [f"nova_client_cert = {ours.certificate}", f"nova_client_priv_key = {ours.key}"]
        with server(as_nova(400, 404), tls=tls) as started:
            checked = of_nova(folder, *self.https(started, *lines))
        if shown:
            assert checked.status == 0, checked.output
        else:
            assert checked.status == 1
            assert "does it want a certificate of ours?" in checked.wrong

    def test_our_certificate_ends_soon(self, folder: Path, authority: Authority) -> None:
        ours = authority.sign("ours", days=1)
        tls = authority.sign("nova", "IP:127.0.0.1").server()
        lines = [f"auth_ca_cert = {authority.certificate}"]
        lines += [f"nova_client_cert = {ours.certificate}", f"nova_client_priv_key = {ours.key}"]
        with server(as_nova(400, 404), tls=tls) as started:
            checked = of_nova(folder, *self.https(started, *lines))
        assert checked.status == 0, checked.output
        assert any("nova_client_cert" in text and "expires" in text for text in checked.texts("doubt"))

    def test_a_server_without_tls(self, folder: Path, authority: Authority) -> None:
        with server(as_nova(400, 404)) as started:
            checked = of_nova(folder, *self.https(started, f"auth_ca_cert = {authority.certificate}"))
        assert checked.status == 1
        assert "TLS does not work: " in checked.wrong

    def test_http_to_a_server_with_tls(self, folder: Path, authority: Authority) -> None:
        with server(as_nova(400, 404), tls=authority.sign("nova", "IP:127.0.0.1").server()) as started:
            checked = of_nova(folder, at(started))
        assert checked.status == 1

    def test_a_key_of_another_certificate(self, folder: Path, authority: Authority) -> None:
        """The agent would not start."""
        first, second = authority.sign("first"), authority.sign("second")
        lines = [f"nova_client_cert = {first.certificate}", f"nova_client_priv_key = {second.key}"]
        checked = of_nova(folder, "nova_metadata_protocol = https", *lines)
        assert checked.status == 2


def of_neutron(folder: Path, nova: Nova, cloud: Cloud, *more: str, **neutron: str) -> Checked:
    lines = {
        "auth_url": f"{cloud.keystone.url}/v3",
        "username": USER,
        "password": PASSWORD,
        "project_name": PROJECT,
        "user_domain_name": "Default",
        "project_domain_id": "default",
    } | neutron
    section = "\n".join(["[neutron]", *(f"{name} = {value}" for name, value in lines.items())])
    default = [f"nova_metadata_port = {nova.tcp_port}"]
    config = write_config(folder, default=default, fastmeta=more, more=section, static=False)
    return check(config, secrets=[SECRET, PASSWORD])


class TestNeutronsApi:
    """lookup = rest, before a Keystone and Neutron of ours, by real keystoneauth1."""

    def test_all_is_right(self, folder: Path, nova: Nova) -> None:
        with Cloud([PORT]) as cloud:
            checked = of_neutron(folder, nova, cloud)
            assert len(cloud.logins) == 1
            assert {call.command for call in cloud.calls} == {"GET"}
        assert checked.status == 0, checked.output
        assert checked.states(LOOKUP) == ["ok", "ok", "note"]
        assert (
            checked.findings(LOOKUP)[2]["text"] == "1 of 1 networks and routers of this node were asked for"
        )
        text = checked.findings(LOOKUP)[0]["text"]
        assert text == "lookup is rest (auto, because of credentials in [neutron])"
        assert checked.states(REPORTS) == ["note"]

    def test_a_wrong_password(self, folder: Path, nova: Nova) -> None:
        with Cloud([PORT]) as cloud:
            checked = of_neutron(folder, nova, cloud, password="wrong-pa55word")
        assert checked.status == 1
        assert "does not take our credentials (401)" in checked.wrong
        assert "wrong-pa55word" not in checked.output

    def test_a_missing_option(self, folder: Path, nova: Nova) -> None:
        with Cloud([PORT]) as cloud:
            checked = of_neutron(folder, nova, cloud, project_name="")
        assert checked.status == 2, "the agent would not start"
        assert "project_name" in checked.wrong

    def test_what_a_kind_of_authentication_brings_with_it(self, folder: Path, nova: Nova) -> None:
        """Its options become known only when it is used; any of them may be a secret."""
        with Cloud([PORT]) as cloud:
            more = {"auth_type": "v3oidcpassword", "client_id": "hidden-1", "client_secret": "hidden-2"}
            more |= {"identity_provider": "idp", "protocol": "openid"}
            more |= {"access_token_endpoint": f"{cloud.keystone.url}/token"}
            checked = of_neutron(folder, nova, cloud, **more)
        assert "hidden" not in checked.output
        used = {option["name"]: option["value"] for option in checked.report["used"]}
        assert used["[neutron] client_secret"] == used["[neutron] client_id"] == "(secret, not shown)"
        assert used["[neutron] username"] == USER

    def test_keystone_is_away(self, folder: Path, nova: Nova) -> None:
        with Cloud([PORT]) as cloud:
            cloud.keystone.end()
            checked = of_neutron(folder, nova, cloud)
        assert checked.status == 1
        assert "Keystone at http://127.0.0.1:" in checked.wrong

    def test_neutron_forbids_it(self, folder: Path, nova: Nova) -> None:
        with Cloud([PORT]) as cloud:
            cloud.neutron.fault = clouds.says(403, {})
            checked = of_neutron(folder, nova, cloud)
        assert checked.status == 1
        assert "forbids us to list ports (403)" in checked.wrong

    def test_credentials_that_show_nothing(self, folder: Path, nova: Nova) -> None:
        with Cloud([PORT]) as cloud:
            cloud.visible = lambda port: False
            checked = of_neutron(folder, nova, cloud)
        assert checked.status == 1
        assert "shows us none of its ports" in checked.wrong

    def test_slower_than_guests_wait_for(self, folder: Path, nova: Nova) -> None:
        def late(request: Request) -> None:
            request.wait(0.5)
            request.as_usual()

        with Cloud([PORT]) as cloud:
            cloud.neutron.fault = late
            checked = of_neutron(folder, nova, cloud, "lookup_timeout = 0.3")
        assert checked.status == 1
        assert "longer than lookup_timeout (0.3 s)" in checked.wrong


def of_the_bus(folder: Path, nova: Nova, url: str, *fastmeta: str, static: bool = False) -> Checked:
    config = write_config(
        folder,
        default=[f"nova_metadata_port = {nova.tcp_port}", f"transport_url = {url}"],
        fastmeta=fastmeta,
        static=static,
    )
    return check(config, secrets=[SECRET, BUS_PASSWORD])


class TestTheBus:
    """lookup = rpc, by real oslo.messaging and RabbitMQ."""

    def test_all_is_right(self, folder: Path, nova: Nova, rabbit: RabbitMQ, neutron: NeutronServer) -> None:
        """One question, which no port fits; no report, and so nobody takes this for an agent."""
        checked = of_the_bus(folder, nova, rabbit.url)
        assert checked.status == 0, checked.output
        assert checked.states(LOOKUP) == ["ok", "ok"]
        assert [call["call"] for call in neutron.asked] == ["get_ports"]
        (filters,) = neutron.filters
        assert filters["network_id"] and filters["fixed_ips"] == {"ip_address": ["169.254.169.254"]}

    def test_for_reports_only(
        self, folder: Path, nova: Nova, rabbit: RabbitMQ, neutron: NeutronServer
    ) -> None:
        checked = of_the_bus(folder, nova, rabbit.url, "lookup = static", static=True)
        assert checked.status == 0, checked.output
        assert checked.states(REPORTS) == ["ok"]
        assert neutron.calls("report_state") == []

    def test_a_wrong_password(self, folder: Path, nova: Nova, rabbit: RabbitMQ) -> None:
        checked = of_the_bus(folder, nova, rabbit.url.replace(BUS_PASSWORD, "wrong"))
        assert checked.status == 1
        assert "refuses our user or password (ACCESS_REFUSED)" in checked.wrong

    def test_it_is_away(self, folder: Path, nova: Nova) -> None:
        tcp_port = free_tcp_port()
        checked = of_the_bus(folder, nova, f"rabbit://neutron:{BUS_PASSWORD}@127.0.0.1:{tcp_port}/")
        assert checked.status == 1
        assert f"the message bus at 127.0.0.1:{tcp_port}" in checked.wrong

    def test_it_accepts_and_never_speaks(self, folder: Path, nova: Nova) -> None:
        """It ends all the same."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            tcp_port = silent.getsockname()[1]
            checked = of_the_bus(folder, nova, f"rabbit://neutron:{BUS_PASSWORD}@127.0.0.1:{tcp_port}/")
        assert checked.status == 1
        assert f"the message bus at 127.0.0.1:{tcp_port} does not answer" in checked.wrong

    def test_an_url_that_is_none(self, folder: Path, nova: Nova) -> None:
        checked = of_the_bus(folder, nova, f"rabbit://neutron:{BUS_PASSWORD}@[:x/")
        assert checked.status == 2
        assert "transport_url cannot be used" in checked.wrong


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (None, 1, "is not there yet"),
        ("{", 2, "not valid JSON"),
        ('{"ports": [{}]}', 2, "id is not a UUID"),
    ],
)
def test_a_ports_file_that_is_none(
    folder: Path, nova: Nova, content: str | None, status: int, text: str
) -> None:
    """One that is not there yet is waited for, one that is broken ends the agent."""
    config = write_config(folder, default=[f"nova_metadata_port = {nova.tcp_port}"])
    ports = folder / "ports.json"
    if content is None:
        ports.unlink()
    else:
        ports.write_text(content)
    checked = check(config)
    assert checked.status == status
    assert text in checked.wrong
