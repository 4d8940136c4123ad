"""How an extraction ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.records import Failure
from panecho_embed.core.shards import Shard
from panecho_embed.core.wording import counted
from panecho_embed.store import EmbeddingFile

_NAMED = 10


@dataclass(frozen=True, slots=True)
class ExtractSummary:
    """How an extraction, or one shard of it, ended.

    videos: in the manifest, or in the shard's share; done + len(skipped) + len(failed). reused: done before this run.
    skipped: readable, but no cine loop. failed: could not be read. notes: what a person should know besides.
    out: a path, or a URL. shard: whose share it is; then `out` is still to be put together, by `panecho-embed merge`.
    files: of several clip plans, the summary of each by its name. `out` is then their folder, `rows` those of all
    files, and `done` counts the videos that no plan lacks; each video that one lacks is listed once.
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
    files: Mapping[str, ExtractSummary] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if all is done (skipped stills are no failure), 3 if some inputs failed."""
        return 3 if self.failed else 0


def summary_of_several(where: Path | str, files: Mapping[str, ExtractSummary], seconds: float) -> ExtractSummary:
    """How the extraction of several clip plans into the folder `where` ended."""
    each = list(files.values())
    failed = {failure.video_id: failure for one in each for failure in one.failed}
    skipped = {f.video_id: f for one in each for f in one.skipped if f.video_id not in failed}
    return ExtractSummary(
        where,
        rows=sum(one.rows for one in each),
        videos=each[0].videos,
        done=each[0].videos - len(failed) - len(skipped),
        reused=min(one.reused for one in each),
        skipped=tuple(skipped.values()),
        failed=tuple(failed.values()),
        seconds=seconds,
        notes=tuple(dict.fromkeys(note for one in each for note in one.notes)),
        shard=each[0].shard,
        files=files,
    )


def cut_without_beat(file: EmbeddingFile, plan: ClipPlan) -> list[str]:
    """The done videos of a file that a plan of heartbeats cuts at a fixed step, by id."""
    ids = file.read_videos(["video_id"])["video_id"]
    done = ((name, fact) for name, fact in zip(ids, file.facts(), strict=True) if fact.status == "done")
    return [str(name) for name, fact in done if not plan.follows_beat(*fact.timing)]


def notes_on_beats(file: EmbeddingFile, plan: ClipPlan | None) -> tuple[str, ...]:
    """How the heartbeats of a file's videos were found, and which videos are not cut by theirs; () without beats."""
    if plan is None or plan.beats is None:
        return ()
    columns = file.read_videos(["status", "heart_rate_source"])
    sources = Counter(columns["heart_rate_source"][columns["status"] == "done"])
    found = ", ".join(f"{count} by {source}" for source, count in sources.most_common() if source) or "none is known"
    note = f"heartbeat of {counted(sum(sources.values()), 'video')}: {found}"
    without = cut_without_beat(file, plan)
    if not without:
        return (note,)
    step = f"{plan.target_fps:g} frames per second" if plan.target_fps is not None else f"a step of {plan.frame_step}"
    named = ", ".join(without[:_NAMED]) + (f" and {len(without) - _NAMED} more" if len(without) > _NAMED else "")
    which = f"{plan.beats} whole trustworthy beats" if plan.beats > 1 else "a whole trustworthy beat"
    return (note, f"{counted(len(without), 'video')} without {which}, cut at {step} instead: {named}")
