"""Decoders that misbehave on purpose; workers import them by name."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from panecho_embed.core.records import Failure, VideoFacts, VideoRef
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings


def decode(video: VideoRef, settings: DecodeSettings) -> DecodedVideo | Failure:
    """What happens is in the path: "ok", "sleep 9" (seconds), or "die"."""
    what, _, argument = video.path.partition(" ")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        time.sleep(float(argument))
    pixels = np.zeros((1, 3, 2, 2), np.uint8)
    return DecodedVideo(video.video_id, video.path, pixels, None, VideoFacts("done"))
