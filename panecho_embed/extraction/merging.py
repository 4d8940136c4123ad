"""The shards of a job array -> one embedding file."""

from __future__ import annotations

import time
from pathlib import Path

from panecho_embed.core.errors import StoreError
from panecho_embed.extraction.summary import ExtractSummary, notes_on_beats, notes_on_padding
from panecho_embed.store import EmbeddingFile, Parts


def merge(out: str | Path) -> ExtractSummary:
    """Merge what the shards of an extraction (`shard=`) have written beside `out`.

    Needs neither the videos nor the weights. Where everything is merged already, nothing is changed.

    Parameters
    ----------
    out : str or Path
        Embedding file that the shards were given.

    Returns
    -------
    ExtractSummary
        Rows, and what failed or was skipped.

    Raises
    ------
    StoreError
        If a shard is running, or if videos are neither done nor failed; the message names the shards that have to run
        again.
    """
    started = time.monotonic()
    target = Path(out).absolute()
    with Parts(target) as parts:
        agreed = parts.agreement()
        if agreed is None:
            if not target.exists():
                raise StoreError(f"nothing to merge: no shard has written parts of {target} (extract --shard i/n)")
            return _summary_of(EmbeddingFile(target), started)
        manifest = agreed.manifest
        parts.begin(manifest, agreed.provenance)
        parts.check_all_there(manifest)
        file = parts.finish(manifest, agreed.provenance)
        return _summary_of(file, started, tuple(parts.notes))


def _summary_of(file: EmbeddingFile, started: float, notes: tuple[str, ...] = ()) -> ExtractSummary:
    statuses = file.read_videos(["status"])["status"]
    failures = file.failure_records()
    return ExtractSummary(
        file.path,
        rows=len(file),
        videos=len(statuses),
        done=int((statuses == "done").sum()),
        reused=0,
        skipped=tuple(f for f in failures if f.stage == "skipped"),
        failed=tuple(f for f in failures if f.stage != "skipped"),
        seconds=time.monotonic() - started,
        notes=(*notes, *notes_on_beats(file, file.provenance.clips), *notes_on_padding(file, file.provenance.clips)),
    )
