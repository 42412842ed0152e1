"""The programs that put rules: found where they are, and named where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastmeta.discovery import iptables
from fastmeta.exceptions import ConfigError


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(iptables, "_FOLDERS", (str(tmp_path / "sbin"),))
    with pytest.raises(
        ConfigError, match="needs iptables-restore, which is not installed: apt-get install iptables"
    ):
        iptables.Iptables([4, 6])
    for name in ("iptables-restore", "iptables-save", "ip6tables-restore"):
        (tmp_path / name).touch(mode=0o755)
    with pytest.raises(ConfigError, match="needs ip6tables-save"):
        iptables.Iptables([4, 6])
    assert iptables.find_programs(4).restore == str(tmp_path / "iptables-restore")
