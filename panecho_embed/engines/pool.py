"""Decoding in worker processes, results in the order in which the work was given."""

from __future__ import annotations

import itertools
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from contextlib import contextmanager

from pebble import ProcessExpired, ProcessPool

from panecho_embed.engines.decode import DecodedVideo, DecodeSettings, decode_video
from panecho_embed.records import Failure, VideoRef

Outcome = tuple[int, DecodedVideo | Failure]

# Enough that a slow video does not leave the encoder waiting, few enough that memory stays flat.
_AHEAD_PER_WORKER = 3


@contextmanager
def decoded(
    videos: Iterable[tuple[int, VideoRef]], settings: DecodeSettings, workers: int, timeout_seconds: float
) -> Iterator[Iterator[Outcome]]:
    """Decode videos, (position, video) -> (position, result), in the order given.

    workers: processes; 0 decodes in this process, one video at a time and without a time limit. A decoder that crashes
    its process or takes longer than `timeout_seconds` costs that one video (a Failure), not the run.
    """
    if workers == 0:
        yield ((position, decode_video(video, settings)) for position, video in videos)
        return
    # "spawn": a forked child would inherit torch's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPool(max_workers=workers, context=context)
    try:
        yield _in_order(pool, videos, settings, workers * _AHEAD_PER_WORKER, timeout_seconds)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _in_order(
    pool: ProcessPool,
    videos: Iterable[tuple[int, VideoRef]],
    settings: DecodeSettings,
    ahead: int,
    timeout_seconds: float,
) -> Iterator[Outcome]:
    waiting: deque[tuple[int, VideoRef, Future[DecodedVideo | Failure]]] = deque()
    remaining = iter(videos)

    def submit(count: int) -> None:
        for position, video in itertools.islice(remaining, count):
            future = pool.schedule(decode_video, args=(video, settings), timeout=timeout_seconds)
            waiting.append((position, video, future))

    submit(ahead)
    while waiting:
        position, video, future = waiting.popleft()
        yield position, _result(video, future, timeout_seconds)
        submit(1)


def _result(video: VideoRef, future: Future[DecodedVideo | Failure], timeout_seconds: float) -> DecodedVideo | Failure:
    try:
        return future.result()
    except TimeoutError:
        message = f"decoding took longer than {timeout_seconds:g} s (--timeout)"
    except ProcessExpired as error:
        message = f"the decoder's process died (exit code {error.exitcode})"
    return Failure(video.video_id, video.path, "decode", message)
