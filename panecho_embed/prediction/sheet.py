"""A study on one page: its videos moving, every task with its spread; self-contained, for the screen and for paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed._version import __version__
from panecho_embed.errors import MediaError
from panecho_embed.media import Cine, open_cine
from panecho_embed.media.sector import apply_mask, sector_mask
from panecho_embed.pictures import DEFAULT_FPS, still_of, thumbnail_of
from panecho_embed.prediction.averages import Predictions
from panecho_embed.prediction.files import write_whole
from panecho_embed.prediction.groups import grouped
from panecho_embed.prediction.outputs import Output
from panecho_embed.prediction.wording import (
    DISCLAIMER,
    RANDOM,
    clips_line,
    counted,
    model_line,
    shown_class,
    shown_number,
    shown_percent,
    shown_sd,
)
from panecho_embed.records import Failure, Preprocess, Provenance, UInt8Array
from panecho_embed.store import EmbeddingFile
from panecho_embed.tasks import Task

if TYPE_CHECKING:
    from jinja2 import Template

_MOST_PICTURES = 12
_SIDE = 200
_STRIP = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Films:
    """What an embedding file knows of its videos: where they lie, how long and how fast they are."""

    provenance: Provenance
    columns: Mapping[str, npt.NDArray[Any]]
    row: Mapping[str, int]

    @classmethod
    def of(cls, file: EmbeddingFile) -> Films:
        """Of every video of a file."""
        columns = file.video_columns
        return cls(file.provenance, columns, {name: i for i, name in enumerate(columns["video_id"])})


def write_sheet(predictions: Predictions, study: int, films: Films, failures: Sequence[Failure], path: Path) -> Path:
    """Write the page of row `study` of `predictions.studies`.

    failures: of this study's videos. A video that has moved or can't be read says so in place of its picture. Raises
    StoreError if the page can't be written.
    """
    videos = predictions.videos_of[study]
    table = predictions.studies
    several = len(videos) > 1
    shown = _shown(predictions, videos)
    page = _template().render(
        study=str(table.study_id[study]),
        patient=str(table.patient_id[study]),
        counts=f"{counted(len(videos), 'video')}, {counted(int(predictions.over_clips.count[videos].sum()), 'clip')}",
        spread_over=counted(len(videos), "video") if several else "its clips",
        pictures=[_picture(predictions, int(video), films) for video in shown],
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
    return write_whole(path, lambda stream: stream.write(page))


@cache
def _template() -> Template:
    import jinja2

    source = resources.files("panecho_embed").joinpath("templates/study.html").read_text(encoding="utf-8")
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


def _shown(predictions: Predictions, videos: npt.NDArray[np.intp]) -> list[int]:
    """The first videos of every view before the second ones, no more than a page has room for; in the study's order."""
    seen: dict[str, int] = {}
    turn = []
    for video in videos:
        view = str(predictions.videos.view[video])
        seen[view] = seen.get(view, 0) + 1
        turn.append((seen[view], int(video)))
    return sorted(video for _, video in sorted(turn)[:_MOST_PICTURES])


def _picture(predictions: Predictions, video: int, films: Films) -> dict[str, str]:
    video_id = str(predictions.videos.video_id[video])
    row = films.row[video_id]
    fps, frames = float(films.columns["fps"][row]), int(films.columns["num_frames"][row])
    about = f"{frames} frames" + (f", {fps:.0f}/s" if fps > 0 else "")
    view, name = str(predictions.videos.view[video]), video_id.rsplit("/", 1)[-1]
    picture = {"id": video_id, "view": view, "name": name, "about": about, "missing": ""}
    try:
        cine = _as_seen(open_cine(str(films.columns["path"][row]), include_stills=True), films.provenance.preprocess)
        moving = thumbnail_of(cine, fps if fps > 0 else cine.fps or DEFAULT_FPS, _SIDE)
        return picture | {"moving": moving.data_uri, "still": still_of(cine, _SIDE).data_uri}
    except MediaError as error:
        return picture | {"missing": str(error)}


def _as_seen(cine: Cine, preprocess: Preprocess) -> Cine:
    """A loop without what the model did not see either: a masked name must not come back in a picture."""
    if not preprocess.mask_sector and not (preprocess.crop_region and cine.region):
        return cine
    mask = sector_mask(cine.frames()) if preprocess.mask_sector else None
    cut = cine.region if preprocess.crop_region else None
    rows, columns = (slice(cut.y0, cut.y1), slice(cut.x0, cut.x1)) if cut else (slice(None), slice(None))

    def frames() -> Iterator[UInt8Array]:
        for frame in cine.frames():
            yield (frame if mask is None else apply_mask(frame, mask))[rows, columns]

    return replace(cine, reader=frames)


def _per_video(predictions: Predictions, videos: npt.NDArray[np.intp]) -> dict[str, Any]:
    rows = []
    for i, output in enumerate(predictions.outputs):
        values = predictions.videos.values[videos, i]
        shown = [shown_percent(float(v)) if output.label else shown_number(float(v)) for v in values]
        name = f"{output.task.name}: {shown_class(output.label)}" if output.label else output.task.name
        rows.append((name, "%" if output.label else output.unit, shown))
    columns = [str(predictions.videos.view[v] or predictions.videos.video_id[v]) for v in videos]
    return {"columns": columns, "rows": rows}
