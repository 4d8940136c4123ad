"""What a run may take: processor cores of this process, and seconds for a video."""

from __future__ import annotations

import math
import os

from panecho_embed.core.errors import ArgumentError


def usable_cores() -> int:
    """How many this process may use: those that it is bound to, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_timeout(seconds: float) -> None:
    """Raise ArgumentError for a time that no video can be given, or none that would ever end."""
    if not 0 < seconds < math.inf:
        raise ArgumentError(f"timeout is {seconds} seconds; it must be above 0 and finite (--timeout)")
