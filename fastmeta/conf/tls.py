"""Which certificates are used towards Nova's metadata API. Loading them is the core's; here it is seen to that
nobody else could have written them, and found out when their content is another than before."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastmeta.exceptions import ConfigError, UnsafeFileError
from fastmeta.trusted_files import read_trusted_file

SYSTEM = "the system's authorities"
MAX_FILE = 16 * 1024 * 1024
"""Bytes of one file: all authorities of a system together are less than a megabyte."""

_ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
"""Of RFC 7468 section 11, and of RFC 1421 section 4.6.1.1 (openssl rsa -traditional)."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Equal ones make equal connections. ca_file None: the system's authorities."""

    ca_file: str | None
    insecure: bool
    certificate: str | None
    private_key: str | None
    content: Mapping[str, str] = field(repr=False)
    """A digest of what each option's file holds, by the option's name."""

    @property
    def files(self) -> dict[str, str]:
        """The files that are read, by the options that name them."""
        named = {
            "auth_ca_cert": self.ca_file,
            "nova_client_cert": self.certificate,
            "nova_client_priv_key": self.private_key,
        }
        return {option: path for option, path in named.items() if path}


def read_tls_options(
    *, ca_file: str | None, insecure: bool, certificate: str | None, private_key: str | None
) -> TlsOptions:
    """As Neutron's metadata agent understands its options: insecure wins over auth_ca_cert, and a client's
    certificate is shown only when its key is given, too. Raises ConfigError, UnsafeFileError."""
    both = certificate and private_key
    options = TlsOptions(
        ca_file=(ca_file or None) if not insecure else None,
        insecure=insecure,
        certificate=certificate if both else None,
        private_key=private_key if both else None,
        content={},
    )
    content = {option: _digest_of_file(option, path) for option, path in options.files.items()}
    if options.ca_file is None and not insecure:
        content[SYSTEM] = _digest_of_system()
    return TlsOptions(options.ca_file, insecure, options.certificate, options.private_key, content)


def _digest_of_file(option: str, path: str) -> str:
    try:
        content = read_trusted_file(path, MAX_FILE)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{option} = {path}: {_without(path, error)}") from None
    except ConfigError as error:
        raise ConfigError(f"{option} = {path}: {_without(path, error)}; right is a file in PEM") from None
    if option == "nova_client_priv_key" and any(mark in content for mark in _ENCRYPTED):
        raise ConfigError(
            f"{option} = {path}: it is encrypted, and nobody is there who could give its passphrase; right is a key "
            "without one: openssl pkey -in <this key> -out <another file>"
        )
    return hashlib.sha256(content).hexdigest()


def _without(path: str, error: Exception) -> str:
    return str(error).removeprefix(f"{path}: ")


def _digest_of_system() -> str:
    """Not of the content of hundreds of files, but of what changes when any of them does: update-ca-certificates(8)
    writes the folder anew."""
    places = ssl.get_default_verify_paths()
    states = []
    for place in (places.openssl_cafile, places.openssl_capath):
        try:
            status = os.stat(place)
            states.append(f"{place} {status.st_ino} {status.st_mtime_ns}")
        except OSError:
            states.append(f"{place} is not there")
    return "; ".join(states)
