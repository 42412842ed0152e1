"""The signature that Nova checks: lower-case hexadecimal HMAC-SHA256."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

import pytest

from fastmeta._core import _sign
from tests.vectors import load


@pytest.mark.parametrize("vector", load("hmac_sha256"), ids=lambda vector: f"case-{vector['case']}")
def test_rfc_4231(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector.get("key") or vector["key_byte"] * vector["key_times"])
    signature = _sign(key, bytes.fromhex(vector["data"]))
    assert len(signature) == 64
    assert signature.startswith(vector.get("hmac") or vector["starts"])


# Around the block of SHA-256 (64 bytes), beyond which a key is hashed first.
@pytest.mark.parametrize("length", [0, 1, 31, 32, 63, 64, 65, 128, 1000])
def test_as_python_signs(length: int) -> None:
    secret = os.urandom(length)
    for message in (b"", b"\0", b"11111111-1111-4111-8111-111111111111", os.urandom(5000)):
        assert _sign(secret, message) == hmac.new(secret, message, hashlib.sha256).hexdigest()


def test_an_empty_secret_is_not_the_one_before() -> None:
    """OpenSSL takes no key at all for "the former one"."""
    empty = hmac.new(b"", b"message", hashlib.sha256).hexdigest()
    assert _sign(b"", b"message") == empty
    assert _sign(b"secret", b"message") != empty
    assert _sign(b"", b"message") == empty


def test_a_secret_is_bytes_and_may_hold_zeros() -> None:
    assert _sign(b"a\0b", b"m") == hmac.new(b"a\0b", b"m", hashlib.sha256).hexdigest()
    assert _sign(b"a\0b", b"m") != _sign(b"a", b"m")
    with pytest.raises(TypeError):
        _sign(None, b"m")  # type: ignore[arg-type]
