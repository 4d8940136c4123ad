"""Commands whose worker hangs, for a test that kills them: python -m tests.hanging WAY STARTED.

STARTED is a file that says, once the worker hangs, which process it is.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
import threading
from pathlib import Path

from panecho_embed.core import workers


def hang(started, library=ctypes.PyDLL):
    """Do not come back. PyDLL keeps the interpreter's lock meanwhile, as a decoder may; CDLL does not."""
    written = Path(f"{started}.tmp")
    written.write_text(str(os.getpid()))
    written.replace(started)
    library(None).sleep(60)


class Hanging:
    """Hangs whatever process takes it into its hands."""

    def __init__(self, started):
        self.started = started

    def __reduce__(self):
        return hang, (self.started,)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return hang(self.started)


def decode_in_pool(started):
    from panecho_embed.core.clips import ClipPlan
    from panecho_embed.core.feeding import Feeding
    from panecho_embed.extraction.decode import DecodeSettings
    from panecho_embed.extraction.pool import decoded

    with decoded([(0, Hanging(started))], DecodeSettings(Feeding(), (ClipPlan(),)), 1, 60.0) as outcomes:
        list(outcomes)


def picture_in_pool(started):
    from panecho_embed.prediction.films import pictures

    with pictures([Hanging(started)], 1, 60.0) as made:
        list(made)


def load_for_training(started):
    from torch.utils.data import DataLoader

    from panecho_embed.finetuning.sampling import begin_loading

    list(DataLoader(Hanging(started), num_workers=1, worker_init_fn=begin_loading))


def wait_in_a_thread(started):
    """As on systems that send no signal."""
    multiprocessing.get_context("spawn").Process(target=_wait_in_a_thread, args=(started,)).start()
    threading.Event().wait()


def _wait_in_a_thread(started):
    workers.fcntl = None
    workers.end_with_parent()
    hang(started, ctypes.CDLL)


if __name__ == "__main__":
    # Workers never import the script that started them, so their work has to be in a module of its own.
    from tests import hanging

    getattr(hanging, sys.argv[1])(sys.argv[2])
