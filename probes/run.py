"""A whole run: every target evaluated, with the control, subgroups and label efficiency that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import DEFAULT_DRAWS
from panecho_embed.records import Score
from probes.base import BaseProbe, ClassHeldOutError, Floats
from probes.control import ControlError, shuffled_label_control
from probes.draws import Draw, few_shots
from probes.efficiency import LabelEfficiency, label_efficiency
from probes.evaluation import Evaluation, evaluate, fit_fold, make_folds
from probes.folds import Fold
from probes.problem import Problem
from probes.scoring import youden_threshold
from probes.subgroups import subgroup_scores


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What to compute. folds: None for the split column. k_shot: patients a class to train on, None for all.

    The rest as in `evaluate` and `label_efficiency`.
    """

    folds: int | None = None
    k_shot: int | None = None
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

    With given splits it is the probe that was tested; after cross-validation, one trained on all units (or, with
    `k_shot`, on as many shots of them). k_shot, draws: who was trained on, where it was not everybody.
    control: metric -> values (repeats,) with shuffled labels. no_control: why there is none, though asked for.
    subgroups: column -> group -> metric -> score.
    """

    evaluation: Evaluation
    probe: BaseProbe
    threshold: float
    k_shot: int | None = None
    draws: tuple[Draw, ...] = ()
    control: dict[str, Floats] | None = None
    no_control: str = ""
    subgroups: dict[str, dict[str, dict[str, Score]]] = field(default_factory=dict)
    efficiency: LabelEfficiency | None = None


def run_targets(
    problems: Iterable[Problem],
    make_probe: Callable[[Problem], BaseProbe],
    settings: RunSettings,
    *,
    refused: dict[str, str] | None = None,
) -> Iterator[TargetResult]:
    """Evaluate one problem after the other.

    refused: takes the reason of each target that can't be evaluated; without it such a target raises ArgumentError.
    """
    for problem in problems:
        try:
            yield run_target(problem, make_probe(problem), settings)
        except ArgumentError as error:
            if refused is None:
                raise
            refused[problem.target] = str(error)


def run_target(problem: Problem, probe: BaseProbe, settings: RunSettings) -> TargetResult:
    """Evaluate one problem, and whatever else the settings ask for."""
    whole = folds = make_folds(problem, folds=settings.folds, seed=settings.seed)
    draws: list[Draw] = []
    if settings.k_shot is not None:
        folds, draws = few_shots(problem, probe, whole, settings.k_shot, seed=settings.seed)
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
    control, no_control = None, ""
    if settings.control:
        leak = settings.allow_leakage
        try:
            control = shuffled_label_control(
                problem, probe, folds, cutoffs=cutoffs, seed=settings.seed, allow_leakage=leak
            )
        except (ControlError, ClassHeldOutError) as error:
            no_control = str(error)
    final, threshold = _final_probe(evaluation, probe, settings)
    efficiency = None
    if settings.fractions or settings.shots:
        efficiency = label_efficiency(
            problem,
            probe,
            whole,
            fractions=settings.fractions,
            shots=settings.shots,
            repeats=settings.repeats,
            seed=settings.seed,
            allow_leakage=settings.allow_leakage,
        )
    return TargetResult(
        evaluation,
        final,
        threshold,
        k_shot=settings.k_shot,
        draws=tuple(draws),
        control=control,
        no_control=no_control,
        subgroups={column: subgroup_scores(evaluation, column) for column in settings.subgroups},
        efficiency=efficiency,
    )


def _final_probe(evaluation: Evaluation, probe: BaseProbe, settings: RunSettings) -> tuple[BaseProbe, float]:
    problem = evaluation.problem
    if len(evaluation.folds) == 1:
        return evaluation.probes[0], float(evaluation.threshold[evaluation.tested[0]])
    none = np.empty(0, dtype=np.int64)
    everybody = Fold("all", np.arange(len(problem)), none, none)
    if settings.k_shot is not None:
        (everybody,), _ = few_shots(problem, probe, [everybody], settings.k_shot, seed=settings.seed)
    fitted, held_out = fit_fold(problem, probe, everybody)
    return fitted, youden_threshold(problem.truth, held_out) if problem.task == "binary" else 0.5
