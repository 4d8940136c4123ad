"""The result of `panecho-embed demo` as one self-contained page: videos, map, neighbours, predicted and measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.arraytypes import Floats, Floats32
from panecho_embed.core.outputs import write_text
from panecho_embed.core.progress import Progress, silent
from panecho_embed.evaluation.predictions import read_predictions
from panecho_embed.evaluation.targets import Target
from panecho_embed.retrieval.collection import Collection
from panecho_embed.retrieval.find import search, video_query
from panecho_embed.retrieval.pictures import thumbnail
from panecho_embed.retrieval.projection import pca

_NEIGHBOURS = 5
_SIDE = 112
# Side and margin of a figure, in its units; it is drawn as wide as the page allows.
_FIGURE, _MARGIN = 400.0, 46.0


@dataclass(frozen=True, slots=True)
class _Scale:
    """What both axes of the scatter show, and where, in the figure's units."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Floats) -> _Scale:
        low, high = float(values.min()), float(values.max())
        room = 0.04 * max(high - low, 1e-9)
        return cls(low - room, high + room)

    def across(self, value: float) -> float:
        return round(_MARGIN + self._share(value) * (_FIGURE - 8 - _MARGIN), 1)

    def up(self, value: float) -> float:
        return round(_FIGURE - _MARGIN - self._share(value) * (_FIGURE - 8 - _MARGIN), 1)

    def ticks(self) -> list[int]:
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if (self.high - self.low) / step <= 7)
        return list(range(math.ceil(self.low / step) * step, math.floor(self.high) + 1, step))

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class NextCommand:
    """A command to try after the demo, and what it does."""

    command: str
    purpose: str


def write_demo_page(
    collection: Collection,
    run: Path,
    out: Path,
    *,
    target: str,
    seconds: float,
    commands: Sequence[NextCommand],
    progress: Progress = silent,
) -> Path:
    """Write the page of a demo run; it opens offline and asks nothing of the network.

    Parameters
    ----------
    collection : Collection
        Videos with their embeddings, one study each.
    run : Path
        Folder of a `probe` run of `target`, a number, on the same videos.
    out : Path
        The HTML file.
    target : str
        Name of the predicted label.
    seconds : float
        How long the demo took.
    commands : sequence of NextCommand
        What to try next.
    progress : Progress
        Called with the number of videos read, and of all.

    Raises
    ------
    StoreError
        If the page can't be written.
    MediaError
        If a video can't be read.
    """
    import jinja2

    (predictions,) = (one for one in read_predictions(run / "predictions.csv") if one.target.name == target)
    tested = predictions.of_split("test")
    guess = dict(zip(map(str, tested.ids["video_id"]), tested.prediction.tolist(), strict=True))
    measured = np.asarray(collection.videos.columns[target], dtype=np.float64)
    scale = _Scale.around(np.concatenate([tested.truth, tested.prediction]))
    videos = _videos(collection, measured, guess, scale, progress)
    template = resources.files("panecho_embed.retrieval").joinpath("templates/demo.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    scores = json.loads((run / "metrics.json").read_text("utf-8"))["targets"][target]
    page = environment.from_string(template).render(
        target=target,
        unit=tested.target.unit,
        answer=answer(tested.target, scores),
        videos=videos,
        facts=[{name: video[name] for name in ("id", "measured", "near")} for video in videos],
        scale=scale,
        low=float(np.nanmin(measured)),
        high=float(np.nanmax(measured)),
        neighbours=_NEIGHBOURS,
        side=_FIGURE,
        margin=_MARGIN,
        seconds=round(seconds),
        commands=commands,
        provenance=collection.provenance,
        file=collection.path.name,
    )
    return write_text(out, page)


def answer(target: Target, scores: dict[str, Any]) -> str:
    """Return in a sentence whether a number can be predicted, with its error, interval and baseline.

    scores: of the target, as `metrics.json` of a probe's run has them.
    """
    error, guess, gain = (scores[name]["mae"] for name in ("metrics", "baseline", "versus_baseline"))
    verdict = "can be read from" if gain["high"] < 0 else "could not be shown to be readable from"
    unit = {"": "", "%": " points"}.get(target.unit, f" {target.unit}")
    return (
        f"{target.name} {verdict} these embeddings: mean absolute error {error['value']:.1f}{unit} "
        f"(95 % interval {error['low']:.1f} to {error['high']:.1f}); guessing the mean: {guess['value']:.1f}{unit}."
    )


def _videos(
    collection: Collection, measured: Floats, guess: dict[str, float], scale: _Scale, progress: Progress
) -> list[dict[str, Any]]:
    """Return every video with its picture, neighbours and places in the figures, lowest value of the target first."""
    ids = [str(name) for name in collection.videos.ids]
    order = np.argsort(measured, kind="stable").tolist()
    rank = {ids[position]: place for place, position in enumerate(order)}
    places = _places(pca(np.asarray(collection.videos.units)))
    least, span = float(measured.min()), max(float(np.ptp(measured)), 1e-9)
    videos = []
    for done, position in enumerate(order, start=1):
        name, value = ids[position], float(measured[position])
        found = search(collection, video_query(collection, name), _NEIGHBOURS)
        near = zip(found.positions.tolist(), found.similarity.tolist(), strict=True)
        videos.append(
            {
                "id": name,
                "measured": round(value, 1),
                "predicted": round(guess[name], 1),
                "colour": _colour((value - least) / span),
                "map": places[position].tolist(),
                "scatter": [scale.across(value), scale.up(guess[name])],
                "near": [[rank[ids[other]], round(likeness, 4)] for other, likeness in near],
                "picture": thumbnail(collection, name, _SIDE).data_uri,
            }
        )
        progress(done, len(order), "page")
    return videos


def _places(points: Floats32) -> Floats32:
    """Return the points of a map in the figure's units, both axes to the same scale, (N, 2)."""
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    span = max(float(np.ptp(points, axis=0).max()), 1e-9)
    placed = (points - middle) * np.array([1, -1]) / span * (_FIGURE - 32) + _FIGURE / 2
    return np.asarray(np.round(placed, 1), dtype=np.float32)


def _colour(share: float) -> str:
    """Return a colour of viridis, whose lightness rises evenly, without its darkest and lightest ends."""
    from matplotlib import colormaps, colors

    return colors.to_hex(colormaps["viridis"](0.08 + 0.82 * share))
