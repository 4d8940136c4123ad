"""`predict` as a function and as a command: what it refuses, goes on with, and tells."""

from __future__ import annotations

import json
import math

import fsspec
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed import extract, pool, predict
from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError, TaskTableError, WeightsError
from panecho_embed.core.tasks import Task, write_tasks
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.store import EmbeddingFile
from tests.prediction.conftest import SIZE

QUICK = ["--image-size", SIZE, "--workers", 0, "--no-sheets"]


def run(*words, expect=0):
    result = CliRunner().invoke(main, [str(word) for word in ("predict", *words)])
    assert result.exit_code == expect, result.output
    return result


@pytest.fixture(scope="module")
def embeddings(predicted):
    return predicted.out / "embeddings.h5"


def test_the_same_again_goes_on_from_the_embeddings(videos, weights, predicted, embeddings):
    before = embeddings.stat().st_mtime_ns
    again = predict(videos, predicted.out, weights=weights, image_size=SIZE, workers=0)
    assert embeddings.stat().st_mtime_ns == before
    assert (again.predictions.studies.values == predicted.predictions.studies.values).all()


def test_other_settings_are_refused_by_name(videos, weights, predicted):
    with pytest.raises(SettingsMismatchError, match=r"feeding\.crop: 64, not 32"):
        predict(videos, predicted.out, weights=weights, image_size=64, workers=0)


@pytest.mark.parametrize("flag", ["--order", "--positive"])
def test_a_flag_of_no_task_is_refused_before_anything_is_read(videos, weights, tmp_path, flag):
    said = run(videos, "-o", tmp_path / "out", "--weights", weights, *QUICK, flag, "AVStenosys=mild,severe", expect=2)
    assert f"'AVStenosys' in {flag} is no target of this run" in said.output
    assert not (tmp_path / "out").exists()


def test_failures_are_listed_and_the_exit_code_is_3(videos, weights, tmp_path):
    (tmp_path / "bad.avi").write_text("no video")
    (tmp_path / "good.avi").write_bytes((videos.parent / "a" / "only.avi").read_bytes())
    (tmp_path / "t.csv").write_text("path,study_id\ngood.avi,S\nbad.avi,S\n")
    words = [tmp_path / "t.csv", "-o", tmp_path / "out", "--weights", weights, "--tasks", "EF", *QUICK[:-1]]
    result = run(*words, expect=3)
    assert "1 failed:\n  bad.avi: this is text" in result.stdout
    assert "1 task of 1 study, 1 video, 4 clips" in result.stdout
    assert "bad.avi" in (tmp_path / "out" / "studies" / "S.html").read_text()
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["failures"][0]["video_id"] == "bad.avi"
    from_embeddings = run(tmp_path / "out" / "embeddings.h5", "-o", tmp_path / "b", "--weights", weights, expect=3)
    assert "bad.avi: this is text" in from_embeddings.stdout


@pytest.fixture
def memory(videos):
    """The videos once more, at memory://echos."""
    system = fsspec.filesystem("memory")
    for path in videos.parent.glob("*/*.avi"):
        system.pipe(f"/echos/{path.parent.name}/{path.name}", path.read_bytes())
    yield system
    system.store.clear()


def test_videos_and_embeddings_at_urls_are_predicted_as_those_of_a_disk(
    memory, weights, predicted, embeddings, tmp_path, monkeypatch
):
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "cache"))
    words = ["--weights", weights, "--tasks", "EF"]
    run("memory://echos", "-o", tmp_path / "videos", *words, *QUICK[:-1])
    expected = {row["video_id"] + ".avi": row["EF"] for _, row in pd.read_csv(predicted.out / "videos.csv").iterrows()}
    found = pd.read_csv(tmp_path / "videos" / "videos.csv").set_index("video_id")["EF"].to_dict()
    assert found == pytest.approx(expected, abs=1e-4)
    assert "data:image" in next((tmp_path / "videos" / "studies").iterdir()).read_text()
    memory.pipe("/echos/file.h5", embeddings.read_bytes())
    run("memory://echos/file.h5", "-o", tmp_path / "again", *words, "--no-sheets")
    assert (tmp_path / "again" / "videos.csv").is_file()


def test_predictions_are_not_written_to_a_url(videos, weights):
    assert "only `extract` writes to one" in run(videos, "-o", "memory://x/out", expect=2).stderr
    with pytest.raises(ArgumentError, match="to a folder of this machine"):
        predict(videos, "memory://x/out", weights=weights)


def test_nothing_readable_gives_empty_tables_and_exit_code_3(weights, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.avi").write_text("no video")
    run(tmp_path / "in", "-o", tmp_path / "out", "--weights", weights, *QUICK[:-1], expect=3)
    assert len(pd.read_csv(tmp_path / "out" / "studies.csv")) == 0
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["studies"] == []


def test_random_weights_are_taken_only_when_asked_for_and_said_everywhere(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS_URL", "http://127.0.0.1:9")
    refused = run(videos, "-o", tmp_path / "out", *QUICK, expect=1)
    assert "--backbone random" in refused.stderr
    assert not (tmp_path / "out").exists()
    words = [videos, "-o", tmp_path / "out", *QUICK[:-1], "--backbone", "random", "--seed", 3, "--tasks", "EF"]
    result = run(*words)
    assert "RANDOM WEIGHTS, NOT PRETRAINED" in result.stderr
    assert "RANDOM WEIGHTS, NOT PRETRAINED" in result.stdout
    for name in ("predictions.json", "metrics.json", "report.html", "studies/S1.html", "studies/S2.html"):
        assert "RANDOM WEIGHTS, NOT PRETRAINED" in (tmp_path / "out" / name).read_text(), name


def test_random_embeddings_are_read_by_random_heads_of_the_same_seed(videos, tmp_path):
    extract(videos, tmp_path / "r.h5", backbone="random", seed=3, image_size=SIZE, workers=0)
    assert predict(tmp_path / "r.h5", tmp_path / "out", backbone="random", seed=3, sheets=False).random_weights
    with pytest.raises(SettingsMismatchError, match=r"random \(seed 3\).*not random \(seed 0\).*--seed"):
        predict(tmp_path / "r.h5", tmp_path / "out2", backbone="random", sheets=False)
    with pytest.raises(
        SettingsMismatchError, match=r"was made by random .*heads are those of panecho.*--backbone random"
    ):
        predict(tmp_path / "r.h5", tmp_path / "out3")


def test_embeddings_of_other_weights_are_refused(embeddings, tmp_path):
    save_checkpoint(PanEcho(pretrained=False, tasks=["EF"]), tmp_path / "other.pt")
    with pytest.raises(SettingsMismatchError, match=r"weights panecho\.pt \(sha256 \w+\), not other\.pt.*--weights"):
        predict(embeddings, tmp_path / "out", weights=tmp_path / "other.pt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", ["video", "study"])
def test_pooled_embeddings_are_refused(by, embeddings, weights, tmp_path):
    pool(embeddings, by, tmp_path / "p.h5")
    with pytest.raises(ArgumentError, match=rf"holds {by} rows; heads read clips"):
        predict(tmp_path / "p.h5", tmp_path / "out", weights=weights)


def test_what_is_about_videos_is_refused_for_embeddings(embeddings, weights, tmp_path):
    words = [embeddings, "-o", tmp_path / "out", "--weights", weights]
    assert "workers is about reading videos" in run(*words, "--workers", 2, expect=2).stderr
    assert "holds clips, made already" in run(*words, "--clips", 8, expect=2).stderr


def test_an_embedding_file_without_rows_is_refused(make_file, provenance, weights, tmp_path):
    from tests.conftest import refs

    path = make_file("none.h5", refs("a", "b"), rows=[0, 0])
    with pytest.raises(ArgumentError, match="no rows; none of its 2 videos is done"):
        predict(path, tmp_path / "out", backbone="random")


def test_a_damaged_embedding_file_is_no_video(tmp_path, embeddings, weights):
    for content in (embeddings.read_bytes()[:500], b"text"):
        (tmp_path / "cut.h5").write_bytes(content)
        with pytest.raises(StoreError, match=r"cut\.h5 is damaged"):
            predict(tmp_path / "cut.h5", tmp_path / "out", weights=weights)


def test_an_unknown_task_is_told_with_the_nearest(embeddings, weights, tmp_path):
    result = run(embeddings, "-o", tmp_path / "out", "--weights", weights, "--tasks", "EF,AVStenosiss", expect=2)
    assert "unknown tasks: 'AVStenosiss'; nearest: AVStenosis" in result.stderr


def test_weights_without_heads_are_refused(embeddings, tmp_path):
    save_checkpoint(PanEcho(pretrained=False, backbone_only=True), tmp_path / "bare.pt")
    with pytest.raises(WeightsError, match="has no heads, only a backbone"):
        predict(embeddings, tmp_path / "out", weights=tmp_path / "bare.pt")


def test_other_backbones_have_no_heads(videos, tmp_path):
    with pytest.raises(ArgumentError, match=r"imagenet has no reporting heads; allowed are panecho and random"):
        predict(videos, tmp_path / "out", backbone="imagenet")


def test_a_folder_of_something_else_is_left_alone(embeddings, weights, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="is there already and holds no predictions"):
        predict(embeddings, tmp_path, weights=weights)
    with pytest.raises(StoreError, match="is a file; name a folder"):
        predict(embeddings, tmp_path / "thesis.txt", weights=weights)
    predict(embeddings, tmp_path, weights=weights, tasks=["EF"], sheets=False, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(StoreError, match="holds a finished prediction already"):
        predict(embeddings, tmp_path, weights=weights, tasks=["EF"], sheets=False)


def test_heads_of_one_s_own_tasks(videos, tmp_path):
    tasks = (
        Task("Amyloid", "binary", 1, ("yes", "no"), 0, "", math.nan, "cardiac amyloidosis"),
        Task("Rhythm", "multiclass", 4, ("sinus", "AF", "paced", "other"), None, "", math.nan, ""),
        Task("LVMass", "regression", 1, (), None, "g", math.nan, "LV mass"),
    )
    save_checkpoint(PanEcho(pretrained=False, task_table=tasks), tmp_path / "model.pt")
    words = [videos, "-o", tmp_path / "out", "--weights", tmp_path / "model.pt", *QUICK[:-1]]
    refused = run(*words, expect=1).stderr
    assert "+ Rhythm_head.1.weight (4, 768)" in refused
    assert "--task-table" in refused
    write_tasks(tasks, tmp_path / "mine.csv")
    run(*words, "--task-table", tmp_path / "mine.csv")
    columns = set(pd.read_csv(tmp_path / "out" / "studies.csv"))
    assert {"Amyloid:yes", "Rhythm:sinus", "Rhythm:other", "LVMass"} <= columns
    text = (tmp_path / "out" / "studies" / "S2.html").read_text()
    assert "Cardiac amyloidosis" in text
    assert "Rhythm" in text


def test_a_bad_task_table_stops_before_anything_is_written(videos, weights, tmp_path):
    (tmp_path / "t.csv").write_text("name,type\nEF,regresion\n")
    with pytest.raises(TaskTableError, match="nearest: regression"):
        predict(videos, tmp_path / "out", weights=weights, task_table=tmp_path / "t.csv")
    assert not (tmp_path / "out").exists()


def test_clip_flags_reach_the_plan(videos, weights, tmp_path):
    words = [videos, "-o", tmp_path / "out", "--weights", weights, "--tasks", "EF", *QUICK]
    run(*words, "--frames-per-clip", 4, "--stride", 5)
    plan = EmbeddingFile(tmp_path / "out" / "embeddings.h5").provenance.clips
    assert (plan.frames_per_clip, plan.stride, plan.num_clips) == (4, 5, None)
    assert len(pd.read_csv(tmp_path / "out" / "clips.csv")) == 8 + 2 + 4
