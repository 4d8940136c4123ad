"""The collection as the API shows it: items, tables, hits and maps, by public ids only."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from panecho_embed.core.arraytypes import Bools, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import nearest
from panecho_embed.retrieval.collection import Collection, Items, UnknownIdError
from panecho_embed.retrieval.find import Found, Query, filtered, record, search, study_query, video_query
from panecho_embed.retrieval.index import SavedIndex, binding
from panecho_embed.retrieval.projection import Maps, Method, map_items
from panecho_embed.retrieval.server.models import (
    Column,
    Hit,
    Hits,
    Info,
    Item,
    Listing,
    MapPoints,
    MapValues,
    Value,
    Video,
)
from panecho_embed.retrieval.server.upload import UploadLimits
from panecho_embed.retrieval.similarity import Measure, cosines
from panecho_embed.retrieval.transcode import MAX_FRAMES

ShownLevel = Literal["study", "video"]

_IDS = ("video_id", "study_id", "patient_id", "view", "num_frames", "fps", "videos")
_VIDEOS_SHOWN = 12
_VALUES_SHOWN = 50


def public(text: str) -> str:
    """A text that JSON and addresses can carry: bytes of file names that are no UTF-8 become \\xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Library:
    """Answers the API's questions about one embedding file."""

    def __init__(self, collection: Collection, index: SavedIndex | None) -> None:
        self.collection = collection
        self.index = index
        self.maps = Maps(collection)
        # Everything a first request would wait for.
        self.studies = collection.studies
        if index is None and collection.has_videos:
            _ = collection.view_means
        self._columns = [_column(name, values) for name, values in map_items(collection).columns.items()]
        self._known = {"study": {public(name): str(name) for name in self.studies.ids}}
        self._known["video"] = (
            {public(name): str(name) for name in collection.videos.ids} if collection.has_videos else {}
        )
        self._failed = Counter(
            str(study)
            for study, status in zip(
                collection.file.video_columns["study_id"], collection.file.video_columns["status"], strict=True
            )
            if status == "failed"
        )
        self.stamp = _stamp(collection)
        self._text = np.array(
            [
                public(f"{s}\n{p}\n{v}").lower()
                for s, p, v in zip(self.studies.ids, self.studies.patients, self.studies.columns["view"], strict=True)
            ],
            dtype=object,
        )

    def own_id(self, level: ShownLevel, public_id: str, suggest: bool = True) -> str:
        """The file's id for one of a request. Raises UnknownIdError; suggest: with the nearest ids."""
        known = self._known[level]
        if public_id not in known:
            if suggest:
                self.collection.position(level, public(public_id))
            raise UnknownIdError(f"no {level} is called {public(public_id)!r}")
        return known[public_id]

    def info(self, limits: UploadLimits) -> Info:
        """What is served, with the columns that can be named."""
        collection = self.collection
        videos = len(collection.videos) if collection.has_videos else 0
        weights = collection.provenance.weights
        return Info(
            file=public(collection.path.name),
            level=collection.file.level,
            studies=len(self.studies),
            videos=videos,
            patients=len(set(self.studies.patients)),
            backbone=collection.provenance.backbone,
            weights=public(weights.source.rsplit("/", 1)[-1]),
            pretrained=weights.pretrained,
            settings_id=collection.file.settings_id,
            index=self.index.info.kind if self.index else "exact",
            columns=self._columns,
            similarities=self._similarities(),
            upload_limit_mb=limits.megabytes,
            upload_limit_frames=limits.frames,
            upload_limit_seconds=limits.seconds,
            clip_limit_frames=MAX_FRAMES,
            notes=[public(note) for note in collection.notes],
            has_videos=collection.has_videos,
        )

    def _similarities(self) -> list[str]:
        if not self.collection.has_videos:
            return ["mean"]
        return ["mean", "best", "view"] if (self.collection.videos.columns["view"] != "").any() else ["mean", "best"]

    def listing(self, text: str, where: str | None, sort: str, descending: bool, offset: int, limit: int) -> Listing:
        """A page of the table of studies that hold `text` in an id or view and match the filter."""
        keep: Bools = np.ones(len(self.studies), dtype=np.bool_)
        if text:
            wanted = text.lower()
            keep &= np.fromiter((wanted in one for one in self._text), dtype=np.bool_, count=len(keep))
        if where:
            keep &= filtered(self.collection, self.studies, where)
        positions = np.flatnonzero(keep)
        positions = self._sorted(positions, sort, descending)
        shown = positions[offset : offset + limit]
        items = [self.item("study", int(i)) for i in shown]
        return Listing(total=len(positions), offset=offset, items=items)

    def _sorted(self, positions: Ints, sort: str, descending: bool) -> Ints:
        if not sort:
            return positions[::-1] if descending else positions
        if sort not in self.studies.columns:
            raise ArgumentError(f"there is no column {sort!r}{nearest(sort, self.studies.columns)}")
        values = self.studies.columns[sort][positions]
        missing = np.isnan(values) if values.dtype.kind == "f" else values == ""
        there, without = positions[~missing], positions[missing]
        keys = values[~missing]
        order = np.argsort(keys if keys.dtype.kind == "f" else keys.astype(str), kind="stable")
        # What has no value stands last, either way.
        return np.concatenate([there[order[::-1] if descending else order], without])

    def item(self, level: ShownLevel, position: int, query: Query | None = None, every: bool = False) -> Item:
        """One study or video; with a query, how near each of its videos is to the query's."""
        items = self._items(level)
        facts = record(items, position)
        rows = self._videos_of(level, position)
        matches: Sequence[float | None] = [None] * len(rows)
        if query is not None and len(rows):
            rows, matches = paired(self.collection.videos, rows, query)
        shown = len(rows) if every else _VIDEOS_SHOWN
        return Item(
            level=level,
            id=public(str(items.ids[position])),
            study_id=public(str(items.studies[position])),
            patient_id=public(str(items.patients[position])),
            view=public(str(items.columns["view"][position])),
            labels={public(k): _public(v) for k, v in facts.items() if k not in _IDS},
            num_videos=len(rows),
            num_failed=self._failed[str(items.studies[position])] if level == "study" else 0,
            videos=self._videos(rows[:shown], matches[:shown]),
        )

    def hits(self, query: Query, level: ShownLevel, k: int, similarity: Measure, where: str | None,
             include_same_patient: bool) -> Hits:  # fmt: skip
        """The neighbours of a query."""
        found = search(
            self.collection,
            query,
            k,
            level=level,
            similarity=similarity if level == "study" else None,
            where=where,
            include_same_patient=include_same_patient,
            index=self.index,
        )
        return Hits(
            query=public(query.label),
            level=level,
            similarity=similarity if level == "study" else "cosine",
            candidates=found.candidates,
            note=found.note,
            hits=self._hits(found, query, level),
        )

    def query(self, study: str | None, video: str | None) -> Query:
        """The query of a request: a study or a video of the file."""
        if (study is None) == (video is None):
            raise ArgumentError("give one of study, video and upload")
        if study is not None:
            return study_query(self.collection, self.own_id("study", study))
        return video_query(self.collection, self.own_id("video", video or ""))

    def points(self, method: Method) -> MapPoints:
        """The map's points."""
        items = map_items(self.collection)
        state, points = self.maps.state(method)
        ready = not isinstance(points, str)
        level: ShownLevel = "video" if self.collection.has_videos else "study"
        return MapPoints(
            method=method,
            state=state,
            message=points if isinstance(points, str) else "",
            level=level,
            ids=[public(str(name)) for name in items.ids] if ready else [],
            studies=[public(str(name)) for name in items.studies] if ready else [],
            x=[] if isinstance(points, str) else _rounded(points[:, 0]),
            y=[] if isinstance(points, str) else _rounded(points[:, 1]),
        )

    def values(self, column: str) -> MapValues:
        """A column's values, one a point of the map. Raises ArgumentError."""
        items = map_items(self.collection)
        if column not in items.columns:
            raise ArgumentError(f"there is no column {column!r}{nearest(column, items.columns)}")
        return MapValues(column=public(column), values=[_public(value) for value in _plain(items.columns[column])])

    def _items(self, level: ShownLevel) -> Items:
        return self.studies if level == "study" else self.collection.videos

    def _videos_of(self, level: ShownLevel, position: int) -> Ints:
        if not self.collection.has_videos:
            return np.zeros(0, dtype=np.int64)
        return self.collection.groups.members(position) if level == "study" else np.array([position], dtype=np.int64)

    def _videos(self, rows: Ints, matches: Sequence[float | None]) -> list[Video]:
        if not len(rows):
            return []
        videos = self.collection.videos
        columns = videos.columns
        return [
            Video(
                video_id=public(str(videos.ids[row])),
                view=public(str(columns["view"][row])),
                num_frames=int(columns["num_frames"][row]),
                fps=float(columns["fps"][row]) if columns["fps"][row] > 0 else None,
                match=match,
            )
            for row, match in zip(rows, matches, strict=True)
        ]

    def _hits(self, found: Found, query: Query, level: ShownLevel) -> list[Hit]:
        return [
            Hit(rank=rank, similarity=round(float(similarity), 6), item=self.item(level, int(position), query))
            for rank, (position, similarity) in enumerate(zip(found.positions, found.similarity, strict=True), start=1)
        ]


def _stamp(collection: Collection) -> str:
    """What tells the pictures of one served file from another's, whose ids may be the same."""
    paths = "\0".join([str(collection.path.absolute()), *collection.file.video_columns["path"]])
    return hashlib.sha256(f"{binding(collection.file)}\0{paths}".encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _column(name: str, values: Any) -> Column:
    if values.dtype.kind == "f":
        there = values[np.isfinite(values)]
        low, high = (float(there.min()), float(there.max())) if len(there) else (None, None)
        return Column(name=public(name), kind="number", values=[], low=low, high=high)
    distinct = sorted({str(value) for value in values if value})
    shown = [public(value) for value in distinct] if len(distinct) <= _VALUES_SHOWN else []
    return Column(name=public(name), kind="text", values=shown)


def _rounded(values: Any) -> list[float]:
    # As float64, so that four decimals stay four decimals.
    return [float(value) for value in np.round(values.astype(np.float64), 4)]


def _plain(values: Any) -> list[Value]:
    if values.dtype.kind == "f":
        return [float(value) if np.isfinite(value) else None for value in values]
    return [str(value) or None for value in values]


def _public(value: Any) -> Value:
    return public(value) if isinstance(value, str) else value


def paired(videos: Items, rows: Ints, query: Query) -> tuple[Ints, list[float]]:
    """A study's videos in the order in which they are worth looking at, and each one's cosine with its like.

    rows: (n,) positions in `videos`, n > 0. Its like is the nearest of the query's videos, among those of the same view
    where view and query's views are known. First the best of every view that the query has too, then the second best,
    and so on; then in the same way what has no counterpart.
    """
    near = cosines(np.asarray(videos.units[rows]), query.units)
    views = videos.columns["view"][rows]
    same = (views[:, None] == query.views[None, :]) & (views != "")[:, None]
    has_like = same.any(axis=1)
    match = np.where(same | ~has_like[:, None], near, -np.inf).max(axis=1)
    place = np.empty(len(rows), dtype=np.int64)
    seen: dict[str, int] = {}
    for i in np.argsort(-match, kind="stable"):
        place[i] = seen.get(views[i], 0)
        seen[views[i]] = place[i] + 1
    order = np.lexsort((-match, place, ~has_like))
    return rows[order], [round(float(value), 6) for value in match[order]]
