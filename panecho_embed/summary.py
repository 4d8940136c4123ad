"""How an extraction ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from panecho_embed.records import Failure
from panecho_embed.shards import Shard


@dataclass(frozen=True, slots=True)
class ExtractSummary:
    """How an extraction, or one shard of it, ended.

    videos: in the manifest, or in the shard's share; done + len(skipped) + len(failed). reused: done before this run.
    skipped: readable, but no cine loop. failed: could not be read. notes: what a person should know besides.
    out: a path, or a URL. shard: whose share it is; then `out` is still to be put together, by `panecho-embed merge`.
    """

    out: Path | str
    rows: int
    videos: int
    done: int
    reused: int
    skipped: tuple[Failure, ...]
    failed: tuple[Failure, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    shard: Shard | None = None

    @property
    def exit_code(self) -> int:
        """0 if all is done (skipped stills are no failure), 3 if some inputs failed."""
        return 3 if self.failed else 0
