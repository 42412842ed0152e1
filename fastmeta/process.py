"""What a process does to itself before it serves: no core dumps of secrets, as many descriptors as it may
have."""

from __future__ import annotations

import ctypes
import resource

from oslo_log import log as logging

LOG = logging.getLogger(__name__)

PR_SET_DUMPABLE = 4  # linux/prctl.h

RESERVED_DESCRIPTORS = 64
"""For everything that is neither a listener nor a connection: logs, files, inotify, the standard library."""


def forbid_dumps() -> None:
    """Keeps the process's memory, and so the secret, out of core dumps and from other processes of the same
    user."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(ctypes.c_int(PR_SET_DUMPABLE), zero, zero, zero, zero) != 0:
        LOG.warning("the process cannot be kept from dumping its memory (errno %d)", ctypes.get_errno())


def raise_descriptor_limit() -> int:
    """Raises the soft limit of descriptors to the hard one; returns the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    refused = ""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        refused = str(error)
    if refused:  # (outside of except, where oslo.log would say it twice)
        LOG.warning("the limit of descriptors stays at %d: %s", soft, refused)
        return soft
    return hard


def connections_allowed(descriptors: int, listeners: int, upstream: int) -> int:
    """How many connections of guests so many descriptors allow, beside so many to Nova's metadata API. Of few
    descriptors guests get half."""
    if descriptors == resource.RLIM_INFINITY:
        descriptors = 1 << 30
    left = descriptors - listeners - RESERVED_DESCRIPTORS
    return max(1, left - upstream, left // 2)
