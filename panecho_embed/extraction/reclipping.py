"""A frame-level file -> other clips, without the videos and without the image encoder, nearly all of the cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.clips import ClipPlan, resolve_plan
from panecho_embed.core.errors import ArgumentError, MediaError, SettingsMismatchError, StoreError
from panecho_embed.core.outputs import refuse_to_replace
from panecho_embed.core.progress import Announce, progress_bar, silent
from panecho_embed.core.records import Failure, Status
from panecho_embed.datasets import carry_over, local_path
from panecho_embed.extraction.clip_engine import ClipEngine
from panecho_embed.extraction.encode import not_finite, stored
from panecho_embed.extraction.summary import ExtractSummary, notes_on_beats, notes_on_padding
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.store import EmbeddingFile, EmbeddingWriter, RowsOnDisk
from panecho_embed.store.layout import PHASE_COLUMNS

# Videos whose clips are encoded together: more are not faster, and their frames stay in memory.
_BLOCK_CLIPS, _BLOCK_ROWS = 256, 16_384


@dataclass(frozen=True, slots=True, eq=False)
class _Cut:
    """How a video is cut: its position in the file, its rows there, its clips (N, L) of frames, and their step."""

    position: int
    start: int
    stop: int
    clips: Ints
    step: float


def reclip(
    source: str | Path,
    out: str | Path,
    *,
    clips: ClipPlan | Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    id_table: Path | None = None,
    overwrite: bool = False,
    progress: bool | None = False,
    announce: Announce = silent,
) -> ExtractSummary:
    """Make clip embeddings from a frame-level file, without the videos; the same that `extract` would have made.

    Only for backbones whose pictures are frames. PanEcho builds its clips from other pictures, and is refused.

    Parameters
    ----------
    source : str or Path
        Embedding file at frame level.
    out : str or Path
        Embedding file to write.
    clips : ClipPlan or mapping, optional
        Which clips, as for `extract`. Default: the backbone's own plan.
    weights : str or Path, optional
        Weights file of the clip encoder, the one that encoded the frames. Default: found as by `extract`.
    seed : int
        Seed for the weights of the backbone "random", the one of the frames.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    id_table : Path, optional
        Where the local table of ids is written. Default: beside `out`.
    overwrite : bool
        Replace `out`.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal only.
    announce : callable
        Called with what runs the clip encoder.

    Returns
    -------
    ExtractSummary
        Rows, and what failed or was skipped.

    Raises
    ------
    ArgumentError
        If `source` is not at frame level, or its backbone's pictures are not frames.
    SettingsMismatchError
        For other weights than those of the frames.
    StoreError
        If `out` exists (unless `overwrite`) or can't be written, or if `source` is damaged.
    """
    started = time.monotonic()
    refuse_to_replace(Path(out), overwrite, source)
    file = EmbeddingFile(source)
    backbone = backbone_of_frames(file, weights, seed, device)
    made_with = file.provenance
    plan = resolve_plan(clips, backbone.feeding.clips)
    backbone.check_clips(plan)
    # Frames that were rounded give clips that extract would not have given.
    rounded = "from float16 frames" if made_with.dtype == "float16" else ""
    provenance = replace(
        made_with,
        level="clip",
        clips=plan,
        dim=backbone.dim,
        pooling=rounded,
        overrides=backbone.overrides(made_with.feeding, plan),
    )
    engine = ClipEngine(backbone, provenance.precision, announce=announce)
    outcome = _Outcome(file, plan)
    rows = file.rows_on_disk
    with (
        EmbeddingWriter(out, provenance) as writer,
        progress_bar("video", progress, total=len(outcome.facts), smoothing=0.1) as bar,
    ):
        for block in _blocks(outcome.cuts()):
            _write(block, rows, engine, outcome, writer)
            bar.update(block[-1].position + 1 - bar.n)
        ran = ", ".join([*filter(None, [made_with.engine]), *engine.names])
        path = writer.finish(outcome.manifest, outcome.fact_columns(), outcome.failures(), ran)
    carry_over(file.path, id_table or local_path(path), file.video_columns["video_id"])
    summary = outcome.summary(path, writer.rows, time.monotonic() - started)
    return replace(summary, notes=(*notes_on_beats(writer.written, plan), *notes_on_padding(writer.written, plan)))


class _Outcome:
    """What becomes of the videos of a frame-level file; those that give no clips are reported as failures."""

    def __init__(self, file: EmbeddingFile, plan: ClipPlan) -> None:
        self.manifest, self.facts, self._plan = file.manifest(), file.facts(), plan
        if plan.ed_es:
            pairs = zip(self.facts, self.manifest.phases(), strict=True)
            self.facts = [
                replace(fact, recording=replace(fact.recording, end_diastole=ed, end_systole=es))
                for fact, (ed, es) in pairs
            ]
        self._file, self._path = file, file.path
        self._videos = file.raw_rows["video"]
        self.other_rows = file.other_rows()
        self._failures = {failure.video_id: failure for failure in file.failure_records()}
        self._stops = np.cumsum(np.bincount(self._videos, minlength=len(self.facts))).tolist()

    def cuts(self) -> Iterator[_Cut]:
        """How every video that can be is cut, in order."""
        if (np.diff(self._videos) < 0).any():
            raise StoreError(f"{self._path} is damaged: its rows are not in the order of its videos")
        for position, (fact, start, stop) in enumerate(zip(self.facts, [0, *self._stops], self._stops, strict=False)):
            if fact.status != "done":
                continue
            if stop - start != fact.num_frames:
                # The indices of its clips would reach into the next video.
                raise StoreError(
                    f"{self._path} is damaged: {self.manifest.videos[position].video_id} has {fact.num_frames} frames "
                    f"and {stop - start} rows"
                )
            try:
                plan = self._plan
                yield _Cut(position, start, stop, plan.require(*fact.timing), plan.step(*fact.timing))
            except MediaError as error:
                video = self.manifest.videos[position]
                self.fail(position, Failure(video.video_id, video.path, error.stage, str(error)))

    def fail(self, position: int, failure: Failure) -> None:
        """Note that a video gives no clips, and why."""
        status: Status = "skipped" if failure.stage == "skipped" else "failed"
        self.facts[position] = replace(self.facts[position], status=status)
        self._failures[failure.video_id] = failure

    def failures(self) -> list[Failure]:
        """All of them, in the order of the videos."""
        ids = (video.video_id for video in self.manifest.videos)
        return [self._failures[video_id] for video_id in ids if video_id in self._failures]

    def fact_columns(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of all facts, those included that are not known here."""
        columns = self._file.read_facts() | {"status": np.array([fact.status for fact in self.facts], dtype=object)}
        if self._plan.ed_es:
            columns |= {name: np.array([getattr(f.recording, name) for f in self.facts]) for name in PHASE_COLUMNS}
        return columns

    def summary(self, out: Path, rows: int, seconds: float) -> ExtractSummary:
        """What has become of all of them, for a file of clips that is written."""
        failures = self.failures()
        return ExtractSummary(
            out,
            rows=rows,
            videos=len(self.facts),
            done=len(self.facts) - len(failures),
            reused=0,
            skipped=tuple(failure for failure in failures if failure.stage == "skipped"),
            failed=tuple(failure for failure in failures if failure.stage != "skipped"),
            seconds=seconds,
        )


def _blocks(cuts: Iterable[_Cut]) -> Iterator[list[_Cut]]:
    """Neighbouring videos with about `_BLOCK_CLIPS` clips in all."""
    block: list[_Cut] = []
    count = 0
    for cut in cuts:
        if block and (count >= _BLOCK_CLIPS or cut.stop - block[0].start > _BLOCK_ROWS):
            yield block
            block, count = [], 0
        block.append(cut)
        count += len(cut.clips)
    if block:
        yield block


def _write(
    block: Sequence[_Cut], rows: RowsOnDisk, engine: ClipEngine, outcome: _Outcome, writer: EmbeddingWriter
) -> None:
    """Encode the clips of some videos together, and write those that are finite."""
    first, dtype = block[0].start, np.dtype(writer.provenance.dtype)
    features = torch.from_numpy(rows[first : block[-1].stop].astype(np.float32, copy=False)).to(engine.device)
    clips = np.concatenate([cut.clips + (cut.start - first) for cut in block])
    values = stored(engine(features, clips), dtype)
    whose = np.repeat(np.arange(len(block)), [len(cut.clips) for cut in block])
    bad = np.unique(whose[~np.isfinite(values).all(axis=1)])
    for cut in (block[i] for i in bad):
        video = outcome.manifest.videos[cut.position]
        outcome.fail(cut.position, not_finite(video.video_id, video.path, writer.provenance.precision, dtype))
    good = ~np.isin(whose, bad)
    writer.add(
        np.array([cut.position for cut in block])[whose][good],
        values[good],
        np.concatenate([cut.clips[:, 0] for cut in block])[good],
        np.array([cut.step for cut in block])[whose][good],
        clips.shape[1],
        # A clip says what its first frame says.
        **{name: column[first + clips[:, 0]][good] for name, column in outcome.other_rows.items()},
    )


def backbone_of_frames(
    file: EmbeddingFile, weights: str | Path | None, seed: int, device: str, flags: str = "--weights, --seed"
) -> Backbone:
    """The backbone that a frame-level file was made with, on `device`; its clip encoder goes on from the frames.

    flags: what the error tells the user to set. Raises ArgumentError if the file has no frames, and
    SettingsMismatchError if the weights are others than the file's.
    """
    if file.level != "frame":
        raise ArgumentError(
            f"{file.path} holds {file.level} rows; clips are made from a frame-level file (--level frame)"
        )
    made_with = file.provenance
    check_pictures_are_frames(file)
    backbone = load_backbone(made_with.backbone, weights, seed, image_size=made_with.feeding.crop)
    if backbone.weights.sha256 != made_with.weights.sha256:
        raise SettingsMismatchError(
            f"{file.path} was made with the weights {made_with.weights.source} "
            f"(sha256 {made_with.weights.sha256[:12]}), not {backbone.weights.source} "
            f"(sha256 {backbone.weights.sha256[:12]}); name those ({flags})"
        )
    if backbone.plane_order != "frames":
        raise SettingsMismatchError(
            f"{file.path} was made on frames, and {backbone.name} takes other pictures ({flags})"
        )
    if backbone.l2_normalised != made_with.l2_normalised:
        raise SettingsMismatchError(
            f"{file.path} was made with l2_normalised {made_with.l2_normalised}, and {backbone.name} has "
            f"{backbone.l2_normalised} in this release; extract it anew"
        )
    return backbone.to(resolve_device(device))


def check_pictures_are_frames(file: EmbeddingFile) -> None:
    """Raise ArgumentError for a frame-level file whose backbone makes clips of other pictures than frames."""
    made_with = file.provenance
    if file.level == "frame" and made_with.plane_order != "frames":
        raise ArgumentError(
            f"{file.path} holds vectors of frames. {made_with.backbone} builds its clips from other pictures (three "
            'consecutive planes each: "Order of planes" in docs/models.md), so they cannot be made from this file. '
            "Extract them from the videos, several plans in one pass: panecho-embed extract VIDEOS -o DIR "
            '--plan "--clips 4" --plan "--frame-step 2"'
        )
