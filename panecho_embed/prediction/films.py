"""The videos of a study as small pictures, made in separate processes, so that no file can hold the pages up."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
from pebble import ProcessPool

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import MediaError, RemoteError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.remote import fetched
from panecho_embed.core.workers import new_pool, picture_of_task
from panecho_embed.datasets import located
from panecho_embed.extraction.preprocess import sector_of
from panecho_embed.media import Cine, open_cine
from panecho_embed.media.pictures import DEFAULT_FPS, still_of, thumbnail_of
from panecho_embed.media.sector import apply_mask
from panecho_embed.store import EmbeddingFile

PICTURE_SECONDS = 60.0
"""That a video may take to become a picture; many times what a whole one needs."""

_MOST_WORKERS = 4
_AHEAD_PER_WORKER = 4
_SIDE = 200


@dataclass(frozen=True, slots=True)
class Film:
    """A video to be shown.

    fps: NaN where not known. feeding: what of it the model saw. file: the embedding file that `path` is from.
    """

    video_id: str
    path: str
    num_frames: int
    fps: float
    feeding: Feeding
    file: Path = Path()


@dataclass(frozen=True, slots=True)
class Shown:
    """A video's moving picture and its first frame, as addresses that hold them; or why there are none."""

    moving: str = ""
    still: str = ""
    missing: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Films:
    """What an embedding file knows of its videos: where they lie, how long and how fast they are."""

    file: Path
    provenance: Provenance
    columns: Mapping[str, npt.NDArray[Any]]
    row: Mapping[str, int]

    @classmethod
    def of(cls, file: EmbeddingFile) -> Films:
        """Of every video of a file."""
        columns = file.video_columns
        return cls(file.path, file.provenance, columns, {name: i for i, name in enumerate(columns["video_id"])})

    def film(self, video_id: str) -> Film:
        """One of them."""
        path, frames, fps = (self.columns[name][self.row[video_id]] for name in ("path", "num_frames", "fps"))
        return Film(video_id, str(path), int(frames), float(fps), self.provenance.feeding, self.file)


@contextmanager
def pictures(films: Iterable[Film], workers: int | None, timeout_seconds: float) -> Iterator[Iterator[Shown]]:
    """Pictures of films, in their order.

    workers: processes (None: as many as are of use); 0 makes the pictures in this one, without a time limit. A file
    that crashes its process or takes longer than `timeout_seconds` costs its own picture.
    """
    if workers == 0:
        yield map(_picture_of, films)
        return
    count = min(_MOST_WORKERS, workers or usable_cores())
    pool = new_pool(count)
    try:
        yield _in_order(pool, films, count, timeout_seconds)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _picture_of(film: Film) -> Shown:
    """The picture of a film; what is wrong with the file comes back as the reason why there is none."""
    try:
        with fetched(located(film.file, film.path)) as path:
            cine = _as_seen(open_cine(path, include_stills=True), film.feeding)
            moving = thumbnail_of(cine, film.fps if film.fps > 0 else cine.fps or DEFAULT_FPS, _SIDE)
            return Shown(moving.data_uri, still_of(cine, _SIDE).data_uri)
    except (MediaError, RemoteError) as error:
        return Shown(missing=str(error))
    except Exception as error:
        # No file may end the pages.
        return Shown(missing=f"{type(error).__name__}: {error}")


def _in_order(pool: ProcessPool, films: Iterable[Film], workers: int, timeout_seconds: float) -> Iterator[Shown]:
    remaining = iter(films)
    waiting: deque[Future[Shown]] = deque()
    while True:
        for film in itertools.islice(remaining, workers * _AHEAD_PER_WORKER - len(waiting)):
            waiting.append(_asked(pool, film, timeout_seconds))
        if not waiting:
            return
        yield _answer(waiting.popleft(), timeout_seconds)


def _asked(pool: ProcessPool, film: Film, timeout_seconds: float) -> Future[Shown]:
    try:
        future: Future[Shown] = pool.schedule(_picture_of, args=(film,), timeout=timeout_seconds)
    except RuntimeError as error:
        # The pool died meanwhile; that is shown in place of the picture.
        future = Future()
        future.set_exception(error)
    return future


def _answer(future: Future[Shown], timeout_seconds: float) -> Shown:
    try:
        shown: Shown = picture_of_task(future, timeout_seconds)
        return shown
    except MediaError as error:
        return Shown(missing=str(error))
    except Exception as error:
        return Shown(missing=f"no process could read it ({error})")


def _as_seen(cine: Cine, feeding: Feeding) -> Cine:
    """A loop without what the model did not see either: a masked name must not come back in a picture."""
    if not feeding.masks(cine.kind) and not (feeding.crop_region and cine.region):
        return cine
    mask = sector_of(cine, feeding)
    cut = cine.region if feeding.crop_region else None
    rows, columns = (slice(cut.y0, cut.y1), slice(cut.x0, cut.x1)) if cut else (slice(None), slice(None))

    def frames() -> Iterator[UInt8Array]:
        for frame in cine.frames():
            yield (frame if mask is None else apply_mask(frame, mask))[rows, columns]

    return replace(cine, reader=frames)
