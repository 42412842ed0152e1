"""Several metadata APIs: by TCP and unix socket, by name, going and coming, moved by reloads; and one secret after the
other. What is seen of it is seen from a guest."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastmeta.lab.services import Service, write_private

from .agents import SECRET, until
from .conftest import Served, Setting
from .test_reload import load
from .upstream import Exchange, Upstream


class ServedBySeveral(Served):
    """By an agent with these upstreams."""

    def __init__(self, setting: Setting, *upstreams: Upstream, **options: object) -> None:
        self.setting = setting
        self.cloud = setting.cloud
        self.guests = self.cloud.guests
        self.upstream = upstreams[0]
        urls = ",".join(upstream.url for upstream in upstreams)
        self.agent = setting.agent(self.upstream, upstreams=urls, **options)

    def move(self, *upstreams: Upstream) -> str:
        return self.agent.reload(upstreams=",".join(upstream.url for upstream in upstreams))


def ask_all(served: Served, target: str) -> None:
    for guest in served.guests.values():
        assert guest.is_served(target)


def test_by_tcp_and_unix_socket(setting: Setting, private_folder: Path) -> None:
    """Both are used, each with the Host header that belongs to it (which the upstreams check)."""
    one, two = setting.upstream(), setting.upstream(path=f"{private_folder}/nova")
    served = ServedBySeveral(setting, one, two)
    with load(served):
        until(lambda: one.asked("/") and two.asked("/"))
    assert served.agent.logged(f"Nova's metadata API: {one.url}, {two.url}$")
    assert served.agent.logged("nova_metadata_port has no effect: .* upstreams says where")


def test_only_a_unix_socket_that_comes_late(setting: Setting, private_folder: Path) -> None:
    upstream = setting.upstream(path=f"{private_folder}/nova", listening=False)
    served = ServedBySeveral(setting, upstream, park_timeout=30)
    guest = served.guests["red-5"]
    with guest.connect() as wire:
        wire.get("/late")
        served.agent.until_logged(f"{upstream.url} is away, guests wait")
        upstream.listen()
        assert wire.answer().body == guest.mark("/late")


def test_a_name_with_several_addresses(setting: Setting, private_folder: Path) -> None:
    """Each is a server: those where nobody listens are away, the other one serves. The agent sees a hosts(5) of its
    own, as ours may give localhost one address only."""
    addresses = {"127.0.0.1", "127.0.0.2", "::1"}
    hosts = private_folder / "hosts"
    hosts.write_text("".join(f"{address} nova.test\n" for address in sorted(addresses)))
    upstream = setting.upstream()
    upstream.host = f"nova.test:{upstream.tcp_port}"
    mount = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    agent = setting.agent(
        upstream,
        upstreams=f"http://{upstream.host}",
        prefix=["unshare", "--mount", "--propagation", "slave", "sh", "-c", mount, "sh"],
    )
    (line,) = agent.until_logged(f"Nova's metadata API: http://{upstream.host}")
    assert {address for address in addresses if f"http://{upstream.host} ({address})" in line} == addresses
    for guest in setting.cloud.guests.values():
        assert guest.is_served("/named")
    assert len(upstream.asked("/named")) == len(setting.cloud.guests)
    for address in addresses - {"127.0.0.1"}:
        agent.until_logged(rf"{upstream.host} \({address}\) is away, others serve")


def test_one_that_is_away_is_named(setting: Setting) -> None:
    one, two = setting.upstream(listening=False), setting.upstream()
    served = ServedBySeveral(setting, one, two)
    ask_all(served, "/others")
    (line,) = served.agent.until_logged(f"{one.url} is away, others serve")
    assert " WARNING " in line
    assert "ECONNREFUSED" in line
    one.listen()
    # Nobody asks it how it is: guests' requests bring it out.
    until(lambda: ask_all(served, "/again") or served.agent.logged(f"{one.url} answers again"))
    assert not served.agent.logged("guests wait")


def test_all_that_are_away_are_named(setting: Setting) -> None:
    one, two = setting.upstream(listening=False), setting.upstream(listening=False)
    served = ServedBySeveral(setting, one, two, park_timeout=30)
    guest = served.guests["blue-5"]
    with guest.connect() as wire:
        wire.get("/all")
        (line,) = served.agent.until_logged("all servers of Nova's metadata API are away")
        assert " ERROR " in line
        assert "guests wait" in line
        two.listen()
        assert wire.answer().body == guest.mark("/all")
    served.agent.until_logged("a server of Nova's metadata API answers again")


def test_upstreams_that_change_under_load(setting: Setting, private_folder: Path) -> None:
    """Thirty reloads: no request fails, and who is not named any more is asked nothing more."""
    three = [setting.upstream(), setting.upstream(), setting.upstream(path=f"{private_folder}/nova")]
    served = ServedBySeveral(setting, *three, loops=2)
    with load(served):
        for turn in range(30):
            served.move(*(three[(turn + place) % 3] for place in range(1 + turn % 2)))
        served.move(three[0])
    gone = [len(upstream.received) for upstream in three[1:]]
    ask_all(served, "/after")
    assert [len(upstream.received) for upstream in three[1:]] == gone
    assert all(upstream.received for upstream in three)


def test_who_stays_keeps_its_connections(setting: Setting) -> None:
    """Over a reload that changes nothing of it."""
    one, two = setting.upstream(), setting.upstream()
    served = ServedBySeveral(setting, one, warm_connections=0)
    guest = served.guests["blue-5"]
    assert guest.is_served("/before")
    served.agent.reload(max_body=7)
    assert guest.is_served("/same")
    served.move(one, two)
    for _ in range(4):
        assert guest.is_served("/both")
    served.move(one)
    assert guest.is_served("/after")
    assert {request.connection for request in one.received} == {1}


@pytest.mark.parametrize(
    ("url", "ca_file", "reason"),
    [
        ("http://127.0.0.1/metadata", "", "a path (/metadata) cannot be given"),
        ("https://127.0.0.1", "/no/such/file", "auth_ca_cert = /no/such/file: No such file or directory"),
        ("https://127.0.0.1", "/etc/passwd", "auth_ca_cert = /etc/passwd: "),
    ],
)
def test_upstreams_that_cannot_be_used(setting: Setting, url: str, ca_file: str, reason: str) -> None:
    """Everything stays as it was, the secret too; also when only the core finds out, which loads certificates."""
    served = ServedBySeveral(setting, setting.upstream())
    default = {"auth_ca_cert": ca_file, "metadata_proxy_shared_secret": f"new-{uuid.uuid4()}"}
    line = served.agent.reload(default=default, upstreams=url)
    assert "nothing is taken up" in line
    assert reason in line
    ask_all(served, "/still")


def test_a_secret_that_one_after_the_other_takes(setting: Setting) -> None:
    """next_shared_secret under load: each API in turn takes only the new one, and refuses the old. No request fails,
    each is said, and in the end the old one is nowhere."""
    new = f"new-{uuid.uuid4()}"
    apis = [setting.upstream(), setting.upstream()]
    served = ServedBySeveral(setting, *apis, loops=2)
    agent = served.agent
    only = dict.fromkeys(apis, SECRET)

    def picky(exchange: Exchange) -> bool:
        api = exchange.upstream
        good = exchange.signed_with(only[api])
        exchange.send(
            exchange.whole() if good else exchange.head("Content-Length: 0", status="403 Forbidden")
        )
        return True

    for api in apis:
        api.secrets.add(new)
        api.scripts |= dict.fromkeys(served.guests, picky)
    with load(served):
        assert agent.reload(next_shared_secret=new).endswith("taken up: [fastmeta] next_shared_secret")
        assert not agent.logged("accepts next_shared_secret")
        for api in apis:
            only[api] = new
            agent.until_logged(f"{api.url} accepts next_shared_secret")
        agent.reload(default={"metadata_proxy_shared_secret": new}, next_shared_secret="")
    for api in apis:
        api.secrets = {new}
    ask_all(served, "/after")
    assert new not in agent.log


def test_the_secret_is_changed_twice(setting: Setting) -> None:
    """That a server took the next one is over with the first change. In the second one a POST, which is never sent
    twice, is signed with the present one until the server has shown that it takes the next."""
    api = setting.upstream()
    served = ServedBySeveral(setting, api)
    agent = served.agent
    only = SECRET

    def picky(exchange: Exchange) -> bool:
        good = exchange.signed_with(only)
        exchange.send(
            exchange.whole() if good else exchange.head("Content-Length: 0", status="403 Forbidden")
        )
        return True

    guest = served.guests["blue-5"]
    api.scripts["picky"] = picky
    secrets = [f"new-{uuid.uuid4()}" for _ in range(2)]
    for new in secrets:
        api.secrets.add(new)
        agent.reload(next_shared_secret=new)
        post = guest.ask("/picky/early", method="POST", body=b"x")
        assert (post.status, post.body) == (200, guest.mark("/picky/early"))
        only = new
        assert guest.is_served("/picky/changed")
        agent.reload(default={"metadata_proxy_shared_secret": new}, next_shared_secret="")
        assert guest.is_served("/picky/after")
    assert not any(secret in agent.log for secret in secrets)


INSTANCES = """
instances:
{entries}
"""


class MetadataApi:
    """fastmeta metadata-api as a process: it takes one secret, and checks signatures as Nova does."""

    def __init__(self, served_by: Setting, folder: Path, secret: str) -> None:
        self.folder = folder
        entries = "".join(
            f"  - {{id: {guest.instance_id}, project_id: {guest.project_id}, name: {name}}}\n"
            for name, guest in served_by.cloud.guests.items()
        )
        write_private(folder / "instances.yaml", INSTANCES.format(entries=entries))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.tcp_port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.tcp_port}"
        self.start(secret)

    def start(self, secret: str) -> None:
        (self.folder / "secret").unlink(missing_ok=True)
        write_private(self.folder / "secret", secret)
        command = [sys.executable, "-m", "fastmeta", "metadata-api", "--listen", f"127.0.0.1:{self.tcp_port}"]
        command += [
            "--instances",
            f"{self.folder}/instances.yaml",
            "--shared-secret-file",
            f"{self.folder}/secret",
        ]
        self.service = Service("metadata-api", command, self.folder)
        self.service.__enter__()

    def restart(self, secret: str) -> None:
        self.stop()
        self.service.log_path.unlink()
        self.start(secret)

    def stop(self) -> None:
        self.service.__exit__(None, None, None)


def test_a_secret_that_is_rotated_step_by_step(setting: Setting, private_folder: Path) -> None:
    """As docs/operations.md says, with two metadata APIs that take one secret each: no guest ever sees an error."""
    new = f"new-{uuid.uuid4()}"
    apis = []
    for name in ("one", "two"):
        folder = private_folder / name
        folder.mkdir(mode=0o700)
        apis.append(MetadataApi(setting, folder, SECRET))
        setting.stack.callback(apis[-1].stop)
    agent = setting.agent(None, upstreams=",".join(api.url for api in apis), park_timeout=30)
    guests = setting.cloud.guests

    def ask(name: str) -> None:
        answer = guests[name].ask("/latest/meta-data/hostname")
        assert answer.status == 200
        assert answer.body.decode().startswith(name)

    def ask_at_once() -> None:
        """All guests: one after the other they would always ask the same API."""
        with ThreadPoolExecutor(len(guests)) as threads:
            list(threads.map(ask, guests))

    ask_at_once()
    agent.reload(next_shared_secret=new)
    ask_at_once()
    for api in apis:
        api.restart(new)
        until(lambda api=api: ask_at_once() or agent.logged(f"{api.url} accepts next_shared_secret"))
    agent.reload(default={"metadata_proxy_shared_secret": new}, next_shared_secret="")
    for _ in range(3):
        ask_at_once()
    assert not agent.logged("refuses our signature")
    assert new not in agent.log


def certificate(folder: Path, name: str) -> Path:
    """A self-signed one for 127.0.0.1, beside its key."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder / f"{name}.pem"


def test_certificates_that_change_on_disk(setting: Setting, private_folder: Path) -> None:
    """Under the same name: taken up, and named; one that others may write refuses all."""
    ca_file = private_folder / "ca.pem"
    write_private(ca_file, certificate(private_folder, "one").read_text())
    agent = setting.agent(
        setting.upstream(),
        default=["nova_metadata_protocol = https", f"auth_ca_cert = {ca_file}"],
        warm_connections=0,  # it does not speak TLS: nobody is to connect
    )
    assert agent.reload().endswith("taken up: nothing, all is as it was")
    ca_file.write_text(certificate(private_folder, "two").read_text())
    assert agent.reload().endswith("taken up: the content of auth_ca_cert")
    ca_file.write_text("nonsense")
    assert (
        f"nothing is taken up, what was read before stays in force: auth_ca_cert = {ca_file}"
        in agent.reload()
    )
    ca_file.chmod(0o622)
    os.kill(agent.pid, signal.SIGHUP)
    (_, line) = agent.until_logged("reload: nothing is taken up", 2)
    assert "chmod go-w" in line
