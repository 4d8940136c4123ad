"""A study on one page: its videos moving, every task with its spread; self-contained, for the screen and for paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed._version import __version__
from panecho_embed.core.outputs import write_text
from panecho_embed.core.records import Failure
from panecho_embed.core.tasks import Task
from panecho_embed.core.wording import counted
from panecho_embed.prediction.averages import Output, Predictions
from panecho_embed.prediction.films import Films, Shown
from panecho_embed.prediction.wording import (
    DISCLAIMER,
    RANDOM,
    clips_line,
    model_line,
    shown_class,
    shown_number,
    shown_percent,
    shown_sd,
)

if TYPE_CHECKING:
    from jinja2 import Template

_MOST_PICTURES = 12
_STRIP = 100.0
_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Left ventricle",
        (
            "EF",
            "GLS",
            "LVSystolicFunction",
            "LVWallMotionAbnormalities",
            "LVSize",
            "LVIDd",
            "LVIDs",
            "LVEDV",
            "LVESV",
            "LVSV",
            "LVWallThickness-increased-any",
            "LVWallThickness-increased-modsev",
            "IVSd",
            "LVPWd",
            "LVOTDiam",
            "LVDiastolicFunction",
            "E|EAvg",
        ),
    ),
    ("Right ventricle", ("RVSystolicFunction", "TAPSE", "RVSVel", "RVSize", "RVIDd", "RVSP")),
    ("Atria", ("LASize", "LAVol", "LAIDs2D", "RASize", "RADimensionM-L(cm)", "RAP-8-or-higher")),
    ("Aortic valve and root", ("AVStructure", "AVStenosis", "AVPkVel(m|s)", "AVRegurg", "LVOT20mmHg", "AORoot")),
    ("Mitral and tricuspid valves", ("MVStenosis", "MVRegurgitation", "TVRegurgitation", "TVPkGrad")),
    ("Pericardium", ("pericardial-effusion",)),
)
_OTHERS = "Other tasks"


def write_sheet(
    predictions: Predictions,
    study: int,
    films: Films,
    pictures: Iterator[Shown],
    failures: Sequence[Failure],
    path: Path,
) -> Path:
    """Write the page of row `study` of `predictions.studies`.

    pictures: of the `shown_videos` of this study; they are taken from it. A video that has moved or can't be read says
    so in place of its picture. failures: of this study's videos. Raises StoreError if the page can't be written.
    """
    videos = predictions.videos_of[study]
    table = predictions.studies
    several = len(videos) > 1
    shown = shown_videos(predictions, study)
    page = _template().render(
        study=str(table.study_id[study]),
        patient=str(table.patient_id[study]),
        counts=f"{counted(len(videos), 'video')}, {counted(int(predictions.over_clips.count[videos].sum()), 'clip')}",
        spread_over=counted(len(videos), "video") if several else "its clips",
        pictures=[_figure(predictions, video, films, next(pictures)) for video in shown],
        more=len(videos) - len(shown),
        failures=failures,
        groups=[
            (title, [_entry(predictions, study, task) for task in tasks])
            for title, tasks in _groups(predictions.outputs)
        ],
        per_video=_per_video(predictions, videos) if several else None,
        model=model_line(films.provenance),
        clips=clips_line(films.provenance),
        random=None if films.provenance.weights.pretrained else RANDOM,
        disclaimer=DISCLAIMER,
        version=__version__,
    )
    return write_text(path, page)


@cache
def _template() -> Template:
    import jinja2

    source = resources.files("panecho_embed.prediction").joinpath("templates/study.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


def _groups(outputs: Iterable[Output]) -> list[tuple[str, list[Task]]]:
    return grouped(dict.fromkeys(output.task for output in outputs))


def _entry(predictions: Predictions, study: int, task: Task) -> dict[str, Any]:
    """A task's lines: one a measurement or yes-no task, one a class of the others."""
    columns = [i for i, output in enumerate(predictions.outputs) if output.task == task]
    lines = [_line(predictions, study, i) for i in columns]
    if task.type == "multiclass":
        likeliest = int(np.argmax(predictions.studies.values[study, columns]))
        lines[likeliest]["likeliest"] = True
    title = task.description or task.name
    return {"title": title[:1].upper() + title[1:], "name": task.name, "type": task.type, "lines": lines}


def _line(predictions: Predictions, study: int, column: int) -> dict[str, Any]:
    output = predictions.outputs[column]
    videos = predictions.videos_of[study]
    value = float(predictions.studies.values[study, column])
    sd = float((predictions.over_videos.sd if len(videos) > 1 else predictions.within_videos)[study, column])
    probability = bool(output.label)
    low, high, mark = (0.0, 1.0, None) if probability else _axis(output.task, predictions.videos.values[videos, column])
    return {
        "label": shown_class(output.label) if probability else "",
        "value": shown_percent(value) if probability else shown_number(value),
        "unit": "%" if probability else output.unit,
        "sd": shown_sd(value, sd, output),
        "bar": probability,
        "likeliest": False,
        "at": _place(value, low, high),
        "dots": [_place(float(v), low, high) for v in predictions.videos.values[videos, column]],
        "mark": None if mark is None else _place(mark, low, high),
    }


def _axis(task: Task, values: npt.NDArray[Any]) -> tuple[float, float, float | None]:
    """From 0 to twice the mean of the training studies, or, where that is not known, as wide as the values."""
    mean = task.sign * task.training_mean
    if math.isfinite(mean) and mean:
        return min(0.0, 2 * mean), max(0.0, 2 * mean), mean
    low, high = float(values.min()), float(values.max())
    margin = 0.25 * (high - low) or 1.0
    return low - margin, high + margin, None


def _place(value: float, low: float, high: float) -> float:
    """Where a value stands on a strip; beyond its ends, at its ends."""
    return round(_STRIP * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def shown_videos(predictions: Predictions, study: int) -> list[int]:
    """Which videos a study's page shows, in the study's order: no more than it has room for.

    The first ones of every view come before the second ones.
    """
    seen: dict[str, int] = {}
    turn = []
    for video in predictions.videos_of[study]:
        view = str(predictions.videos.view[video])
        seen[view] = seen.get(view, 0) + 1
        turn.append((seen[view], int(video)))
    return sorted(video for _, video in sorted(turn)[:_MOST_PICTURES])


def _figure(predictions: Predictions, video: int, films: Films, shown: Shown) -> dict[str, str]:
    film = films.film(str(predictions.videos.video_id[video]))
    about = f"{film.num_frames} frames" + (f", {film.fps:.0f}/s" if film.fps > 0 else "")
    view, name = str(predictions.videos.view[video]), film.video_id.rsplit("/", 1)[-1]
    return {"id": film.video_id, "view": view, "name": name, "about": about, **asdict(shown)}


def _per_video(predictions: Predictions, videos: npt.NDArray[np.intp]) -> dict[str, Any]:
    rows = []
    for i, output in enumerate(predictions.outputs):
        values = predictions.videos.values[videos, i]
        shown = [shown_percent(float(v)) if output.label else shown_number(float(v)) for v in values]
        name = f"{output.task.name}: {shown_class(output.label)}" if output.label else output.task.name
        rows.append((name, "%" if output.label else output.unit, shown))
    columns = [str(predictions.videos.view[v] or predictions.videos.video_id[v]) for v in videos]
    return {"columns": columns, "rows": rows}


def grouped(tasks: Iterable[Task]) -> list[tuple[str, list[Task]]]:
    """The tasks by group, empty groups left out; a task that PanEcho does not have comes last, in the given order."""
    by_name = {task.name: task for task in tasks}
    groups = [(title, [by_name.pop(name) for name in names if name in by_name]) for title, names in _GROUPS]
    only = not any(members for _, members in groups)
    return [group for group in (*groups, ("Tasks" if only else _OTHERS, list(by_name.values()))) if group[1]]
