from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Region
from panecho_embed.core.tasks import Task, all_tasks
from panecho_embed.media import Cine
from panecho_embed.prediction import films as module
from panecho_embed.prediction.films import Film, Shown, _as_seen, pictures
from panecho_embed.prediction.pages import _axis, _page_names, _place, grouped
from panecho_embed.prediction.run import predict
from tests.prediction import films as stubs
from tests.prediction.conftest import SIZE

TASK = {task.name: task for task in all_tasks()}


class Balanced(HTMLParser):
    """Fails on tags that close what was not opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(text):
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert not re.search(r"(?:src|href)=\"(?!data:|studies/|#)", text)
    # The names of an SVG's vocabularies are fetched by nobody.
    text = re.sub(r'<metadata>.*?</metadata>|xmlns(:\w+)?="[^"]*"', "", text, flags=re.DOTALL)
    assert "http" not in text.replace("http-equiv", "")


def test_every_page_stands_alone_and_says_what_it_is_not_for(predicted):
    pages = [predicted.out / "report.html", *sorted((predicted.out / "studies").iterdir())]
    assert [page.name for page in pages] == ["report.html", "S1.html", "S2.html"]
    for page in pages:
        text = page.read_text()
        check_page(text)
        assert "Not a medical device" in text
        assert "CC BY-NC-SA 4.0" in text
        assert "RANDOM WEIGHTS" not in text


def test_a_sheet_shows_every_task_and_every_video(predicted):
    text = (predicted.out / "studies" / "S2.html").read_text()
    assert text.count('<div class="entry ') == 40
    assert text.count("data:image/webp") == text.count("data:image/jpeg") == 2
    assert "Every video's predictions" in text.replace("&#39;", "'")
    assert re.search(r"global longitudinal strain.*?<span class=\"number\">\u2212\d", text, re.DOTALL)


def test_one_video_says_that_its_spread_is_over_clips(predicted):
    text = (predicted.out / "studies" / "S1.html").read_text()
    assert "standard deviation over its clips" in text
    assert "Every video" not in text


def test_the_report_leads_to_the_sheets(predicted):
    text = (predicted.out / "report.html").read_text()
    assert '<a href="studies/S2.html">S2</a>' in text
    assert "Agreement with labels" in text
    assert "RASize has the numbers" in text


def test_the_index_shows_a_task_of_each_part_of_the_heart_in_lines_that_may_break(predicted):
    text = (predicted.out / "report.html").read_text()
    head, *_ = re.findall(r'<table class="wrapped">\s*<thead>(.*?)</thead>', text, re.DOTALL)
    shown = [name.replace("\u200b", "") for name in re.findall(r'<th scope="col">(.*?)</th>', head)]
    assert shown[:4] == ["Study", "Videos", "EF, %", "Measured"]
    assert [name.split(":")[0] for name in shown[4:]] == [
        *("RVSystolicFunction", "LASize", "AVStenosis", "MVRegurgitation", "pericardial-effusion")
    ]
    assert re.search(r"<td[^>]*>-?\d+\.\d\u00a0±\u00a0\d+\.\d</td>", text)


def test_the_40_tasks_are_grouped_once_each():
    groups = grouped(all_tasks())
    assert sorted(task.name for _, tasks in groups for task in tasks) == sorted(TASK)
    assert "Other tasks" not in dict(groups)


def test_other_tasks_come_last():
    mine = Task("Amyloid", "binary", 1, ("no", "yes"), 1, "", 0.1, "")
    assert grouped([mine, TASK["EF"]]) == [("Left ventricle", [TASK["EF"]]), ("Other tasks", [mine])]
    assert grouped([mine]) == [("Tasks", [mine])]


def test_page_names_are_safe_and_differ_on_any_file_system():
    names = _page_names(["a/b", "a_b", "A_B", "../..", "", "x" * 300, "é 1"])
    assert list(names.values())[:3] == ["a_b.html", "a_b-2.html", "A_B-3.html"]
    assert all(re.fullmatch(r"[\w-][\w.-]*\.html", name) and len(name) < 100 for name in names.values())
    assert len({name.casefold() for name in names.values()}) == 7


def test_strips_run_from_0_to_twice_the_training_mean(predicted):
    values = predicted.predictions.videos.values[:, 0]
    assert _axis(TASK["EF"], values)[:2] == pytest.approx((0, 2 * 59.00217526))
    assert _axis(TASK["GLS"], values)[:2] == pytest.approx((-2 * 18.55699369, 0))
    assert [_place(v, 0, 10) for v in (-3, 0, 5, 99)] == [0, 0, 50, 100]


def test_names_are_escaped_and_moved_videos_are_told(videos, weights, tmp_path):
    (tmp_path / "in").mkdir()
    moved = tmp_path / "in" / "only.avi"
    moved.write_bytes((videos.parent / "a" / "only.avi").read_bytes())
    (tmp_path / "in" / "t.csv").write_text("path,study_id\nonly.avi,<script>alert(1)</script>\n")
    arguments = {"weights": weights, "tasks": ["EF"]}
    predict(tmp_path / "in" / "t.csv", tmp_path / "out", image_size=SIZE, workers=0, sheets=False, **arguments)
    assert not (tmp_path / "out" / "studies").exists()
    moved.unlink()
    predict(tmp_path / "out" / "embeddings.h5", tmp_path / "out", overwrite=True, **arguments)
    (sheet,) = (tmp_path / "out" / "studies").iterdir()
    text = sheet.read_text()
    check_page(text)
    assert "<script>" not in text
    assert "not shown: it can" in text.replace("&#39;", "'")


def test_what_the_model_does_not_see_is_in_no_picture():
    noise = np.random.default_rng(0).integers(0, 255, (12, 80, 80, 3), dtype=np.uint8)
    frames = np.zeros((12, 100, 120, 3), dtype=np.uint8)
    frames[:, 10:90, 30:110] = noise
    frames[:, 40:60, 4:24] = 255
    cine = Cine("x", "array", 30.0, "test", Region(0, 0, 100, 90), 12, lambda: iter(frames))
    masked = np.stack(list(_as_seen(cine, Feeding(mask="always")).frames()))
    assert masked.shape == frames.shape
    assert masked[:, 40:60, 4:20].max() == 0
    assert masked[:, 30:70, 50:90].mean() > 100
    assert next(_as_seen(cine, Feeding(crop_region=True)).frames()).shape == (90, 100, 3)
    assert _as_seen(cine, Feeding()) is cine


def films(*paths):
    return [Film(str(path), str(path), 20, math.nan, Feeding(), Path("none.h5")) for path in paths]


def test_a_file_that_hangs_or_crashes_costs_its_own_picture(monkeypatch):
    monkeypatch.setattr(module, "_picture_of", stubs.picture_of)
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
    with pictures(films(tmp_path / "text.avi", tmp_path / "gone.avi"), 0, 60.0) as made:
        text, gone = made
    assert "text" in text.missing
    assert gone.missing


def test_any_other_error_is_told_in_place_of_the_picture(monkeypatch):
    def fail(*_args, **_more):
        raise MemoryError("too large")

    monkeypatch.setattr(module, "open_cine", fail)
    with pictures(films("x"), 0, 60.0) as made:
        assert list(made) == [Shown(missing="MemoryError: too large")]
