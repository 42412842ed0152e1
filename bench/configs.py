"""The peers' configurations: the same job for all, each tuned as somebody would who wants it fast."""

import json
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from bench import job


def haproxy(port: int, upstream_port: int) -> str:
    """One thread, no log, connections to the server kept and shared (http-reuse always)."""
    set_lines = "\n".join(f"    http-request set-header {k} {v}" for k, v in job.SET_HEADERS.items())
    delete_lines = "\n".join(f"    http-request del-header {k}" for k in job.DELETED_HEADERS)
    return f"""\
global
    nbthread 1
    maxconn 4096

defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    timeout http-request 10s

listen bench
    bind 127.0.0.1:{port} defer-accept
{delete_lines}
{set_lines}
    server nova 127.0.0.1:{upstream_port} pool-max-conn -1 pool-purge-delay 1h
"""


def nginx(port: int, upstream_port: int, folder: Path, *, one_process: bool = False) -> str:
    """An empty value is how nginx deletes a header."""
    set_lines = "\n".join(f"            proxy_set_header {k} {v};" for k, v in job.SET_HEADERS.items())
    delete_lines = "\n".join(f'            proxy_set_header {k} "";' for k in job.DELETED_HEADERS)
    listen = f"        listen 127.0.0.1:{port} deferred;"
    return _nginx(listen, f"{delete_lines}\n{set_lines}", upstream_port, folder, one_process=one_process)


def _nginx(listen: str, headers: str, upstream_port: int, folder: Path, *, one_process: bool) -> str:
    """One worker (one_process: and no master), no log, a pool of kept-alive connections."""
    # As root the worker would change to a user who may not enter the temporary folder.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
{user}
daemon off;
master_process {"off" if one_process else "on"};
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
{temporary}
    keepalive_requests 1000000000;
    keepalive_timeout 60s;
    upstream nova {{
        server 127.0.0.1:{upstream_port};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
{listen}
        location / {{
            proxy_pass http://nova;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
{headers}
        }}
    }}
}}
"""


def stock_haproxy(socket: Path, network_id: str) -> str:
    """What Neutron's agents write for each network, but for the lines that need a syslog, a user and a pid file."""
    return f"""\
global
    maxconn 1024
    nbthread 2

defaults
    mode http
    option httplog
    option dontlognull
    option http-server-close
    option forwardfor
    retries 3
    timeout http-request 30s
    timeout connect 30s
    timeout client 32s
    timeout server 32s
    timeout http-keep-alive 30s

listen listener
    bind 169.254.169.254:80 transparent
    server metadata {socket}
    http-request del-header X-Neutron-Router-ID
    http-request set-header X-Neutron-Network-ID {network_id}
"""


def front(upstream_port: int, folder: Path, port: int, tls_port: int) -> str:
    """nginx before the upstream: it changes nothing, and takes requests with TLS and without. Its certificate and key
    lie in its folder."""
    listen = f"""\
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;"""
    return _nginx(
        listen, "            proxy_set_header Host $http_host;", upstream_port, folder, one_process=False
    )


def network_id(number: int) -> str:
    """Of one of many networks that nobody asks from."""
    return f"5a1f0c52-7d0c-4a8e-8000-{number:012x}"


def fastmeta(
    port: int,
    upstream_port: int,
    ports_file: Path,
    *,
    identity_ttl: int = 10,
    idle: Sequence[str] = (),
    certificate: Path | None = None,
    transport_url: str = "",
) -> str:
    """The whole job: lookup, signature, identity's time to live; nothing is switched off. All guests of the load come
    from one address here, so what one address may hold is raised, as the peers hold back nobody. idle: namespaces with
    a listener each that nobody asks. certificate: of the upstream, which is spoken to by TLS then. transport_url: of a
    message bus, which is asked in place of the ports file."""
    lookup = f"lookup = static\nports_file = {ports_file}"
    bus = ""
    if transport_url:
        lookup, bus = "lookup = rpc", f"transport_url = {transport_url}\nhost = bench"
    tls = f"nova_metadata_protocol = https\nauth_ca_cert = {certificate}\n" if certificate else ""
    listeners = "\n".join(
        f"listen = network:{network_id(number)}@{name}/169.254.169.254:80" for number, name in enumerate(idle)
    )
    return f"""\
[DEFAULT]
nova_metadata_host = 127.0.0.1
nova_metadata_port = {upstream_port}
metadata_proxy_shared_secret = {job.SECRET}
{tls}{bus}
[fastmeta]
{lookup}
control_dir =
listen = network:{job.NETWORK_ID}@127.0.0.1:{port}
identity_ttl = {identity_ttl}
max_connections_per_address = 4096
max_parked_per_address = 4096
max_upstream_connections = 2048
{listeners}
"""


def fastmeta_ports() -> str:
    """One port, in the shape that Neutron's API answers with."""
    port = {
        "id": job.PORT_ID,
        "network_id": job.NETWORK_ID,
        "device_id": job.INSTANCE_ID,
        "device_owner": "compute:nova",
        "project_id": job.PROJECT_ID,
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"ip_address": job.GUEST_ADDRESS}],
    }
    return json.dumps({"ports": [port]})
