from __future__ import annotations

import os
import subprocess
import sys

CHILD = (
    "import os, time; from panecho_embed.core.workers import end_with_torchrun\n"
    "end_with_torchrun(); print('watching', flush=True); time.sleep(60)"
)
TORCHRUN = (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-c', {CHILD!r}], start_new_session=True)\n"
    "time.sleep(60)"
)


def test_a_process_of_torchrun_ends_when_torchrun_is_killed():
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "x"}
    command = [sys.executable, "-c", TORCHRUN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as torchrun:
        assert torchrun.stdout.readline() == "watching\n"
        torchrun.kill()
        # The pipe ends when the last one that could write into it has ended; the child would sleep for a minute.
        torchrun.communicate(timeout=30)
