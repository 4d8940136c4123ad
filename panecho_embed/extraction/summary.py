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
MOST_PADDING = 0.1
"""Share of the clips' frames that may be padding without a warning."""


@dataclass(frozen=True, slots=True)
class ExtractSummary:
    """How an extraction, or one shard of it, ended.

    videos: in the manifest, or in the shard's share; done + len(skipped) + len(failed). reused: done before this run.
    skipped: readable, but no cine loop. failed: could not be read. notes: what a person should know besides.
    out: a path, or a URL. shard: whose share it is; then `out` is still to be merged, by `panecho-embed merge`.
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


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a clip plan takes from the done videos of a file.

    Parameters
    ----------
    videos, padded : int
        Number of done videos, and of those that are shorter than a clip and padded.
    clips : mapping of int to int
        Number of clips per video -> number of such videos.
    share : float
        Share of all frames of the clips that is padding, 0 to 1.
    """

    videos: int
    padded: int
    clips: Mapping[int, int]
    share: float

    @classmethod
    def of(cls, file: EmbeddingFile, plan: ClipPlan) -> Sampling:
        """Of the done videos of a file whose number of frames is known."""
        timings = [fact.timing for fact in file.facts() if fact.status == "done" and fact.timing[0] > 0]
        each = [plan.padding(*timing) for timing in timings]
        clips = Counter(frames // plan.frames_per_clip for _, frames in each)
        total = sum(frames for _, frames in each)
        share = sum(padded for padded, _ in each) / total if total else 0.0
        return cls(len(each), sum(padded > 0 for padded, _ in each), dict(sorted(clips.items())), share)

    def describe(self) -> str:
        """For people: "clips per video: 1 (12 videos), 4 (3 videos); 12 of 15 videos padded, 40 % of the frames"."""
        clips = ", ".join(f"{clips} ({counted(videos, 'video')})" for clips, videos in self.clips.items())
        if not self.padded:
            return f"clips per video: {clips}; none padded"
        share = f"{100 * self.share:.3g} % of the clips' frames"
        return f"clips per video: {clips}; {self.padded} of {counted(self.videos, 'video')} padded, {share}"

    @property
    def warning(self) -> str:
        """What to do where more than a tenth of the frames is padding; "" elsewhere."""
        if self.share <= MOST_PADDING:
            return ""
        return (
            f"{100 * self.share:.3g} % of the clips' frames is padding, as {self.padded} of "
            f"{counted(self.videos, 'video')} {'is' if self.padded == 1 else 'are'} shorter than a clip: take shorter "
            "clips (--frames-per-clip), a smaller --frame-step, or --short skip"
        )


def notes_on_padding(file: EmbeddingFile, plan: ClipPlan | None) -> tuple[str, ...]:
    """How many videos of a file a plan pads, with a warning where that is more than a tenth; () where none is."""
    if plan is None:
        return ()
    found = Sampling.of(file, plan)
    return tuple(filter(None, (found.describe() if found.padded else "", found.warning)))


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
