"""What is wrong with the input is said in words, with the value, the place and the way out."""

from __future__ import annotations

import csv
import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.finetuning.data import read_dataset
from panecho_embed.finetuning.recipe_files import load_recipe
from tests.finetuning.conftest import NARROW, finetune

pytestmark = pytest.mark.usefixtures("without_report")

RANDOM = {"model.width": NARROW, "schedule.epochs": 1}


@pytest.fixture
def copy(dynamic, tmp_path):
    """The phantoms once more, to be spoiled."""
    shutil.copytree(dynamic, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def spoil(table, tmp_path):
    """spoil(change) -> a table whose frame `change` has changed."""

    def write(change):
        frame = pd.read_csv(table, dtype=str, keep_default_na=False)
        changed = change(frame)
        (frame if changed is None else changed).to_csv(tmp_path / "spoiled.csv", index=False)
        return tmp_path / "spoiled.csv"

    return write


def refused(recipe, data, tmp_path, *words, expect=1, init="random", **settings):
    """The message, and that nothing was written."""
    chosen = ({"model.width": NARROW} if init == "random" else {}) | settings
    result = finetune(recipe, "--init", init, "--data", data, "-o", tmp_path / "run", *words, expect=expect, **chosen)
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()
    return result.stderr


def test_rows_and_files_that_do_not_match_are_counted_and_listed(copy, tmp_path):
    frame = pd.read_csv(copy / "FileList.csv")
    lost, spare = (frame.loc[frame["Split"] == "TRAIN", "FileName"].iloc[i] for i in (0, 1))
    (copy / "Videos" / f"{lost}.avi").unlink()
    frame[frame["FileName"] != spare].to_csv(copy / "FileList.csv", index=False)
    out = tmp_path / "lenient"
    result = finetune("echonet-dynamic", "--init", "random", "--data", copy, "-o", out, expect=3, **RANDOM)
    assert f"1 table row without a file, to be listed as failed: {lost}.avi" in result.stderr
    assert f"1 file skipped, without a row in the table: {spare}.avi" in result.stderr
    assert f"{lost}: the table names it, and there is no such file" in result.stdout
    with (out / "failures.csv").open() as file:
        assert [row["video_id"] for row in csv.DictReader(file)] == [lost]
    told = refused("echonet-dynamic", copy, tmp_path, "--strict")
    assert f"to be listed as failed: {lost}.avi" in told
    assert "(--strict)" in told


def test_a_file_without_a_row_alone_stops_strict_too(copy, tmp_path):
    frame = pd.read_csv(copy / "FileList.csv")
    spare = frame.loc[frame["Split"] == "TRAIN", "FileName"].iloc[0]
    frame[frame["FileName"] != spare].to_csv(copy / "FileList.csv", index=False)
    assert f"1 file skipped, without a row in the table: {spare}.avi" in refused(
        "echonet-dynamic", copy, tmp_path, "--strict"
    )


def test_videos_that_can_not_be_decoded_are_listed_and_the_rest_is_used(copy, tmp_path):
    frame = pd.read_csv(copy / "FileList.csv")
    broken = [frame.loc[frame["Split"] == split, "FileName"].iloc[0] for split in ("TRAIN", "TEST")]
    for name in broken:
        (copy / "Videos" / f"{name}.avi").write_bytes(b"no video")
    out = tmp_path / "run"
    words = ["echonet-dynamic", "--init", "random", "--data", copy, "-o"]
    finetune(*words, out, expect=3, **RANDOM | {"schedule.epochs": 2, "optimizer.lr": 1e-12})
    failures = pd.read_csv(out / "failures.csv")
    assert sorted(failures["video_id"]) == sorted(broken)
    predicted = pd.read_csv(out / "predictions.csv")
    assert not predicted["video_id"].isin(broken).any()
    # With a rate of next to nothing, the second epoch has the loss of the first: means of the same videos, from other
    # places of each.
    losses = pd.read_csv(out / "history.csv")["train_loss"]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    told = finetune(*words, tmp_path / "strict", "--strict", expect=1, **RANDOM).stderr
    assert "can't be decoded" in told
    assert "(--strict)" in told


def test_a_split_without_labels_is_named(spoil, tmp_path):
    def change(frame):
        frame.loc[frame["split"] == "val", "LVEDV"] = ""

    told = refused("custom", spoil(change), tmp_path, **{"data.targets": "EF,LVEDV"})
    assert "LVEDV has no label in val (6 videos)" in told
    assert "--set data.targets=" in told


def test_a_task_without_any_label_is_named(spoil, tmp_path):
    told = refused("multitask", spoil(lambda frame: frame.assign(LVEDV="")), tmp_path)
    assert "LVEDV has no value at all; leave it out" in told
    assert "--set data.targets=..." in told


def test_a_target_that_is_the_same_everywhere_is_refused(spoil, tmp_path):
    def change(frame):
        frame.loc[frame["split"] == "train", "EF"] = "55"

    told = refused("custom", spoil(change), tmp_path)
    assert "EF is 55 in all 12 training videos; there is nothing to learn" in told


def test_a_class_that_is_the_same_everywhere_is_refused(spoil, tmp_path):
    def change(frame):
        frame.loc[frame["split"] == "train", "pericardial-effusion"] = "none_trace"

    told = refused("custom", spoil(change), tmp_path, **{"data.targets": "pericardial-effusion"})
    assert "pericardial-effusion is none_trace in all 12 training videos" in told


def test_a_split_that_is_none_is_refused(spoil, tmp_path):
    told = refused("custom", spoil(lambda frame: frame.assign(split="trian")), tmp_path)
    assert "its split is 'trian'; allowed in the column split are train, val and test" in told
    told = refused("custom", spoil(lambda frame: frame.assign(split="3")), tmp_path)
    assert "numbers are folds: --set data.folds=K" in told


def test_a_split_without_videos_is_refused(spoil, tmp_path):
    told = refused("custom", spoil(lambda frame: frame[frame["split"] != "test"]), tmp_path)
    assert "no video with a label is in test (train 12, val 6, test 0)" in told


def test_a_patient_in_two_splits_stops_unless_insisted(spoil, tmp_path):
    def change(frame):
        frame.loc[frame.index[-2:], "patient_id"] = frame["patient_id"].iloc[0]

    data = spoil(change)
    told = refused("custom", data, tmp_path)
    assert "1 patients stand in more than one of training, validation and test: " in told
    assert "(test, train) (--allow-leakage to go on)" in told
    finetune("custom", "--init", "random", "--data", data, "-o", tmp_path / "run", "--allow-leakage", **RANDOM)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("EFF", "no label column 'EFF'; nearest: EF"),
        ("training", "a target can't be called 'training': torch uses the name itself"),
        ("study", "no label column 'study'"),
    ],
)
def test_a_target_that_can_not_be_is_refused(targets, told, spoil, tmp_path):
    data = spoil(lambda frame: frame.assign(training=range(len(frame))))
    assert told in refused("custom", data, tmp_path, **{"data.targets": targets})


def test_labels_that_are_no_class_are_listed(spoil, tmp_path):
    def change(frame):
        frame.loc[3, "pericardial-effusion"] = "none_trce"

    told = refused("multitask", spoil(change), tmp_path)
    assert "pericardial-effusion: its labels 'none_trce' are no classes of the task" in told
    assert "the classes are mild_mod_severe, none_trace" in told


@pytest.mark.parametrize("init", ["panecho", "imagenet", "echoclip", "kinetics", "echoprime"])
def test_a_start_whose_weights_are_lost_stops(init, dynamic, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(tmp_path / "empty"))
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    told = refused("echonet-dynamic", dynamic, tmp_path, init=init)
    assert f"the weights of {init} (" in told
    assert "Looked in:" in told
    assert "--weights FILE" in told
    assert "--init random" in told


@pytest.mark.parametrize(
    ("init", "settings", "told"),
    [
        ("imagenet", {"model.width": 0.5}, "model.width is 0.5; it is for random weights"),
        ("own-clips", {"model.temporal": "none"}, "own-clips sees clips as a whole"),
        ("own-clips", {}, "clips.frames is 2; own-clips takes 4 (--set clips.frames=4)"),
        ("own-clips", {"clips.frames": 4, "model.image_size": 64}, "that is 64 pixels a side; own-clips takes 32 only"),
        ("own-clips", {"clips.frames": 4, "model.trainable": "temporal"}, "own-clips has no transformer over pictures"),
        ("own-frames", {"model.trainable": "last-99"}, "model.trainable is last-99; the start has "),
        ("own-frame", {}, "no backbone is called 'own-frame'; nearest: own-frames"),
    ],
)
def test_settings_that_a_start_can_not_take_are_refused(init, settings, told, dynamic, starts, tmp_path):
    assert told in refused("echonet-dynamic", dynamic, tmp_path, init=init, expect=2, **settings)


def test_a_loss_that_is_no_number_stops_with_the_batch(dynamic, tmp_path):
    out = tmp_path / "run"
    settings = {"model.width": NARROW, "optimizer.lr": 1e30, "optimizer.batch_size": 4}
    told = finetune("echonet-dynamic", "--init", "random", "--data", dynamic, "-o", out, expect=1, **settings).stderr
    assert "the loss is nan in epoch 1, step 2" in told or "the loss is inf in epoch 1, step 2" in told
    listed = told.partition("The videos of the batch: ")[2].strip().split(", ")
    frame = pd.read_csv(dynamic / "FileList.csv")
    assert len(listed) == 4
    assert set(listed) < set(frame.loc[frame["Split"] == "TRAIN", "FileName"])
    assert not list(out.rglob("best.pt"))
    assert not (out / "model.pt").exists()
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "failed"
    assert listed[0] in info["message"]


def test_a_validation_loss_that_is_no_number_is_never_the_best(dynamic, tmp_path):
    out = tmp_path / "run"
    settings = {"model.width": NARROW, "optimizer.lr": 1e30, "optimizer.batch_size": 100}
    told = finetune("echonet-dynamic", "--init", "random", "--data", dynamic, "-o", out, expect=1, **settings).stderr
    assert "the validation loss is nan after epoch 1; 2 of 2 validation videos could be decoded" in told
    assert not list(out.rglob("*.pt"))


def test_validation_videos_that_can_not_be_decoded_give_no_loss_of_0(copy, tmp_path):
    frame = pd.read_csv(copy / "FileList.csv")
    for name in frame.loc[frame["Split"] == "VAL", "FileName"]:
        (copy / "Videos" / f"{name}.avi").write_bytes(b"no video")
    out = tmp_path / "run"
    told = finetune("echonet-dynamic", "--init", "random", "--data", copy, "-o", out, expect=1, **RANDOM).stderr
    assert "the validation loss is nan after epoch 1; 0 of 2 validation videos could be decoded" in told


def test_a_loss_that_does_not_fit_the_labels_is_refused(spoil, tmp_path):
    def change(frame):
        frame["Shift"] = [1.5 * (-1) ** i for i in range(len(frame))]

    told = refused("custom", spoil(change), tmp_path, expect=2, **{"data.targets": "Shift", "loss.scale": "mean"})
    assert "a loss divided by such a mean explodes (--set loss.scale=variance)" in told


def test_a_score_that_is_not_defined_is_told_with_the_way_out(spoil, tmp_path):
    def change(frame):
        frame.loc[frame["split"] == "val", "pericardial-effusion"] = "none_trace"

    settings = {"data.targets": "pericardial-effusion", "early_stopping.monitor": "score"}
    out = tmp_path / "run"
    told = finetune("custom", "--init", "random", "--data", spoil(change), "-o", out, expect=1, **RANDOM | settings)
    assert "the validation score is nan after epoch 1" in told.stderr
    assert "(--set early_stopping.monitor=loss)" in told.stderr


def test_notes_say_what_is_left_out(spoil, tmp_path):
    def change(frame):
        frame.loc[frame.index[:2], "EF"] = ""

    out = tmp_path / "run"
    told = finetune("custom", "--init", "random", "--data", spoil(change), "-o", out, **RANDOM).stderr
    assert "note: 2 videos have no label and are left out" in told
    assert np.isfinite(pd.read_csv(out / "history.csv")["val_loss"]).all()


def test_videos_behind_urls_are_there(spoil):
    data = spoil(lambda frame: frame.assign(path=[f"s3://bucket/{i}.avi" for i in range(len(frame))]))
    dataset = read_dataset(data, load_recipe("custom", ["data.targets=EF"]).data)
    assert (len(dataset.videos), dataset.failures) == (24, ())


def test_a_data_set_at_a_url_is_to_be_copied_first(tmp_path):
    told = refused("custom", "s3://bucket/echos.csv", tmp_path, **{"data.targets": "EF"})
    assert "s3://bucket/echos.csv is a URL; every epoch reads the data set, so copy it to this machine (--data)" in told


def test_a_score_that_one_validation_video_can_not_have_is_called_undefined(copy, tmp_path):
    frame = pd.read_csv(copy / "FileList.csv")
    validating = frame.index[frame["Split"] == "VAL"]
    frame.loc[validating[1:], "Split"] = "TRAIN"
    frame.to_csv(copy / "FileList.csv", index=False)
    told = finetune("echonet-dynamic", "--init", "random", "--data", copy, "-o", tmp_path / "run", **RANDOM).stderr
    assert ", score undefined (best so far)" in told


@pytest.mark.parametrize("package", ["accelerate", "tensorboardX"])
@pytest.mark.parametrize(("command", "start"), [("finetune", "--init"), ("grid", "--inits")])
def test_without_the_extra_its_name_is_said_before_anything_is_done(monkeypatch, tmp_path, package, command, start):
    for name in [name for name in sys.modules if name.startswith("panecho_embed.finetuning.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "data").mkdir()
    # An input without any video would be refused first.
    (tmp_path / "data" / "a.avi").touch()
    given = ["custom", start, "random", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [command, *given])
    assert result.exit_code == 2, result.output
    assert f"{package} is not installed: pip install 'panecho-embed[finetune]'" in result.output
    assert not (tmp_path / "out").exists()
