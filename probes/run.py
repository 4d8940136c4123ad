"""A whole run: every target evaluated, with the control, subgroups and label efficiency that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone

from panecho_embed.metrics import DEFAULT_DRAWS
from panecho_embed.records import Score
from probes.base import BaseProbe, Floats
from probes.control import shuffled_label_control
from probes.efficiency import LabelEfficiency, label_efficiency
from probes.evaluation import Evaluation, evaluate, fit_fold, make_folds, youden_threshold
from probes.folds import Fold
from probes.problem import Problem
from probes.subgroups import subgroup_scores


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What to compute. folds: None for the split column. The rest as in `evaluate` and `label_efficiency`."""

    folds: int | None = None
    cutoffs: tuple[float, ...] = ()
    subgroups: tuple[str, ...] = ()
    control: bool = False
    fractions: tuple[float, ...] = ()
    shots: tuple[int, ...] = ()
    repeats: int = 10
    draws: int = DEFAULT_DRAWS
    seed: int = 0
    allow_leakage: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TargetResult:
    """One target's results. probe: to be applied to new data; threshold: its binary decision.

    With given splits it is the probe that was tested; after cross-validation, one trained on all units.
    control: metric -> values (repeats,) with shuffled labels. subgroups: column -> group -> metric -> score.
    """

    evaluation: Evaluation
    probe: BaseProbe
    threshold: float
    control: dict[str, Floats] | None = None
    subgroups: dict[str, dict[str, dict[str, Score]]] = field(default_factory=dict)
    efficiency: LabelEfficiency | None = None


def run_targets(
    problems: Sequence[Problem], make_probe: Callable[[Problem], BaseProbe], settings: RunSettings
) -> Iterator[TargetResult]:
    """Evaluate one problem after the other."""
    for problem in problems:
        yield run_target(problem, make_probe(problem), settings)


def run_target(problem: Problem, probe: BaseProbe, settings: RunSettings) -> TargetResult:
    """Evaluate one problem, and whatever else the settings ask for."""
    folds = make_folds(problem, folds=settings.folds, seed=settings.seed)

    cutoffs = settings.cutoffs if problem.task == "regression" else ()
    evaluation = evaluate(
        problem,
        probe,
        folds,
        cutoffs=cutoffs,
        draws=settings.draws,
        seed=settings.seed,
        allow_leakage=settings.allow_leakage,
    )
    control = None
    if settings.control:
        control = shuffled_label_control(problem, probe, folds, cutoffs=cutoffs, seed=settings.seed)
    final, threshold = _final_probe(evaluation, probe)
    efficiency = None
    if settings.fractions or settings.shots:
        efficiency = label_efficiency(
            problem,
            probe,
            folds,
            fractions=settings.fractions,
            shots=settings.shots,
            repeats=settings.repeats,
            seed=settings.seed,
        )
    return TargetResult(
        evaluation,
        final,
        threshold,
        control=control,
        subgroups={column: subgroup_scores(evaluation, column) for column in settings.subgroups},
        efficiency=efficiency,
    )


def _final_probe(evaluation: Evaluation, probe: BaseProbe) -> tuple[BaseProbe, float]:
    problem = evaluation.problem
    if len(evaluation.folds) == 1:
        return evaluation.probes[0], float(evaluation.threshold[evaluation.tested[0]])
    none = np.empty(0, dtype=np.int64)
    everything = Fold("all", np.arange(len(problem)), none, none)
    fitted, held_out = fit_fold(problem, clone(probe), everything)
    return fitted, youden_threshold(problem.truth, held_out) if problem.task == "binary" else 0.5
