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


def test_processes_that_a_user_spawns_still_import_the_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from panecho_embed.core.workers import WORKERS\n"
        "def say(): print('said', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    for context in (multiprocessing.get_context('spawn'),):\n"
        "        ours = WORKERS.Process(target=print, args=('ours',)); ours.start(); ours.join()\n"
        "        theirs = context.Process(target=say); theirs.start(); theirs.join()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("ours\nsaid\n", "")
