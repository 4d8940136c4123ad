"""Films that misbehave on purpose; the processes that make pictures import them by name."""

from __future__ import annotations

import os
import signal
import time

from panecho_embed.prediction.films import Film, Shown


def picture_of(film: Film) -> Shown:
    """What happens is in the path: "sleep", "die", or anything else."""
    if film.path == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if film.path == "sleep":
        time.sleep(60)
    return Shown(moving=film.path)
