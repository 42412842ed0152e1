"""Configurations that are valid and most likely not meant: each doubt is said, and only where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmeta.conf.doubts import doubts
from fastmeta.conf.settings import Settings, load

NETWORK = "11111111-1111-4111-8111-111111111111"


def doubts_about(folder: Path, fastmeta: str = "", default: str = "", *, signed: bool = True) -> list[str]:
    path = folder / "fastmeta.conf"
    path.write_text(
        f"[DEFAULT]\nmetadata_proxy_shared_secret = {'s3cret' if signed else ''}\n{default}\n[fastmeta]\n"
        f"listen = network:{NETWORK}@127.0.0.1:8080\nports_file = /nowhere/ports.json\n{fastmeta}\n"
    )
    path.chmod(0o640)
    conf = load(["--config-file", str(path)], prog="fastmeta agent", version="0")
    return list(doubts(conf, Settings.from_conf(conf)))


def test_the_defaults_are_meant(tmp_path: Path) -> None:
    assert doubts_about(tmp_path) == []
    assert doubts_about(tmp_path, "loops = 3") == []


@pytest.mark.parametrize(
    ("fastmeta", "text"),
    [
        ("max_connections = 256", "max_connections_per_scope (4096) is not below max_connections (256)"),
        ("max_connections_per_scope = 16384", "one network or router can take all of them"),
        (
            "max_connections_per_address = 5000",
            "is not below max_connections_per_scope (4096): one guest can",
        ),
        (
            "loops = 4\nmax_parked = 8196",
            "(4096) is not below one loop's share of max_connections (4096): one",
        ),
        (
            "loops = 5\nmax_connections = 40960",
            "(2048) is not below one loop's share of max_parked (1638): one",
        ),
        ("max_parked = 100", "max_parked_per_scope (2048) is not below max_parked (100)"),
        ("max_parked_per_address = 2048", "max_parked_per_address (2048) is not below"),
        ("max_target = 9000", "max_target (9000) has no effect: max_head (8192) is less"),
        ("second_try_after = 60", "second_try_after (60) has no effect: upstream_timeout (60) is not more"),
        ("next_shared_secret = s3cret", "next_shared_secret has no effect: it equals metadata_proxy_"),
        ("park_timeout = 20", "park_timeout (20) is not below the 10 s that cloud-init waits"),
        (
            "max_conections = 5",
            "fastmeta.conf: [fastmeta] max_conections is no option there, and has no effect; is it",
        ),
        (
            "rate_limit_enabled = true",
            "rate_limit_enabled is no option there, and has no effect; it belongs to [meta",
        ),
        ("metadata_proxy_shared_secret = x", "no effect; it belongs to [DEFAULT]"),
        (
            "[metadata_rate_limiting]\nbase_query_rate = 9",
            "[metadata_rate_limiting] base_query_rate is no option",
        ),
    ],
)
def test_a_doubt(tmp_path: Path, fastmeta: str, text: str) -> None:
    (doubt,) = doubts_about(tmp_path, fastmeta)
    assert text in doubt


def test_an_option_of_ours_among_neutrons(tmp_path: Path) -> None:
    """What else is in [DEFAULT] is Neutron's, and no doubt."""
    (doubt,) = doubts_about(tmp_path, default="max_head = 300\ncore_plugin = ml2\ndebug = false")
    assert "[DEFAULT] max_head has no effect there; it belongs to [fastmeta]" in doubt


def test_no_secret(tmp_path: Path) -> None:
    (doubt,) = doubts_about(tmp_path, signed=False)
    assert doubt.startswith("metadata_proxy_shared_secret is empty")


def test_values_are_not_shown(tmp_path: Path) -> None:
    """A mistyped option may be the secret's."""
    (doubt,) = doubts_about(tmp_path, "metadata_proxy_shared_secrte = Zx81")
    assert "Zx81" not in doubt


def test_options_that_are_written_with_hyphens(tmp_path: Path) -> None:
    """On a command line they mean the same, in a file oslo.config does not see them."""
    (text,) = doubts_about(tmp_path, "max-head = 5000")
    assert text.endswith("[fastmeta] max-head is no option there, and has no effect; right is max_head")
    path = tmp_path / "fastmeta.conf"
    assert load(["--config-file", str(path)], prog="fastmeta", version="0").fastmeta.max_head == 8192


def test_a_section_in_another_case_is_looked_at(tmp_path: Path) -> None:
    """oslo.config takes it for the same one."""
    (text,) = doubts_about(tmp_path, "[FASTMETA]\nmax_conections = 5")
    assert "[FASTMETA] max_conections is no option there" in text


HTTPS = "nova_metadata_protocol = https"


@pytest.mark.parametrize(
    ("default", "fastmeta", "texts"),
    [
        (HTTPS, "", []),
        ("nova_metadata_insecure = false", "", []),
        ("", "upstreams = http://nova", []),
        ("", "second_try_after = 0", []),
        ("", "next_shared_secret = other", []),
        (f"{HTTPS}\nnova_metadata_insecure = true", "", ["nova_metadata_insecure is true: any"]),
        (
            f"{HTTPS}\nnova_metadata_insecure = true\nauth_ca_cert = /nowhere",
            "",
            ["nova_metadata_insecure is true", "auth_ca_cert has no effect: nova_metadata_insecure is true"],
        ),
        ("nova_metadata_insecure = true", "", ["nova_metadata_insecure has no effect: no upstream is https"]),
        (
            "auth_ca_cert = /nowhere\nnova_client_cert = /nowhere",
            "upstreams = http://nova",
            ["auth_ca_cert has no effect: no", "nova_client_cert has no effect: no"],
        ),
        (
            f"{HTTPS}\nnova_client_cert = /nowhere",
            "",
            ["nova_client_cert has no effect without nova_client_priv_key"],
        ),
        (
            f"{HTTPS}\nnova_client_priv_key = /nowhere",
            "",
            ["nova_client_priv_key has no effect without nova_client_cert"],
        ),
        (
            "nova_metadata_ip = 127.0.0.1\nnova_metadata_port = 8775\nnova_metadata_protocol = http",
            "upstreams = http://nova",
            [f"nova_metadata_{name} has no effect: [fastmeta] ups" for name in ("host", "port", "protocol")],
        ),
    ],
)
def test_doubts_about_upstreams(tmp_path: Path, default: str, fastmeta: str, texts: list[str]) -> None:
    doubts = doubts_about(tmp_path, fastmeta, default)
    assert len(doubts) == len(texts), doubts
    for doubt, text in zip(doubts, texts, strict=True):
        assert doubt.startswith(text)
