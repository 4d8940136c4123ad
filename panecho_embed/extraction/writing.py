"""Results -> parts of the files that they belong to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from panecho_embed.core.arraytypes import FloatArray, Ints
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import MediaError, StoreError
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Failure, Manifest, Status, VideoFacts, VideoRef
from panecho_embed.extraction.encode import EncodedVideo
from panecho_embed.extraction.job import Output
from panecho_embed.extraction.profile import Profile
from panecho_embed.store import EmbeddingFile, EmbeddingWriter, Parts

# A part is what a kill can cost: a minute's work, or less where videos are quick.
PART_VIDEOS = 256
_PART_SECONDS = 60.0
_PART_BYTES = 64 * 1024 * 1024

Result = tuple[int, EncodedVideo | Failure]
"""Position of a video in the manifest, and what became of it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of one video in one file: values (N, D); first_frame (N,); frame_step and frames_per_clip in frames."""

    values: FloatArray
    first_frame: Ints
    frame_step: float
    frames_per_clip: int
    facts: VideoFacts


@contextmanager
def part_writers(
    outputs: Sequence[Output], manifest: Manifest, engines: Callable[[], Sequence[str]], profile: Profile
) -> Iterator[Callable[[Result], None]]:
    """A function that takes results in and writes the parts of every output; see `PartWriter`."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(PartWriter(output.parts, manifest, output.provenance, engines, profile))
            for output in outputs
        ]

        def add(result: Result) -> None:
            position, outcome = result
            for number, writer in enumerate(writers):
                if isinstance(outcome, Failure):
                    writer.add((position, outcome))
                else:
                    clips = outputs[number].provenance.clips
                    rows = _rows_of(manifest.videos[position], outcome, outcome.values[number], clips)
                    writer.add((position, rows))

        yield add


def _rows_of(
    video: VideoRef, encoded: EncodedVideo, values: FloatArray | Failure, clips: ClipPlan | None
) -> _Rows | Failure:
    """What one file holds of an encoded video; clips: its plan, None at frame level."""
    facts = encoded.facts
    if isinstance(values, Failure):
        return replace(values, size_bytes=facts.size_bytes, mtime_ns=facts.mtime_ns)
    if clips is None:
        return _Rows(values, np.arange(len(values), dtype=np.int64), 1.0, 1, facts)
    try:
        starts = clips.require(*facts.timing)[:, 0]
    except MediaError as error:
        return Failure(video.video_id, video.path, error.stage, str(error), facts.size_bytes, facts.mtime_ns)
    return _Rows(values, starts, clips.step(*facts.timing), clips.frames_per_clip, facts)


class PartWriter:
    """Gathers results and writes a part whenever enough of them, or a minute's worth, have come together.

    engines: called with every part for the names of those that were used. Use it in a `with` block: what has been
    gathered is written at its end, also when it is left by an exception, since the next run goes on from there.
    """

    def __init__(
        self,
        parts: Parts,
        manifest: Manifest,
        provenance: Provenance,
        engines: Callable[[], Sequence[str]],
        profile: Profile,
    ) -> None:
        self._parts = parts
        self._manifest = manifest
        self._provenance = provenance
        self._engines = engines
        self._profile = profile
        self._results: list[tuple[int, _Rows | Failure]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # Where parts can't be written, a second try would only hide why.
        if not isinstance(error, StoreError):
            self.write()

    def add(self, result: tuple[int, _Rows | Failure]) -> None:
        """Take in a video's position in the manifest and its rows, and write a part if it is time."""
        self._results.append(result)
        if not isinstance(result[1], Failure):
            self._bytes += result[1].values.nbytes
        waited = time.monotonic() - self._since
        if len(self._results) >= PART_VIDEOS or self._bytes >= _PART_BYTES or waited >= _PART_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what has been gathered as one part."""
        if self._results:
            with self._profile.measure("write"):
                self._write_part()
        self._results.clear()
        self._bytes = 0
        self._since = time.monotonic()

    def _write_part(self) -> None:
        results = sorted(self._results, key=lambda result: result[0])
        manifest = self._manifest.take([position for position, _ in results])
        path = self._parts.new_path()
        # Which engine it is shows with the first batch.
        provenance = replace(self._provenance, engine=", ".join(self._engines()))
        part = _write(path, manifest, [outcome for _, outcome in results], provenance)
        self._parts.written(part)


def _write(
    path: Path, manifest: Manifest, outcomes: Sequence[_Rows | Failure], provenance: Provenance
) -> EmbeddingFile:
    """Write what became of the videos of `manifest` as one embedding file."""
    facts, failures = [], []
    with EmbeddingWriter(path, provenance) as writer:
        for position, outcome in enumerate(outcomes):
            if isinstance(outcome, Failure):
                status: Status = "skipped" if outcome.stage == "skipped" else "failed"
                facts.append(VideoFacts(status, size_bytes=outcome.size_bytes, mtime_ns=outcome.mtime_ns))
                failures.append(outcome)
            else:
                facts.append(outcome.facts)
                writer.add(position, outcome.values, outcome.first_frame, outcome.frame_step, outcome.frames_per_clip)
        writer.finish(manifest, facts, failures)
    return writer.written
