"""The same probe on several embeddings of the same patients: models, poolings, or samplings of a file of frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from panecho_embed.core.beats import Beat
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.digests import digest_of_arrays
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable, VideoFacts
from panecho_embed.core.wording import counted
from panecho_embed.evaluation.candidates import Candidate, common_rows
from panecho_embed.evaluation.comparison import Comparison, check_margin, compare_candidates
from panecho_embed.extraction.summary import notes_on_beats, notes_on_padding
from panecho_embed.store import EmbeddingFile, RowsOnDisk
from probes.base import BaseProbe
from probes.plans import RunSettings
from probes.problem import Problem
from probes.run import Evaluation, evaluate, recording_only

if TYPE_CHECKING:
    from panecho_embed.extraction.clip_engine import ClipEngine


_REFITS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Candidates on the units that all of them have.

    comparisons: one a target. evaluations: target -> candidate -> evaluation. n_left_out: units that not every file
    has, by target. refused: target -> why, of those that could not be compared.
    """

    comparisons: tuple[Comparison, ...]
    evaluations: Mapping[str, Mapping[str, Evaluation]]
    n_left_out: Mapping[str, int]
    refused: Mapping[str, str]


def compare_problems(
    problems: Mapping[str, Sequence[Problem]],
    make_probe: Callable[[Problem], BaseProbe] | Mapping[str, Callable[[Problem], BaseProbe]],
    settings: RunSettings,
    *,
    reference: str | None = None,
    margin: str = "",
    refused: Mapping[str, str] | None = None,
) -> Compared:
    """Train and test the same probe on every candidate, on the same patients, splits and draws, and compare.

    Parameters
    ----------
    problems : mapping of str to sequence of Problem
        Candidate -> its targets.
    make_probe : callable, or mapping of str to callable
        A fresh probe for a problem; by candidate where each has a probe of its own.
    settings : RunSettings
    reference, margin : str
        As in `compare_candidates`.
    refused : mapping, optional
        Targets that were refused before, with the reason.

    Raises
    ------
    ArgumentError
        For fewer than two candidates, and when no target can be compared, with the reasons.
    """
    if len(problems) < 2:
        raise ArgumentError(f"a comparison needs two candidates or more; there is {', '.join(problems) or 'none'}")
    by_target: dict[str, dict[str, Problem]] = {}
    for name, targets in problems.items():
        for problem in targets:
            by_target.setdefault(problem.target.name, {})[name] = problem
    check_margin(margin, [next(iter(of_target.values())).target for of_target in by_target.values()])
    told = dict(refused or {})
    for target, of_target in by_target.items():
        if lacking := [name for name in problems if name not in of_target]:
            told.setdefault(target, f"{', '.join(lacking)} lacks it")
    makers = make_probe if isinstance(make_probe, Mapping) else dict.fromkeys(problems, make_probe)
    found = _evaluated_targets(by_target, makers, settings, told)
    if not found:
        raise ArgumentError(f"no target can be compared: {'; '.join(f'{name}: {why}' for name, why in told.items())}")
    evaluations = {target: of_target for target, (of_target, _) in found.items()}
    statistics: dict[str, Any] = {"cutoffs": settings.cutoffs, "draws": settings.draws, "seed": settings.seed}
    candidates = [_candidate(name, evaluations, settings) for name in problems]
    comparisons = compare_candidates(candidates, reference=reference, margin=margin, **statistics)
    return Compared(
        tuple(comparisons), evaluations, {target: left_out for target, (_, left_out) in found.items()}, told
    )


def _candidate(name: str, evaluations: Mapping[str, Mapping[str, Evaluation]], settings: RunSettings) -> Candidate:
    own = {target: of_target[name] for target, of_target in evaluations.items()}
    predictions = {target: one.predictions for target, one in own.items()}
    chance = {target: one.chance for target, one in own.items()}
    recording = {target: _recording_only(one, settings) for target, one in own.items()}
    return Candidate(name, predictions, "probe", chance, recording=recording)


def _evaluated_targets(
    by_target: Mapping[str, Mapping[str, Problem]],
    make_probe: Mapping[str, Callable[[Problem], BaseProbe]],
    settings: RunSettings,
    refused: dict[str, str],
) -> dict[str, tuple[dict[str, Evaluation], int]]:
    """What `_evaluated` gives for each target that is not refused; of several, those that fail are refused too."""
    found = {}
    for target, of_target in by_target.items():
        if target in refused:
            continue
        try:
            found[target] = _evaluated(of_target, make_probe, settings)
        except ArgumentError as error:
            if len(by_target) == 1:
                raise
            refused[target] = str(error)
    return found


def _recording_only(evaluation: Evaluation, settings: RunSettings) -> dict[str, float]:
    """On the same trainings and test rows as the evaluation."""
    problem, plans = evaluation.problem, evaluation.plans
    own = settings if problem.target.kind == "regression" else replace(settings, cutoffs=())
    return recording_only(problem, plans, own, chooses=evaluation.probes[0].chooses())


def _evaluated(
    of_target: Mapping[str, Problem], make_probe: Mapping[str, Callable[[Problem], BaseProbe]], settings: RunSettings
) -> tuple[dict[str, Evaluation], int]:
    """The evaluation of each candidate on the units that all have, and how many units were left out."""
    common, left_out = common_rows(list(of_target.items()))
    cutoffs = settings.cutoffs if common[0].target.kind == "regression" else ()
    # One training set is refitted, so that the comparison knows what other training patients would give.
    own = replace(settings, refits=settings.refits or _REFITS, cutoffs=cutoffs)
    found = {name: evaluate(one, make_probe[name](one), own) for name, one in zip(of_target, common, strict=True)}
    return found, left_out


def default_samplings(frames: int, *, beats: bool = False) -> dict[str, ClipPlan]:
    """Consecutive, step 2, uniform and, with `beats`, one heartbeat; 1, 2, 4 and 8 clips a video; by their names."""
    ways: dict[str, dict[str, Any]] = {"consecutive": {}, "step 2": {"frame_step": 2}}
    ways["uniform"] = {"frame_step": None, "uniform": True}
    if beats:
        ways["one heartbeat"] = {"beats": 1}
    return {
        f"{name}, {counted(clips, 'clip')}": ClipPlan(frames, num_clips=clips, **way)
        for name, way in ways.items()
        for clips in (1, 2, 4, 8)
    }


def sweep_tables(
    source: str | Path,
    samplings: Mapping[str, ClipPlan] | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    announce: Callable[[str], object] = lambda message: None,
) -> Iterator[tuple[str, EmbeddingTable]]:
    """Clip-level embeddings for each sampling, by its name.

    samplings: None for `default_samplings`, with heartbeats where the file knows any. weights, seed: of the clip
    encoder, those of the file. announce: told which videos are not cut by their heartbeat. Raises ArgumentError for a
    file without frames, SettingsMismatchError for other weights, MediaError where a sampling can't cut a video.
    """
    from panecho_embed.extraction.clip_engine import ClipEngine
    from panecho_embed.extraction.reclipping import backbone_of_frames

    file = EmbeddingFile(source)
    if file.level != "frame":
        raise ArgumentError(f"{source} holds {file.level} rows; a sweep needs frames (extract --level frame)")
    backbone = backbone_of_frames(file, weights, seed, device, flags="--backbone-weights, --backbone-seed")
    frames, rows = file.table_without_values(), file.rows_on_disk
    engine = ClipEngine(backbone, file.provenance.precision)
    facts = file.facts()
    if samplings is None:
        samplings = default_samplings(backbone.feeding.clips.frames_per_clip, beats=_know_beats(facts))
    by_beats = next((plan for plan in samplings.values() if plan.beats is not None), None)
    for note in notes_on_beats(file, by_beats):
        announce(note)
    timings = [facts[position].timing for position in file.row_columns["video"]]
    taken: dict[str, str] = {}
    for name, plan in samplings.items():
        # Of short videos, several plans can take the very same frames: one candidate, not several that agree.
        same = _frames_taken(facts, plan)
        if same in taken:
            announce(f"{name} takes the same frames as {taken[same]} and is not a separate candidate")
            continue
        taken[same] = name
        for note in notes_on_padding(file, plan):
            announce(f"{name}: {note}")
        yield name, _sampled_table(frames, rows, engine, timings, name, plan)


def _frames_taken(facts: Sequence[VideoFacts], plan: ClipPlan) -> str:
    """A digest of the frames that a plan takes from every done video."""
    return digest_of_arrays(*(plan.indices(*fact.timing) for fact in facts if fact.status == "done"))


def _know_beats(facts: Sequence[VideoFacts]) -> bool:
    """Whether the rate of every video is known, and the heartbeat of any."""
    done = [fact for fact in facts if fact.status == "done"]
    known = [fact.recording.heart_rate_bpm for fact in done if not math.isnan(fact.recording.heart_rate_bpm)]
    return bool(known) and not any(math.isnan(fact.fps) for fact in done)


def _sampled_table(
    frames: EmbeddingTable,
    embeddings: RowsOnDisk,
    engine: ClipEngine,
    timings: Sequence[tuple[int, float | None, Beat]],
    name: str,
    plan: ClipPlan,
) -> EmbeddingTable:
    """Clips of one sampling from the rows of a file of frames; the clip encoder runs, the image encoder does not."""
    import torch

    values, rows, firsts, steps = [], [], [], []
    # A file keeps the rows of a video together.
    begin = np.flatnonzero(np.r_[True, frames.video_id[1:] != frames.video_id[:-1]]).tolist()
    for start, stop in pairwise([*begin, len(frames)]):
        order = start + np.argsort(frames.first_frame[start:stop], kind="stable")
        features = torch.from_numpy(embeddings[order].astype(np.float32, copy=False)).to(engine.device)
        _, fps, beat = timings[start]
        indices = plan.require(stop - start, fps, beat)
        values.append(engine(features, indices).cpu().numpy())
        rows.append(np.full(len(indices), start))
        firsts.append(indices[:, 0])
        steps.append(np.full(len(indices), plan.step(stop - start, fps, beat)))
    row, joined = np.concatenate(rows), np.concatenate(values)
    provenance = replace(frames.provenance, level="clip", clips=plan, dim=joined.shape[1], pooling=name)
    return EmbeddingTable(
        values=joined,
        video_id=frames.video_id[row],
        study_id=frames.study_id[row],
        patient_id=frames.patient_id[row],
        view=frames.view[row],
        split=frames.split[row],
        first_frame=np.concatenate(firsts),
        frame_step=np.concatenate(steps),
        frames_per_clip=np.full(len(row), plan.frames_per_clip),
        labels={name: column[row] for name, column in frames.labels.items()},
        level="clip",
        provenance=provenance,
        units=frames.units,
    )
