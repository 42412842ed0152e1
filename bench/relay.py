"""Stands before an HTTP server and counts what it is asked, so that nobody's own account of it must be believed."""

from __future__ import annotations

import collections
import contextlib
import http.client
import http.server
import threading
from types import TracebackType
from urllib.parse import urlsplit

TIMEOUT = 60.0
# Of one connection only (RFC 9110, 7.6.1); and this side frames anew.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}


class Relay:
    """Listens on a free TCP port of 127.0.0.1, and passes requests on to another one. Use it with ``with``.

    The guest's Host header goes on unchanged, so that links that the server makes of it lead through the relay, too."""

    def __init__(self, tcp_port: int) -> None:
        """tcp_port: of the server, on 127.0.0.1."""
        relay = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = TIMEOUT

            def do(self) -> None:
                relay.count(f"{self.command} {urlsplit(self.path).path}")
                with contextlib.suppress(ConnectionError):  # who asked has given up
                    self.pass_on()

            def pass_on(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
                server = http.client.HTTPConnection("127.0.0.1", tcp_port, timeout=TIMEOUT)
                try:
                    server.request(self.command, self.path, body, headers)
                    answer = server.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException) as error:
                    self.send_error(502, f"the server did not answer the relay: {error}")
                    return
                finally:
                    server.close()
                self.send_response_only(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="relay")

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def counts(self) -> dict[str, int]:
        """So far, by method and path."""
        with self._lock:
            return dict(self._counts)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # A kept connection would hold up the end.
    block_on_close = False
    request_queue_size = 128
