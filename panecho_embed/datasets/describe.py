"""A manifest as a table for a person to check, filter and add labels to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.errors import ManifestError, RemoteError
from panecho_embed.core.progress import Progress, silent
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.remote import fetched
from panecho_embed.core.wording import counted
from panecho_embed.datasets.layouts import known_layouts
from panecho_embed.datasets.text import shown
from panecho_embed.datasets.walk import natural_key
from panecho_embed.media.cine import MediaInfo

if TYPE_CHECKING:
    import pandas as pd

_SHOWN, _MOST_NAMES = 5, 30

DESCRIPTION_COLUMNS = (
    "fps_source",
    "content",
    "num_frames",
    "frame_height",
    "frame_width",
    "heart_rate_bpm",
    "heart_rate_source",
)
"""For a person to look at; a table with the first five comes from here, and they are no labels when it comes back."""


def describe_manifest(manifest: Manifest, progress: Progress = silent) -> pd.DataFrame:
    """One row a video: path, ids, view, split, fps, what it is (cine, still, ...), frames, size, labels.

    `panecho-embed extract` takes this table, saved as CSV, as its input. progress: called with videos done and in
    all. Raises ManifestError for a label that is called like a column of the description.
    """
    import pandas as pd

    rows = []
    for done, video in enumerate(manifest.videos, start=1):
        rows.append(_row(video))
        progress(done, len(manifest))
    # An object column takes what pandas's own text column does not: names of files that are not UTF-8.
    table = pd.DataFrame(rows, dtype=object)
    if taken := [name for name in manifest.labels if name in table.columns]:
        raise ManifestError(f"labels {', '.join(taken)} have names of this table's own columns; rename them")
    types = {"fps": "float64", "heart_rate_bpm": "float64"} | dict.fromkeys(
        ("num_frames", "frame_height", "frame_width"), "Int64"
    )
    return table.astype(types).assign(**dict(manifest.labels))


def understood(manifest: Manifest) -> list[str]:
    """What an input was taken for, line by line, for a person to check."""
    videos = manifest.videos
    known = known_layouts().get(manifest.layout)
    lines = [f"layout    {manifest.layout}" + (f" ({known.title}: {known.identity})" if known else "")]
    lines.append(f"patients  {_some(video.patient_id for video in videos)}")
    lines.append(f"studies   {_some(video.study_id for video in videos)}")
    lines.append(f"views     {_counts([video.view for video in videos])}")
    patients: dict[str, set[str]] = {}
    for video in videos:
        patients.setdefault(video.split, set()).add(video.patient_id)
    lines.append(f"splits    {_counts([v.split for v in videos], {part: len(who) for part, who in patients.items()})}")
    for i, (name, column) in enumerate(manifest.labels.items()):
        unit = f" [{manifest.units[name]}]" if name in manifest.units else ""
        lines.append(f"{'' if i else 'labels':10}{name}{unit}: {_values(column)}")
    return lines if manifest.labels else [*lines, "labels    none"]


def _some(ids: Iterable[str]) -> str:
    names = sorted(set(ids), key=lambda name: natural_key(PurePath(name)))
    return f"{len(names)}: {', '.join(map(shown, names[:_SHOWN]))}{', ...' if len(names) > _SHOWN else ''}"


def _counts(values: Sequence[str], patients: Mapping[str, int] | None = None) -> str:
    counts = sorted(Counter(values).items(), key=lambda item: natural_key(PurePath(item[0])))
    if [name for name, _ in counts] == [""]:
        return "none"
    of = {name: f" of {counted(number, 'patient')}" for name, number in (patients or {}).items()}
    listed = [f"{shown(name) or '(none)'} {counted(count, 'video')}{of.get(name, '')}" for name, count in counts]
    more = f" and {len(listed) - _MOST_NAMES} more" if len(listed) > _MOST_NAMES else ""
    return ", ".join(listed[:_MOST_NAMES]) + more


def _values(column: npt.NDArray[Any]) -> str:
    there = column[np.isfinite(column)] if column.dtype.kind == "f" else column[column != ""]
    if not len(there):
        return "empty"
    if column.dtype.kind == "f":
        return f"{len(there)} numbers, {there.min():g} to {there.max():g}"
    words = sorted(set(there))
    listed = ", ".join(map(shown, words[:_SHOWN])) + (", ..." if len(words) > _SHOWN else "")
    return f"{len(there)} texts, {len(words)} different: {listed}"


def _row(video: VideoRef) -> dict[str, object]:
    info = _described(video.location)
    fps = info.fps if video.fps is None else video.fps
    return {
        "path": video.path,
        "video_id": video.video_id,
        "study_id": video.study_id,
        "patient_id": video.patient_id,
        "view": video.view,
        "split": video.split,
        "fps": np.nan if fps is None else fps,
        "fps_source": info.fps_source if video.fps is None else "manifest",
        "content": info.cine,
        "num_frames": info.num_frames,
        "frame_height": info.height,
        "frame_width": info.width,
        "heart_rate_bpm": info.heart_rate_bpm,
        "heart_rate_source": info.heart_rate_source,
    }


def _described(path: str) -> MediaInfo:
    from panecho_embed.media import describe

    try:
        with fetched(path) as here:
            return describe(here)
    except RemoteError as error:
        return MediaInfo("", f"unreadable: {error}")
