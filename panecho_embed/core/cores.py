"""The processor cores that there are for this process."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """How many this process may use: those that it is bound to, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
