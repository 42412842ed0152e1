"""Nova's checks and trees. The expectations are Nova's: nova/api/metadata/{handler,base,password}.py."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from fastmeta.metadata_api.application import Application, Request, Response
from fastmeta.metadata_api.instances import File, Instance

SECRET = b"s3cret"
ID = "8f0c5f2e-3a55-4f0e-9c8e-0d6f5d0a1b01"
USER_DATA = b"\x1f\x8b\xff\x00binary"


def instance(**changes: Any) -> Instance:
    values: dict[str, Any] = {
        "instance_id": ID,
        "project_id": "p1",
        "name": "web",
        "hostname": "web.example.org",
        "ec2_id": "i-0000000a",
        "ami_id": "ami-00000001",
        "kernel_id": None,
        "ramdisk_id": None,
        "reservation_id": "r-1",
        "launch_index": 0,
        "instance_type": "m1.small",
        "availability_zone": "nova",
        "local_ipv4": "10.0.0.5",
        "public_ipv4": "192.0.2.1",
        "security_groups": ("default", "web"),
        "block_device_mapping": {"ami": "vda", "root": "/dev/vda"},
        "public_key": ("laptop", "ssh-rsa AAA"),
        "meta": {"role": "web"},
        "admin_pass": None,
        "user_data": USER_DATA,
        "password": "",
        "vendor_data": {"v": 1},
        "vendor_data2": {"static": {"v": 1}},
        "network_data": {"links": []},
        "files": (File("/etc/motd", b"hello"),),
    }
    return Instance(**{**values, **changes})


def signature(instance_id: str, secret: bytes = SECRET) -> str:
    return hmac.new(secret, instance_id.encode(), hashlib.sha256).hexdigest()


def identity(instance_id: str = ID, project_id: str = "p1") -> dict[str, str]:
    return {
        "x-instance-id": instance_id,
        "x-tenant-id": project_id,
        "x-instance-id-signature": signature(instance_id),
    }


def application(**changes: Any) -> Application:
    return Application({ID: instance(**changes)}, SECRET)


def ask(
    app: Application,
    target: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
    content_length: int | None = None,
) -> Response:
    length = content_length if content_length is not None else None if body is None else len(body)
    return app.handle(
        Request(method, target, identity() if headers is None else headers, length, body or b"")
    )


def text(app: Application, target: str) -> str:
    response = ask(app, target)
    assert response.status == 200, target
    assert response.content_type == "text/plain; charset=UTF-8"
    return response.body.decode()


# --- checks


@pytest.mark.parametrize("target", ["/", "", "/x/..", "/?a=b", "/.", "http://169.254.169.254/"])
def test_the_root_answers_anybody(target: str) -> None:
    response = ask(application(), target, {})
    assert response.status == 200
    assert response.body.startswith(b"1.0\n2007-01-19\n")
    assert response.body.endswith(b"2009-04-04\nlatest")


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ((), "X-Instance-ID"),
        (("x-tenant-id", "x-instance-id-signature"), "X-Instance-ID"),
        (("x-instance-id",), "X-Instance-ID-Signature"),
        (("x-instance-id", "x-tenant-id"), "X-Instance-ID-Signature"),
        (("x-instance-id", "x-instance-id-signature"), "X-Tenant-ID"),
    ],
)
def test_missing_headers_in_novas_order(present: tuple[str, ...], missing: str) -> None:
    headers = {name: value for name, value in identity().items() if name in present}
    response = ask(application(), "/latest", headers)
    assert response.status == 400
    assert f"{missing} header is missing from request." in response.body.decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"x-instance-id-signature": signature(ID, b"other")},
        {"x-instance-id-signature": ""},
        {"x-instance-id-signature": signature(ID).upper()},
        {"x-instance-id-signature": "\xff"},
        {"x-instance-id": "\xff"},
        {"x-instance-id": f"{ID},{ID}"},
        {"x-instance-id": "unknown"},
    ],
)
def test_a_wrong_signature_is_403(changes: dict[str, str]) -> None:
    assert ask(application(), "/latest", {**identity(), **changes}).status == 403


def test_an_unknown_instance_and_another_project_are_404() -> None:
    assert ask(application(), "/latest", identity("unknown")).status == 404
    assert ask(application(), "/latest", identity(ID, "p2")).status == 404
    assert ask(application(), "/latest", identity(ID, "")).status == 404


def test_the_signature_is_checked_before_the_project() -> None:
    headers = {**identity(ID, "p2"), "x-instance-id-signature": "0" * 64}
    assert ask(application(), "/latest", headers).status == 403


def test_error_pages_are_html_for_those_who_take_it() -> None:
    for accept, content_type in (
        ("*/*", "text/html"),
        ("text/html", "text/html"),
        ("application/x", "text/plain"),
    ):
        response = ask(application(), "/latest", {"accept": accept})
        assert response.content_type == f"{content_type}; charset=UTF-8"
        assert b"400 Bad Request" in response.body


# --- EC2


def test_ec2_tree() -> None:
    app = application()
    assert text(app, "/latest") == "meta-data/\nuser-data"
    assert text(app, "/ec2/latest/") == "meta-data/\nuser-data"
    assert text(app, "/2009-04-04/meta-data/").split("\n") == [
        "ami-id",
        "ami-launch-index",
        "ami-manifest-path",
        "block-device-mapping/",
        "hostname",
        "instance-action",
        "instance-id",
        "instance-type",
        "local-hostname",
        "local-ipv4",
        "placement/",
        "public-hostname",
        "public-ipv4",
        "public-keys/",
        "reservation-id",
        "security-groups",
    ]
    assert text(app, "/latest/meta-data/instance-id") == "i-0000000a"
    assert text(app, "//latest//meta-data/./instance-id/") == "i-0000000a"
    assert text(app, "/latest/meta%2ddata/instance-id?x=y") == "i-0000000a"
    assert text(app, "/latest/meta-data/public-keys/") == "0=laptop"
    assert text(app, "/latest/meta-data/public-keys/0/") == "openssh-key"
    assert text(app, "/latest/meta-data/public-keys/0/openssh-key") == "ssh-rsa AAA"
    assert text(app, "/latest/meta-data/placement/availability-zone") == "nova"
    assert text(app, "/latest/meta-data/security-groups") == "default\nweb"
    assert text(app, "/latest/meta-data/block-device-mapping/root") == "/dev/vda"
    assert text(app, "/ec2").endswith("\nlatest")


def test_ec2_versions_grow() -> None:
    app = application(kernel_id="aki-1", ramdisk_id="ari-1")
    oldest = text(app, "/1.0/meta-data").split("\n")
    assert "local-hostname" not in oldest
    assert "instance-id" in oldest
    assert "kernel-id" in text(app, "/2007-12-15/meta-data").split("\n")
    assert "placement/" not in text(app, "/2007-12-15/meta-data").split("\n")
    assert "instance-action" in text(app, "/2008-09-01/meta-data").split("\n")


@pytest.mark.parametrize(
    "target",
    [
        "/nope",
        "/2021-03-23/meta-data",
        "/latest/nope",
        "/latest/meta-data/instance-id/x",
        "/latest/meta-data/public-keys/1",
        "/latest/api/token",
        "/openstack/nope",
        "/openstack/2013-10-16/meta_data.json",
        "/openstack/latest/nope",
        "/openstack/latest/user_data/x",
        "/openstack/content",
        "/openstack/content/0001",
        "/openstack/content/0000/x",
        "http://[/latest",
        "*",
    ],
)
def test_no_such_path_is_404(target: str) -> None:
    assert ask(application(), target).status == 404


def test_local_ipv4_falls_back_to_the_forwarded_address() -> None:
    headers = {**identity(), "x-forwarded-for": "10.0.0.9"}
    response = ask(application(local_ipv4=None), "/latest/meta-data/local-ipv4", headers)
    assert response.body == b"10.0.0.9"
    assert ask(application(), "/latest/meta-data/local-ipv4", headers).body == b"10.0.0.5"


def test_user_data_is_passed_byte_for_byte() -> None:
    for target in ("/latest/user-data", "/openstack/latest/user_data"):
        response = ask(application(), target)
        assert (response.status, response.body) == (200, USER_DATA)
        assert response.content_type == "text/plain; charset=UTF-8"
        assert ask(application(user_data=None), target).status == 404
    assert text(application(user_data=None), "/latest") == "meta-data/"
    assert ask(application(user_data=b""), "/latest/user-data") == Response(
        200, "text/plain; charset=UTF-8", b""
    )


# --- OpenStack


def test_openstack_listings_grow() -> None:
    app = application()
    assert text(app, "/openstack").split("\n")[:2] == ["2012-08-10", "2013-04-04"]
    assert text(app, "/openstack/").endswith("2025-04-04\nlatest")
    assert text(app, "/openstack/2012-08-10") == "meta_data.json\nuser_data"
    assert text(app, "/openstack/latest").split("\n") == [
        "meta_data.json",
        "user_data",
        "password",
        "vendor_data.json",
        "network_data.json",
        "vendor_data2.json",
    ]
    assert "user_data" not in text(application(user_data=None), "/openstack/latest")
    assert ask(app, "/openstack/2012-08-10/password").status == 404
    assert ask(app, "/openstack/2013-10-17/vendor_data.json").status == 200
    assert ask(app, "/openstack/2013-10-17/vendor_data2.json").status == 404


def meta_data(app: Application, version: str) -> dict[str, Any]:
    response = ask(app, f"/openstack/{version}/meta_data.json")
    assert (response.status, response.content_type) == (200, "application/json")
    data = json.loads(response.body)
    assert isinstance(data, dict)
    return data


def test_meta_data() -> None:
    app = application()
    data = meta_data(app, "latest")
    seed = base64.b64decode(data.pop("random_seed"))
    assert len(seed) == 512
    assert data == {
        "uuid": ID,
        "meta": {"role": "web"},
        "files": [{"path": "/etc/motd", "content_path": "/content/0000"}],
        "public_keys": {"laptop": "ssh-rsa AAA"},
        "keys": [{"name": "laptop", "type": "ssh", "data": "ssh-rsa AAA"}],
        "hostname": "web.example.org",
        "name": "web",
        "launch_index": 0,
        "availability_zone": "nova",
        "project_id": "p1",
        "devices": [],
        "dedicated_cpus": [],
    }
    oldest = meta_data(app, "2012-08-10")
    assert {"random_seed", "project_id", "devices", "dedicated_cpus"}.isdisjoint(oldest)
    assert ask(app, "/openstack/content/0000").body == b"hello"
    assert meta_data(application(admin_pass="pw"), "latest")["admin_pass"] == "pw"


def test_random_seed_is_fresh() -> None:
    app = application()
    assert meta_data(app, "latest")["random_seed"] != meta_data(app, "latest")["random_seed"]


def test_content_types() -> None:
    for name, content_type, value in (
        ("vendor_data.json", "application/json", {"v": 1}),
        ("vendor_data2.json", "application/json", {"static": {"v": 1}}),
        ("network_data.json", "text/plain; charset=UTF-8", {"links": []}),
    ):
        response = ask(application(), f"/openstack/latest/{name}")
        assert (response.status, response.content_type) == (200, content_type)
        assert json.loads(response.body) == value


def test_other_paths_ignore_the_method() -> None:
    for method in ("PUT", "POST", "DELETE", "PROPFIND"):
        assert ask(application(), "/latest/meta-data/instance-id", method=method).body == b"i-0000000a"


# --- password

PASSWORD = "/openstack/latest/password"


def test_password() -> None:
    app = application()
    html = "text/html; charset=UTF-8"
    assert ask(app, PASSWORD) == Response(200, html, b"")
    assert ask(app, PASSWORD, method="POST", body=b"x" * 1020) == Response(200, html, b"")
    assert ask(app, PASSWORD) == Response(200, html, b"x" * 1020)
    assert ask(app, "/openstack/2013-04-04/password", method="POST", body=b"y").status == 409
    assert ask(app, PASSWORD) == Response(200, html, b"x" * 1020)


def test_password_refused() -> None:
    app = application()
    assert ask(app, PASSWORD, method="POST", body=b"x" * 1021).status == 400
    assert ask(app, PASSWORD, method="PUT", body=b"x").status == 400
    assert ask(app, PASSWORD, method="POST").status == 500, "as Nova does without a Content-Length"
    assert ask(app, PASSWORD, method="POST", body=b"\xff").status == 500
    assert ask(app, PASSWORD).body == b""
    assert ask(app, PASSWORD, method="POST", body=b"").status == 200
    assert ask(app, PASSWORD, method="POST", body=b"later").status == 200, "an empty one is none"


def test_a_given_password_stays() -> None:
    app = application(password="given")
    assert ask(app, PASSWORD).body == b"given"
    assert ask(app, PASSWORD, method="POST", body=b"x").status == 409
