"""`predict` with a model of one's own: agreement by split, test first, at the thresholds that the model brings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.datasets.ids import hashed_id
from tests.finetuning.conftest import NARROW, finetune, graded, rows_of

__all__ = ["graded"]


@pytest.fixture(scope="module")
def tuned(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    settings = {"data.targets": "EF,LowEF", "model.width": NARROW, "evaluation.threshold": "sensitivity=0.9"}
    finetune("custom", "--init", "random", "--data", graded, "-o", out, **settings)
    return out


def predict(data: Path, tuned: Path, out: Path, *words: object) -> str:
    arguments = ["predict", data, "-o", out, "--weights", tuned / "model.pt", "--workers", "0", "--no-sheets", *words]
    result = CliRunner().invoke(main, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def predicted(graded: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("predicted") / "out"
    return predict(graded, tuned, out), out


def targets_of(folder: Path) -> dict[str, dict]:
    targets: dict[str, dict] = json.loads((folder / "metrics.json").read_text())["targets"]
    return targets


def test_agreement_is_that_of_the_test_patients_and_the_trained_ones_stand_apart(
    predicted: tuple[str, Path], tuned: Path
) -> None:
    said, out = predicted
    for name, metric in (("EF", "mae"), ("LowEF", "auroc")):
        mine, run = targets_of(out)[name], targets_of(tuned)[name]
        assert (mine["split"], mine["n_patients"]) == ("test", 8)
        assert list(mine["splits"]) == ["test", "val", "train"]
        assert [mine["splits"][split][metric]["n"] for split in mine["splits"]] == [8, 8, 12]
        # What the run measured itself, on the same patients.
        assert mine["metrics"][metric]["value"] == pytest.approx(run["metrics"][metric]["value"], rel=1e-4)
        assert mine["metrics"] == mine["splits"]["test"]
    assert "Of 28 patients, 12 were in the training of this model, 8 in its validation, 8 in neither" in said
    lines = [line.removeprefix("EF, %, ").split() for line in said.splitlines() if line.startswith("EF, %, ")]
    assert [words[:3] for words in lines[1:]] == [["validation", "8", "8"], ["training", "12", "12"]]
    assert lines[0][:5] == ["not", "in", "training", "8", "8"]


def test_values_of_each_split_are_those_of_its_rows(predicted: tuple[str, Path]) -> None:
    _, out = predicted
    rows = rows_of(out, "study").query("target == 'EF'")
    for split, scores in targets_of(out)["EF"]["splits"].items():
        some = rows[rows["split"] == split]
        errors = some["prediction"].astype(float) - some["truth"].astype(float)
        assert scores["mae"]["value"] == pytest.approx(errors.abs().mean())


def test_the_report_shows_the_test_patients_first_and_says_that_training_ones_are_no_new_patients(
    predicted: tuple[str, Path],
) -> None:
    page = (predicted[1] / "report.html").read_text()
    captions = [f"Studies: {split}." for split in ("not in training", "validation", "training")]
    places = [page.index(caption) for caption in captions]
    assert places == sorted(places)
    assert "these are no new patients" in page[places[2] :]


def test_the_threshold_is_the_model_s_and_stays(predicted: tuple[str, Path], tuned: Path) -> None:
    about = torch.load(tuned / "model.pt", weights_only=True)["panecho_embed"]
    assert list(about["thresholds"]) == ["LowEF"]
    assert about["threshold_rule"] == "sensitivity=0.9"
    threshold = about["thresholds"]["LowEF"]
    assert targets_of(predicted[1])["LowEF"]["thresholds"] == [threshold]
    rows = rows_of(predicted[1], "study").query("target == 'LowEF'")
    assert set(rows["threshold"]) == {threshold}
    called = np.where(rows["probability"] >= threshold, "yes", "no")
    assert rows["prediction"].tolist() == called.tolist()
    test = rows[rows["split"] == "test"]
    found = targets_of(predicted[1])["LowEF"]["metrics"]
    of_low = test[test["truth"] == "yes"]
    assert found["sensitivity"]["value"] == pytest.approx((of_low["prediction"] == "yes").mean())


def test_it_stays_where_another_rule_is_asked_for_or_other_patients_are_predicted(
    graded: Path, tuned: Path, tmp_path: Path
) -> None:
    """Patients whom the model does not know: all are test rows, and none of them chooses anything."""
    table = pd.read_csv(graded).drop(columns="split")
    table.assign(patient_id="new-" + table["patient_id"]).to_csv(tmp_path / "new.csv", index=False)
    said = predict(tmp_path / "new.csv", tuned, tmp_path / "out", "--threshold", "specificity=0.9")
    assert "Of 28 patients, 0 were in the training of this model, 0 in its validation, 28 in neither" in said
    threshold = torch.load(tuned / "model.pt", weights_only=True)["panecho_embed"]["thresholds"]["LowEF"]
    found = targets_of(tmp_path / "out")["LowEF"]
    assert (found["split"], list(found["splits"]), found["thresholds"]) == ("test", ["test"], [threshold])


def test_without_one_validation_rows_choose_it_and_without_them_there_is_none(
    graded: Path, tuned: Path, tmp_path: Path
) -> None:
    content = torch.load(tuned / "model.pt", weights_only=True)
    content["panecho_embed"]["thresholds"] = {}
    # The split column decides where the file does not say who was in training.
    del content["panecho_embed"]["patients"]
    (tmp_path / "model").mkdir()
    torch.save(content, tmp_path / "model" / "model.pt")
    (tmp_path / "model" / "tasks.csv").write_bytes((tuned / "tasks.csv").read_bytes())
    predict(graded, tmp_path / "model", tmp_path / "chosen", "--threshold", "sensitivity=0.9", "--tasks", "LowEF")
    rows = rows_of(tmp_path / "chosen", "study")
    low = rows[(rows["split"] == "val") & (rows["truth"] == "yes")]["probability"]
    (threshold,) = targets_of(tmp_path / "chosen")["LowEF"]["thresholds"]
    assert (low >= threshold).mean() >= 0.9
    table = pd.read_csv(graded)
    table.assign(split="test").to_csv(tmp_path / "tested.csv", index=False)
    predict(tmp_path / "tested.csv", tmp_path / "model", tmp_path / "none", "--tasks", "LowEF")
    found = targets_of(tmp_path / "none")["LowEF"]
    assert found["thresholds"] == []
    assert found["metrics"]["sensitivity"]["value"] is None
    assert found["metrics"]["auroc"]["value"] is not None


@pytest.mark.parametrize("thresholds", [{"LowEF": 2.0}, {"LowEF": "high"}, [0.5]])
def test_thresholds_that_can_not_be_are_refused(thresholds: object, graded: Path, tuned: Path, tmp_path: Path) -> None:
    content = torch.load(tuned / "model.pt", weights_only=True)
    content["panecho_embed"]["thresholds"] = thresholds
    torch.save(content, tmp_path / "model.pt")
    words = ["predict", graded, "-o", tmp_path / "out", "--weights", tmp_path / "model.pt"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "its decision thresholds are" in result.output
    assert "numbers from 0 to 1 are needed" in result.output


@pytest.mark.parametrize("split", [None, "test"])
def test_the_model_s_record_and_not_the_split_column_says_who_was_in_training(
    split: str | None, graded: Path, tuned: Path, predicted: tuple[str, Path], tmp_path: Path
) -> None:
    table = pd.read_csv(graded)
    told = table.drop(columns="split") if split is None else table.assign(split=split)
    told.to_csv(tmp_path / "told.csv", index=False)
    said = predict(tmp_path / "told.csv", tuned, tmp_path / "out")
    assert "12 were in the training of this model" in said
    assert rows_of(tmp_path / "out")["split"].tolist() == rows_of(predicted[1])["split"].tolist()
    mine, theirs = targets_of(tmp_path / "out")["EF"], targets_of(predicted[1])["EF"]
    assert mine["splits"] == theirs["splits"]
    model = json.loads((tmp_path / "out" / "predictions.json").read_text())["model"]
    # Fine-tuned from random weights: neither PanEcho nor pretrained.
    assert (model["fine_tuned"], model["trained_from"], model["pretrained"]) == (True, "random", False)
    assert model["name"] == "a model fine-tuned in the architecture of panecho (model.pt)"
    page = (tmp_path / "out" / "report.html").read_text()
    assert model["name"] in page
    assert "PanEcho, model.pt" not in page
    about = model["training_patients"]
    counts = {"training": 12, "validation": 8, "neither": 8}
    assert about == {"recorded": True, "comparable": True, **counts, "started_from_unrecorded": None}


def test_where_nothing_is_recorded_the_output_says_so_and_calls_all_of_them_all(
    graded: Path, tuned: Path, tmp_path: Path
) -> None:
    content = torch.load(tuned / "model.pt", weights_only=True)
    del content["panecho_embed"]["patients"]
    torch.save(content, tmp_path / "model.pt")
    (tmp_path / "tasks.csv").write_bytes((tuned / "tasks.csv").read_bytes())
    pd.read_csv(graded).drop(columns="split").to_csv(tmp_path / "new.csv", index=False)
    said = predict(tmp_path / "new.csv", tmp_path, tmp_path / "out")
    assert "Which patients these weights were trained on is not recorded" in said
    assert "EF, %, all  " in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Studies: all." in page
    assert "trained on is not recorded" in page


def test_hashed_ids_that_the_model_does_not_know_are_not_called_new_patients(
    graded: Path, tuned: Path, tmp_path: Path
) -> None:
    """The ids of DICOM are hashes under a key: under another one the same patients have other ids."""
    table = pd.read_csv(graded)
    table.assign(patient_id=[hashed_id("patient", str(i), "x" * 16) for i in range(len(table))]).to_csv(
        tmp_path / "new.csv", index=False
    )
    said = predict(tmp_path / "new.csv", tuned, tmp_path / "out")
    assert "It can't be told who of these patients was in the training of this model" in said
    assert "their ids are hashes, and those in training were plain" in said
    assert "not in training" not in said
    assert list(targets_of(tmp_path / "out")["EF"]["splits"]) == ["test", "val", "train"]


def test_a_model_made_from_another_knows_the_patients_of_both(graded: Path, tuned: Path, tmp_path: Path) -> None:
    table = pd.read_csv(graded)
    table.assign(patient_id="new-" + table["patient_id"]).to_csv(tmp_path / "second.csv", index=False)
    settings = {"data.targets": "EF", "evaluation.level": "study"}
    words = ["--init", "panecho", "--weights", tuned / "model.pt", "--data", tmp_path / "second.csv"]
    finetune("custom", *words, "-o", tmp_path / "run", **settings)
    said = predict(graded, tmp_path / "run", tmp_path / "out")
    assert "Of 28 patients, 12 were in the training of this model, 8 in its validation, 8 in neither" in said
    assert "not recorded" not in said


def test_the_file_holds_no_patient_id(graded: Path, tuned: Path) -> None:
    record = torch.load(tuned / "model.pt", weights_only=True)["panecho_embed"]["patients"]
    (training,) = record["trainings"]
    assert (len(training["train"]), len(training["val"])) == (12, 8)
    assert not set(pd.read_csv(graded)["patient_id"]) & {*training["train"], *training["val"]}


@pytest.mark.parametrize("record", [{"trainings": [{"key": "x"}], "before": ""}, [1], {"before": ""}])
def test_a_record_that_can_not_be_is_refused(record: object, graded: Path, tuned: Path, tmp_path: Path) -> None:
    content = torch.load(tuned / "model.pt", weights_only=True)
    content["panecho_embed"]["patients"] = record
    torch.save(content, tmp_path / "model.pt")
    words = ["predict", graded, "-o", tmp_path / "out", "--weights", tmp_path / "model.pt"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "what it records as its training patients can't be read" in result.output
