"""Results -> parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from panecho_embed.engines.encode import EncodedVideo
from panecho_embed.engines.profile import Profile
from panecho_embed.errors import StoreError
from panecho_embed.provenance import Provenance
from panecho_embed.records import Failure, Manifest, Status, VideoFacts
from panecho_embed.store import EmbeddingWriter, Parts

# A part is what a kill can cost: a minute's work, or less where videos are quick.
PART_VIDEOS = 256
_PART_SECONDS = 60.0
_PART_BYTES = 64 * 1024 * 1024

Result = tuple[int, EncodedVideo | Failure]
"""Position of a video in the manifest, and what became of it."""


class PartWriter:
    """Gathers results and writes a part whenever enough of them, or a minute's worth, have come together.

    engines: asked with every part for the names of those that were used. Use it in a `with` block: what has been
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
        self._results: list[Result] = []
        self._bytes = 0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # Where parts can't be written, a second try would only hide why.
        if not isinstance(error, StoreError):
            self.write()

    def add(self, result: Result) -> None:
        """Take a result in, and write a part if it is time."""
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
        _write(path, manifest, [outcome for _, outcome in results], provenance)
        self._parts.written(path)


def _write(path: Path, manifest: Manifest, outcomes: Sequence[EncodedVideo | Failure], provenance: Provenance) -> None:
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
