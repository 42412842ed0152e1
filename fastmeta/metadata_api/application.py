"""Nova's metadata application without Nova: its checks, its EC2 and OpenStack trees, its content types.

Follows nova/api/metadata/{handler,base,password}.py, where `[neutron] service_metadata_proxy` is true. Where
Nova's own code stumbles (an internal error for odd paths), this answers 404; where a stumble tells a proxy's
author something (a password without Content-Length), it stumbles too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import http
import os
import posixpath
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union

from fastmeta.metadata_api.instances import MAX_PASSWORD, Instance, dump_json

EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
)
OPENSTACK_VERSIONS = (
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2025-04-04",
)

TEXT = "text/plain; charset=UTF-8"
HTML = "text/html; charset=UTF-8"
JSON = "application/json"

_EXPLANATIONS = {
    404: "The resource could not be found.",
    409: "There was a conflict when trying to complete your request.",
    500: "An unknown error has occurred. Please try your request again.",
}

Tree = Mapping[str, Union[str, bytes, "Tree"]]


@dataclass(frozen=True)
class Request:
    """A request as a WSGI server hands it over."""

    method: str
    target: str
    """As on the request line; absolute-form (http://host/path) too."""
    headers: Mapping[str, str]
    """Names folded by fold_header_name, repeated ones joined by a comma: a WSGI application sees no more."""
    content_length: int | None
    """None without a Content-Length line, also when the body came in chunks."""
    body: bytes


@dataclass(frozen=True)
class Response:
    """Status, type and body; framing and everything else is the server's."""

    status: int
    content_type: str
    body: bytes


class _Refused(Exception):
    """Ends a request with an error page."""

    def __init__(self, status: int, explanation: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.explanation = explanation or _EXPLANATIONS[status]


def fold_header_name(name: str) -> str:
    """WSGI's environment has one key for X-Instance-ID and X_Instance_ID; so a proxy that lets the second one
    of a guest pass has let it forge the first."""
    return name.lower().replace("_", "-")


def sign(secret: bytes, instance_id: bytes) -> bytes:
    """The value of X-Instance-ID-Signature: lower-case hex of HMAC-SHA256."""
    return hmac.new(secret, instance_id, hashlib.sha256).hexdigest().encode()


class Application:
    """Answers requests for a fixed set of instances. Holds one mutable thing: the passwords that guests have
    posted."""

    def __init__(self, instances: Mapping[str, Instance], secret: bytes) -> None:
        self._instances = dict(instances)
        self._secret = secret
        self._passwords = {instance.instance_id: instance.password for instance in instances.values()}

    def handle(self, request: Request) -> Response:
        """Never raises: whatever a request holds leads to a response."""
        try:
            return self._handle(request)
        except _Refused as refused:
            return _error_page(request, refused)

    def _handle(self, request: Request) -> Response:
        path = _path(request.target) or "/"
        # Nova answers this one before it asks who asks.
        if posixpath.normpath(path) == "/":
            return Response(200, TEXT, _listing(EC2_VERSIONS))
        instance = self._identify(request)
        tokens = _tokens(path)
        if tokens[0] == "openstack":
            return self._openstack(instance, tokens[1:], request)
        return _ec2(instance, tokens[1:], request)

    def _identify(self, request: Request) -> Instance:
        """The instance that the proxy has named, checked in Nova's order: a missing header is 400, a wrong
        signature 403, an unknown instance or another project 404. Only the instance's id is signed."""
        names = ("X-Instance-ID", "X-Instance-ID-Signature", "X-Tenant-ID")
        values = []
        for name in names:
            value = request.headers.get(fold_header_name(name))
            if value is None:
                raise _Refused(400, f"{name} header is missing from request.")
            values.append(value)
        instance_id, signature, project_id = values
        expected = sign(self._secret, instance_id.encode("latin-1"))
        if not hmac.compare_digest(expected, signature.encode("latin-1")):
            raise _Refused(403, "Invalid proxy request signature.")
        instance = self._instances.get(instance_id)
        if instance is None or instance.project_id != project_id:
            raise _Refused(404)
        return instance

    def _openstack(self, instance: Instance, tokens: list[str], request: Request) -> Response:
        if not tokens:
            return Response(200, TEXT, _listing(OPENSTACK_VERSIONS))
        if tokens[0] == "content":
            return _file_content(instance, tokens[1:])
        version = OPENSTACK_VERSIONS[-1] if tokens[0] == "latest" else tokens[0]
        if version not in OPENSTACK_VERSIONS:
            raise _Refused(404)
        # Versions are dates, so "since" is a comparison of strings.
        available: dict[str, Callable[[], Response]] = {
            name: answer
            for name, since, answer in (
                ("meta_data.json", "", lambda: _json(_meta_data(instance, version))),
                ("user_data", "", lambda: _user_data(instance)),
                ("password", "2013-04-04", lambda: self._password(instance, request)),
                ("vendor_data.json", "2013-10-17", lambda: _json(instance.vendor_data)),
                # Nova leaves this one at the default type.
                ("network_data.json", "2015-10-15", lambda: _text(dump_json(instance.network_data))),
                ("vendor_data2.json", "2016-10-06", lambda: _json(instance.vendor_data2)),
            )
            if version >= since
        }
        if instance.user_data is None:
            del available["user_data"]
        if len(tokens) == 1:
            return _text("\n".join(available).encode())
        answer = available.get("/".join(tokens[1:]))
        if answer is None:
            raise _Refused(404)
        return answer()

    def _password(self, instance: Instance, request: Request) -> Response:
        if request.method == "GET":
            return Response(200, HTML, self._passwords[instance.instance_id].encode())
        if request.method != "POST":
            raise _Refused(400, "GET and POST only are supported.")
        if self._passwords[instance.instance_id]:
            raise _Refused(409)
        if request.content_length is None:
            raise _Refused(500)  # Nova compares None with a number
        if request.content_length > MAX_PASSWORD or len(request.body) > MAX_PASSWORD:
            raise _Refused(400, "Request is too large.")
        try:
            self._passwords[instance.instance_id] = request.body.decode()
        except UnicodeDecodeError:
            raise _Refused(500) from None
        return Response(200, HTML, b"")


def _path(target: str) -> str:
    """The decoded path of a request target: WSGI's PATH_INFO."""
    if not target.startswith("/"):
        try:
            target = urllib.parse.urlsplit(target).path
        except ValueError:
            raise _Refused(404) from None
    path = target.partition("?")[0].partition("#")[0]
    return urllib.parse.unquote(path, encoding="latin-1")


def _tokens(path: str) -> list[str]:
    """The names along a path; the first is ec2 or openstack, and what begins with neither belongs to ec2."""
    tokens = [token for token in posixpath.normpath("/" + path.lstrip("/")).split("/") if token]
    return tokens if tokens and tokens[0] in ("ec2", "openstack") else ["ec2", *tokens]


def _listing(versions: tuple[str, ...]) -> bytes:
    return "\n".join((*versions, "latest")).encode()


def _text(body: bytes) -> Response:
    return Response(200, TEXT, body)


def _json(value: object) -> Response:
    return Response(200, JSON, dump_json(value))


def _error_page(request: Request, refused: _Refused) -> Response:
    """As webob writes it: HTML for whoever takes it, text for whoever names no type."""
    title = f"{refused.status} {http.HTTPStatus(refused.status).phrase}"
    accept = request.headers.get("accept", "")
    if "html" not in accept and "*/*" not in accept:
        return Response(refused.status, TEXT, f"{title}\n\n{refused.explanation}\n".encode())
    page = (
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n"
        f"  {html.escape(refused.explanation)}<br />\n </body>\n</html>"
    )
    return Response(refused.status, HTML, page.encode())


def _user_data(instance: Instance) -> Response:
    if instance.user_data is None:
        raise _Refused(404)
    return _text(instance.user_data)


def _file_content(instance: Instance, tokens: list[str]) -> Response:
    if len(tokens) == 1:
        for index, file in enumerate(instance.files):
            if tokens[0] == f"{index:04}":
                return _text(file.content)
    raise _Refused(404)


def _meta_data(instance: Instance, version: str) -> dict[str, Any]:
    data: dict[str, Any] = {"uuid": instance.instance_id}
    if instance.meta:
        data["meta"] = dict(instance.meta)
    if instance.files:
        data["files"] = [
            {"path": file.path, "content_path": f"/content/{index:04}"}
            for index, file in enumerate(instance.files)
        ]
    if instance.admin_pass is not None:
        data["admin_pass"] = instance.admin_pass
    if instance.public_key:
        name, line = instance.public_key
        data["public_keys"] = {name: line}
        data["keys"] = [{"name": name, "type": "ssh", "data": line}]
    data["hostname"] = instance.hostname
    data["name"] = instance.name
    data["launch_index"] = instance.launch_index
    data["availability_zone"] = instance.availability_zone
    if version >= "2013-04-04":
        # Fresh for each call, so that an answer which somebody has cached shows.
        data["random_seed"] = base64.b64encode(os.urandom(512)).decode()
    if version >= "2015-10-15":
        data["project_id"] = instance.project_id
    if version >= "2016-06-30":
        data["devices"] = []
    if version >= "2020-10-14":
        data["dedicated_cpus"] = []
    return data


def _ec2_tree(instance: Instance, version: str, forwarded_for: str) -> Tree:
    """forwarded_for: what Nova takes for local-ipv4 when it knows no address of the instance."""
    data: dict[str, str | bytes | Tree] = {
        "ami-id": instance.ami_id,
        "ami-launch-index": str(instance.launch_index),
        "ami-manifest-path": "FIXME",
        "instance-id": instance.ec2_id,
        "hostname": instance.hostname,
        "local-ipv4": instance.local_ipv4 or forwarded_for,
        "reservation-id": instance.reservation_id,
        "security-groups": "\n".join(instance.security_groups),
    }
    if instance.public_key:
        data["public-keys"] = {"0": {"openssh-key": instance.public_key[1]}}
    if version >= "2007-01-19":
        data["local-hostname"] = data["public-hostname"] = instance.hostname
        data["public-ipv4"] = instance.public_ipv4
    if version >= "2007-08-29":
        data["instance-type"] = instance.instance_type
    if version >= "2007-12-15":
        data["block-device-mapping"] = dict(instance.block_device_mapping)
        if instance.kernel_id:
            data["kernel-id"] = instance.kernel_id
        if instance.ramdisk_id:
            data["ramdisk-id"] = instance.ramdisk_id
    if version >= "2008-02-01":
        data["placement"] = {"availability-zone": instance.availability_zone}
    if version >= "2008-09-01":
        data["instance-action"] = "none"
    tree: dict[str, str | bytes | Tree] = {"meta-data": data}
    if instance.user_data is not None:
        tree["user-data"] = instance.user_data
    return tree


def _ec2(instance: Instance, tokens: list[str], request: Request) -> Response:
    if not tokens:
        return Response(200, TEXT, _listing(EC2_VERSIONS))
    version = EC2_VERSIONS[-1] if tokens[0] == "latest" else tokens[0]
    if version not in EC2_VERSIONS:
        raise _Refused(404)
    forwarded_for = request.headers.get("x-forwarded-for", "")
    found: str | bytes | Tree = _ec2_tree(instance, version, forwarded_for)
    for token in tokens[1:]:
        if isinstance(found, (str, bytes)) or token not in found:
            raise _Refused(404)
        found = found[token]
    if isinstance(found, bytes):
        return _text(found)
    if isinstance(found, str):
        return _text(found.encode())
    lines = []
    for name in sorted(found):
        if isinstance(found[name], (str, bytes)):
            lines.append(name)
        elif tokens[-1] == "public-keys" and instance.public_key:
            # Nova renders a key as "0=name", without the slash of other folders.
            lines.append(f"{name}={instance.public_key[0]}")
        else:
            lines.append(f"{name}/")
    return _text("\n".join(lines).encode())
