"""The configuration that is in force, and what reading it again changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from oslo_config import cfg

from fastmeta.conf import list_opts
from fastmeta.conf.doubts import doubts
from fastmeta.conf.settings import Settings, read

FIXED = ("listen", "lookup", "ports_file", "netns_dir", "loops")
"""Options of [fastmeta], and fields of Settings, that hold until the process ends."""

WITHOUT_EFFECT = frozenset({"state_path"})
"""Others refer to it; by itself it does nothing."""


def shown(group: cfg.OptGroup | str, name: str) -> str:
    """How an option is named in a text."""
    section = getattr(group, "name", group)
    return name if section == "DEFAULT" else f"[{section}] {name}"


OURS: Mapping[str, cfg.Opt] = {
    shown(group, option.name): option for group, options in list_opts() for option in options
}
FREE = frozenset(OURS) - {shown("fastmeta", name) for name in FIXED} | {"debug"}
"""The options that can change while the process runs. All others of [DEFAULT] are oslo.log's."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What reading again has found. settings: to be in force from now on; before: those until now.

    taken_up: the options that are different in them, with their values, if these may be shown. needs_restart:
    the options that are different in the files only.
    """

    settings: Settings
    before: Settings
    taken_up: tuple[str, ...]
    needs_restart: tuple[str, ...]


class RunningConfiguration:
    """conf: as it was read first; load_again reads the same files once more.

    Raises ConfigError, UnsafeFileError: when it is made, and in read_again(), which then has changed nothing.
    """

    def __init__(self, conf: cfg.ConfigOpts, load_again: Callable[[], cfg.ConfigOpts]) -> None:
        self._load_again = load_again
        self.settings = Settings.from_conf(conf)
        """Those in force."""
        self.doubts = tuple(doubts(conf, self.settings))
        self._values = dict(_values(conf))

    def read_again(self) -> Changes:
        """All or nothing. What needs a restart stays as it was, and is found different the next time, too."""
        conf = self._load_again()
        settings = Settings.from_conf(conf)
        values = dict(_values(conf))
        different = [name for name, value in values.items() if value != self._values[name]]
        fixed = [name for name in different if name not in FREE]
        changes = Changes(
            settings=replace(settings, **{name: getattr(self.settings, name) for name in FIXED}),
            before=self.settings,
            taken_up=tuple(_with_value(name, values[name]) for name in different if name in FREE),
            needs_restart=tuple(fixed),
        )
        self.doubts = tuple(doubts(conf, changes.settings))
        self.settings = changes.settings
        self._values = values | {name: self._values[name] for name in fixed}
        return changes


def _with_value(name: str, value: Any) -> str:
    option = OURS.get(name)
    if option is not None and option.secret:
        return name
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{name} = {text.lower() if isinstance(value, bool) else text}"


def _values(conf: cfg.ConfigOpts) -> Iterator[tuple[str, Any]]:
    """Every option of [DEFAULT] and of our groups."""
    groups = {getattr(group, "name", group) for group, _ in list_opts()} - {"DEFAULT"}
    for name in conf:
        if name in groups:
            for own in conf[name]:
                yield shown(name, own), read(conf[name], own, shown(name, own))
        elif name not in WITHOUT_EFFECT:
            yield name, read(conf, name, name)
