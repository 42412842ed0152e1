"""The configuration that is in force, and what reading it again changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from oslo_config import cfg

from fastmeta.conf import list_opts
from fastmeta.conf.bus import AGENT_GROUP, AGENT_OPTS, BUS_OPTS
from fastmeta.conf.discovery import DISCOVERY_OPTS
from fastmeta.conf.doubts import doubts
from fastmeta.conf.neutron import KEYSTONE_OPTS, NEUTRON_GROUP
from fastmeta.conf.relay import RELAY_OPTS
from fastmeta.conf.settings import Settings, read

FIXED = ("listen", "discover", "lookup", "ports_file", "netns_dir", "control_dir", "stand_in", "loops")
"""Options of [fastmeta], and fields of Settings, that hold until the process ends."""
RELAY = "relay"
"""Likewise this field, made of the options of the agent's unix socket."""

WITHOUT_EFFECT = frozenset({"state_path"})
"""Others refer to it; by itself it does nothing."""


def shown(group: cfg.OptGroup | str, name: str) -> str:
    """How an option is named in a text."""
    section = getattr(group, "name", group)
    return name if section == "DEFAULT" else f"[{section}] {name}"


OURS: Mapping[str, cfg.Opt] = {
    shown(group, option.name): option for group, options in list_opts() for option in options
}
_SOURCE = frozenset(shown(NEUTRON_GROUP, option.name) for option in KEYSTONE_OPTS)
_BUS = frozenset(option.name for option in BUS_OPTS) | {
    shown(AGENT_GROUP, option.name) for option in AGENT_OPTS
}
_RELAY = frozenset(option.name for option in (*RELAY_OPTS, *DISCOVERY_OPTS)) | {shown("fastmeta", RELAY)}
FREE = frozenset(OURS) - {shown("fastmeta", name) for name in FIXED} - _SOURCE - _BUS - _RELAY | {"debug"}
"""The options that can change while the process runs. All others of [DEFAULT] are oslo.log's."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What reading again has found. settings: to be in force from now on; before: those until now.

    taken_up: the options that are different in them, with their values, if these may be shown. needs_restart:
    the options that are different in the files only. doubts: about settings.
    """

    settings: Settings
    before: Settings
    taken_up: tuple[str, ...]
    needs_restart: tuple[str, ...]
    doubts: tuple[str, ...]
    values: Mapping[str, Any] = field(repr=False)
    """Of all options, as they are in force then."""


class RunningConfiguration:
    """conf: as it was read first; load_again reads the same files once more.

    Raises ConfigError, UnsafeFileError: when it is made, and in read_again().
    """

    def __init__(self, conf: cfg.ConfigOpts, load_again: Callable[[], cfg.ConfigOpts]) -> None:
        self._load_again = load_again
        self.conf = conf
        """As it was read first: for sources, which keep what it says until the process ends."""
        self.settings = Settings.from_conf(conf)
        """Those in force."""
        # All are read first: one that cannot be used is refused, whether it has an effect or not.
        self._values: Mapping[str, Any] = dict(_values(conf))
        self.doubts = tuple(doubts(conf, self.settings))

    def read_again(self) -> Changes:
        """Changes nothing before take_up(). What needs a restart stays as it was, and is found different the next
        time, too."""
        conf = self._load_again()
        settings = Settings.from_conf(conf)
        values = dict(_values(conf))
        different = [name for name, value in values.items() if value != self._values[name]]
        fixed = [name for name in different if name not in FREE]
        taken_up = [_with_value(name, values[name]) for name in different if name in FREE]
        taken_up += [
            f"the content of {name}"
            for name in _other_content(self.settings, settings)
            if name not in different
        ]
        settings = replace(settings, **{name: getattr(self.settings, name) for name in (*FIXED, RELAY)})
        return Changes(
            settings=settings,
            before=self.settings,
            taken_up=tuple(taken_up),
            needs_restart=tuple(fixed),
            doubts=tuple(doubts(conf, settings)),
            values=values | {name: self._values[name] for name in fixed},
        )

    def take_up(self, changes: Changes) -> None:
        """They are in force from now on."""
        self.settings = changes.settings
        self.doubts = changes.doubts
        self._values = changes.values


def _other_content(before: Settings, after: Settings) -> Iterator[str]:
    """Options whose files have another content now. Files that were not looked at before are no news."""
    if before.tls is not None and after.tls is not None:
        for name, digest in after.tls.content.items():
            if before.tls.content.get(name, digest) != digest:
                yield name


def _with_value(name: str, value: Any) -> str:
    option = OURS.get(name)
    if option is not None and option.secret:
        return name
    if value in (None, "", []):
        return f"{name} is not set"
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
