"""A requests session, for keystoneauth1, whose answers are bounded in time and size.

Every request is sent within a Call (calls.py): its connections can be shut down from outside, those of TLS handshakes
and of heads that trickle included. An answer is read whole, up to a size, before anybody looks at it. What goes wrong
on the way is told here once and for all, as the error that an operator will read: what, where, what to do.

Nothing comes from the environment: no proxy, no netrc, no REQUESTS_CA_BUNDLE. The service's configuration says whom it
trusts with a password. For the same reason a redirect to another server is not followed, and no cookie is kept.
"""

from __future__ import annotations

import http.client
import http.cookiejar
import os
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from fastmeta.exceptions import LookupMalformedError, LookupRefusedError, LookupUnavailableError
from fastmeta.lookup.calls import Call

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer. A page of 1,000 ports has half a million."""
_PIECE = 64 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_PLAIN = ("http", "https")

_this_thread = threading.local()


@contextmanager
def calling(call: Call, name_of: Callable[[str], str]) -> Iterator[None]:
    """What this thread sends meanwhile belongs to the call. name_of(url) is whom one asks there, for a text."""
    _this_thread.call = call
    _this_thread.name_of = name_of
    try:
        yield
    finally:
        del _this_thread.call, _this_thread.name_of


def _call() -> Call:
    call: Call = _this_thread.call
    return call


class _Line:
    """What both kinds of connections have in common: a second descriptor of the socket, by which it can be shut down
    whatever TLS has made of the first."""

    host: str
    port: int
    timeout: Any
    line: socket.socket | None = None
    used = False

    def _new_conn(self) -> socket.socket:
        # In urllib3's stead, whose time for connecting counts for each of a name's addresses anew. Its callers take
        # any OSError.
        call = _call()
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.host.strip("[]"), self.port, type=socket.SOCK_STREAM
        ):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(call.seconds_left())
                self._hold(connection)
                connection.connect(address)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            except OSError as error:
                failure = error
                connection.close()
            except BaseException:
                connection.close()
                raise
        raise failure or OSError("the name has no address")

    def _hold(self, connection: socket.socket) -> None:
        self._drop()
        self.line = connection.dup()
        _call().use(self.line)

    def _drop(self) -> None:
        if self.line is not None:
            self.line.close()
            self.line = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.used and self.line is not None:
            _this_thread.reused = True
            _call().use(self.line)
        self.used = True
        super().request(*args, **kwargs)  # type: ignore[misc]

    def close(self) -> None:
        self._drop()
        self.used = False
        super().close()  # type: ignore[misc]


class _Connection(_Line, HTTPConnection):
    pass


class _TlsConnection(_Line, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """Sends one request, and gives its whole answer."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
        call = _call()
        call.asking = who = _this_thread.name_of(request.url or "")
        if urllib.parse.urlsplit(request.url or "").scheme not in _PLAIN:
            raise LookupRefusedError(f"{who} is no http or https address")
        options |= {"stream": True, "proxies": None}
        options.pop("timeout", None)
        try:
            response = self._send(request, call, options)
            _read(response, who)
        except requests.RequestException as error:
            # Not as a cause: its text has what was asked in it.
            raise self._failure(error, call, who) from None
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise self._failure(error, call, who) from None
        finally:
            call.let_go()
        _refuse_elsewhere(request, response, who)
        return response

    def close(self) -> None:
        # Newer versions of urllib3 leave it to the garbage collector.
        pools = self.poolmanager.pools
        for pool in [pools.get(key) for key in list(pools.keys())]:
            if pool is not None:
                pool.close()
        super().close()

    def _send(
        self, request: requests.PreparedRequest, call: Call, options: dict[str, Any]
    ) -> requests.Response:
        _this_thread.reused = False
        try:
            return super().send(request, timeout=call.seconds_left(), **options)
        except (requests.exceptions.SSLError, requests.Timeout):
            raise
        except requests.ConnectionError:
            # A server closes connections that nobody uses when it likes, and all when it starts again (RFC 9112
            # section 9.5). Nothing that we ask does harm when it is asked twice.
            if not _this_thread.reused or call.is_cut_off:
                raise
            call.let_go()
            self.poolmanager.clear()
            return super().send(request, timeout=call.seconds_left(), **options)

    def _failure(self, error: BaseException, call: Call, who: str) -> Exception:
        if call.is_cut_off:
            return call.too_late()
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader):
            return LookupRefusedError(f"{who} is no address that can be asked")
        for cause in _causes(error):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return LookupRefusedError(
                    f"{who}: its certificate is not taken: {cause.verify_message.rstrip('.')}; [neutron] cafile "
                    "must name a file with the authority that has issued it"
                )
            if isinstance(cause, ssl.SSLError):
                return LookupUnavailableError(
                    f"{who}: no TLS connection: {(cause.reason or 'unknown').lower().replace('_', ' ')}; does it "
                    "speak https at all?"
                )
            if isinstance(cause, socket.gaierror):
                return LookupUnavailableError(f"{who}: the name cannot be resolved: {cause.strerror}")
            if isinstance(cause, TimeoutError):
                return call.too_late()
            if isinstance(cause, http.client.RemoteDisconnected):
                return LookupUnavailableError(f"{who} closes the connection without an answer")
            if isinstance(cause, http.client.IncompleteRead):
                return LookupUnavailableError(f"{who} closes the connection in the middle of its answer")
            if isinstance(cause, http.client.HTTPException):
                return LookupMalformedError(f"what {who} answers is no HTTP")
            if isinstance(cause, OSError) and cause.errno:
                return LookupUnavailableError(f"{who}: {os.strerror(cause.errno)}")
        return LookupUnavailableError(f"{who} cannot be asked ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What the libraries have wrapped, from the inside to the outside."""
    found: list[BaseException] = []

    def look(error: BaseException) -> None:
        if error in found:
            return
        found.append(error)
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        for one in inner:
            if isinstance(one, BaseException):
                look(one)

    look(error)
    return reversed(found)


def _read(response: requests.Response, who: str) -> None:
    """Reads the content, as it was sent: a packed one (which was not asked for) could be of any size."""
    raw = response.raw
    try:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise LookupMalformedError(f"{who} packs its answer, which nobody asked for (Content-Encoding)")
        pieces: list[bytes] = []
        size = 0
        while piece := raw.read(_PIECE, decode_content=False):
            size += len(piece)
            if size > MAX_ANSWER:
                raise LookupMalformedError(f"{who} answers more than {MAX_ANSWER} bytes")
            pieces.append(piece)
        declared = response.headers.get("Content-Length")
        chunked = "Transfer-Encoding" in response.headers
        if declared is not None and not chunked and str(size) != declared.strip():
            raise LookupUnavailableError(f"{who} closes the connection in the middle of its answer")
    except BaseException:
        raw.close()
        raise
    raw.release_conn()
    # What requests itself does in Response.content.
    response._content = b"".join(pieces)
    response._content_consumed = True


def _refuse_elsewhere(request: requests.PreparedRequest, response: requests.Response, who: str) -> None:
    where = response.headers.get("Location")
    if response.status_code in _REDIRECTS and where is not None:
        target = urllib.parse.urljoin(request.url or "", where)
        if _origin(target) != _origin(request.url or ""):
            raise LookupRefusedError(
                f"{who} redirects to {_shown_origin(target)}, which is not followed: a token or password would go "
                "there; if that is right, auth_url or endpoint_override in [neutron] must say so"
            )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """RFC 6454 section 4."""
    parts = urllib.parse.urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown_origin(url: str) -> str:
    scheme, host, port = _origin(url)
    return ascii(f"{scheme}://{host}:{port}")[1:-1][:200]


def shown_url(url: str) -> str:
    """The URL as a text may have it: without a user and what is asked, and short."""
    parts = urllib.parse.urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return ascii(f"{parts.scheme}://{place}{parts.path}")[1:-1][:200]


def session(threads: int) -> requests.Session:
    """One that so many threads may use at once."""
    made = requests.Session()
    made.trust_env = False
    made.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    made.headers["Accept-Encoding"] = "identity"
    adapter = _Adapter(pool_connections=8, pool_maxsize=threads)
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    return made
