"""Killed in the middle of an epoch and run again, a training ends as an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pandas as pd
import psutil
import pytest
import torch

from panecho_embed.core.errors import StoreError
from panecho_embed.finetuning.saved import read_checkpoint
from tests.finetuning.conftest import NARROW, SMALL, finetune
from tests.finetuning.test_several_processes import TORCHRUN

SETTINGS = {
    "model.width": NARROW,
    "model.head_dropout": 0.25,
    "optimizer.batch_size": 2,
    "optimizer.ema": 0.9,
    "augmentation.enabled": "true",
    "schedule.epochs": 3,
}


def words(data, out):
    # A checkpoint after every step, so that the epoch to be killed in is one to go on with.
    options = ["--device", "cpu", "--checkpoint-minutes", "0"]
    return ["echonet-dynamic", "--init", "random", "--data", data, "-o", out, *options]


def start(data, out, *torchrun, stderr=subprocess.DEVNULL):
    options = [word for key, value in (SMALL | SETTINGS).items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, *torchrun, "-m", "panecho_embed", "finetune", *map(str, words(data, out)), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=stderr)


def progress(out):
    """How far the checkpoint is: (epoch, steps done of it)."""
    try:
        state = read_checkpoint(out / "checkpoints" / "last.pt")["progress"]
    except StoreError:
        return 0, 0
    return state["epoch"], state["step"]


def run_and_kill(data, out):
    """Start a run, kill it in the middle of its second epoch; returns how far it was."""
    process = start(data, out)
    try:
        while process.poll() is None:
            # Stopped, so that what is read is how far it will be when it is killed.
            process.send_signal(signal.SIGSTOP)
            if (at := progress(out)) >= (2, 1) and at[1]:
                return at
            process.send_signal(signal.SIGCONT)
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    raise AssertionError(f"it ended with {process.returncode} before it could be killed")


def run_two_and_kill(data, out, victim):
    """The same with two processes, of which one is killed, or torchrun itself; returns when all three have ended."""
    torchrun = start(data, out, *TORCHRUN)
    workers = []
    try:
        while torchrun.poll() is None and progress(out) < (2, 1):
            time.sleep(0.02)
        workers = psutil.Process(torchrun.pid).children()
        assert len(workers) == 2
        (torchrun if victim == "torchrun" else workers[1]).kill()
        assert torchrun.wait(timeout=60) != 0
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert alive == []
    finally:
        torchrun.kill()
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
    return progress(out)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["torchrun", "one of its processes"])
def test_two_processes_go_on_to_the_same_end(victim, dynamic, tmp_path):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "run"
    assert start(dynamic, undisturbed, *TORCHRUN).wait() == 0
    epoch, step = run_two_and_kill(dynamic, out, victim)
    again = start(dynamic, out, *TORCHRUN, stderr=subprocess.PIPE)
    told = again.communicate()[1]
    assert again.returncode == 0, told
    assert f"going on at epoch {epoch}" + (f", step {step + 1}" if step else "") in told
    histories = [pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (undisturbed, out)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert (undisturbed / "predictions.csv").read_bytes() == (out / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_it_goes_on_to_the_same_end(dynamic, tmp_path):
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "run"
    finetune(*words(dynamic, undisturbed), **SETTINGS)
    epoch, step = run_and_kill(dynamic, out)
    again = finetune(*words(dynamic, out), **SETTINGS)
    assert f"going on at epoch {epoch}, step {step + 1}" in again.stderr
    histories = [pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (undisturbed, out)]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    predictions = [(folder / "predictions.csv").read_bytes() for folder in (undisturbed, out)]
    assert predictions[0] == predictions[1]
    models = [torch.load(folder / "model.pt", weights_only=True)["state_dict"] for folder in (undisturbed, out)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert {path.name for path in undisturbed.iterdir()} == {path.name for path in out.iterdir()}
