"""How this process asks the operating system for memory.

A training step on a CPU frees and allocates the same megabytes over and over. By default glibc returns large blocks
to the kernel at once, and every reuse then costs page faults: on virtual machines that is slower than the arithmetic.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1
_RETURNED = 512 << 10


def keep_freed_memory() -> bool:
    """Let glibc reuse large freed blocks instead of returning them; True when it took effect (Linux with glibc).

    Peak memory stays the same; memory in use between peaks stays at the peak.
    """
    return _set((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _LARGEST))


def return_freed_memory() -> bool:
    """The contrary: blocks of 512 KiB and more go back to the system once they are free; True when it took effect.

    By itself glibc raises that limit to the largest block that was freed, and the memory of matrices that live for one
    product stays with the process in pieces. Page faults cost about a third of time.
    """
    return _set((_M_MMAP_THRESHOLD, _RETURNED), (_M_TRIM_THRESHOLD, _RETURNED))


def _set(*options: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) for name, value in options)
