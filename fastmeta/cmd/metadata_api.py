"""fastmeta metadata-api: the embedded metadata API as a service in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import re
import signal
import sys

from oslo_config import cfg

from fastmeta.exceptions import ConfigError, FastmetaError, MetadataApiError
from fastmeta.metadata_api.application import Application, Request, Response
from fastmeta.metadata_api.instances import load_instances
from fastmeta.metadata_api.server import Limits, MetadataServer, format_address
from fastmeta.notify import notify
from fastmeta.trusted_files import read_trusted_file

SUMMARY = "serve instance metadata in Nova's place (for demos, labs, tests and benches)"

LOG = logging.getLogger(__name__)

_EPILOG = """\
The shared secret is read from a file only, so that no list of processes shows it: --shared-secret-file holds
nothing but the secret (the newline at its end does not count), --config-file is an oslo.config file
(nova.conf, or the agent's own) with metadata_proxy_shared_secret in [neutron] or [DEFAULT].

The file of instances, in short (docs/metadata-api.md has all of its keys):

  instances:
    - id: 8f0c5f2e-3a55-4f0e-9c8e-0d6f5d0a1b01          # required: the port's device_id in Neutron
      project_id: 5d0a1b018f0c4f0e9c8e3a550d6f5f2e      # required
      name: web                                         # and hostname, ec2_id, instance_type, ...
      public_keys: {laptop: ssh-ed25519 AAAA... me@laptop}
      meta: {role: web}
      user_data: "#cloud-config"                        # or user_data_base64, or user_data_file: a path
      vendor_data: {}
      network_data: {links: [], networks: [], services: []}

It must belong to root or to the user of this process, and nobody else may be allowed to write it.
"""


def parse_listen(value: str) -> tuple[str, int]:
    """127.0.0.1:8775 or [::1]:8775 as address and tcp_port (0: any free one). Raises MetadataApiError."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", value)
    try:
        if match is None:
            raise ValueError("no address and port")
        address = str(ipaddress.ip_address(match[1] or match[2]))
        tcp_port = int(match[3])
        if tcp_port > 65535 or (match[1] is not None) != (":" in address):
            raise ValueError("port or brackets")
    except ValueError as error:
        raise MetadataApiError(f"--listen {value}: must be like 127.0.0.1:8775 or [::1]:8775") from error
    return address, tcp_port


def _secret_of_config(files: list[str]) -> bytes:
    """metadata_proxy_shared_secret of oslo.config files: Nova's place for it is [neutron], Neutron's is
    [DEFAULT]."""
    for file in files:
        read_trusted_file(file)
    conf = cfg.ConfigOpts()
    option = cfg.StrOpt("metadata_proxy_shared_secret", default="", secret=True)
    conf.register_opt(option)
    conf.register_opt(option, group="neutron")
    try:
        conf(args=[], project="fastmeta", default_config_files=files, default_config_dirs=[])
    except cfg.Error as error:
        # The parser's errors quote the line, which may be the secret's: name the file only.
        raise ConfigError(
            f"{', '.join(files)}: not a usable oslo.config file ({type(error).__name__})"
        ) from None
    secrets = {conf.neutron.metadata_proxy_shared_secret, conf.metadata_proxy_shared_secret} - {""}
    if len(secrets) > 1:
        raise ConfigError(
            f"{', '.join(files)}: metadata_proxy_shared_secret differs between [neutron] and [DEFAULT]"
        )
    if not secrets:
        raise ConfigError(f"{', '.join(files)}: no metadata_proxy_shared_secret in [neutron] or [DEFAULT]")
    return str(secrets.pop()).encode()


def _secret_of_file(file: str) -> bytes:
    secret = read_trusted_file(file, 4096).removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ConfigError(f"{file}: holds no secret")
    return secret


def _log_request(request: Request, response: Response) -> None:
    instance_id = request.headers.get("x-instance-id", "-")
    # What a guest sent may hold anything: escaped, so that a line stays a line.
    LOG.info(
        "%s %s instance %s: %s, %s bytes",
        *(
            text.encode("unicode_escape").decode("ascii")
            for text in (request.method, request.target, instance_id)
        ),
        response.status,
        len(response.body),
    )


async def _serve(server: MetadataServer, addresses: list[tuple[str, int]]) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    bound = await server.listen(addresses)
    names = ", ".join(format_address(*address) for address in bound)
    LOG.info("metadata API ready on %s", names)
    notify("READY=1", f"STATUS=listening on {names}")
    await end.wait()
    LOG.info("metadata API ends")
    notify("STOPPING=1")
    await server.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastmeta metadata-api",
        description=f"{SUMMARY}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--instances", metavar="FILE.yaml", required=True, help="the instances to serve")
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        action="append",
        help="numeric address and TCP port, e.g. 127.0.0.1:8775 (the default) or [::1]:8775; may be repeated",
    )
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--shared-secret-file", metavar="FILE", help="file that holds the shared secret")
    secret.add_argument(
        "--config-file",
        metavar="FILE",
        action="append",
        help="oslo.config file that holds it; may be repeated",
    )
    parser.add_argument(
        "--keep-alive-timeout",
        metavar="SECONDS",
        type=float,
        default=Limits.keep_alive_timeout,
        help="close a connection that was idle for so long (default: %(default)s)",
    )
    parser.add_argument("--access-log", action="store_true", help="log a line for each request")
    return parser


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or SIGINT. 0: ended cleanly; 1: could not start (why is on stderr)."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        addresses = [parse_listen(value) for value in options.listen or ["127.0.0.1:8775"]]
        if options.keep_alive_timeout <= 0:
            raise MetadataApiError("--keep-alive-timeout must be above 0")
        if options.shared_secret_file:
            secret = _secret_of_file(options.shared_secret_file)
        else:
            secret = _secret_of_config([os.path.abspath(file) for file in options.config_file])
        instances = load_instances(options.instances)
        server = MetadataServer(
            Application(instances, secret),
            Limits(keep_alive_timeout=options.keep_alive_timeout),
            log_request=_log_request if options.access_log else None,
        )
        asyncio.run(_serve(server, addresses))
    except FastmetaError as error:
        print(f"fastmeta metadata-api: {error}", file=sys.stderr)
        return 1
    return 0
