"""Is an embedding file whole and consistent?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from panecho_embed.core.errors import StoreError
from panecho_embed.store.read import EmbeddingFile


def verify(path: str | Path) -> list[str]:
    """Every problem of an embedding file, one sentence each; an empty list when it is whole.

    What opening a file checks, then every block of embeddings; and whether what the file says makes sense: the
    settings id, the ids, the order and count of each video's rows, the failures, and finite embeddings.
    """
    try:
        with EmbeddingFile(path) as file:
            return problems_of(file)
    except (StoreError, KeyError) as error:
        return [str(error)]


def problems_of(file: EmbeddingFile) -> list[str]:
    """`verify` of a file that is open. Raises StoreError for damage."""
    bad = file.rows_on_disk.not_finite()
    values = [f"{len(bad)} rows are not finite, the first are {bad[:5].tolist()}"] if len(bad) else []
    return [*_settings(file), *_ids(file), *_rows(file), *_failures(file), *values]


def _settings(file: EmbeddingFile) -> list[str]:
    problems = []
    if file.provenance.settings_id != file.settings_id:
        problems.append("the settings id is not that of the provenance: one of them was changed")
    if file.provenance.level != file.level:
        problems.append(f"level is {file.level}, the provenance says {file.provenance.level}")
    if file.provenance.dim != file.dim:
        problems.append(f"embeddings have length {file.dim}, the provenance says {file.provenance.dim}")
    return problems


def _ids(file: EmbeddingFile) -> list[str]:
    problems = []
    counts = Counter(file.video_columns["video_id"])
    if twice := [name for name, count in counts.items() if count > 1]:
        problems.append(f"video_ids stand more than once: {', '.join(twice[:5])}")
    for name in ("video_id", "study_id", "patient_id", "path"):
        if empty := int((file.video_columns[name] == "").sum()):
            problems.append(f"{empty} videos have no {name}")
    return problems


def _rows(file: EmbeddingFile) -> list[str]:
    video = file.row_columns["video"]
    status = file.video_columns["status"]
    if len(video) and not (video.min() >= 0 and video.max() < len(status)):
        return [f"/rows/video points outside /videos (0 ... {len(status) - 1})"]
    problems = []
    if (np.diff(video) < 0).any():
        problems.append("rows do not stand in the order of /videos")
    counts = np.bincount(video, minlength=len(status))
    for position in np.flatnonzero((counts > 0) != (status == "done"))[:5]:
        name = file.video_columns["video_id"][position]
        problems.append(f"video {name} has status {status[position]!r} and {counts[position]} rows")
    first = file.row_columns["first_frame"]
    outside = (first < 0) | (first >= np.maximum(file.video_columns["num_frames"][video], 1))
    if outside.any():
        problems.append(
            f"{int(outside.sum())} rows begin outside their video, the first is row {int(outside.argmax())}"
        )
    same = (np.diff(video) == 0) & (np.diff(first) <= 0)
    if same.any():
        problems.append(f"rows of one video repeat or run backwards, the first is row {int(same.argmax()) + 1}")
    return problems


def _failures(file: EmbeddingFile) -> list[str]:
    undone = set(file.video_columns["video_id"][file.video_columns["status"] != "done"])
    listed = [failure.video_id for failure in file.failure_records()]
    problems = [
        f"video {name} is not done, but /failures says nothing of it" for name in sorted(undone - set(listed))[:5]
    ]
    problems += [f"/failures lists {name}, which is not failed" for name in sorted(set(listed) - undone)[:5]]
    if len(listed) != len(set(listed)):
        problems.append("/failures lists a video twice")
    return problems
