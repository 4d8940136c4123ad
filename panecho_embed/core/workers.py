"""A pool of worker processes: tasks with time limits, and no process that outlives the one it works for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError, wait
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from panecho_embed.core.errors import MediaError
from panecho_embed.core.orphans import end_with_parent

T = TypeVar("T")

GoOn = Callable[[], object]
"""Called now and then during long work; what it raises ends the work."""

# Between two looks at whether a result is still wanted.
_LOOK_SECONDS = 0.25


def new_pool(workers: int, begin: Callable[[], None] = end_with_parent) -> ProcessPool:
    """Start worker processes with the first task; `schedule(..., timeout=)` limits a task's time.

    begin: called in each process; it must call `end_with_parent`.
    """
    # "spawn": a forked child would inherit torch's threads in whatever state they are.
    return ProcessPool(max_workers=workers, context=multiprocessing.get_context("spawn"), initializer=begin)


def stop(pool: ProcessPool) -> None:
    """End the processes, whatever they do."""
    pool.stop()
    pool.join()


def waited_for(future: Future[T], go_on: GoOn | None = None) -> T:
    """A task's result or what it raised. go_on: called four times a second until then."""
    while go_on is not None and not future.done():
        wait([future], _LOOK_SECONDS)
        go_on()
    return future.result()


def picture_of_task(future: Future[Any], timeout_seconds: float, go_on: GoOn | None = None) -> Any:
    """A task's picture. Raises what it raised, and MediaError if it took too long or ended its process."""
    try:
        return waited_for(future, go_on)
    except TimeoutError as error:
        raise MediaError(f"its picture took longer than {timeout_seconds:g} s") from error
    except ProcessExpired as error:
        raise MediaError(f"its decoder's process died (exit code {error.exitcode})") from error
