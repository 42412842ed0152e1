"""For programs that ask 169.254.169.254 by themselves: they run in a namespace of a test, and nowhere else."""

import contextlib
import os
import sys


def refuse_the_machine() -> None:
    """Ends the program if its network is the machine's: that of the process that has started it, or of the first one
    (which root cannot always see)."""
    others = [os.readlink(f"/proc/{os.getppid()}/ns/net")]
    with contextlib.suppress(PermissionError):
        others.append(os.readlink("/proc/1/ns/net"))
    if os.readlink("/proc/self/ns/net") in others:
        sys.exit("this is the machine's own network, where nobody shall be asked for metadata")
