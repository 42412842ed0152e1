"""What is on this machine: namespaces to listen in, folders of log files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from oslo_config import cfg

from fastmeta.check.findings import Finding, State
from fastmeta.conf.settings import Settings
from fastmeta.models import ListenSpec
from fastmeta.netns.namespaces import namespace_inode

LISTENERS = "Where guests are listened to"
LOG = "Log"

MOST_SHOWN = 20
"""Listeners that are named one by one where all is well."""


def listeners(settings: Settings) -> Iterator[Finding]:
    """Whether the namespaces are there. Nothing is opened: an agent may be running."""
    if settings.stand_in:
        yield Finding(LISTENERS, State.OK, f"where haproxy's stand-ins listen ({settings.control_dir})")
    there: list[ListenSpec] = []
    missing: list[ListenSpec] = []
    for spec in settings.listen:
        is_there = (
            spec.namespace is None
            or namespace_inode(os.path.join(settings.netns_dir, spec.namespace)) is not None
        )
        (there if is_there else missing).append(spec)
    for spec in there[:MOST_SHOWN]:
        yield Finding(LISTENERS, State.OK, f"{spec}{'' if spec.namespace else ' (in our own namespace)'}")
    if len(there) > MOST_SHOWN:
        yield Finding(LISTENERS, State.OK, f"and {len(there) - MOST_SHOWN} more")
    for spec in missing:
        path = os.path.join(settings.netns_dir, str(spec.namespace))
        yield Finding(LISTENERS, State.NOTE, f"{spec}: there is no namespace {path} yet; it is waited for")


def discovery(settings: Settings) -> Iterator[Finding]:
    """What would be found by itself, as it is at this moment. Namespaces are entered, and nothing is changed."""
    spec = settings.discover
    if spec is None:
        return
    # Only where it is wanted: it brings all of discovery along.
    from fastmeta.check import discovery

    without = {listen.namespace for listen in settings.listen}
    found: list[Finding] = []
    if spec.routers:
        found += discovery.routers(spec, settings.netns_dir, without)
    if spec.networks:
        found += discovery.networks(spec, settings.netns_dir, without)
    yield from found


def log_files(conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Whether we could write them. None is made."""
    if conf.log_config_append:
        path = conf.log_config_append
        if not os.access(path, os.R_OK):
            yield Finding(LOG, State.WRONG, f"log_config_append = {path}: cannot be read")
        return
    if not conf.log_file and not conf.log_dir:
        return
    # As oslo.log puts them together; without log_file it is called after the program.
    path = os.path.join(conf.log_dir or "", conf.log_file or "fastmeta.log")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        yield Finding(LOG, State.WRONG, f"{path}: there is no folder {folder}")
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        yield Finding(LOG, State.WRONG, f"{path}: we may not write it")
    elif conf.log_rotation_type.lower() != "none" and not os.access(folder, os.W_OK):
        yield Finding(LOG, State.WRONG, f"{path}: we may not rotate it, since we may not write {folder}")
    else:
        yield Finding(LOG, State.OK, path)
