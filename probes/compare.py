"""The same probe on several embeddings of the same patients: other models, samplings, poolings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.comparison import Candidate, Comparison, check_margin, compare_candidates
from probes.base import BaseProbe
from probes.problem import Problem
from probes.run import Evaluation, RunSettings, evaluate

REFITS = 10

MakeProbe = Callable[[Problem], BaseProbe]


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
    make_probe: MakeProbe,
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
    by_target = _by_target(problems)
    check_margin(margin, [next(iter(of_target.values())).target for of_target in by_target.values()])
    told = dict(refused or {})
    evaluations: dict[str, dict[str, Evaluation]] = {}
    left_out: dict[str, int] = {}
    for target, of_target in by_target.items():
        lacking = [name for name in problems if name not in of_target]
        if lacking:
            told.setdefault(target, f"{', '.join(lacking)} lacks it")
        if target in told:
            continue
        try:
            common, left_out[target] = common_units(of_target)
            evaluations[target] = {
                name: evaluate(problem, make_probe(problem), _for_target(settings, problem))
                for name, problem in common.items()
            }
        except ArgumentError as error:
            if len(by_target) == 1:
                raise
            told[target] = str(error)
            evaluations.pop(target, None)
    if not evaluations:
        reasons = "; ".join(f"{name}: {why}" for name, why in told.items())
        raise ArgumentError(f"no target can be compared: {reasons}")
    candidates = [
        Candidate(
            name,
            {target: found[name].predictions for target, found in evaluations.items()},
            "probe",
            {target: found[name].chance for target, found in evaluations.items()},
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


def _for_target(settings: RunSettings, problem: Problem) -> RunSettings:
    """The settings with training sets refitted where only one is seen; cut-offs are for a regression."""
    cutoffs = settings.cutoffs if problem.target.kind == "regression" else ()
    return replace(settings, refits=settings.refits or REFITS, cutoffs=cutoffs)


def common_units(problems: Mapping[str, Problem]) -> tuple[dict[str, Problem], int]:
    """The same units in the same order for every candidate, and how many were left out.

    Raises ArgumentError for no common units, and where the files contradict each other.
    """
    positions = {name: {key: i for i, key in enumerate(_keys(problem))} for name, problem in problems.items()}
    names = list(problems)
    keys = [key for key in positions[names[0]] if all(key in positions[name] for name in names[1:])]
    if not keys:
        shown = "; ".join(f"{name} has {next(iter(place), ())}" for name, place in positions.items())
        raise ArgumentError(f"the files have no {problems[names[0]].level} in common: {shown}")
    taken = {
        name: problem.take(np.array([positions[name][key] for key in keys], dtype=np.int64))
        for name, problem in problems.items()
    }
    for name in names[1:]:
        _check_agreement(names[0], taken[names[0]], name, taken[name])
    return taken, len(set().union(*positions.values())) - len(keys)


def _by_target(problems: Mapping[str, Sequence[Problem]]) -> dict[str, dict[str, Problem]]:
    found: dict[str, dict[str, Problem]] = {}
    for name, targets in problems.items():
        for problem in targets:
            found.setdefault(problem.target.name, {})[name] = problem
    return found


def _keys(problem: Problem) -> list[tuple[str, ...]]:
    columns = [problem.ids[name] for name in problem.ids if name != "patient_id"]
    return [tuple(map(str, key)) for key in zip(*columns, strict=True)]


def _check_agreement(one: str, a: Problem, other: str, b: Problem) -> None:
    if a.target != b.target:
        raise ArgumentError(f"{a.target.name} is {a.target} in {one} and {b.target} in {other}")
    columns: tuple[tuple[str, Any, Any], ...] = (
        ("patient", a.patient, b.patient),
        ("split", a.split, b.split),
        (a.target.name, a.truth, b.truth),
    )
    for what, mine, theirs in columns:
        unequal = ~np.isclose(mine, theirs) if mine.dtype.kind == "f" else mine != theirs
        if unequal.any():
            i = int(np.flatnonzero(unequal)[0])
            where = ", ".join(f"{name} {column[i]}" for name, column in a.ids.items())
            raise ArgumentError(
                f"{one} and {other} disagree on the {what} of {np.count_nonzero(unequal)} {a.level} rows, "
                f"first {where}: {mine[i]} and {theirs[i]}; give one table of labels to all (--labels)"
            )
