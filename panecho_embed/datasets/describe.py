"""A manifest as a table for a person to check, filter and add labels to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from panecho_embed.core.errors import ManifestError, RemoteError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.remote import fetched
from panecho_embed.media import MediaInfo, describe

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION_COLUMNS = ("fps_source", "content", "num_frames", "frame_height", "frame_width")
"""For a person to look at; a table that has all of them comes from here, and they are no labels when it comes back."""


def describe_manifest(manifest: Manifest, progress: Callable[[], object] = lambda: None) -> pd.DataFrame:
    """One row a video: path, ids, view, split, fps, what it is (cine, still, ...), frames, size, labels.

    `panecho-embed extract` takes this table, saved as CSV, as its input. progress: called after every video. Raises
    ManifestError for a label that is called like a column of the description.
    """
    import pandas as pd

    rows = []
    for video in manifest.videos:
        rows.append(_row(video))
        progress()
    # An object column takes what pandas's own text column does not: names of files that are not UTF-8.
    table = pd.DataFrame(rows, dtype=object)
    if taken := [name for name in manifest.labels if name in table.columns]:
        raise ManifestError(f"labels {', '.join(taken)} have names of this table's own columns; rename them")
    types = {"fps": "float64"} | dict.fromkeys(("num_frames", "frame_height", "frame_width"), "Int64")
    return table.astype(types).assign(**dict(manifest.labels))


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
    }


def _described(path: str) -> MediaInfo:
    try:
        with fetched(path) as here:
            return describe(here)
    except RemoteError as error:
        return MediaInfo("", f"unreadable: {error}")
