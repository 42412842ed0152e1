"""As much of Keystone v3 and of Neutron's API as lookups need, on loopback, and as wrong as a test wants it to be.

What they answer was taken from Keystone 30 and Neutron 29: status, heads and bodies of tokens, of discovery, of lists
of ports with their links, and of refusals.
"""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Any, TypeAlias

USER, PASSWORD, PROJECT, REGION = "metadata", "pa55word-of-metadata", "service", "RegionOne"
HTML = b"<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>It could not be found.</body>\n</html>"
UNAUTHORIZED = {
    "error": {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }
}

Fault: TypeAlias = "Callable[[Request], None]"


@dataclass(frozen=True)
class Seen:
    """A request that has come."""

    command: str
    path: str
    query: list[tuple[str, str]]
    headers: Message

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]


class Request(http.server.BaseHTTPRequestHandler):
    """One request to one of the servers. A fault may answer it in whatever way it likes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = urllib.parse.urlsplit(self.path)
        self.url_path = parts.path
        self.query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
        with self.server.lock:
            self.server.requests.append(Seen(self.command, self.path, self.query, self.headers))
            fault = self.server.faults.pop(0) if self.server.faults else self.server.fault
        try:
            (fault or self.server.answer)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def say(self, status: int, content: object, **headers: str) -> None:
        """content: bytes as they are, all else as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        heads = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        heads |= {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in heads.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def as_usual(self) -> None:
        self.server.answer(self)

    def wait(self, seconds: float = 60.0) -> bool:
        """Until the server ends (True), or so long."""
        return self.server.ending.wait(seconds)

    def log_message(self, format: str, *args: object) -> None:
        """The tests look at requests themselves."""


class Server(http.server.ThreadingHTTPServer):
    """A server whose faults come first: those in faults once each, then fault as long as it is there."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, answer: Callable[[Request], None], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.requests: list[Seen] = []
        self.connections: list[socket.socket] = []
        self.faults: list[Fault] = []
        self.fault: Fault | None = None
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self.tls = tls
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:  # in the connection's thread, so that a handshake holds up nobody
            request.settimeout(10)
            with self.tls.wrap_socket(request, server_side=True) as encrypted:
                super().finish_request(encrypted, client_address)
            return
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what the tests are about."""

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.server_address[1]}"

    def end(self) -> None:
        """Nothing is listened to any more, and all connections are cut."""
        self.ending.set()
        self.shutdown()
        self.server_close()
        self._thread.join(10)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Cloud:
    """Both servers, and what they know: ports as Neutron's API shows them."""

    def __init__(self, ports: Sequence[object] = (), tls: ssl.SSLContext | None = None) -> None:
        self.ports = list(ports)
        self.max_page = 0
        """Neutron's pagination_max_limit; 0: none."""
        self.token_life = 3600.0
        self.tokens: list[str] = []
        self.valid: set[str] = set()
        self.visible: Callable[[Any], bool] = lambda port: True
        """What the credentials let one see."""
        self.regions = (REGION,)
        self.versioned_endpoint = False
        self._tls = tls
        self.keystone = Server(self._keystone, tls)
        self.neutron = Server(self._neutron, tls)

    def __enter__(self) -> Cloud:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.keystone.end()
        self.neutron.end()

    @property
    def calls(self) -> list[Seen]:
        """Questions to Neutron."""
        return self.neutron.requests

    @property
    def logins(self) -> list[Seen]:
        return [request for request in self.keystone.requests if request.command == "POST"]

    def expire_tokens(self) -> None:
        """Keystone has revoked them."""
        self.valid.clear()

    def _keystone(self, request: Request) -> None:
        version = {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.keystone.url}/v3/"}],
            "media-types": [
                {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
            ],
        }
        path = request.url_path.rstrip("/")
        if path == "":
            request.say(300, {"versions": {"values": [version]}}, Location=f"{self.keystone.url}/v3/")
        elif path == "/v3":
            request.say(200, {"version": version})
        elif path == "/v3/auth/tokens" and request.command == "POST":
            self._log_in(request)
        else:
            request.say(404, HTML, Content_Type="text/html; charset=utf-8")

    def _log_in(self, request: Request) -> None:
        asked = json.loads(request.body)["auth"]
        user = asked["identity"]["password"]["user"]
        if "domain" not in user and "id" not in user:
            message = "Expecting to find domain in user."
            request.say(400, {"error": {"code": 400, "message": message, "title": "Bad Request"}})
            return
        project = asked.get("scope", {}).get("project", {})
        right = (user.get("name"), user["password"], project.get("name")) == (USER, PASSWORD, PROJECT)
        domains = {json.dumps(user["domain"]), json.dumps(project.get("domain"))}
        if not right or not domains <= {'{"id": "default"}', '{"name": "Default"}'}:
            request.say(401, UNAUTHORIZED, WWW_Authenticate=f'Keystone uri="{self.keystone.url}/v3"')
            return
        now = datetime.datetime.now(datetime.timezone.utc)
        expires = now + datetime.timedelta(seconds=self.token_life)
        with self.keystone.lock:
            token = f"gAAAAAB-token-{len(self.tokens)}"
            self.tokens.append(token)
            self.valid.add(token)
        endpoint = self.neutron.url + ("/v2.0" if self.versioned_endpoint else "")
        catalog = [
            {
                "id": "5e5e",
                "type": "network",
                "name": "neutron",
                "endpoints": [
                    {
                        "id": f"{region}-{interface}",
                        "interface": interface,
                        "region_id": region,
                        "region": region,
                        "url": endpoint,
                    }
                    for region in self.regions
                    for interface in ("internal", "admin", "public")
                ],
            }
        ]
        domain = {"id": "default", "name": "Default"}
        shape = "%Y-%m-%dT%H:%M:%S.%fZ"
        content = {
            "methods": ["password"],
            "user": {"domain": domain, "id": "5e80", "name": USER, "password_expires_at": None},
            "audit_ids": ["8LYwaNZ0QPqlchhotiPTUg"],
            "expires_at": expires.strftime(shape),
            "issued_at": now.strftime(shape),
            "project": {"domain": domain, "id": "81dd", "name": PROJECT},
            "is_domain": False,
            "roles": [{"id": "9b03", "name": "admin"}],
            "catalog": catalog,
        }
        request.say(201, {"token": content}, X_Subject_Token=token, Vary="X-Auth-Token")

    def _neutron(self, request: Request) -> None:
        if request.headers.get("X-Auth-Token") not in self.valid:
            request.say(401, UNAUTHORIZED, WWW_Authenticate=f'Keystone uri="{self.keystone.url}"')
        elif request.url_path != "/v2.0/ports":
            request.say(404, HTML, Content_Type="text/html; charset=UTF-8")
        else:
            self._list(request)

    def _list(self, request: Request) -> None:
        names = {"network_id", "device_id", "device_owner", "mac_address", "fixed_ips", "fields", "limit"}
        strange = {name for name, _ in request.query} - names - {"marker"}
        if strange:
            message = f"{sorted(strange)} is invalid attribute for filtering"
            request.say(400, {"NeutronError": {"type": "HTTPBadRequest", "message": message, "detail": ""}})
            return
        found = [port for port in self.ports if self._fits(port, request) and self.visible(port)]
        limit = int((request.values("limit") or ["0"])[0])
        if self.max_page:
            limit = min(limit or self.max_page, self.max_page)
        answer: dict[str, Any] = {}
        if limit:
            found.sort(key=_id)
            for marker in request.values("marker"):
                ids = [_id(port) for port in found]
                if marker not in ids:
                    message = f"Port {marker} could not be found."
                    error = {"type": "PortNotFound", "message": message, "detail": ""}
                    request.say(404, {"NeutronError": error})
                    return
                found = found[ids.index(marker) + 1 :]
            page = found[:limit]
            answer["ports_links"] = self._links(request, page, limit) if page else []
            found = page
        fields = request.values("fields")
        answer["ports"] = [
            {name: port[name] for name in fields if name in port}
            if fields and isinstance(port, dict)
            else port
            for port in found
        ]
        request.say(200, answer)

    def _links(self, request: Request, page: Sequence[Any], limit: int) -> list[dict[str, str]]:
        # Of a proxy that hides the scheme and host by which it was asked.
        base = "http://neutron.internal:9696/v2.0/ports?"
        rest = [(name, value) for name, value in request.query if name != "marker"]
        links = []
        if len(page) == limit:
            query = urllib.parse.urlencode([*rest, ("marker", _id(page[-1]))])
            links.append({"rel": "next", "href": base + query})
        query = urllib.parse.urlencode([*rest, ("marker", _id(page[0])), ("page_reverse", "True")])
        return [*links, {"rel": "previous", "href": base + query}]

    @staticmethod
    def _fits(port: object, request: Request) -> bool:
        if not isinstance(port, Mapping):
            return True  # a test wants it in every answer
        for name in ("network_id", "device_id", "device_owner", "mac_address"):
            wanted = request.values(name)
            if wanted and port.get(name) not in wanted:
                return False
        wanted = [value.removeprefix("ip_address=") for value in request.values("fixed_ips")]
        fixed = port.get("fixed_ips")
        if not wanted or not isinstance(fixed, list):
            return True
        return any(isinstance(one, dict) and one.get("ip_address") in wanted for one in fixed)


def _id(port: object) -> str:
    return str(port.get("id")) if isinstance(port, Mapping) else ""


def hang(request: Request) -> None:
    """Takes the request, and never answers."""
    request.wait()
    request.close_connection = True


def trickle_head(request: Request) -> None:
    """A byte now and then, for ever: no timeout of a socket ever ends this."""
    trickle(request, b"HTTP/1.1 200 OK\r\n" + b"X-Slow: slow\r\n" * 4000)


def trickle_body(request: Request) -> None:
    trickle(request, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100000, at_once=40)


def trickle(request: Request, data: bytes, at_once: int = 10) -> None:
    request.close_connection = True
    for position in range(0, len(data), at_once):
        request.wfile.write(data[position : position + at_once])
        if request.wait(0.02):
            return


def flood(request: Request) -> None:
    """An answer without end."""
    request.close_connection = True
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    end = time.monotonic() + 20
    while time.monotonic() < end and not request.server.ending.is_set():
        request.wfile.write(b" " * 65536)


def drop(request: Request) -> None:
    """Closes the connection instead of an answer."""
    request.close_connection = True


def raw(data: bytes) -> Fault:
    """Sends these bytes, and closes."""

    def say(request: Request) -> None:
        request.close_connection = True
        request.wfile.write(data)

    return say


def says(status: int, content: object = b"", **headers: str) -> Fault:
    return lambda request: request.say(status, content, **headers)
