"""Two processes under torchrun learn, predict and measure what one does."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from panecho_embed.finetuning.processes import Processes
from tests.finetuning.conftest import NARROW, SMALL, finetune, rows_of

SETTINGS = {
    "data.targets": "EF,pericardial-effusion",
    "model.head_dropout": 0,  # it draws another pattern in every process, and is no part of what is compared
    "model.width": NARROW,
    "optimizer.batch_size": 5,  # odd, and in micro batches, so that something is filled up and not counted
    "optimizer.micro_batch": 2,
    "optimizer.lr": 0.001,
}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def words(data, out):
    return ["multitask", "--init", "random", "--data", data, "-o", out, "--device", "cpu"]


def in_two(data, out):
    command = [sys.executable, *TORCHRUN, "-m", "panecho_embed", "finetune", *map(str, words(data, out))]
    options = [word for key, value in (SMALL | SETTINGS).items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def both(table, tmp_path_factory):
    """An odd number of videos in each part, and one more in training and test that can't be decoded."""
    folder = tmp_path_factory.mktemp("runs")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False).drop(index=[0, 13, 23])
    broken = rows.loc[[1, 22]].assign(path=["a.avi", "b.avi"])
    for name in broken["path"]:
        (folder / name).write_bytes(b"no video")
    pd.concat([rows, broken]).to_csv(folder / "odd.csv", index=False)
    one = finetune(*words(folder / "odd.csv", folder / "one"), expect=3, **SETTINGS)
    return folder, one, in_two(folder / "odd.csv", folder / "two")


def as_numbers(column):
    """Those that are, the rest as NaN, or the column itself if it holds none."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().any() else column


def value_of(score):
    """A metric that is not defined is null."""
    return float("nan") if score["value"] is None else score["value"]


def test_two_processes_give_what_one_does(both):
    folder, _, _ = both
    history = [pd.read_csv(folder / name / "history.csv").drop(columns="seconds") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*history, rtol=1e-4, atol=1e-4)
    tables = [pd.read_csv(folder / name / "predictions.csv", dtype=str) for name in ("one", "two")]
    pd.testing.assert_frame_equal(*[table.apply(as_numbers) for table in tables], rtol=1e-4, atol=1e-4)
    metrics = [json.loads((folder / name / "metrics.json").read_text())["targets"] for name in ("one", "two")]
    assert metrics[0].keys() == metrics[1].keys()
    for target, mine in metrics[0].items():
        theirs = metrics[1][target]
        assert mine["n"] == theirs["n"]
        for name, score in mine["metrics"].items():
            assert value_of(score) == pytest.approx(value_of(theirs["metrics"][name]), rel=1e-4, abs=1e-4, nan_ok=True)


def test_no_video_is_counted_twice(both):
    folder, _, _ = both
    info = json.loads((folder / "two" / "run.json").read_text())
    assert (info["processes"], info["counts"]["train"], info["counts"]["val"], info["counts"]["test"]) == (2, 12, 5, 6)
    rows = rows_of(folder / "two")
    assert not rows.duplicated(["video_id", "target"]).any()
    assert len(rows) == 2 * 10
    lost = [pd.read_csv(folder / name / "failures.csv")["video_id"].tolist() for name in ("one", "two")]
    assert sorted(lost[0]) == sorted(lost[1]) == ["a.avi", "b.avi"]
    assert not rows["video_id"].isin(lost[0]).any()


def test_one_process_speaks_for_all(both):
    _, one, two = both
    assert one.stdout.splitlines()[:-1] == two.stdout.splitlines()[:-1]
    assert two.stderr.count("epoch 2/2: training loss") == 1


@pytest.mark.slow
def test_batch_norms_on_cpus_evaluate_the_same_model_everywhere(dynamic, weights, tmp_path):
    """What the last epoch's validation said, half of it in each process, is what the saved model says."""
    words = ["echonet-dynamic", "--init", "kinetics", "--weights", weights / "r3d_18-b3b3357e.pth", "--data", dynamic]
    settings = SMALL | {"schedule.epochs": 1, "clips.test": 1, "clips.frames": 4, "optimizer.batch_size": 6}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [
        *TORCHRUN,
        "-m",
        "panecho_embed",
        "finetune",
        *words,
        "-o",
        tmp_path / "run",
        "--device",
        "cpu",
        *options,
    ]
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    rows = rows_of(tmp_path / "run", split="val")
    mean = pd.read_csv(tmp_path / "run" / "tasks.csv")["training_mean"].item()
    expected = ((rows["truth"] - rows["prediction"]) ** 2).mean() / mean
    assert pd.read_csv(tmp_path / "run" / "history.csv")["val_loss"].item() == pytest.approx(expected, rel=1e-3)


def processes(count, device):
    return Processes(SimpleNamespace(num_processes=count, process_index=0, device=device), "fp32")


def test_batch_norms_are_synchronised_between_cuda_devices():
    def norms(count, device):
        model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Sequential(nn.BatchNorm2d(4)))
        return [isinstance(m, nn.SyncBatchNorm) for m in processes(count, device).synced(model)[1:].modules()][1:]

    assert norms(2, "cuda") == [True, False, True]
    assert not any(norms(2, "cpu"))  # torch has none there
    assert not any(norms(1, "cuda"))


def test_statistics_of_batch_norms_are_shared_before_an_evaluation(monkeypatch):
    two = processes(2, "cpu")
    # The other process counted three times as much.
    two.accelerator.reduce = lambda values, reduction: 4 * values
    model = nn.Sequential(nn.BatchNorm2d(2))
    model[0].running_mean.copy_(torch.tensor([1.0, 5.0]))
    two.share_statistics(model)
    assert model[0].running_mean.tolist() == [2.0, 10.0]
    processes(1, "cpu").share_statistics(model)
    assert model[0].running_var.tolist() == [2.0, 2.0]
