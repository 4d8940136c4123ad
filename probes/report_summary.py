"""The first page of a run's report: what was asked, and what came out, one line a target."""

from __future__ import annotations

from collections.abc import Sequence

from panecho_embed.evaluation.metrics import PRIMARY
from panecho_embed.evaluation.wording import display_name
from panecho_embed.report import Block, Facts, Section, Table, Text
from panecho_embed.wording import interval, number
from probes.outputs import RunInfo
from probes.run import TargetResult
from probes.wording import PROBE_NAMES, caution

TASKS = ("regression", "binary", "multiclass")


def asked(results: Sequence[TargetResult], info: RunInfo) -> Section:
    """What was asked, of what, and how."""
    result = results[0]
    evaluation, problem = result.evaluation, result.evaluation.problem
    targets = [r.evaluation.problem.target for r in results]
    named = targets[0] if len(targets) == 1 else f"{len(targets)} targets"
    probe = PROBE_NAMES[type(result.probe).__name__].lower()
    facts = {
        "Question": f"Can {named} be read from {problem.provenance.backbone} embeddings, per {problem.level}, by a "
        f"{probe}?",
        "Targets": ", ".join([*targets, *info.not_evaluated]),
        "Rows to predictions": _fusion(result),
        "Patients": _patients(result),
        "Intervals": f"95 %, {evaluation.draws:,} bootstraps over patients, seed {evaluation.seed}",
    }
    if evaluation.cutoffs:
        facts["Cut-offs"] = ", ".join(f"{cutoff:g}" for cutoff in evaluation.cutoffs)
    return Section("What was asked", [Facts(facts)])


def _fusion(result: TargetResult) -> str:
    problem = result.evaluation.problem
    if result.probe.pools:
        return f"the rows of a {problem.level} pooled by learned attention"
    if problem.fusion == "late":
        return f"the predictions of a {problem.level}'s rows averaged (late fusion)"
    return f"embeddings pooled: {problem.provenance.pooling} (early fusion)" if problem.provenance.pooling else "as is"


def _patients(result: TargetResult) -> str:
    folds = result.evaluation.folds
    split = "the given split" if len(folds) == 1 else f"{len(folds)} folds, each tested once"
    return split if result.k_shot is None else f"{split}; {result.k_shot}-shot training"


def by_task(results: Sequence[TargetResult]) -> list[list[TargetResult]]:
    """Results of the same kind of task together, in the order of the summary."""
    tasks = [[r for r in results if r.evaluation.problem.task == task] for task in TASKS]
    return [sorted(alike, key=lambda r: r.evaluation.problem.target) for alike in tasks if alike]


def summary(results: Sequence[TargetResult], info: RunInfo, warnings: Sequence[Block]) -> Section:
    """The primary metric of every target beside the baseline, sorted by task, below what there is to be wary of."""
    blocks: list[Block] = [*warnings]
    notes = {f"{r.evaluation.problem.target}: {note}" for r in results if (note := caution(r.evaluation))}
    same = {note.partition(": ")[2] for note in notes}
    if len(same) == 1 and len(notes) == len(results):
        notes = same
    blocks += [Text(note, "warning") for note in sorted(notes)]
    blocks += [Text(f"{name} was not evaluated: {why}", "warning") for name, why in info.not_evaluated.items()]
    rows = []
    for result in (result for alike in by_task(results) for result in alike):
        evaluation = result.evaluation
        metric = PRIMARY[evaluation.problem.task]
        score, gain = evaluation.scores[metric], evaluation.versus_baseline[metric]
        rows.append(
            [
                evaluation.problem.target,
                display_name(metric),
                number(score.value),
                interval(score),
                number(evaluation.baseline_scores[metric].value),
                f"{number(gain.value)} ({interval(gain)})",
                str(score.n),
                str(score.n_patients),
                evaluation.problem.task,
            ]
        )
    # What was asked for comes first: on a phone the rest is behind the edge.
    columns = ["Target", "Metric", "Value", "95 % interval", "Baseline", "Difference", "n", "Patients", "Task"]
    return Section("Result", [*blocks, Table(columns, rows)])
