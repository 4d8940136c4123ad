"""A model that `finetune multitask` made is read by `predict` as by the code that trained it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.phantom import write_studies
from panecho_embed.store import EmbeddingFile

SETTINGS = [
    *("model.width=0.0834", "model.image_size=32", "clips.frames=4", "clips.frame_step=2", "clips.test=2"),
    *("schedule.epochs=1", "optimizer.batch_size=8", "evaluation.draws=50"),
]


def run(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Phantom studies of two views, labelled with tasks of all types, some labels missing."""
    folder = tmp_path_factory.mktemp("data")
    write_studies(folder, "folders", 10, videos_per_study=2, num_frames=20, fps=30, size=48)
    rows = pd.read_csv(folder / "manifest.csv").drop(columns=["ESV", "EDV"])
    rows["GLS"] = -rows["EF"] / 3
    rows["RVSystolicFunction"] = np.where(rows["EF"] < rows["EF"].median(), "Decreased", "Normal")
    grade = np.arange(len(rows)) // 2 % 3
    rows["AVStenosis"] = np.array(["None", "Mild|Moderate", "Severe"])[grade]
    rows["split"] = np.array(["train"] * 12 + ["val"] * 4 + ["test"] * 4)
    rows.to_csv(folder / "labelled.csv", index=False)
    return folder / "labelled.csv"


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    run("finetune", "multitask", "--init", "random", "--data", table, "-o", out, *words)
    return out


@pytest.fixture(scope="module")
def predicted(table, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    run("predict", table, "-o", out, "--weights", trained / "model.pt", "--workers", 0, "--no-sheets")
    return out


def test_it_is_given_the_pixels_and_clips_that_it_records(predicted):
    provenance = EmbeddingFile(predicted / "embeddings.h5").provenance
    plan = provenance.clips
    assert (provenance.preprocess.crop, provenance.preprocess.resize) == (32, 37)
    assert (plan.frames_per_clip, plan.frame_step, plan.num_clips) == (4, 2, 2)


@pytest.mark.parametrize(("file", "key"), [("predictions.csv", "video_id"), ("predictions_studies.csv", "study_id")])
def test_its_predictions_are_those_of_its_own_test(trained, predicted, file, key):
    theirs = pd.read_csv(trained / file)
    mine = pd.read_csv(predicted / ("videos.csv" if key == "video_id" else "studies.csv"), index_col=key)
    tasks = {task["name"]: task for task in json.loads((predicted / "predictions.json").read_text())["tasks"]}
    assert list(tasks) == ["EF", "GLS", "RVSystolicFunction", "AVStenosis"]
    for name, task in tasks.items():
        rows = theirs[theirs.target == name]
        if task["type"] == "regression":
            expected = rows[["prediction"]].astype(float)
        elif task["type"] == "binary":
            expected = rows[[f"probability_{task['classes'].index(task['positive_class'])}"]]
        else:
            expected = rows[[f"probability_{i}" for i in range(3)]]
        found = mine.loc[rows[key], task["columns"]]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_its_licence_is_not_panecho_s(predicted, trained):
    assert json.loads((predicted / "predictions.json").read_text())["model"]["licence"] == "not stated"
    assert "CC BY-NC-SA" not in (predicted / "report.html").read_text()
    about = torch.load(trained / "model.pt", weights_only=True)["panecho_embed"]
    assert about["start"]["source"] == "random (seed 0)"
