"""The hits of a search as a contact sheet: one self-contained HTML file with moving pictures."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.errors import MediaError
from panecho_embed.core.outputs import refuse_to_replace, write_text
from panecho_embed.retrieval.collection import Collection, Items
from panecho_embed.retrieval.find import Found, record
from panecho_embed.retrieval.pictures import thumbnail

_VIDEOS_A_STUDY = 6
_HIDDEN = ("rank", "similarity", "video_id", "study_id", "patient_id", "num_frames", "fps", "first_frame", "videos")


def write_sheet(collection: Collection, found: Found, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the query and its hits, with their videos moving, as one HTML file that opens offline.

    A video that has moved or can't be read says so in place of its picture. Raises StoreError if `out` is
    there already (unless `overwrite`), is the embedding file, or can't be written.
    """
    path = Path(out)
    refuse_to_replace(path, overwrite, collection.path, flag="--html")
    return write_text(path, sheet_html(collection, found), "--html")


def sheet_html(collection: Collection, found: Found) -> str:
    """The query and its hits as the text of one HTML page."""
    import jinja2

    template = resources.files("panecho_embed.retrieval").joinpath("templates/sheet.html").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        title=f"Similar to {found.query.label}",
        query=_query_card(collection, found),
        cards=[_card(collection, found.items, int(position), hit) for position, hit in _hits(found)],
        candidates=found.candidates,
        level=found.items.level,
        note=found.note,
        provenance=collection.provenance,
        file=collection.path.name,
    )


def _hits(found: Found) -> list[tuple[int, dict[str, Any]]]:
    return list(zip(found.positions.tolist(), found.records(), strict=True))


def _query_card(collection: Collection, found: Found) -> dict[str, Any] | None:
    """The query's own card; None for what is no one video or study of the collection."""
    query = found.query
    if len(query.videos) != 1 and len(query.studies) != 1:
        return None
    items: Items = collection.videos if len(query.videos) == 1 else collection.studies
    position = collection.position(items.level, query.videos[0] if len(query.videos) == 1 else query.studies[0])
    return _card(collection, items, position, record(items, position))


def _card(collection: Collection, items: Items, position: int, facts: dict[str, Any]) -> dict[str, Any]:
    if not collection.has_videos:
        videos: list[str] = []
    elif items.level == "study":
        videos = list(collection.videos.ids[collection.groups.members(position)])
    else:
        videos = [str(items.columns["video_id"][position])]
    return {
        "name": facts[f"{items.level}_id"] if items.level != "clip" else str(items.ids[position]),
        "patient": facts["patient_id"],
        "similarity": facts.get("similarity"),
        "labels": {k: _short(v) for k, v in facts.items() if k not in _HIDDEN and v is not None},
        "pictures": [_picture(collection, video) for video in videos[:_VIDEOS_A_STUDY]],
        "more": max(0, len(videos) - _VIDEOS_A_STUDY),
    }


def _picture(collection: Collection, video_id: str) -> dict[str, str]:
    view = str(collection.videos.columns["view"][collection.position("video", video_id)])
    try:
        shown = thumbnail(collection, video_id)
    except MediaError as error:
        return {"id": video_id, "view": view, "missing": str(error), "data": ""}
    return {"id": video_id, "view": view, "missing": "", "data": shown.data_uri}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and np.isfinite(value) else str(value)
