"""Stand-ins for what embeds and pictures an upload; a process of its own finds the functions by name."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

import numpy as np

from panecho_embed.pictures import Picture
from panecho_embed.search.embed_new import NewVideos


def hang(path):
    time.sleep(60)


def die(path):
    os._exit(3)


class Steady:
    """A model for which all videos are alike. dim: of its vectors."""

    def __init__(self, dim):
        self._vectors = np.ones((1, dim), dtype=np.float32)

    def embed(self, path, timeout_seconds, most_frames, go_on):
        return NewVideos(self._vectors, ("",), ())


@contextmanager
def pictured(path, timeout_seconds, go_on):
    yield lambda: Picture(b"picture", "image/webp")


class Endless:
    """A model that never comes to an end, unless it is told to."""

    def embed(self, path, timeout_seconds, most_frames, go_on):
        while True:
            time.sleep(0.02)
            go_on()
