"""A file that hangs, crashes or is no video costs its own picture."""

from __future__ import annotations

import math
from pathlib import Path

from panecho_embed.core.feeding import Feeding
from panecho_embed.prediction import films as module
from panecho_embed.prediction.films import Film, Shown, picture_of, pictures
from tests.prediction import films as stubs


def films(*paths):
    return [Film(str(path), str(path), 20, math.nan, Feeding(), Path("none.h5")) for path in paths]


def test_a_file_that_hangs_or_crashes_costs_its_own_picture(monkeypatch):
    monkeypatch.setattr(module, "picture_of", stubs.picture_of)
    with pictures(films("a", "sleep", "b", "die", "c"), 2, 2.0) as made:
        found = list(made)
    assert [shown.moving for shown in found] == ["a", "", "b", "", "c"]
    assert found[1].missing == "its picture took longer than 2 s"
    assert "died" in found[3].missing


def test_processes_and_none_give_the_same_pictures(videos):
    paths = sorted(videos.parent.glob("*/*.avi"))
    with pictures(films(*paths), 0, 60.0) as here, pictures(films(*paths), 1, 60.0) as there:
        assert list(here) == list(there)


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "text.avi").write_text("no video")
    (text, gone) = (picture_of(film) for film in films(tmp_path / "text.avi", tmp_path / "gone.avi"))
    assert "text" in text.missing
    assert gone.missing


def test_any_other_error_is_told_in_place_of_the_picture(monkeypatch):
    def fail(*_args, **_more):
        raise MemoryError("too large")

    monkeypatch.setattr(module, "open_cine", fail)
    assert picture_of(films("x")[0]) == Shown(missing="MemoryError: too large")
