"""What a set of parts says of every video: read once, kept as columns, so that a million videos fit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import StoreError
from panecho_embed.records import Failure, VideoFacts
from panecho_embed.store.layout import FACT_COLUMNS
from panecho_embed.store.read import EmbeddingFile

IndexArray = npt.NDArray[np.int64]


class Ledger:
    """Entries, one for every video of every part, in the order in which the parts were added.

    paths: the parts. engines: what ran the image encoder for any of them. Of a video that stands in several, the entry
    of the last one counts.
    """

    def __init__(self, parts: Iterable[str | Path] = ()) -> None:
        self.paths: list[Path] = []
        self.engines: set[str] = set()
        self._latest: dict[str, int] = {}
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}
        self._failures: dict[int, Failure] = {}
        for part in parts:
            self.add(EmbeddingFile(part))

    def __len__(self) -> int:
        return sum(len(column) for column in self._columns.get("part", ()))

    def add(self, file: EmbeddingFile) -> None:
        """Enter a part; its word counts for more than that of the parts before it."""
        with file:
            columns = file.read_videos(("video_id", *FACT_COLUMNS))
            counts = np.bincount(file.read_rows("video"), minlength=len(columns["video_id"])).astype(np.int64)
            reasons = {failure.video_id: failure for failure in file.failure_records()}
        start = len(self)
        ids = columns.pop("video_id")
        entries = range(start, start + len(ids))
        for entry, video_id, status in zip(entries, ids, columns["status"], strict=True):
            self._latest[video_id] = entry
            if status != "done":
                if video_id not in reasons:
                    raise StoreError(f"{file.path} is not whole: {video_id} is {status!r}, and /failures says not why")
                self._failures[entry] = reasons[video_id]
        columns["sha256"] = np.array([text.encode("ascii", "replace") for text in columns["sha256"]], dtype="S64")
        for name in ("status", "fps_source"):
            columns[name][:] = [sys.intern(text) for text in columns[name]]
        # Rows of one video stand together, in the order of /videos.
        columns |= {"row_count": counts, "first_row": np.cumsum(counts) - counts}
        columns["part"] = np.full(len(ids), len(self.paths), dtype=np.int32)
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column)
        self.paths.append(file.path)
        self.engines.update(filter(None, file.provenance.engine.split(", ")))
        self.__dict__.pop("columns", None)

    def entries(self, video_ids: Sequence[str]) -> IndexArray:
        """The entry that counts of each video; -1 where no part knows it."""
        return np.fromiter((self._latest.get(name, -1) for name in video_ids), dtype=np.int64, count=len(video_ids))

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Of every entry: the part it stands in, first_row and row_count there, and the facts; sha256 as bytes."""
        return {name: np.concatenate(pieces) for name, pieces in self._columns.items()}

    def facts(self, entries: IndexArray) -> Iterator[VideoFacts]:
        """What reading the videos told."""
        if not len(entries):
            return
        columns = [self.columns[name][entries].tolist() for name in FACT_COLUMNS]
        for values in zip(*columns, strict=True):
            fact = dict(zip(FACT_COLUMNS, values, strict=True))
            yield VideoFacts(**fact | {"sha256": fact["sha256"].decode()})

    def failure(self, entry: int) -> Failure | None:
        """Why the video gave no rows; None if it gave some."""
        return self._failures.get(entry)

    def done(self) -> list[str]:
        """Ids of all videos whose entry that counts says done."""
        return [name for name, entry in self._latest.items() if entry not in self._failures]
