"""Started by servers.py: the application behind Python's own WSGI server, which speaks HTTP/1.0."""

import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from application import application


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class Handler(WSGIRequestHandler):
    def log_message(self, *ignored: object) -> None:
        pass


with make_server("127.0.0.1", int(sys.argv[1]), application, Server, Handler) as server:
    server.serve_forever()
