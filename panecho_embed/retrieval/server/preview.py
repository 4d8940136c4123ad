"""A moving picture of an upload, made in a separate process: no file can hold the server up, or bring it down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from panecho_embed.core.workers import GoOn, new_pool, picture_of_task, stop
from panecho_embed.media import open_cine
from panecho_embed.media.pictures import DEFAULT_FPS, Picture, thumbnail_of


@contextmanager
def previewed(path: Path, timeout_seconds: float, go_on: GoOn) -> Iterator[Callable[[], Picture]]:
    """Begin to make the picture of a video; what is yielded waits for it.

    go_on: see `GoOn`; called while it is waited for. The process ends with the block, done or not. That wait raises
    MediaError for what is not a video, crashes its decoder, or takes longer than `timeout_seconds`.
    """
    pool = new_pool(1)
    try:
        future = pool.schedule(preview, args=(str(path),), timeout=timeout_seconds)
        yield lambda: picture_of_task(future, timeout_seconds, go_on)
    finally:
        stop(pool)


def preview(path: str) -> Picture:
    """The first second and a half of a video file, moving. Raises MediaError."""
    cine = open_cine(path, include_stills=True)
    return thumbnail_of(cine, cine.fps or DEFAULT_FPS, side=320)
