"""The header lines that say who a guest is: ready bytes, into which nothing can be smuggled."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress

import pytest

from fastmeta._core import _identity_block

INSTANCE = "33333333-3333-4333-8333-333333333333"
PROJECT = "4" * 32
ADDRESS = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 5])


def packed(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def test_the_whole_block() -> None:
    signature = hmac.new(b"secret", INSTANCE.encode(), hashlib.sha256).hexdigest()
    assert (
        _identity_block(ADDRESS, INSTANCE, PROJECT, b"secret")
        == (
            f"X-Forwarded-For: 10.0.0.5\r\n"
            f"X-Instance-ID: {INSTANCE}\r\n"
            f"X-Tenant-ID: {PROJECT}\r\n"
            f"X-Instance-ID-Signature: {signature}\r\n"
        ).encode()
    )


def test_an_empty_secret_signs_too() -> None:
    """Nova's default for metadata_proxy_shared_secret is empty."""
    signature = hmac.new(b"", INSTANCE.encode(), hashlib.sha256).hexdigest()
    assert _identity_block(ADDRESS, INSTANCE, PROJECT, b"").endswith(f": {signature}\r\n".encode())


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (packed("10.0.0.5"), "10.0.0.5"),
        (packed("0.0.0.0"), "0.0.0.0"),
        (packed("255.255.255.255"), "255.255.255.255"),
        (packed("fe80::a9fe:a9fe"), "fe80::a9fe:a9fe"),
        (packed("2001:db8::1"), "2001:db8::1"),
        (packed("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2:3:4:5:6"),
        (packed("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (packed("::1"), "::1"),
        (packed("::"), "::"),
        (packed("::ffff:0:a00:5"), "::ffff:0:a00:5"),  # almost, but not, an IPv4 address
        (bytes(9) + b"\x01\xff\xff\x0a\0\0\x05", "::1:ffff:a00:5"),
        (bytes(8) + b"\x01\0\xff\xff\x0a\0\0\x05", "::100:ffff:a00:5"),
        (bytes(10) + b"\xff\xfe\x0a\0\0\x05", "::fffe:a00:5"),
        (bytes(10) + b"\xfe\xff\x0a\0\0\x05", "::feff:a00:5"),
        (bytes(7) + b"\x01\0\0\xff\xff\x0a\0\0\x05", "::1:0:ffff:a00:5"),
        (b"\x01" + bytes(9) + b"\xff\xff\x0a\0\0\x05", "100::ffff:a00:5"),
    ],
)
def test_address(address: bytes, text: str) -> None:
    """RFC 5952 for IPv6; an IPv4 address arrives mapped (RFC 4291 section 2.5.5.2) and goes to Nova bare."""
    line = _identity_block(address, INSTANCE, PROJECT, b"s").split(b"\r\n")[0]
    assert line == f"X-Forwarded-For: {text}".encode()


@pytest.mark.parametrize("length", [0, 4, 15, 17])
def test_an_address_has_16_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        _identity_block(bytes(length), INSTANCE, PROJECT, b"s")


BAD_IDS = [
    "",
    " ",
    "a b",
    " a",
    "a ",
    "a\tb",
    "a\r\nX-Instance-ID: b",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\x1f",
    "a\x7f",
    "\x80",
    "\xe9",
    "\u2028",
    "\udc0a",  # a byte that was no text (PEP 383), here a line end
    "\udcff",
    "a" * 256,
    "a" * 70_000,
]


@pytest.mark.parametrize("bad", BAD_IDS, ids=[f"{text[:12]!a}-{len(text)}" for text in BAD_IDS])
def test_what_cannot_be_an_id(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        _identity_block(ADDRESS, bad, PROJECT, b"s")
    with pytest.raises(ValueError, match=r"."):
        _identity_block(ADDRESS, INSTANCE, bad, b"s")


def test_every_byte() -> None:
    """Visible ASCII, and nothing else."""
    accepted = set()
    for code in range(256):
        try:
            block = _identity_block(ADDRESS, f"a{chr(code)}b", PROJECT, b"s")
        except ValueError:
            continue
        assert block.count(b"\r\n") == 4
        accepted.add(code)
    assert accepted == set(range(0x21, 0x7F))


def test_the_longest_ids_fit() -> None:
    block = _identity_block(
        packed("2001:db8:1111:2222:3333:4444:5555:6666"), "i" * 255, "p" * 255, b"s" * 5000
    )
    assert block.count(b"\r\n") == 4
    assert b"\r\nX-Instance-ID: " + b"i" * 255 + b"\r\nX-Tenant-ID: " + b"p" * 255 + b"\r\n" in block
    assert block.endswith(b"\r\n")


def test_an_error_does_not_repeat_all_of_what_was_wrong() -> None:
    with pytest.raises(ValueError, match="visible ASCII") as refused:
        _identity_block(ADDRESS, "x" * 70_000, PROJECT, b"hidden")
    assert len(str(refused.value)) < 400
    assert "hidden" not in str(refused.value)
