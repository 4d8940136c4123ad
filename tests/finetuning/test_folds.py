"""Who trains, validates and tests in a cross-validation, and what its folds come to when put together."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from panecho_embed.finetuning.data import make_fold, read_dataset
from panecho_embed.finetuning.recipe_files import load_recipe
from tests.finetuning.conftest import NARROW, finetune, rows_of

FOLDS = 3
SETTINGS = {"model.width": NARROW, "schedule.epochs": 1, "data.folds": FOLDS}


@pytest.fixture(scope="module")
def three(pediatric, tmp_path_factory):
    """The phantom children in three folds in place of ten."""
    folder = tmp_path_factory.mktemp("data") / "three"
    shutil.copytree(pediatric, folder)
    for view in ("A4C", "PSAX"):
        table = pd.read_csv(folder / view / "FileList.csv")
        table.assign(Split=table["Split"] % FOLDS).to_csv(folder / view / "FileList.csv", index=False)
    return folder


def words(data, out, *more):
    return ["echonet-pediatric", "--init", "random", "--data", data, "-o", out, *more]


@pytest.fixture(scope="module")
def crossed(three, tmp_path_factory):
    """Fold 2 first, alone, as on a machine of its own; then the rest."""
    out = tmp_path_factory.mktemp("runs") / "crossed"
    first = finetune(*words(three, out, "--fold", 2), **SETTINGS)
    lines = first.stdout.splitlines()
    assert lines[0] == "fold 2 alone:"
    assert lines[1].startswith("EF, %: ")
    assert lines[-1] == "folds still to be run: 0, 1; the same command without --fold runs them"
    rest = finetune(*words(three, out), **SETTINGS)
    assert f"{out / 'fold-2'} is done already" in rest.stderr
    return out


@pytest.mark.parametrize("fold", range(10))
def test_fold_f_tests_and_the_next_one_validates(pediatric, fold):
    recipe = load_recipe("echonet-pediatric")
    found = make_fold(read_dataset(pediatric, recipe.data), recipe.data, fold, seed=0)
    split = found.dataset.split.astype(int)
    assert set(split[found.test]) == {fold}
    assert set(split[found.val]) == {(fold + 1) % 10}
    assert set(split[found.train]) == set(range(10)) - {fold, (fold + 1) % 10}
    assert len(found.train) + len(found.val) + len(found.test) == len(split)


def test_the_training_mean_is_that_of_the_fold(pediatric):
    recipe = load_recipe("echonet-pediatric")
    dataset = read_dataset(pediatric, recipe.data)
    for number in (0, 5):
        fold = make_fold(dataset, recipe.data, number, seed=0)
        assert fold.targets.tasks[0].training_mean == pytest.approx(dataset.targets.values[fold.train].mean())


def test_everybody_is_predicted_once_by_a_model_that_has_not_seen_them(crossed, three):
    table = pd.concat([pd.read_csv(three / view / "FileList.csv") for view in ("A4C", "PSAX")])
    rows = rows_of(crossed)
    assert len(rows) == len(table) == 24
    assert set(rows["split"]) == {"test"}
    names = rows["video_id"].str.split("/").str[1] + ".avi"
    expected = dict(zip(table["FileName"], table["Split"], strict=True))
    assert [expected[name] for name in names] == rows["fold"].tolist()
    for number in range(FOLDS):
        own = rows_of(crossed / f"fold-{number}", split="test")
        assert own["prediction"].tolist() == rows.loc[rows["fold"] == number, "prediction"].tolist()


def test_both_views_are_averaged_per_study(crossed):
    videos, studies = rows_of(crossed), rows_of(crossed, "study")
    assert len(studies) == 12
    means = videos.groupby("study_id")["prediction"].mean()
    views = videos["video_id"].str.partition("/")[0]
    assert set(views.groupby(videos["study_id"]).nunique()) == {2}
    np.testing.assert_allclose(studies.set_index("study_id")["prediction"], means[studies["study_id"]])


def test_metrics_are_over_the_union_of_the_folds(crossed):
    studies = rows_of(crossed, "study")
    document = json.loads((crossed / "metrics.json").read_text())
    assert (document["level"], document["targets"]["EF"]["n"]) == ("study", 12)
    mae = (studies["truth"] - studies["prediction"]).abs().mean()
    assert document["targets"]["EF"]["metrics"]["mae"]["value"] == pytest.approx(mae)
    tables = {number: pd.read_csv(crossed / f"fold-{number}" / "tasks.csv") for number in range(FOLDS)}
    means = {number: float(table["training_mean"].item()) for number, table in tables.items()}
    baseline = (studies["truth"] - studies["fold"].map(means)).abs().mean()
    assert document["targets"]["EF"]["baseline"]["mae"]["value"] == pytest.approx(baseline)
    info = json.loads((crossed / "run.json").read_text())
    assert (info["status"], info["folds"], info["counts"]["test"]) == ("done", [0, 1, 2], 24)
    assert (crossed / "report.html").is_file()


def test_a_finished_one_is_not_run_again_and_gets_its_report_back(crossed, three):
    (crossed / "report.html").unlink()
    (crossed / "fold-1" / "report.html").unlink()
    again = finetune(*words(three, crossed), **SETTINGS)
    assert f"{crossed} is done already" in again.stderr
    assert (crossed / "report.html").is_file()


def test_a_patient_in_two_folds_stops_before_anything_is_trained(three, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(three, data)
    table = pd.read_csv(data / "PSAX" / "FileList.csv")
    where = table["Split"] == 1
    table.loc[where.idxmax(), "Split"] = 2
    table.to_csv(data / "PSAX" / "FileList.csv", index=False)
    # Fold 0 trains on neither of the two alone, and is refused as well.
    told = finetune(*words(data, tmp_path / "run", "--fold", 0), expect=1, **SETTINGS).stderr
    patient = table.loc[where.idxmax(), "FileName"].partition("-")[0]
    assert f"1 patients stand in more than one fold: {patient} (fold 1, fold 2) (--allow-leakage to go on)" in told
    assert not (tmp_path / "run").exists()
    finetune(*words(data, tmp_path / "run", "--fold", 0, "--allow-leakage"), **SETTINGS)


def test_a_fold_that_can_not_be_is_told_before_the_first_is_trained(three, tmp_path):
    told = finetune(*words(three, tmp_path / "run"), expect=1, **SETTINGS | {"data.folds": 4}).stderr
    assert "no video with a label is in val (train 16, val 0, test 8) of fold 2" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("fold", "told"), [(3, "allowed are 0 to 2"), (-1, "allowed are 0 to 2")])
def test_a_fold_out_of_range_is_refused(fold, told, three, tmp_path):
    assert told in finetune(*words(three, tmp_path / "run", "--fold", fold), expect=2, **SETTINGS).stderr


def test_a_fold_without_folds_is_refused(dynamic, tmp_path):
    words = ["echonet-dynamic", "--init", "random", "--data", dynamic, "-o", tmp_path / "run", "--fold", 0]
    assert "this recipe has no folds" in finetune(*words, expect=2, **{"model.width": NARROW}).stderr


def test_a_split_that_is_no_fold_is_refused(pediatric, tmp_path):
    told = finetune(*words(pediatric, tmp_path / "run"), expect=1, **SETTINGS).stderr
    assert "with data.folds = 3 it must be a fold's number, 0 to 2" in told


def test_fractions_are_drawn_by_patient_and_lie_in_each_other(pediatric):
    recipe = load_recipe("echonet-pediatric")
    dataset = read_dataset(pediatric, recipe.data)
    patients = []
    for fraction in (0.2, 0.5, 1.0):
        data = load_recipe("echonet-pediatric", [f"data.fraction={fraction}"]).data
        fold = make_fold(dataset, data, 0, seed=3)
        patients.append(fold.patients("train"))
        assert len(fold.train) == 2 * len(patients[-1])
    assert patients[0] < patients[1] < patients[2]
    assert [len(some) for some in patients] == [2, 4, 9]
