"""Reading files that hold secrets or decide identities: only those that nobody else could have changed."""

from __future__ import annotations

import grp
import os
import pwd
import stat

from fastmeta.exceptions import ConfigError, UnsafeFileError

MAX_TRUSTED_FILE = 64 * 1024 * 1024
"""Bytes: a ports file of a large lab is a few megabytes; nothing unbounded is read."""


def read_trusted_file(
    path: str | os.PathLike[str], limit: int = MAX_TRUSTED_FILE, *, by_own_group: bool = False
) -> bytes:
    """The whole content of a regular file that belongs to root or us and that nobody else may write.

    by_own_group: our group may be allowed to, if nobody is in it but us (Debian's neutron.conf has mode 0660).
    What is checked is what is read: the check looks at the open descriptor. Raises UnsafeFileError when the
    owner or the mode is wrong, ConfigError when the file cannot be read, is no regular file or has more than
    limit bytes.
    """
    name = os.fspath(path)
    try:
        # O_NONBLOCK: opening a fifo by mistake must not hang.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    try:
        _check(name, os.fstat(fd), by_own_group)  # before open(), which raises for a folder
        with open(fd, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from error
    finally:
        os.close(fd)
    if len(content) > limit:
        raise ConfigError(f"{name}: more than {limit} bytes")
    return content


def _check(name: str, status: os.stat_result, by_own_group: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{name}: not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        owner = status.st_uid
        raise UnsafeFileError(f"{name}: belongs to user {owner}, neither to root nor to us: chown it")
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others == stat.S_IWGRP and by_own_group and _is_ours_alone(status.st_gid):
        return
    if others:
        mode = stat.S_IMODE(status.st_mode)
        raise UnsafeFileError(f"{name}: mode {mode:04o} lets group or others write: chmod go-w it")


def _is_ours_alone(group: int) -> bool:
    """Whether it is the group of an ordinary user as whom we run, and has no other member. One that the system does not
    know may have any."""
    us = os.geteuid()
    if us == 0 or group != os.getegid():
        return False
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(group).gr_mem}
    except KeyError:
        return False
    return members | {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group} <= {0, us}
