"""Parts -> one embedding file, in the manifest's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.errors import SettingsMismatchError, StoreError
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Failure, Manifest, Recording, VideoFacts
from panecho_embed.store.layout import FACT_TYPES, PHASE_COLUMNS, common_type, decode_column, missing
from panecho_embed.store.read import EmbeddingFile
from panecho_embed.store.write import EmbeddingWriter

_OWN = ("part", "first_row", "row_count")
# Rows that are gathered in memory before they are written. Parts of many machines interleave, and each is opened once
# for this many rows.
_BLOCK_BYTES = 128 * 1024 * 1024
_MOST_OPEN = 64


def merge(parts: Sequence[str | Path], manifest: Manifest, provenance: Provenance, out: str | Path) -> EmbeddingFile:
    """Merge parts into one file whose rows are in the manifest's order; the parts stay as they are.

    Of a video that is in several parts the last word counts. Labels, views and splits are the manifest's. Raises
    SettingsMismatchError when a part was made with other settings, StoreError when a video of the manifest is neither
    done nor accounted for in any part.
    """
    ledger = Ledger()
    for part in parts:
        file = EmbeddingFile(part)
        if file.settings_id != provenance.settings_id:
            raise SettingsMismatchError(
                f"{file.path} was made with other settings: {'; '.join(provenance.differences(file.provenance))}"
            )
        ledger.add(file)
    return merge_ledger(ledger, manifest, provenance, out)


def merge_ledger(
    ledger: Ledger, manifest: Manifest, provenance: Provenance, out: str | Path, scratch: Path | None = None
) -> EmbeddingFile:
    """`merge` of parts that have been read and are known to be of these settings. scratch: see EmbeddingWriter."""
    entries = ledger.entries([video.video_id for video in manifest.videos])
    if (entries < 0).any():
        lost = [manifest.videos[position].video_id for position in np.flatnonzero(entries < 0)]
        raise StoreError(f"{len(lost)} videos are in no part, neither done nor failed: {', '.join(lost[:20])}")
    with EmbeddingWriter(out, replace(provenance, engine=", ".join(sorted(ledger.engines))), scratch) as writer:
        gather = _Gatherer(ledger, provenance)
        block_rows = max(_BLOCK_BYTES // (provenance.dim * np.dtype(provenance.dtype).itemsize), 1)
        for start, stop in _blocks(ledger.columns["row_count"][entries], block_rows):
            rows = gather(entries[start:stop])
            if len(rows["video"]):
                writer.add(rows.pop("video") + start, rows.pop("embeddings"), **rows)
        failures = [
            replace(failure, path=video.path)
            for video, entry in zip(manifest.videos, entries.tolist(), strict=True)
            if (failure := ledger.failure(entry)) is not None
        ]
        writer.finish(manifest, ledger.fact_columns(entries), failures)
        return writer.written


def _blocks(counts: Ints, block_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of videos with at most `block_rows` rows each, or of one video that has more."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + block_rows, side="right")), start + 1)
        yield start, stop
        start = stop


class _Gatherer:
    """Copies the rows of videos out of the parts that hold them."""

    def __init__(self, ledger: Ledger, provenance: Provenance) -> None:
        self._ledger = ledger
        self._dim, self._dtype = provenance.dim, np.dtype(provenance.dtype)
        # The parts of many machines interleave: each holds some of the next videos.
        self._opened = lru_cache(_MOST_OPEN)(lambda part: EmbeddingFile(ledger.paths[part]))

    def __call__(self, entries: Ints) -> dict[str, npt.NDArray[Any]]:
        """The rows of some videos, in their order; `video` is a position in `entries`."""
        columns = self._ledger.columns
        parts, first_rows, counts = (columns[name][entries] for name in ("part", "first_row", "row_count"))
        places = np.cumsum(counts) - counts
        total = int(counts.sum())
        rows: dict[str, npt.NDArray[Any]] = {"embeddings": np.empty((total, self._dim), self._dtype)}
        for name, dtype in self._ledger.row_types().items():
            rows[name] = missing(total, dtype)
        order = np.lexsort((first_rows, parts))
        order = order[counts[order] > 0]
        for part in np.unique(parts[order]).tolist():
            file = self._opened(part)
            for run in _runs(order[parts[order] == part], first_rows, counts):
                start, stop = int(first_rows[run[0]]), int(first_rows[run[-1]] + counts[run[-1]])
                within = np.arange(stop - start) - np.repeat(first_rows[run] - start, counts[run])
                target = np.repeat(places[run], counts[run]) + within
                rows["embeddings"][target] = file.read(start, stop)
                for name, column in file.raw_rows.items():
                    rows[name][target] = column[start:stop]
        rows["video"] = np.repeat(np.arange(len(entries)), counts)
        return rows


def _runs(videos: Ints, first_rows: Ints, counts: Ints) -> list[Ints]:
    """Split videos of one part, in its order, where their rows do not follow on each other: each run is one reading."""
    gaps = np.flatnonzero(first_rows[videos[1:]] != first_rows[videos[:-1]] + counts[videos[:-1]])
    return np.split(videos, gaps + 1)


class Ledger:
    """Entries, one for every video of every part, in the order in which the parts were added.

    paths: the parts. engines: what ran the image encoder for any of them. Of a video that is in several, the entry
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
        """Of every entry: the part it is in, first_row and row_count there, and the facts; texts as bytes."""
        return {name: _joined(pieces) for name, pieces in self._columns.items()}

    def row_types(self) -> dict[str, np.dtype[Any]]:
        """The types of the columns of /rows that hold what every part has there."""
        return {
            name: common_type(types, some_lack=len(types) < len(self.paths)) for name, types in self._row_types.items()
        }

    def fact_columns(self, entries: Ints) -> dict[str, npt.NDArray[Any]]:
        """What reading the videos told, and columns that are not known here; texts as bytes."""
        return {name: column[entries] for name, column in self.columns.items() if name not in _OWN}

    def facts(self, entries: Ints) -> Iterator[VideoFacts]:
        """What reading the videos told; of their recordings only the frames that clips were cut by."""
        if not len(entries):
            return
        columns = [decode_column(self.columns[name][entries]).tolist() for name in FACT_TYPES]
        unknown = np.full(len(entries), np.nan)
        phases = [(self.columns[name][entries] if name in self.columns else unknown).tolist() for name in PHASE_COLUMNS]
        for phase, *values in zip(zip(*phases, strict=True), *columns, strict=True):
            recording = Recording(**dict(zip(PHASE_COLUMNS, phase, strict=True)))
            yield VideoFacts(**dict(zip(FACT_TYPES, values, strict=True)), recording=recording)

    def failure(self, entry: int) -> Failure | None:
        """Why the video gave no rows; None if it gave some."""
        return self._failures.get(entry)

    def done(self) -> list[str]:
        """Ids of all videos whose entry that counts says done."""
        return [name for name, entry in self._latest.items() if entry not in self._failures]


def _joined(pieces: Iterable[npt.NDArray[Any] | int]) -> npt.NDArray[Any]:
    """Pieces of one column as one; a number stands for this many missing values."""
    known = list(pieces)
    types = [piece.dtype for piece in known if not isinstance(piece, int)]
    dtype = common_type(types, some_lack=len(types) < len(known))
    whole = [missing(piece, dtype) if isinstance(piece, int) else piece for piece in known]
    return np.concatenate(whole, dtype=dtype)
