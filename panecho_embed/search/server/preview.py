"""A moving picture of an upload, made in a process of its own: no file can hold the server up, or bring it down."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError, wait
from contextlib import contextmanager
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from panecho_embed.engines.pool import GoOn
from panecho_embed.errors import MediaError
from panecho_embed.media import open_cine
from panecho_embed.orphans import end_with_parent
from panecho_embed.pictures import DEFAULT_FPS, Picture, thumbnail_of

_LOOK_SECONDS = 0.25


@contextmanager
def previewed(path: Path, timeout_seconds: float, go_on: GoOn) -> Iterator[Callable[[], Picture]]:
    """Begin to make the picture of a video; what is yielded waits for it.

    go_on: see `GoOn`; called while it is waited for. The process ends with the block, done or not. That wait raises
    MediaError for what is no video, crashes its decoder, or takes longer than `timeout_seconds`.
    """
    # "spawn": a forked child would inherit torch's threads in whatever state they are.
    pool = ProcessPool(max_workers=1, context=multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        future = pool.schedule(preview, args=(str(path),), timeout=timeout_seconds)

        def result() -> Picture:
            while not future.done():
                wait([future], _LOOK_SECONDS)
                go_on()
            try:
                picture: Picture = future.result()
            except TimeoutError as error:
                raise MediaError(f"its picture took longer than {timeout_seconds:g} s") from error
            except ProcessExpired as error:
                raise MediaError(f"its decoder's process died (exit code {error.exitcode})") from error
            return picture

        yield result
    finally:
        pool.stop()
        pool.join()


def preview(path: str) -> Picture:
    """The first second and a half of a video file, moving. Raises MediaError."""
    cine = open_cine(path, include_stills=True)
    return thumbnail_of(cine, cine.fps or DEFAULT_FPS, side=320)
