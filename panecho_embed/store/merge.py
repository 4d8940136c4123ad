"""Parts -> one embedding file, in the manifest's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from panecho_embed.errors import SettingsMismatchError, StoreError
from panecho_embed.records import Failure, Manifest, Provenance, VideoFacts
from panecho_embed.store.read import EmbeddingFile
from panecho_embed.store.write import EmbeddingWriter

_BLOCK_ROWS = 4096


def merge(
    parts: Sequence[str | Path],
    manifest: Manifest,
    provenance: Provenance,
    out: str | Path,
    scratch: Path | None = None,
) -> Path:
    """Put parts together into one file whose rows stand in the manifest's order; the parts stay as they are.

    Of a video that stands in several parts the last word counts. Labels, views and splits are the manifest's. scratch:
    see EmbeddingWriter. Raises SettingsMismatchError when a part was made with other settings, StoreError when a video
    of the manifest is neither done nor accounted for in any part.
    """
    files = [EmbeddingFile(path) for path in parts]
    for file in files:
        if file.fingerprint != provenance.fingerprint:
            raise SettingsMismatchError(
                f"{file.path} was made with other settings: {'; '.join(provenance.differences(file.provenance))}"
            )
    places = _locate(files)
    if lost := [video.video_id for video in manifest.videos if video.video_id not in places]:
        raise StoreError(f"{len(lost)} videos are in no part, neither done nor failed: {', '.join(lost[:20])}")

    facts: list[VideoFacts] = []
    failures: list[Failure] = []
    with EmbeddingWriter(out, provenance, scratch) as writer:
        copier = _RunCopier(files, writer)
        for position, video in enumerate(manifest.videos):
            place = places[video.video_id]
            facts.append(place.fact)
            if place.failure is None:
                copier.copy(place.part, place.position, position)
            else:
                failures.append(replace(place.failure, path=video.path))
        copier.flush()
        return writer.finish(manifest, facts, failures)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the last word on a video stands: which part, where in it, and what it says."""

    part: int
    position: int
    fact: VideoFacts
    failure: Failure | None


def _locate(files: Sequence[EmbeddingFile]) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for part, file in enumerate(files):
        reasons = {failure.video_id: failure for failure in file.failure_records()}
        for position, (video_id, fact) in enumerate(zip(file.video_columns["video_id"], file.facts(), strict=True)):
            places[video_id] = _Place(part, position, fact, None if fact.status == "done" else reasons[video_id])
    return places


class _RunCopier:
    """Copies rows from parts to a writer; neighbours in a part that stay neighbours are read in one go."""

    def __init__(self, files: Sequence[EmbeddingFile], writer: EmbeddingWriter) -> None:
        self._files = files
        self._writer = writer
        self._bounds = [_row_bounds(file) for file in files]
        self._run: list[tuple[int, int, int]] = []

    def copy(self, part: int, in_part: int, position: int) -> None:
        """Append the rows of the video at `in_part` of a part as rows of the video at `position` of the output."""
        if self._run and (self._run[-1][0] != part or self._run[-1][1] + 1 != in_part):
            self.flush()
        self._run.append((part, in_part, position))

    def flush(self) -> None:
        """Write what `copy` has gathered."""
        if not self._run:
            return
        part, first = self._run[0][:2]
        bounds = self._bounds[part]
        start, stop = int(bounds[first]), int(bounds[self._run[-1][1] + 1])
        counts = [int(bounds[i + 1] - bounds[i]) for _, i, _ in self._run]
        video = np.repeat([position for _, _, position in self._run], counts)
        columns = self._files[part].row_columns
        for low in range(start, stop, _BLOCK_ROWS):
            high = min(low + _BLOCK_ROWS, stop)
            self._writer.add(
                video[low - start : high - start],
                self._files[part].read(low, high),
                columns["first_frame"][low:high],
                columns["frame_step"][low:high],
                columns["frames_per_clip"][low:high],
            )
        self._run.clear()


def _row_bounds(file: EmbeddingFile) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Row at which each video's rows begin, (M + 1,); rows of one video stand together, in the order of /videos."""
    counts = np.bincount(file.row_columns["video"], minlength=len(file.video_columns["video_id"]))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
