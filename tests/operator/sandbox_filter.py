"""Forbids system calls as systemd does for a service (systemd.exec(5)), by libseccomp, and then becomes a program.

Usage: sandbox_filter.py JSON COMMAND...: "system_calls": the names of those that are allowed; "address_families":
numbers; "namespaces": flags of clone(2) that are allowed; "no_write_execute", "no_realtime", "no_suid",
"no_personality".
"""

import ctypes
import errno
import json
import os
import sys

ALLOW, KILL_NOT = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(0)
EQ, MASKED_EQ = 4, 7
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000
NAMESPACES = 0x7E020080
"""All CLONE_NEW… flags that there are."""
SUID = 0o6000


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p


def equal(argument, value):
    return Comparison(argument, EQ, value, 0)


def masked(argument, mask, value=0):
    return Comparison(argument, MASKED_EQ, mask, value)


class Filter:
    def __init__(self):
        self._filter = ctypes.c_void_p(library.seccomp_init(KILL_NOT | errno.EPERM))

    def add(self, action, name, *comparisons):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # not on this machine
            return
        array = (Comparison * len(comparisons))(*comparisons)
        failed = library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, len(comparisons), array
        )
        if failed:
            raise OSError(-failed, name)

    def allow(self, name, *comparisons):
        self.add(ALLOW, name, *comparisons)

    def load(self):
        failed = library.seccomp_load(self._filter)
        if failed:
            raise OSError(-failed, "seccomp_load")


def make(given):
    made = Filter()
    rules = {}
    if given["address_families"]:
        rules["socket"] = [[equal(0, family)] for family in given["address_families"]]
    forbidden = NAMESPACES & ~given["namespaces"]
    allowed = [flag for flag in (1 << bit for bit in range(32)) if flag & given["namespaces"]]
    rules["clone"] = [[masked(0, forbidden)]]
    rules["unshare"] = [[masked(0, forbidden)]] if allowed else []
    rules["setns"] = [[equal(1, flag)] for flag in allowed]
    rules["clone3"] = []
    if given["no_write_execute"]:
        both = PROT_WRITE | PROT_EXEC
        rules["mmap"] = [[masked(2, both, value)] for value in (0, PROT_WRITE, PROT_EXEC)]
        rules["mprotect"] = rules["pkey_mprotect"] = [[masked(2, PROT_EXEC)]]
        rules["shmat"] = [[masked(2, SHM_EXEC)]]
    if given["no_realtime"]:
        rules["sched_setscheduler"] = [[equal(1, policy)] for policy in (0, 3, 5)]
    if given["no_suid"]:
        rules["chmod"] = rules["fchmod"] = [[masked(1, SUID)]]
        rules["fchmodat"] = rules["mkdirat"] = [[masked(2, SUID)]]
        rules["mkdir"] = [[masked(1, SUID)]]
    if given["no_personality"]:
        rules["personality"] = [[equal(0, 0)], [equal(0, 0xFFFFFFFF)]]
    for name in given["system_calls"]:
        for comparisons in rules.get(name, [[]]):
            made.allow(name, *comparisons)
    # Its flags are in memory, where no filter sees them; the C library then takes clone.
    made.add(KILL_NOT | errno.ENOSYS, "clone3")
    return made


def main():
    make(json.loads(sys.argv[1])).load()
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606


main()
