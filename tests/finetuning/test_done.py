"""A finished run is what it says: of the weights that are given, and whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from panecho_embed.models.panecho import PanEcho, save_checkpoint
from tests.finetuning.conftest import NARROW, finetune
from tests.finetuning.fabricate import change_info


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow PanEcho of other weights."""
    path = tmp_path_factory.mktemp("other") / "other.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        save_checkpoint(PanEcho(pretrained=False, width=NARROW), path)
    return path


@pytest.fixture(scope="module")
def done(dynamic: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "run"
    finetune("echonet-dynamic", "--data", dynamic, "-o", out, "--weights", weights / "panecho.pt", schedule__epochs=1)
    return out


def again(dynamic: Path, out: Path, *words: object, expect: int) -> str:
    return finetune("echonet-dynamic", "--data", dynamic, "-o", out, *words, expect=expect, schedule__epochs=1).stderr


def test_a_done_run_of_other_weights_is_refused(dynamic: Path, done: Path, weights: Path, other: Path) -> None:
    told = again(dynamic, done, "--weights", other, expect=1)
    assert "was begun from other weights" in told
    assert "is done already" in again(dynamic, done, "--weights", weights / "panecho.pt", expect=0)


def test_weights_that_are_found_count_as_given(
    dynamic: Path, done: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(other))
    assert "was begun from other weights" in again(dynamic, done, expect=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(empty))
    monkeypatch.setenv("TORCH_HOME", str(empty))
    assert "is done already" in again(dynamic, done, expect=0)


@pytest.mark.parametrize("name", ["predictions.csv", "model.pt"])
def test_a_done_run_that_lost_a_file_is_told(
    dynamic: Path, done: Path, weights: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(done, out)
    (out / name).unlink()
    told = again(dynamic, out, "--weights", weights / "panecho.pt", expect=1)
    assert f"{name} is missing; begin anew with --overwrite" in told


def test_metrics_that_are_lost_are_written_again_from_the_predictions(
    dynamic: Path, done: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(done, out)
    (out / "metrics.json").unlink()
    again(dynamic, out, "--weights", weights / "panecho.pt", expect=0)
    mine, theirs = (json.loads((run / "metrics.json").read_text())["targets"] for run in (out, done))
    assert mine == theirs


@pytest.fixture
def folds(dynamic: Path, tmp_path: Path) -> Path:
    table = pd.read_csv(dynamic / "FileList.csv")
    ids = {"study_id": table.FileName, "patient_id": table.FileName, "split": [i % 3 for i in range(len(table))]}
    paths = [dynamic / "Videos" / f"{name}.avi" for name in table.FileName]
    pd.DataFrame({"path": paths, **ids, "EF": table.EF}).to_csv(tmp_path / "folds.csv", index=False)
    return tmp_path / "folds.csv"


def test_folds_of_different_weights_are_not_put_together(
    folds: Path, weights: Path, other: Path, tmp_path: Path, without_report: None
) -> None:
    def fold(number: int, file: Path, expect: int) -> str:
        words = ["--data", folds, "-o", tmp_path / "cv", "--fold", number, "--weights", file]
        settings = {"data__folds": 3, "schedule__epochs": 1, "data__targets": "EF"}
        return finetune("custom", *words, expect=expect, **settings).stderr

    mine = weights / "panecho.pt"
    fold(0, mine, 0)
    assert "was begun from other weights" in fold(1, other, 1)
    fold(1, mine, 0)
    info = tmp_path / "cv" / "fold-1" / "run.json"
    weights_of_fold = json.loads(info.read_text())["weights"] | {"sha256": "0" * 64}
    change_info(info.parent, weights=weights_of_fold)
    assert "its folds began from different weights" in fold(2, mine, 1)
    assert "000000000000... in fold-1; run that fold again (--fold 1 --overwrite)" in fold(2, mine, 1)
