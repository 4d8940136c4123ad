"""Stand-ins that a process of its own runs, so that they must be found by name."""

from __future__ import annotations

import os
import time


def hang(path):
    time.sleep(60)


def die(path):
    os._exit(3)
