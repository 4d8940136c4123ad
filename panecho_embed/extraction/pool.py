"""Decoding in worker processes, results in the order in which the work was given."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

from pebble import ProcessExpired

from panecho_embed.core.cores import check_timeout
from panecho_embed.core.errors import ArgumentError, WorkersError
from panecho_embed.core.records import Failure, VideoRef
from panecho_embed.core.workers import GoOn, end_with_parent, new_pool, stop, waited_for
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings, decode_video

Outcome = tuple[int, DecodedVideo | Failure]

# Enough that a slow video does not leave the encoder waiting, few enough that memory stays flat.
_AHEAD_PER_WORKER = 3
_AHEAD_BYTES = 1 << 30
# Far more than are of use, and few enough that starting them does not bring the machine down.
_MOST_WORKERS_PER_CORE = 16
# How often a video may stand first in line when the workers die under it.
_TRIES = 3


@contextmanager
def decoded(
    videos: Iterable[tuple[int, VideoRef]],
    settings: DecodeSettings,
    workers: int,
    timeout_seconds: float,
    go_on: GoOn | None = None,
) -> Iterator[Iterator[Outcome]]:
    """Decode videos, (position, video) -> (position, result), in the order given.

    workers: processes; 0 decodes in this process, one video at a time and without a time limit. A decoder that crashes
    its process or takes longer than `timeout_seconds` costs that one video (a Failure), not the run; workers that are
    killed while they wait cost nothing. go_on: see `GoOn`; called while workers are waited for.
    """
    check_timeout(timeout_seconds)
    most = _MOST_WORKERS_PER_CORE * (os.cpu_count() or 1)
    if not 0 <= workers <= most:
        raise ArgumentError(f"workers is {workers}; allowed here are 0 to {most}, 16 for each core (--workers)")
    if workers == 0:
        yield ((position, decode_video(video, settings)) for position, video in videos)
        return
    line = DecodingLine(settings, workers, timeout_seconds, go_on)
    try:
        yield line.outcomes(videos)
        line.pool.close()
    except BaseException:
        line.pool.stop()
        raise
    finally:
        line.pool.join()


@dataclass(slots=True)
class _Task:
    position: int
    video: VideoRef
    future: Future[DecodedVideo | Failure]
    tries: int = 1


class DecodingLine:
    """Videos in the hands of the workers, and those behind them, in order; `decoded` for as long as one likes."""

    def __init__(
        self, settings: DecodeSettings, workers: int, timeout_seconds: float, go_on: GoOn | None = None
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._timeout_seconds = timeout_seconds
        self._go_on = go_on
        self._waiting: deque[_Task] = deque()
        self._largest_bytes = 1
        self._worked = False
        self.pool = new_pool(self._workers, _begin)

    def outcomes(self, videos: Iterable[tuple[int, VideoRef]]) -> Iterator[Outcome]:
        """See `decoded`."""
        remaining = iter(videos)
        self._fill(remaining)
        while self._waiting:
            task = self._waiting[0]
            try:
                outcome = self._result(task)
            except ProcessExpired as error:
                # Crashed by this video, or killed because all of them took too much memory: a second time tells.
                if task.tries < _TRIES - 1:
                    task.tries += 1
                    task.future = self._scheduled(task.video)
                    continue
                message = f"the decoder's process died {task.tries} times under it (exit code {error.exitcode})"
                outcome = Failure(task.video.video_id, task.video.path, "decode", message)
                self._waiting.popleft()
            except (BrokenProcessPool, CancelledError, RuntimeError) as error:
                # The pool itself is gone: a worker was killed (by the system, out of memory) between two videos.
                if task.tries < _TRIES:
                    self._start_again()
                    continue
                if not self._worked:
                    raise WorkersError(
                        f"no decoding process could start ({error}); with --workers 0 (in Python: workers=0) this "
                        "process decodes"
                    ) from error
                message = f"the decoding workers died {task.tries} times under it ({error}); too little memory?"
                outcome = Failure(task.video.video_id, task.video.path, "decode", message)
                self._waiting.popleft()
                self._start_again()
            else:
                self._worked = True
                self._waiting.popleft()
            if isinstance(outcome, DecodedVideo):
                self._largest_bytes = max(self._largest_bytes, outcome.pixels.nbytes)
            yield task.position, outcome
            self._fill(remaining)

    def _fill(self, remaining: Iterator[tuple[int, VideoRef]]) -> None:
        """Hand out work: some videos ahead for each worker, fewer where videos are so long that memory counts."""
        ahead = min(self._workers * _AHEAD_PER_WORKER, max(_AHEAD_BYTES // self._largest_bytes, self._workers))
        for position, video in itertools.islice(remaining, max(ahead - len(self._waiting), 0)):
            self._waiting.append(_Task(position, video, self._scheduled(video)))

    def _result(self, task: _Task) -> DecodedVideo | Failure:
        try:
            return waited_for(task.future, self._go_on)
        except TimeoutError:
            message = f"decoding took longer than {self._timeout_seconds:g} s (--timeout)"
        return Failure(task.video.video_id, task.video.path, "decode", message)

    def _scheduled(self, video: VideoRef) -> Future[DecodedVideo | Failure]:
        try:
            return self._schedule(video)
        except RuntimeError:
            # The pool died meanwhile.
            self._start_again()
            return self._schedule(video)

    def _start_again(self) -> None:
        """A new pool for the videos that are waiting; what is finished stays so."""
        stop(self.pool)
        self.pool = new_pool(self._workers, _begin)
        for task in self._waiting:
            if task.future.done() and not task.future.cancelled() and task.future.exception() is None:
                continue
            task.future = self._schedule(task.video)
        if self._waiting:
            self._waiting[0].tries += 1

    def _schedule(self, video: VideoRef) -> Future[DecodedVideo | Failure]:
        future: Future[DecodedVideo | Failure] = self.pool.schedule(
            decode_video, args=(video, self._settings), timeout=self._timeout_seconds
        )
        return future


def _begin() -> None:
    """Die with the encoder, and give way to it: its threads wait for each other, so that one that waits holds up all.

    Decoding goes on whenever the encoder leaves a core, and always when the encoder itself waits for videos.
    """
    end_with_parent()
    if hasattr(os, "nice"):
        os.nice(19)
