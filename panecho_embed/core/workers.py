"""Worker processes: a pool with time limits, and none that outlives the one it works for."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from multiprocessing import connection, context, spawn
from typing import TYPE_CHECKING, Any, TypeVar

from panecho_embed.core.errors import MediaError

if TYPE_CHECKING:
    from pebble import ProcessPool

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_T = TypeVar("_T")

GoOn = Callable[[], object]
"""Called now and then during long work; what it raises ends the work."""

# Between two looks at whether a result is still wanted.
_LOOK_SECONDS = 0.25


def end_with_parent() -> None:
    """Called in a child of multiprocessing: it ends at once when its parent does, even while a decoder hangs in it.

    Every such child holds a pipe that the system closes when the parent is gone, by SIGKILL too. POSIX systems can send
    a signal then, which ends the child whatever it does. (Linux' PR_SET_PDEATHSIG would end it with the *thread* that
    started it, and threads of servers and of Ray come and go.) Elsewhere a thread waits for it, which a decoder that
    keeps the interpreter to itself holds up.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if fcntl is None or not hasattr(os, "O_ASYNC"):
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()
        return
    # SIGIO ends a process that does nothing about it, as Python does not.
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if connection.wait([parent.sentinel], timeout=0):
        # Gone before the signal was asked for.
        os._exit(1)


_starting = threading.Lock()


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that this thread spawns meanwhile are not told where `__main__` is, so they don't run the script."""
    original, mine = spawn.get_preparation_data, threading.get_ident()

    def prepared(name: str) -> dict[str, Any]:
        data = original(name)
        if threading.get_ident() == mine:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    with _starting:
        spawn.get_preparation_data = prepared
        try:
            yield
        finally:
            spawn.get_preparation_data = original


class _Worker(context.SpawnProcess):
    """A process that imports this package and never the user's script.

    A script without `if __name__ == "__main__":` would otherwise run again, from its first line, in every worker.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_main():
            return context.SpawnProcess._Popen(process_obj)


class _WorkerContext(context.SpawnContext):
    Process = _Worker


WORKERS = _WorkerContext()
"""How every worker process starts: spawned, as a forked child would inherit torch's threads in whatever state they are,
and without the script that started it."""


@cache
def end_with_torchrun() -> None:
    """Called in a process of torchrun, as often as one likes: it ends within a second or two when torchrun has ended.

    torchrun gives its processes separate sessions. Killed by SIGKILL, it would leave them at work, where they keep
    the run's folder from the same command.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()


def new_pool(workers: int, begin: Callable[[], None] = end_with_parent) -> ProcessPool:
    """Start worker processes with the first task; `schedule(..., timeout=)` limits a task's time.

    begin: called in each process; it must call `end_with_parent`.
    """
    from pebble import ProcessPool

    return ProcessPool(max_workers=workers, context=WORKERS, initializer=begin)


def stop(pool: ProcessPool) -> None:
    """End the processes, whatever they do."""
    pool.stop()
    pool.join()


def waited_for(future: Future[_T], go_on: GoOn | None = None) -> _T:
    """A task's result or what it raised. go_on: called four times a second until then."""
    while go_on is not None and not future.done():
        wait([future], _LOOK_SECONDS)
        go_on()
    return future.result()


def picture_of_task(future: Future[Any], timeout_seconds: float, go_on: GoOn | None = None) -> Any:
    """A task's picture. Raises what it raised, and MediaError if it took too long or ended its process."""
    from pebble import ProcessExpired

    try:
        return waited_for(future, go_on)
    except TimeoutError as error:
        raise MediaError(f"its picture took longer than {timeout_seconds:g} s") from error
    except ProcessExpired as error:
        raise MediaError(f"its decoder's process died (exit code {error.exitcode})") from error


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
