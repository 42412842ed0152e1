"""Certificates for tests, made with openssl(1): authorities, and what they signed."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(*arguments: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True, timeout=60)
    return done.stdout


@dataclass(frozen=True)
class Certificate:
    """In PEM, without a passphrase."""

    certificate: str
    key: str

    def server(self, *, clients: str | None = None) -> ssl.SSLContext:
        """A server that shows it. clients: the authority of those that it takes."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Authority(Certificate):
    """Signs certificates, into a folder that is the test's."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(f"{folder}/{name}.pem", f"{folder}/{name}.key")
        object.__setattr__(self, "folder", folder)
        files = ("-keyout", self.key, "-out", self.certificate)
        openssl("req", "-x509", *KEY, *files, "-subj", f"/CN={name}", "-days", "30")

    folder: Path

    def sign(self, name: str, *names: str, days: int = 30) -> Certificate:
        """names: as in subjectAltName. days: below 0 it has expired."""
        made = Certificate(f"{self.folder}/{name}.pem", f"{self.folder}/{name}.key")
        more = ("-addext", f"subjectAltName={','.join(names)}") if names else ()
        request = openssl("req", "-new", *KEY, "-keyout", made.key, "-subj", f"/CN={name}", *more)
        signer = ("-CA", self.certificate, "-CAkey", self.key, "-copy_extensions", "copy")
        openssl("x509", "-req", *signer, "-days", str(days), "-out", made.certificate, given=request)
        return made
