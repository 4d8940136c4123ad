from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from panecho_embed.core.errors import StoreError
from panecho_embed.core.outputs import temporary_path
from panecho_embed.core.tasks import all_tasks, read_tasks
from panecho_embed.models.panecho import PanEcho
from panecho_embed.models.zoo import panecho_with_heads
from panecho_embed.prediction.averages import average, outputs_of, reported
from panecho_embed.prediction.files import check_folder
from panecho_embed.prediction.pages import shown_class, shown_number, shown_percent, shown_sd
from panecho_embed.prediction.run import read_heads
from panecho_embed.store import EmbeddingFile
from tests.conftest import refs

TASK = {task.name: task for task in all_tasks()}


def test_every_number_has_a_name_of_its_own():
    columns = [output.column for output in outputs_of(all_tasks())]
    assert len(set(columns)) == len(columns) == sum(task.num_outputs for task in all_tasks())


def test_heads_are_read_with_sign_and_positive_class():
    tasks = ["GLS", "MVStenosis", "LVWallMotionAbnormalities"]
    model = PanEcho(pretrained=False, tasks=tasks)
    for name, bias in zip(tasks, (20.0, 50.0, 50.0), strict=True):
        torch.nn.init.constant_(model.heads[name][1].bias, bias)
    raw = read_heads(model, np.zeros((2, 768), dtype=np.float16))
    assert raw.dtype == np.float32
    assert raw.tolist() == [[20, 50, 50]] * 2
    values = reported(raw, model.tasks)
    assert values.dtype == np.float32
    assert values[0] == pytest.approx([-20, 0, 1])


def test_raw_outputs_are_raw_whatever_the_model_gives_when_called():
    model = PanEcho(pretrained=False, tasks=["EF", "AVStenosis", "MVStenosis"], activations=True)
    embeddings = np.random.default_rng(0).normal(size=(3, 768)).astype(np.float32)
    with_activations = read_heads(model, embeddings)
    model.activations = False
    np.testing.assert_array_equal(read_heads(model, embeddings), with_activations)
    assert with_activations[:, 1:].min() < 0


def test_no_clips_give_no_rows():
    model = PanEcho(pretrained=False, tasks=["AVStenosis"])
    raw = read_heads(model, np.zeros((0, 768), dtype=np.float32))
    assert raw.shape == reported(raw, model.tasks).shape == (0, 3)


def test_a_folder_with_what_a_killed_run_left_is_written_into(tmp_path):
    temporary_path(tmp_path / "new").mkdir()
    check_folder(tmp_path, False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(StoreError, match="is there already and holds no predictions"):
        check_folder(tmp_path, False)


def test_json_says_what_the_tables_say(predicted):
    content = json.loads((predicted.out / "predictions.json").read_text())
    assert (content["format"], content["schema_version"]) == ("panecho-embed predictions", 1)
    assert content["model"]["licence"] == "CC BY-NC-SA 4.0"
    studies = pd.read_csv(predicted.out / "studies.csv", index_col="study_id")
    videos = pd.read_csv(predicted.out / "videos.csv", index_col="video_id")
    for study in content["studies"]:
        assert (predicted.out / study["sheet"]).is_file()
        for record in study["predictions"]:
            column = f"{record['task']}:{record['class']}" if record["class"] else record["task"]
            row = studies.loc[study["study_id"]]
            assert record["value"] == pytest.approx(row[column], rel=1e-6)
            for spread in ("sd_videos", "min_videos", "max_videos", "sd_clips"):
                table = row[f"{column}_{spread}"]
                assert record[spread] == (None if np.isnan(table) else pytest.approx(table, rel=1e-6))
        for video in study["videos"]:
            record = next(one for one in video["predictions"] if one["task"] == "EF")
            assert record["value"] == pytest.approx(videos.loc[video["video_id"], "EF"], rel=1e-6)
            assert record["unit"] == "%"


def test_one_video_has_no_spread_over_videos(predicted):
    studies = pd.read_csv(predicted.out / "studies.csv", index_col="study_id")
    assert np.isnan(studies.loc["S1", "EF_sd_videos"])
    assert studies.loc["S1", "EF_sd_clips"] > 0
    assert studies.loc["S2", "EF_min_videos"] < studies.loc["S2", "EF"] < studies.loc["S2", "EF_max_videos"]
    assert (studies.loc["S2", "views"], studies.loc["S2", "videos"], studies.loc["S2", "clips"]) == ("A4C;PLAX", 2, 5)


def test_the_tasks_stand_beside_the_tables(predicted):
    assert read_tasks(predicted.out / "tasks.csv") == all_tasks()


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("Mild|Moderate", "Mild or moderate"),
        ("mild_mod_severe", "Mild, mod or severe"),
        ("Normal", "Normal"),
        ("1.0", "Yes"),
        ("AF", "AF"),
    ],
)
def test_classes_are_shown_as_people_read_them(label, shown):
    assert shown_class(label) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(58.27, "58.3"), (115.2, "115"), (1.068, "1.07"), (-18.56, "\u221218.6"), (99.97, "100")]
)
def test_values_have_three_digits(value, shown):
    assert shown_number(value) == shown


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.724, "72"), (0.0004, "< 0.1"), (0.004, "0.4"), (0.995, "99.5"), (0.99999, "> 99.9"), (1, "100.0")],
)
def test_probabilities_never_round_to_certainty(p, shown):
    assert shown_percent(p) == shown


def test_a_spread_has_the_decimals_of_its_value():
    ef, stenosis = outputs_of([TASK["EF"], TASK["AVStenosis"]])[:2]
    assert (shown_sd(58.3, 4.6012, ef), shown_sd(115, 4.6, ef), shown_sd(0.5, float("nan"), ef)) == ("4.6", "5", "")
    assert (shown_sd(0.5, 0.034, stenosis), shown_sd(0.5, 0.0034, stenosis)) == ("3", "0.3")


def test_a_random_head_is_the_same_whichever_tasks_are_asked_for():
    every = panecho_with_heads("random", None, 3, "all", None)[1].heads
    some = panecho_with_heads("random", None, 3, ["AVStenosis", "EF"], None)[1].heads
    other = panecho_with_heads("random", None, 4, ["EF"], None)[1].heads
    for name in ("AVStenosis", "EF"):
        torch.testing.assert_close(some[name].state_dict(), every[name].state_dict(), rtol=0, atol=0)
    assert not torch.equal(other["EF"][1].weight, every["EF"][1].weight)


EF = [task for task in all_tasks() if task.name == "EF"]


@pytest.fixture
def predictions(make_file):
    """Study s: videos a (clips 50, 54, 58) and b (62); study t: video c (40, 44), its rows before b's."""
    path = make_file("e.h5", refs("p/s/a", "q/t/c", "p/s/b"), rows=[3, 2, 1])
    table = EmbeddingFile(path).table()
    return average(EF, dataclasses.replace(table, values=np.array([[50.0], [54], [58], [40], [44], [62]])))


def test_a_video_counts_once_however_many_clips_it_has(predictions):
    assert predictions.videos.values[:, 0].tolist() == [54, 42, 62]
    assert predictions.studies.values[:, 0].tolist() == [58, 42]
    assert predictions.studies.study_id.tolist() == ["s", "t"]
    assert [videos.tolist() for videos in predictions.videos_of] == [[0, 2], [1]]


def test_spread_over_the_clips_of_a_video(predictions):
    spread = predictions.over_clips
    assert spread.count.tolist() == [3, 2, 1]
    assert spread.sd[:, 0] == pytest.approx([4, math.sqrt(8), math.nan], nan_ok=True)
    assert spread.low[:, 0] == pytest.approx([50, 40, math.nan], nan_ok=True)
    assert spread.high[:, 0] == pytest.approx([58, 44, math.nan], nan_ok=True)


def test_spread_over_the_videos_of_a_study(predictions):
    spread = predictions.over_videos
    assert spread.count.tolist() == [2, 1]
    assert spread.sd[:, 0] == pytest.approx([math.sqrt(32), math.nan], nan_ok=True)
    assert (spread.low[0, 0], spread.high[0, 0]) == (54, 62)


def test_spread_of_a_study_s_clips_around_their_videos(predictions):
    assert predictions.within_videos[:, 0] == pytest.approx([4, math.sqrt(8)])


def test_nothing_gives_nothing(make_file):
    table = EmbeddingFile(make_file("none.h5", refs("a"), rows=[0])).table()
    empty = average(EF, dataclasses.replace(table, values=np.zeros((0, 1))))
    assert (len(empty.videos), len(empty.studies), empty.videos_of) == (0, 0, ())
