"""What a piece of work costs this process: time, processor time and memory."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Meter:
    """Runs from `start`; what has been used since then can be asked at any time."""

    began: float
    processor: float
    peak: int

    @classmethod
    def start(cls) -> Meter:
        """Begin to measure; the peak of memory is forgotten where the system can do that (Linux)."""
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # proc(5): resets the peak resident set size
        return cls(time.monotonic(), _processor_seconds(), _peak_bytes())

    @property
    def seconds(self) -> float:
        """Seconds of the clock."""
        return time.monotonic() - self.began

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds of all threads, and of processes that were started and have ended."""
        return _processor_seconds() - self.processor

    @property
    def peak_memory(self) -> int | None:
        """Most bytes of memory that the process held at once, other processes not counted.

        None where they cannot be told: what came before had more, and the system cannot forget it.
        """
        peak = _peak_bytes()
        return peak if peak > self.peak or _can_forget() else None


def _processor_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _can_forget() -> bool:
    return os.access("/proc/self/clear_refs", os.W_OK)
