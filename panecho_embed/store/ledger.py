"""What a set of parts says of every video: read once, kept as columns, so that a million videos fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.errors import StoreError
from panecho_embed.core.records import Failure, VideoFacts
from panecho_embed.store.layout import FACT_TYPES, common_type, decode_column, joined
from panecho_embed.store.read import EmbeddingFile

_OWN = ("part", "first_row", "row_count")


class Ledger:
    """Entries, one for every video of every part, in the order in which the parts were added.

    paths: the parts. engines: what ran the image encoder for any of them. Of a video that stands in several, the entry
    of the last one counts.
    """

    def __init__(self, parts: Iterable[str | Path] = ()) -> None:
        self.paths: list[Path] = []
        self.engines: set[str] = set()
        self._latest: dict[str, int] = {}
        self._columns: dict[str, list[npt.NDArray[Any] | int]] = {}
        self._row_types: dict[str, list[np.dtype[Any]]] = {}
        self._count = 0
        self._failures: dict[int, Failure] = {}
        for part in parts:
            self.add(EmbeddingFile(part))

    def __len__(self) -> int:
        return self._count

    def add(self, file: EmbeddingFile) -> None:
        """Enter a part; its word counts for more than that of the parts before it."""
        ids = file.read_videos(["video_id"])["video_id"]
        columns = file.read_facts()
        counts = np.bincount(file.raw_rows["video"], minlength=len(ids)).astype(np.int64)
        reasons = {failure.video_id: failure for failure in file.failure_records()}
        start = len(self)
        entries = range(start, start + len(ids))
        for entry, video_id, status in zip(entries, ids, decode_column(columns["status"]), strict=True):
            self._latest[video_id] = entry
            if status != "done":
                if video_id not in reasons:
                    raise StoreError(f"{file.path} is not whole: {video_id} is {status!r}, and /failures says not why")
                self._failures[entry] = reasons[video_id]
        # Rows of one video stand together, in the order of /videos.
        columns |= {"row_count": counts, "first_row": np.cumsum(counts) - counts}
        columns["part"] = np.full(len(ids), len(self.paths), dtype=np.int32)
        # In one order, so that the same videos make the same file.
        for name in {**self._columns, **columns}:
            # A column that some parts lack has missing values there.
            pieces = self._columns.setdefault(name, [start] if start else [])
            pieces.append(columns.get(name, len(ids)))
        self._count += len(ids)
        for name, column in file.raw_rows.items():
            self._row_types.setdefault(name, []).append(column.dtype)
        self.paths.append(file.path)
        self.engines.update(filter(None, file.provenance.engine.split(", ")))
        self.__dict__.pop("columns", None)

    def entries(self, video_ids: Sequence[str]) -> Ints:
        """The entry that counts of each video; -1 where no part knows it."""
        return np.fromiter((self._latest.get(name, -1) for name in video_ids), dtype=np.int64, count=len(video_ids))

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Of every entry: the part it stands in, first_row and row_count there, and the facts; texts as bytes."""
        return {name: joined(pieces) for name, pieces in self._columns.items()}

    def row_types(self) -> dict[str, np.dtype[Any]]:
        """The types of the columns of /rows that hold what every part has there."""
        return {
            name: common_type(types, some_lack=len(types) < len(self.paths)) for name, types in self._row_types.items()
        }

    def fact_columns(self, entries: Ints) -> dict[str, npt.NDArray[Any]]:
        """What reading the videos told, and columns that are not known here; texts as bytes."""
        return {name: column[entries] for name, column in self.columns.items() if name not in _OWN}

    def facts(self, entries: Ints) -> Iterator[VideoFacts]:
        """What reading the videos told, but for their recordings."""
        if not len(entries):
            return
        columns = [decode_column(self.columns[name][entries]).tolist() for name in FACT_TYPES]
        for values in zip(*columns, strict=True):
            yield VideoFacts(**dict(zip(FACT_TYPES, values, strict=True)))

    def failure(self, entry: int) -> Failure | None:
        """Why the video gave no rows; None if it gave some."""
        return self._failures.get(entry)

    def done(self) -> list[str]:
        """Ids of all videos whose entry that counts says done."""
        return [name for name, entry in self._latest.items() if entry not in self._failures]
