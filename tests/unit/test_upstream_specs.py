"""What may be given as an upstream, and what is refused with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastmeta.conf.tls import SYSTEM, read_tls_options
from fastmeta.conf.upstreams import MAX_PATH, MAX_UPSTREAMS, UpstreamSpec, parse_upstream, parse_upstreams
from fastmeta.exceptions import ConfigError, UnsafeFileError


@pytest.mark.parametrize(
    ("text", "spec", "shown", "host_header", "tls_name"),
    [
        ("http://nova", UpstreamSpec("http", "nova", 80), "http://nova", "nova", ""),
        ("HTTP://Nova:80", UpstreamSpec("http", "nova", 80), "http://nova", "nova", ""),
        ("http://nova:443", UpstreamSpec("http", "nova", 443), "http://nova:443", "nova:443", ""),
        ("https://nova", UpstreamSpec("https", "nova", 443), "https://nova", "nova", "nova"),
        ("https://nova.:80", UpstreamSpec("https", "nova.", 80), "https://nova.:80", "nova.:80", "nova"),
        (
            "https://[2001:DB8:0::1]:8775",
            UpstreamSpec("https", "2001:db8::1", 8775),
            "https://[2001:db8::1]:8775",
            "[2001:db8::1]:8775",
            "2001:db8::1",
        ),
        ("http://[::1]", UpstreamSpec("http", "::1", 80), "http://[::1]", "[::1]", ""),
        (
            "http://192.0.2.1:65535",
            UpstreamSpec("http", "192.0.2.1", 65535),
            "http://192.0.2.1:65535",
            "192.0.2.1:65535",
            "",
        ),
        (
            "unix:/run/nova.sock",
            UpstreamSpec("unix", "", 0, "/run/nova.sock"),
            "unix:/run/nova.sock",
            "localhost",
            "",
        ),
    ],
)
def test_what_is_taken(text: str, spec: UpstreamSpec, shown: str, host_header: str, tls_name: str) -> None:
    assert parse_upstream(text) == spec
    assert (str(spec), spec.host_header, spec.tls_name) == (shown, host_header, tls_name)
    assert spec.numeric is ("nova" not in spec.host)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it begins with none of http://, https://, unix:/"),
        ("nova", "it begins with none"),
        ("nova:8775", "it begins with none"),
        ("ftp://nova", "it begins with none"),
        ("http:/nova", "it begins with none"),
        ("http://nova/", "a path (/) cannot be given"),
        ("http://nova:8775/metadata", "a path (/metadata)"),
        ("http://nova?a=b", "a query (?a=b)"),
        ("http://nova#top", "a fragment (#top)"),
        ("http://", "'' is neither the name of a host nor an address"),
        ("http://:80", "'' is neither"),
        ("http://nova:", "'nova:' is not <host> or <host>:<tcp port>"),
        ("http://nova:http", "is not <host> or <host>:<tcp port>"),
        ("http://nova:0", "0 is not a TCP port"),
        ("http://nova:65536", "65536 is not a TCP port"),
        ("http://nova:\u0661", "is not <host> or <host>:<tcp port>"),
        ("http://::1", "'::1' is not <host>"),
        ("http://[::1", "is not <host>"),
        ("http://[192.0.2.1]", "[192.0.2.1] is not an IPv6 address"),
        ("http://[fe80::1%eth0]", "[fe80::1%eth0] is not an IPv6 address"),
        ("http://[nova]", "is not an IPv6 address"),
        ("http://127.1", "'127.1' is neither"),
        ("http://no va", "'no va' is neither"),
        ("http://n\u00f6va", "is neither"),
        ("http://-nova", "is neither"),
        ("http://nova\r\nX: y", "is not <host>"),
        (f"http://{'.'.join(['a' * 62] * 4)}", "more than 249 characters"),
        ("unix:", "followed by the absolute path"),
        ("unix:run/nova", "followed by the absolute path"),
        ("unix:///run/nova", "followed by the absolute path"),
        ("unix:/", "followed by the absolute path"),
        ("unix:/run/a b", "followed by the absolute path"),
        ("unix:/run/\0", "followed by the absolute path"),
        (f"unix:/{'ä' * 54}", f"more than {MAX_PATH} bytes"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_upstreams(["http://good", text])
    assert str(caught.value).startswith(f"[fastmeta] upstreams, entry {text!r}: ")
    assert reason in str(caught.value)
    assert "right is http://<host>:<tcp port>" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["http://me:Zx81@nova", "https://Zx81@nova/x", "http://me:a@Zx81@nova", "//Zx81@nova"]
)
def test_a_password_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_upstreams([text])
    assert "entry '" in str(caught.value)
    assert "Zx81" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_paths_of_full_length() -> None:
    assert parse_upstream(f"unix:/{'a' * (MAX_PATH - 1)}").path


@pytest.mark.parametrize(
    ("one", "other"),
    [("http://Nova", "http://nova:80"), ("https://[::1]", "https://[0::1]:443"), ("unix:/a", "unix:/a")],
)
def test_the_same_twice(one: str, other: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_upstreams([one, "http://other", other])
    assert f"entry {other!r}: it is the same as {one!r}; give it once" in str(caught.value)


def test_too_many() -> None:
    texts = [f"http://nova{number}" for number in range(MAX_UPSTREAMS + 1)]
    assert len(parse_upstreams(texts[:-1])) == MAX_UPSTREAMS
    with pytest.raises(ConfigError, match="upstreams has 17 entries: right is 16 at most"):
        parse_upstreams(texts)


class Certificates:
    """Three files that are taken."""

    def __init__(self, folder: Path) -> None:
        self.paths = {
            name: folder / name for name in ("auth_ca_cert", "nova_client_cert", "nova_client_priv_key")
        }
        for name, path in self.paths.items():
            path.write_text(name)
            path.chmod(0o600)

    def read(self, *, insecure: bool = False, without: str = ""):  # type: ignore[no-untyped-def]
        ca_file, certificate, private_key = (
            "" if name == without else str(path) for name, path in self.paths.items()
        )
        return read_tls_options(
            ca_file=ca_file, insecure=insecure, certificate=certificate, private_key=private_key
        )


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_certificates(certificates: Certificates) -> None:
    options = certificates.read()
    assert options.files == {name: str(path) for name, path in certificates.paths.items()}
    assert options == certificates.read()
    for path in certificates.paths.values():
        path.write_text("another")
        other = certificates.read()
        assert other != options
        options = other


def test_insecure_wins(certificates: Certificates) -> None:
    """As with Neutron's agent."""
    certificates.paths["auth_ca_cert"].unlink()
    options = certificates.read(insecure=True)
    assert (options.insecure, options.ca_file) == (True, None)
    assert SYSTEM not in options.content


@pytest.mark.parametrize("without", ["nova_client_cert", "nova_client_priv_key"])
def test_a_certificate_of_ours_needs_both(certificates: Certificates, without: str) -> None:
    """As with Neutron's agent; the other file is not even looked at."""
    for name in ("nova_client_cert", "nova_client_priv_key"):
        certificates.paths[name].unlink()
    options = certificates.read(without=without)
    assert (options.certificate, options.private_key) == (None, None)


def test_the_systems_authorities(certificates: Certificates) -> None:
    options = certificates.read(without="auth_ca_cert")
    assert options.ca_file is None
    assert options.content[SYSTEM]


@pytest.mark.parametrize("option", ["auth_ca_cert", "nova_client_cert", "nova_client_priv_key"])
def test_files_that_cannot_be_used(certificates: Certificates, option: str) -> None:
    """Option, file and reason."""
    path = certificates.paths[option]
    for mode in (0o620, 0o602):
        path.chmod(mode)
        with pytest.raises(UnsafeFileError) as unsafe:
            certificates.read()
        assert str(unsafe.value).startswith(f"{option} = {path}: mode 0{mode:o} lets group or others write")
    path.unlink()
    with pytest.raises(ConfigError) as caught:
        certificates.read()
    assert str(caught.value) == f"{option} = {path}: No such file or directory; right is a file in PEM"
    path.mkdir()
    with pytest.raises(ConfigError, match=f"{option} = {path}: not a regular file"):
        certificates.read()
    os.rmdir(path)
