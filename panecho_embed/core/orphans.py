"""No process outlives the one that it works for."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from functools import cache
from multiprocessing.connection import wait

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


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
    if wait([parent.sentinel], timeout=0):
        # Gone before the signal was asked for.
        os._exit(1)


@cache
def end_with_torchrun() -> None:
    """Called in a process of torchrun, as often as one likes: it ends within a second or two when torchrun has ended.

    torchrun gives its processes sessions of their own. Killed by SIGKILL, it would leave them at work, where they keep
    the run's folder from the same command.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_end_without, args=(os.getppid(),), daemon=True).start()


def _end_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
