from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from panecho_embed.core.tasks import all_tasks
from panecho_embed.prediction.averages import average
from panecho_embed.store import EmbeddingFile
from tests.conftest import refs

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
