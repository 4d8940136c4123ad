"""Pictures of the collection's videos, made in separate processes: no file can hold the page up, or end it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

from pebble import ProcessPool

from panecho_embed.core.errors import MediaError
from panecho_embed.core.workers import new_pool, picture_of_task, stop
from panecho_embed.media import open_cine
from panecho_embed.media.pictures import Picture, shown_fps, still_of, thumbnail_of
from panecho_embed.retrieval.transcode import mp4

WORKERS = 2
_SECONDS = 60.0


Kind = Literal["thumbnail", "still", "clip"]


def draw(path: str, kind: Kind, known_fps: float) -> Picture:
    """A video's moving picture, first frame or whole clip. known_fps: 0 or NaN where not known. Raises MediaError."""
    cine = open_cine(path, include_stills=True)
    if kind == "still":
        return still_of(cine)
    fps = shown_fps(known_fps, cine)
    return thumbnail_of(cine, fps) if kind == "thumbnail" else mp4(cine, fps)


class PictureWorkers:
    """Makes pictures, `WORKERS` at a time; the processes start with the first.

    seconds: for one picture. A video that takes longer, or ends its process, is not tried again.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()
        self._refused: dict[str, str] = {}

    def make(self, function: Callable[..., Picture], path: str, *given: object) -> Picture:
        """What `function(path, *given)` returns or raises; a function of a module. Raises MediaError besides."""
        if path in self._refused:
            raise MediaError(self._refused[path])
        future = self._started().schedule(function, args=(path, *given), timeout=self._seconds)
        try:
            picture: Picture = picture_of_task(future, self._seconds)
        except MediaError as error:
            if future.exception() is not error:
                # Not what the task itself raised: the file holds its process up, or ends it.
                self._refused[path] = str(error)
            raise
        return picture

    def _started(self) -> ProcessPool:
        with self._lock:
            if self._pool is None:
                self._pool = new_pool(WORKERS)
            return self._pool

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            stop(pool)
