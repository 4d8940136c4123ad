"""The same probe on several embeddings of the same patients: other models, samplings, poolings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.candidates import Candidate, common_rows
from panecho_embed.evaluation.comparison import Comparison, check_margin, compare_candidates
from probes.base import BaseProbe
from probes.plans import RunSettings
from probes.problem import Problem
from probes.run import Evaluation, evaluate, recording_only

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
    make_probe: Callable[[Problem], BaseProbe],
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
    make_probe : callable
        A fresh probe for a problem.
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
    evaluations: dict[str, dict[str, Evaluation]] = {}
    left_out: dict[str, int] = {}
    for target, of_target in by_target.items():
        if lacking := [name for name in problems if name not in of_target]:
            told.setdefault(target, f"{', '.join(lacking)} lacks it")
        if target in told:
            continue
        try:
            evaluations[target], left_out[target] = _evaluated(of_target, make_probe, settings)
        except ArgumentError as error:
            if len(by_target) == 1:
                raise
            told[target] = str(error)
    if not evaluations:
        raise ArgumentError(f"no target can be compared: {'; '.join(f'{name}: {why}' for name, why in told.items())}")
    candidates = [
        Candidate(
            name,
            {target: found[name].predictions for target, found in evaluations.items()},
            "probe",
            {target: found[name].chance for target, found in evaluations.items()},
            recording={target: _recording_only(found[name], settings) for target, found in evaluations.items()},
        )
        for name in problems
    ]
    comparisons = compare_candidates(
        candidates,
        reference=reference,
        margin=margin,
        cutoffs=settings.cutoffs,
        draws=settings.draws,
        seed=settings.seed,
    )
    return Compared(tuple(comparisons), evaluations, left_out, told)


def _recording_only(evaluation: Evaluation, settings: RunSettings) -> dict[str, float]:
    """On the same trainings and test rows as the evaluation."""
    problem, plans = evaluation.problem, evaluation.plans
    own = settings if problem.target.kind == "regression" else replace(settings, cutoffs=())
    return recording_only(problem, plans, own, chooses=evaluation.probes[0].chooses())


def _evaluated(
    of_target: Mapping[str, Problem], make_probe: Callable[[Problem], BaseProbe], settings: RunSettings
) -> tuple[dict[str, Evaluation], int]:
    """The evaluation of each candidate on the units that all have, and how many units were left out."""
    common, left_out = common_rows(list(of_target.items()))
    cutoffs = settings.cutoffs if common[0].target.kind == "regression" else ()
    # One training set is refitted, so that the comparison knows what other training patients would give.
    own = replace(settings, refits=settings.refits or _REFITS, cutoffs=cutoffs)
    found = {name: evaluate(one, make_probe(one), own) for name, one in zip(of_target, common, strict=True)}
    return found, left_out
