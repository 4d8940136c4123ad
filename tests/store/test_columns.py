"""Columns of the recording, and columns that a later release adds: handed on by all that reads and writes files."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from panecho_embed.core.records import Failure, Manifest, Recording, VideoFacts
from panecho_embed.extraction.pooling import pool
from panecho_embed.extraction.run import extract
from panecho_embed.store import EmbeddingFile, EmbeddingWriter, merge, verify
from panecho_embed.store.layout import fact_columns
from tests.conftest import refs
from tests.tiny import tiny

GE = Recording(600, 800, 0.05, 0.051, 1.0, "GE", "Vivid E95", 62.5, "header", 0.9, (12.5, 972.25))
PHILIPS = dataclasses.replace(GE, manufacturer="Philips", heart_rate_bpm=math.nan, heart_rate_source="")


@pytest.fixture
def write(tmp_path, provenance):
    def make(name, videos, recordings, videos_more=None, rows_more=None):
        facts = fact_columns([VideoFacts("done", "ab", 40, 30.0, "test", recording=one) for one in recordings])
        count = 3 * len(videos)
        with EmbeddingWriter(tmp_path / name, provenance) as writer:
            video = np.repeat(np.arange(len(videos)), 3)
            frames = np.tile(np.arange(3), len(videos))
            values = np.arange(count * provenance.dim, dtype=float).reshape(count, -1)
            writer.add(video, values, frames, 1, 16, **(rows_more or {}))
            return writer.finish(Manifest(refs(*videos)), {**facts, **(videos_more or {})}, [])

    return make


def test_what_is_known_of_a_recording_is_read_again(write):
    file = EmbeddingFile(write("x.h5", ["a", "b"], [GE, Recording()]))
    assert verify(file.path) == []
    assert file.facts()[0].recording == GE
    assert repr(file.facts()[1].recording) == repr(Recording())
    assert file.videos.loc[0, ["manufacturer", "frame_width", "cm_per_pixel_y"]].tolist() == ["GE", 800, 0.051]


def test_a_file_without_facts_of_recordings_is_read(tmp_path, provenance):
    core = {name: column for name, column in fact_columns([VideoFacts("failed")]).items() if name != "manufacturer"}
    with EmbeddingWriter(tmp_path / "x.h5", provenance) as writer:
        writer.finish(Manifest(refs("a")), core, [Failure("a", "/data/a.avi", "open", "broken")])
    assert "manufacturer" not in EmbeddingFile(tmp_path / "x.h5").video_columns
    assert EmbeddingFile(tmp_path / "x.h5").facts()[0].recording.manufacturer == ""


LATER = {"ed_frame": np.array([3, 9], dtype=np.int16), "room": np.array(["ä", "b2"], dtype=object)}
ROWS = {"beat": np.array([0, 0, 1, 5, 5, 5], dtype=np.uint8), "phase": np.array([0.5, 0.5, 0.5, 0.1, 0.1, 0.1])}


def test_unknown_columns_survive_a_merge(write, provenance, tmp_path):
    parts = [
        write("1.h5", ["a", "b"], [GE, PHILIPS], LATER, ROWS),
        write("2.h5", ["c"], [GE], {"room": np.array(["long name"], dtype=object)}),
    ]
    file = merge(parts, Manifest(refs("c", "b", "a")), provenance, tmp_path / "out.h5")
    assert verify(file.path) == []
    assert file.video_columns["room"].tolist() == ["long name", "b2", "ä"]
    np.testing.assert_array_equal(file.video_columns["ed_frame"], [np.nan, 9, 3])
    np.testing.assert_array_equal(file.row_columns["beat"], [np.nan] * 3 + [5, 5, 5, 0, 0, 1])
    np.testing.assert_array_equal(file.row_columns["phase"], [np.nan] * 3 + [0.1] * 3 + [0.5] * 3)
    assert file.rows["video_id"].tolist() == ["c"] * 3 + ["b"] * 3 + ["a"] * 3
    assert file.facts()[0].recording == GE
    whole = merge(parts[:1], Manifest(refs("b", "a")), provenance, tmp_path / "one.h5")
    assert whole.raw_rows["beat"].dtype == np.uint8
    assert whole.video_columns["ed_frame"].dtype == np.int16


def test_unknown_columns_survive_pooling_by_video(write, tmp_path):
    source = write("x.h5", ["a", "b"], [GE, PHILIPS], LATER, ROWS)
    file = EmbeddingFile(pool(source, "video", tmp_path / "video.h5"))
    assert verify(file.path) == []
    assert file.video_columns["room"].tolist() == ["ä", "b2"]
    np.testing.assert_array_equal(file.row_columns["beat"], [np.nan, 5])
    np.testing.assert_array_equal(file.row_columns["phase"], [0.5, 0.1])
    assert file.facts() == EmbeddingFile(source).facts() or repr(file.facts()) == repr(EmbeddingFile(source).facts())


def test_of_a_study_that_is_handed_on_in_which_its_videos_agree(write, tmp_path):
    source = write("x.h5", ["p/s/a", "p/s/b"], [GE, PHILIPS], {**LATER, "room": np.array(["r", "r"], dtype=object)})
    file = EmbeddingFile(pool(source, "study", tmp_path / "study.h5"))
    assert verify(file.path) == []
    columns = {name: column.tolist() for name, column in file.video_columns.items()}
    assert columns["video_id"] == ["s"]
    assert (columns["room"], columns["scanner_model"], columns["manufacturer"]) == (["r"], ["Vivid E95"], [""])
    assert math.isnan(columns["ed_frame"][0])
    assert math.isnan(columns["heart_rate_bpm"][0])


def test_extract_writes_what_the_header_says(tmp_path):
    (tmp_path / "in").mkdir()
    source = pydicom.dcmread(get_testdata_file("examples_ybr_color.dcm"))
    source.Manufacturer, source.ManufacturerModelName, source.HeartRate = "GE\0", "Vivid E95", 64
    source.save_as(tmp_path / "in" / "a.dcm")
    file = EmbeddingFile(extract(tmp_path / "in", tmp_path / "out.h5", backbone=tiny(), workers=0).out)
    (recording,) = [fact.recording for fact in file.facts()]
    assert (recording.frame_height, recording.frame_width) == (source.Rows, source.Columns)
    assert (recording.scanner_model, recording.heart_rate_bpm) == ("Vivid E95", 64)
    assert recording.manufacturer.startswith("GE")
    assert verify(file.path) == []
