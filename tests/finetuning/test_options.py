"""What practitioners change: own tasks, images, views, precision, workers, layer-wise rates, class weights."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed import predict
from panecho_embed.cli.main import main
from panecho_embed.datasets import read_manifest
from tests.finetuning.conftest import NARROW, finetune, rows_of

pytestmark = pytest.mark.usefixtures("without_report")

RANDOM = {"model.width": NARROW, "schedule.epochs": 1}


def history(out):
    return pd.read_csv(out / "history.csv").drop(columns="seconds")


@pytest.fixture(scope="module")
def plain(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    finetune("custom", "--init", "random", "--data", table, "-o", out, **RANDOM)
    return out


def test_a_table_of_ones_own_tasks(table, tmp_path):
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows["Rhythm"] = [("sinus", "AF", "paced")[i // 2 % 3] for i in range(len(rows))]
    rows["Mass"] = [150 + 3 * i for i in range(len(rows))]
    rows["Bypass"] = [str(i // 2 % 2) for i in range(len(rows))]
    rows.to_csv(tmp_path / "videos.csv", index=False)
    (tmp_path / "mine.csv").write_text(
        "name,type,classes_in_index_order,positive_class_index,unit\n"
        "Rhythm,multiclass,sinus;AF;paced,,\nMass,regression,,,g\nBypass,binary,1;0,0,\nNotThere,regression,,,\n"
    )
    out = tmp_path / "run"
    told = finetune(
        "multitask", "--init", "random", "--data", tmp_path / "videos.csv", "-o", out,
        **RANDOM, data__tasks=tmp_path / "mine.csv",
    )  # fmt: skip
    assert "3 of 4 tasks have a label column; 1 have none" in told.stderr
    metrics = json.loads((out / "metrics.json").read_text())["targets"]
    assert [(name, target["task"]) for name, target in metrics.items()] == [
        ("Rhythm", "multiclass"), ("Mass", "regression"), ("Bypass", "binary"),
    ]  # fmt: skip
    assert metrics["Bypass"]["classes"] == ["0", "1"]  # the positive one, 1, comes last
    predicted = rows_of(out)
    bypass = predicted[predicted["target"] == "Bypass"]
    labels = dict(zip(rows["path"], rows["Bypass"], strict=True))
    assert [labels[video] for video in bypass["video_id"]] == bypass["truth"].tolist()
    words = ["predict", tmp_path / "videos.csv", "-o", tmp_path / "p", "--weights", out / "model.pt", "--no-sheets"]
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    videos = pd.read_csv(tmp_path / "p" / "videos.csv").set_index("video_id")
    np.testing.assert_allclose(
        videos.loc[bypass["video_id"], "Bypass:1"], bypass["probability"].astype(float), rtol=1e-4
    )


def test_studies_whose_videos_disagree_are_told(table, tmp_path):
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows.loc[[1, 3], "pericardial-effusion"] = rows["pericardial-effusion"].map(
        {"none_trace": "mild_mod_severe", "mild_mod_severe": "none_trace"}
    )
    rows.to_csv(tmp_path / "videos.csv", index=False)
    words = ["custom", "--init", "random", "--data", tmp_path / "videos.csv"]
    settings = RANDOM | {"data.targets": "pericardial-effusion"}
    told = finetune(*words, "-o", tmp_path / "run", **settings).stderr
    assert (
        "note: pericardial-effusion: the videos of 2 studies have different classes; such a study has no truth" in told
    )
    told = finetune(*words, "-o", tmp_path / "videos", **settings | {"evaluation.level": "video"}).stderr
    assert "different classes" not in told


def test_a_bad_table_of_tasks_is_refused(table, tmp_path):
    (tmp_path / "mine.csv").write_text("name,typ\nMass,regression\n")
    words = ["multitask", "--init", "random", "--data", table, "-o", tmp_path / "run"]
    told = finetune(*words, expect=1, **RANDOM, data__tasks=tmp_path / "mine.csv").stderr
    assert "unknown column 'typ'; nearest: type" in told


def test_strain_is_learned_without_its_sign_and_reported_with_it(table, tmp_path):
    out = tmp_path / "run"
    finetune("custom", "--init", "random", "--data", table, "-o", out, **RANDOM, data__targets="GLS")
    rows = rows_of(out)
    labels = pd.read_csv(table).groupby("study_id")["GLS"].first()
    assert rows["truth"].tolist() == pytest.approx(labels[rows["study_id"]].tolist())
    assert (rows["prediction"] < 0).all()
    assert float(pd.read_csv(out / "tasks.csv")["training_mean"].iloc[0]) > 0
    assert (rows["baseline"] < 0).all()


def test_strain_labelled_without_its_sign_is_reported_with_it(table, tmp_path):
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows["GLS"] = rows["GLS"].str.lstrip("-")
    rows.to_csv(tmp_path / "videos.csv", index=False)
    out = tmp_path / "run"
    words = ["custom", "--init", "random", "--data", tmp_path / "videos.csv", "-o", out]
    told = finetune(*words, **RANDOM, data__targets="GLS").stderr
    assert "GLS is reported as negative, and its labels are all above 0: they are taken with the sign flipped" in told
    predict(tmp_path / "videos.csv", tmp_path / "p", weights=out / "model.pt", sheets=False, device="cpu", workers=0)
    tested = rows_of(out).set_index("video_id")["prediction"]
    again = pd.read_csv(tmp_path / "p" / "videos.csv").set_index("video_id")["GLS"]
    assert (tested < 0).all()
    truth = rows_of(out).drop_duplicates("study_id").set_index("study_id")["truth"]
    labels = pd.to_numeric(rows.drop_duplicates("study_id").set_index("study_id")["GLS"])
    assert truth.tolist() == pytest.approx((-labels[truth.index]).tolist())
    np.testing.assert_allclose(again[tested.index], tested, rtol=1e-4)


def test_single_images(table, tmp_path):
    settings = {"model.temporal": "none", "clips.frames": 1, "clips.test": 1}
    finetune("custom", "--init", "random", "--data", table, "-o", tmp_path / "run", **RANDOM | settings)
    assert np.isfinite(history(tmp_path / "run")["val_loss"]).all()


def test_some_views_alone(table, tmp_path):
    out = tmp_path / "run"
    finetune("custom", "--init", "random", "--data", table, "-o", out, **RANDOM, data__views="PSAX")
    assert set(rows_of(out)["video_id"].str.extract("/(A4C|PSAX)/")[0]) == {"PSAX"}
    told = finetune(
        "custom", "--init", "random", "--data", table, "-o", tmp_path / "x", expect=1, **RANDOM, data__views="PLAX"
    ).stderr
    assert "no video has the view PLAX; there are A4C, PSAX (data.views)" in told


def test_workers_change_nothing(plain, table, tmp_path):
    finetune("custom", "--init", "random", "--data", table, "-o", tmp_path / "run", "--workers", 1, **RANDOM)
    pd.testing.assert_frame_equal(history(tmp_path / "run"), history(plain), check_exact=True)


def test_micro_batches_change_nothing_to_speak_of(plain, table, tmp_path):
    words = ["custom", "--init", "random", "--data", table, "-o", tmp_path / "run"]
    finetune(*words, **RANDOM | {"optimizer.micro_batch": 3, "model.head_dropout": 0.1})
    pd.testing.assert_frame_equal(history(tmp_path / "run"), history(plain), rtol=1e-2)


def test_half_precision_runs_and_is_written_down(plain, table, tmp_path):
    out = tmp_path / "run"
    finetune("custom", "--init", "random", "--data", table, "-o", out, **RANDOM, precision="bf16")
    assert json.loads((out / "run.json").read_text())["precision"] == "bf16"
    pd.testing.assert_frame_equal(history(out), history(plain), rtol=0.1)
    told = finetune(
        "custom", "--init", "random", "--data", table, "-o", tmp_path / "x", "--device", "cpu", expect=2,
        **RANDOM, precision="fp16",
    ).stderr  # fmt: skip
    assert "precision is fp16, which needs a CUDA device to train on; here is cpu" in told


def test_clips_at_a_frame_rate(pediatric, dynamic, tmp_path):
    """Rows of EchoNet-Dynamic state their rate."""
    assert read_manifest(dynamic).videos[0].fps
    out = tmp_path / "run"
    finetune("echonet-dynamic", "--init", "random", "--data", dynamic, "-o", out, **RANDOM, clips__target_fps=10)
    assert np.isfinite(history(out)["val_loss"]).all()


def test_training_ends_when_nothing_gets_better(dynamic, tmp_path):
    out = tmp_path / "run"
    settings = {"schedule.epochs": 9, "early_stopping.patience": 2, "optimizer.lr": 1e-30}
    finetune("echonet-dynamic", "--init", "random", "--data", dynamic, "-o", out, **RANDOM | settings)
    rows = history(out)
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert rows["best"].tolist() == [1, 0, 0]
    assert json.loads((out / "run.json").read_text())["best_epoch"] == 1
