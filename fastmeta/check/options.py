"""Which options of the files have an effect, with which value, and which have none, and why."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oslo_config import cfg

from fastmeta.check.findings import Ignored, Used
from fastmeta.conf import list_opts
from fastmeta.conf.neutron import NEUTRON_GROUP
from fastmeta.conf.options import FASTMETA_GROUP, RATE_LIMIT_GROUP
from fastmeta.conf.running import OURS, shown
from fastmeta.conf.settings import config_files, read
from fastmeta.conf.stock import row_of
from fastmeta.conf.stock_rows import Effect
from fastmeta.exceptions import ConfigError

SECRET = "(secret, not shown)"  # noqa: S105 - this is not one

_SECTIONS_WITH_DOUBTS = {FASTMETA_GROUP.name, RATE_LIMIT_GROUP.name}
"""What is no option in these is one of the doubts."""

_NO_TRANSPORT = "transport_url is not set, so the message bus is not used"

_Name = tuple[str, str]
"""Section and name of an option, as both are compared."""


@dataclass(frozen=True, slots=True)
class Written:
    """An option in a file. section, name: as they are written there; number: of the file, the highest wins; value: the
    last one of it there, as written."""

    section: str
    name: str
    file: str
    number: int
    value: str = field(repr=False)

    @property
    def key(self) -> _Name:
        return (self.section if self.section == "DEFAULT" else self.section.lower()), self.name

    @property
    def text(self) -> str:
        return shown(self.section, self.name)


def files_in_order(conf: cfg.ConfigOpts, arguments: Sequence[str]) -> list[str]:
    """The files that were read, those that win last. arguments: of the command line, which gives the order.

    Raises ConfigError.
    """
    places = [os.path.abspath(argument) for argument in arguments]

    def rank(path: str) -> int:
        return next((n for n, place in enumerate(places) if place in (path, os.path.dirname(path))), -1)

    # Those that nobody has named are in the right order already, and sorted() leaves them so.
    return sorted(map(os.path.abspath, config_files(conf)), key=rank)


def written_options(files: Sequence[str]) -> list[Written]:
    """All of them. files: in the order in which they win."""
    found = []
    for number, path in enumerate(files):
        sections: dict[str, dict[str, Any]] = {}
        cfg.ConfigParser(path, sections).parse()  # has been read before: it can be
        found += [
            Written(section, name, path, number, str(values[-1]))
            for section, options in sections.items()
            for name, values in options.items()
        ]
    return found


def values_that_cannot_be_used(conf: cfg.ConfigOpts) -> Iterator[str]:
    """One text for each; the agent itself names the first one only."""
    for section, name in _registered(conf):
        try:
            _read(conf, section, name)
        except ConfigError as error:
            yield str(error)


def used_options(
    conf: cfg.ConfigOpts, written: list[Written], of_the_bus: Mapping[_Name, bool]
) -> Iterator[Used]:
    """Those that are set and have an effect, with secrets struck out. Raises ConfigError for a bad value.

    of_the_bus: oslo.messaging's options where the bus is used, and whether they are secret.
    """
    files: dict[_Name, list[Written]] = {}
    for one in written:
        files.setdefault(one.key, []).append(one)
    registered: set[_Name] = set()
    for section, name in _registered(conf):
        registered.update(_names(section, name))
        places = [place for key in _names(section, name) for place in files.get(key, ())]
        where = _where(conf, section, name, places)
        if where and row_has_effect(section, name):
            yield Used(shown(section, name), _shown_value(conf, section, name), where)
    for key, places in files.items():
        # oslo.messaging reads the files by itself.
        if key in of_the_bus and key not in registered and row_has_effect(*key):
            place = places[-1]
            yield Used(place.text, _shown_text(place.value, secret=of_the_bus[key]), place.file)


def ignored_options(
    conf: cfg.ConfigOpts, written: list[Written], of_the_bus: Mapping[_Name, bool]
) -> Iterator[Ignored]:
    """of_the_bus: as of used_options()."""
    known = {one for section, name in _registered(conf) for one in _names(section, name)}
    foreign: dict[str, list[str]] = {}
    for one in written:
        section, name = one.key
        row = row_of(section, name)
        if section == "neutron" or section == (conf.neutron.auth_section or "").lower():
            # Of kinds of authentication that bring options of their own.
            continue
        if row is not None and row.effect is Effect.NONE:
            yield Ignored((one.text,), one.file, row.why)
        elif one.key in known or one.key in of_the_bus or section in _SECTIONS_WITH_DOUBTS:
            continue
        elif row is None:
            foreign.setdefault(one.file, []).append(one.text)
        elif not conf.transport_url:
            yield Ignored((one.text,), one.file, _NO_TRANSPORT)
    for file, names in foreign.items():
        yield Ignored(tuple(names), file)


def row_has_effect(section: str, name: str) -> bool:
    """Whether an option that we know does something."""
    row = row_of(section, name)
    return row is None or row.effect is not Effect.NONE


def _registered(conf: cfg.ConfigOpts) -> Iterator[_Name]:
    groups = [str(getattr(group, "name", group)) for group, _ in list_opts()]
    for name in conf:
        if name not in groups and name not in (
            "config_file",
            "config_dir",
            "config_source",
            "shell_completion",
        ):
            yield "DEFAULT", name
    for group in groups:
        if group != "DEFAULT":
            for name in conf[group]:
                yield group, name


def _names(section: str, name: str) -> Iterator[_Name]:
    """Those by which a file may call it, the present one first."""
    yield section, name
    option = OURS.get(shown(section, name))
    for old in option.deprecated_opts if option is not None else ():
        yield old.group or section, str(old.name or name)


def _where(conf: cfg.ConfigOpts, section: str, name: str, places: list[Written]) -> str:
    """Empty where nobody sets it."""
    location = conf.get_location(name, None if section == "DEFAULT" else section)
    if location is None or not location.location.is_user_controlled:
        return ""
    if location.location is cfg.Locations.environment:
        return f"the environment: {location.detail}"
    if location.location is cfg.Locations.command_line:
        return "the command line"
    option = OURS.get(shown(section, name))
    if option is not None and option.multi:  # what is in one file comes on top of what is in another
        return ", ".join(dict.fromkeys(place.file for place in places))
    if not places:
        return str(location.detail or "a file")
    # The last file wins; in one file the present name does, which is the first of the places. (What oslo.config says of
    # the file is right only where no old name is used.)
    place = max(places, key=lambda one: one.number)
    is_old = place.key != (section, name)
    return place.file + (f" (by its old name, {place.text})" if is_old else "")


def _shown_value(conf: cfg.ConfigOpts, section: str, name: str) -> str:
    option = OURS.get(shown(section, name))
    # What a kind of authentication brings with it may be a secret, whether its author has thought of that or not.
    secret = option.secret if option is not None else section == NEUTRON_GROUP.name
    value = _read(conf, section, name)
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, Mapping):
        value = [f"{key}:{one}" for key, one in value.items()]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str("" if value is None else value)
    return _shown_text(text, secret=secret)


def _shown_text(text: str, *, secret: bool) -> str:
    if not text:
        return "(empty)"
    # A password in a URL belongs onto no screen, whatever option it is in.
    return SECRET if secret else re.sub(r"//\S*@", "//...@", text)


def _read(conf: cfg.ConfigOpts, section: str, name: str) -> Any:
    group = conf if section == "DEFAULT" else conf[section]
    return read(group, name, shown(section, name))


def current_user() -> str:
    """Who we are, as a person knows it."""
    number = os.geteuid()
    try:
        return f"user {pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return f"user {number}"
