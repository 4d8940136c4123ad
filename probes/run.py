"""A run of a probe: trained as often as chance is to be seen, tested, scored; and how many labels it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.candidates import Chance
from panecho_embed.evaluation.metrics import PRIMARY, display_name, point_values
from panecho_embed.evaluation.page import Figure, figure
from panecho_embed.evaluation.predictions import Predictions, concatenated
from panecho_embed.evaluation.scores import Scored, Scores, recording_suffices, score, subgroup_scores
from panecho_embed.evaluation.splits import Draw, Fold, Size, check_fractions, check_no_leakage, check_shots
from probes.base import BaseProbe, ClassHeldOutError
from probes.foreign import as_probe
from probes.linear import LinearProbe
from probes.plans import (
    Plan,
    RunSettings,
    chance_of,
    drawn_plan,
    fit_fold,
    make_folds,
    make_plans,
    primary_value,
    run_plan,
    too_few,
)
from probes.problem import Problem

if TYPE_CHECKING:
    import pandas as pd


_SHUFFLES = 20
_ATTEMPTS = 100  # to shuffle labels so that every class can still be learned


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A probe that was tested.

    Parameters
    ----------
    problem : Problem
    plans : tuple of Plan
        The trainings.
    probes : tuple of BaseProbe
        The fitted probes of the first training, one for each of its folds.
    thresholds : tuple of float
        The decision thresholds of its folds; NaN where none was chosen.
    predictions : Predictions
        Units that were tested, and units that chose settings, of every training.
    unit : (N,) int64
        Unit of `problem` that each labelled test row of `scored.predictions` is.
    scored : Scored
    chance : Chance
        How the training sets were drawn, for comparisons.
    """

    problem: Problem
    plans: tuple[Plan, ...]
    probes: tuple[BaseProbe, ...]
    thresholds: tuple[float, ...]
    predictions: Predictions
    unit: Ints
    scored: Scored
    chance: Chance

    @property
    def folds(self) -> tuple[Fold, ...]:
        """Those of the first training."""
        return self.plans[0].folds

    @property
    def drawn(self) -> tuple[Draw, ...]:
        """Who was trained on, of every training that did not take everybody."""
        return tuple(draw for plan in self.plans for draw in plan.drawn)

    def grid_rows(self) -> list[dict[str, Any]]:
        """Every setting that the first training tried in every fold, its held-out loss, and which was chosen."""
        return [
            {"target": self.problem.target.name, "fold": fold.name, **row}
            for fold, probe in zip(self.folds, self.probes, strict=True)
            for row in probe.grid_rows()
        ]


@dataclass(frozen=True, slots=True, eq=False)
class TargetResult:
    """One target's results.

    Parameters
    ----------
    evaluation : Evaluation
    settings : RunSettings
    probe : BaseProbe
        To be applied to new data: with a given split the one that was tested; after cross-validation one trained on all
        units (or, with `k_shot`, on as many shots of them).
    threshold : float
        Of its yes-or-no decision, chosen on held-out units; NaN where none was chosen.
    control : dict, optional
        Metric -> (20,) values with shuffled labels.
    no_control : str
        Why there is none, though asked for.
    subgroups : dict
        Column -> group -> metric -> score.
    efficiency : LabelEfficiency, optional
    recording : dict
        Metric -> value of `recording_only`; empty where nothing is known of the recordings.
    """

    evaluation: Evaluation
    settings: RunSettings
    probe: BaseProbe
    threshold: float
    control: dict[str, Floats] | None = None
    no_control: str = ""
    subgroups: dict[str, dict[str, Scores]] = field(default_factory=dict)
    efficiency: LabelEfficiency | None = None
    recording: dict[str, float] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """What was evaluated."""
        return self.evaluation.problem

    @property
    def recording_suffices(self) -> bool:
        """Whether the recordings alone beat the baseline, and come within the interval of the probe or better."""
        return recording_suffices(self.evaluation.scored, self.recording)


def evaluate(problem: Problem, probe: BaseProbe | BaseEstimator, settings: RunSettings | None = None) -> Evaluation:
    """Test a probe on the union of the test sets of every fold, as often as it is to be trained.

    Parameters
    ----------
    problem : Problem
    probe : BaseProbe or scikit-learn estimator
        Any regressor or classifier.
    settings : RunSettings, optional

    Raises
    ------
    ArgumentError
        For patients on both sides of a fold unless that is allowed, cut-offs of classes, classes too rare to learn.
    """
    settings = settings or RunSettings()
    probe = as_probe(probe, problem.target.kind)
    if settings.cutoffs and problem.target.kind != "regression":
        raise ArgumentError(
            f"cut-offs are for a regression; {problem.target.name} is {problem.target.kind} (--cutoffs)"
        )
    plans = make_plans(problem, settings, chooses=probe.chooses())
    first: tuple[tuple[BaseProbe, ...], tuple[float, ...]] | None = None
    tables, units = [], []
    for plan in plans:
        table, unit, probes, thresholds = run_plan(problem, probe, plan, settings.threshold)
        tables.append(table)
        units.append(unit[np.array(table.split == "test")])
        first = first or (probes, thresholds)
    assert first is not None
    predictions = concatenated(tables)
    scored = score(predictions, cutoffs=settings.cutoffs, draws=settings.draws, seed=settings.seed)
    chance = chance_of(problem, probe, plans, settings)
    return Evaluation(problem, plans, *first, predictions, np.concatenate(units), scored, chance)


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
            refused[problem.target.name] = str(error)


def run_target(problem: Problem, probe: BaseProbe | BaseEstimator, settings: RunSettings) -> TargetResult:
    """Evaluate one problem, and whatever else the settings ask for."""
    probe = as_probe(probe, problem.target.kind)
    if problem.target.kind != "regression":
        settings = replace(settings, cutoffs=())
    for column in settings.subgroups:
        _check_column(problem, column)
    if settings.fractions or settings.shots:
        _check_sizes(settings, probe)
    evaluation = evaluate(problem, probe, settings)
    control, no_control = None, ""
    if settings.control:
        try:
            control = shuffled_label_control(problem, probe, evaluation.plans[0], settings)
        except (_ControlError, ClassHeldOutError) as error:
            no_control = str(error)
    final, threshold = _final_probe(evaluation, probe, settings)
    efficiency = None
    if settings.fractions or settings.shots:
        efficiency = label_efficiency(problem, probe, settings)
    return TargetResult(
        evaluation,
        settings,
        final,
        threshold,
        control=control,
        no_control=no_control,
        subgroups={column: subgroups_of(evaluation, column) for column in settings.subgroups},
        efficiency=efficiency,
        recording=recording_only(problem, evaluation.plans, settings, chooses=probe.chooses()),
    )


def recording_only(
    problem: Problem, plans: Sequence[Plan], settings: RunSettings, *, chooses: bool = True
) -> dict[str, float]:
    """Every metric, the mean over the trainings, of a linear probe on facts of the recordings in place of embeddings.

    Same folds, patients and draws. What it predicts comes from how patients were recorded. chooses: whether there are
    enough patients to choose its strength. {} where nothing is known of the recordings.
    """
    if not problem.recording:
        return {}
    every = np.arange(len(problem))
    values = np.column_stack(list(problem.recording.values()))
    alone = replace(problem, source=values, row=every, unit=every, share=np.ones(len(problem)), fusion="early")
    probe = LinearProbe(problem.target.kind, strengths=None if chooses else (1.0,))
    tested = [run_plan(alone, probe, plan, settings.threshold)[0].of_split("test") for plan in plans]
    found = [point_values(rows.metrics(settings.cutoffs)) for rows in tested]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def subgroups_of(evaluation: Evaluation, column: str) -> dict[str, Scores]:
    """Scores by subgroup of a column: "view" or any label. Raises ArgumentError for one that isn't there."""
    return subgroup_scores(evaluation.scored, column, subgroup_values(evaluation, column))


def subgroup_values(evaluation: Evaluation, column: str) -> npt.NDArray[Any]:
    """The column's values in the rows of `evaluation.scored.predictions`."""
    _check_column(evaluation.problem, column)
    return evaluation.problem.columns[column][evaluation.unit]


def _check_column(problem: Problem, column: str) -> None:
    if column not in problem.columns:
        raise ArgumentError(f"no column {column!r} for subgroups; there are {', '.join(problem.columns)} (--subgroups)")


class _ControlError(ArgumentError):
    """Labels that can't be shuffled so that a probe could still learn all classes."""


def shuffled_label_control(
    problem: Problem, probe: BaseProbe, plan: Plan, settings: RunSettings, repeats: int = _SHUFFLES
) -> dict[str, Floats]:
    """Every metric, (repeats,), of probes that learned from shuffled labels and were tested on the true ones.

    One shuffle says little: a direction chosen at random among few that vary much often goes with the target. Their
    mean should be that of the baseline. Raises _ControlError where a class is too rare to be shuffled.
    """
    values = []
    for repeat in range(repeats):
        truths = [
            _learnable(problem, probe, fold, np.random.default_rng([settings.seed, repeat, i]))
            for i, fold in enumerate(plan.folds)
        ]
        predictions, *_ = run_plan(problem, probe, plan, settings.threshold, truths)
        values.append(point_values(predictions.of_split("test").metrics(settings.cutoffs)))
    return {name: np.array([value[name] for value in values]) for name in values[0]}


def shuffled(problem: Problem, fold: Fold, rng: np.random.Generator) -> Floats:
    """Labels (U,) in which each training patient has those of another one, so that they still come in clusters."""
    units = np.concatenate([fold.train, fold.validation])
    ids, patient = np.unique(problem.patient[units].astype(str), return_inverse=True)
    own = [units[patient == i] for i in range(len(ids))]
    truth = problem.truth.copy()
    for mine, donor in zip(own, rng.permutation(len(ids)), strict=True):
        truth[mine] = np.resize(problem.truth[own[donor]], len(mine))
    return truth


def _final_probe(evaluation: Evaluation, probe: BaseProbe, settings: RunSettings) -> tuple[BaseProbe, float]:
    problem = evaluation.problem
    if len(evaluation.folds) == 1:
        return evaluation.probes[0], evaluation.thresholds[0]
    none = np.empty(0, dtype=np.int64)
    everybody = Fold("all", np.arange(len(problem)), none, none)
    if settings.k_shot is not None:
        everybody = drawn_plan(problem, [everybody], settings.k_shot, settings.seed, 0).folds[0]
    fitted, held_out = fit_fold(problem, probe, everybody)
    if problem.target.kind != "binary":
        return fitted, float("nan")
    return fitted, settings.threshold.choose(problem.truth, held_out)


def _learnable(problem: Problem, probe: BaseProbe, fold: Fold, rng: np.random.Generator) -> Floats:
    """Shuffled labels in which every class still has as many patients as it takes: patients differ in their units."""
    for _ in range(_ATTEMPTS):
        truth = shuffled(problem, fold, rng)
        if not too_few(replace(problem, truth=truth), probe, fold):
            return truth
    raise _ControlError(
        f"{problem.target.name} has no control: in {_ATTEMPTS} shuffles of {fold.name} a class had too few patients "
        "left"
    )


@dataclass(frozen=True, slots=True)
class LabelEfficiency:
    """metric: the task's primary one. unit: "fraction" of training patients, or "shots" (per class, or patients).

    sizes: (S,). values: (S, R) of the metric in each repeat. n_patients: (S,) trained on, mean over folds and repeats.
    """

    target: str
    metric: str
    unit: Size
    sizes: tuple[float, ...]
    values: Floats
    n_patients: Floats
    draws: tuple[Draw, ...]

    @property
    def caption(self) -> str:
        """What is seen in the curve and its table."""
        return f"Label efficiency: mean of {self.values.shape[1]} draws, and the range of 95 % of them."

    def band(self) -> pd.DataFrame:
        """Mean over the repeats, and the range that holds 95 % of them, one row per size."""
        import pandas as pd

        low, high = np.percentile(self.values, [2.5, 97.5], axis=1)
        columns = {"target": self.target, "metric": self.metric, self.unit: self.sizes, "n_patients": self.n_patients}
        return pd.DataFrame(columns | {"mean": self.values.mean(axis=1), "low": low, "high": high})

    def figure(self) -> Figure:
        """The metric against the number of patients trained on, with the range of 95 % of the draws."""
        from panecho_embed.evaluation.plots import Efficiency, label_efficiency

        band = self.band()
        n_patients, mean, low, high = (band[name].to_numpy() for name in ("n_patients", "mean", "low", "high"))
        drawn = Efficiency(self.target, n_patients, mean, low, high)
        return figure(label_efficiency([drawn], display_name(self.metric)), f"{self.target}. {self.caption}")


def label_efficiency(problem: Problem, probe: BaseProbe | BaseEstimator, settings: RunSettings) -> LabelEfficiency:
    """Train on a part of the training patients, again and again, and test on all test units.

    Sizes are `settings.fractions` of the training patients, or `settings.shots`. In each repeat the smaller draws lie
    inside the larger ones. Settings are chosen on inner grouped folds of the draw, so that no label is used that is not
    counted. A fraction has at least two patients of each class.

    Raises ArgumentError for both or neither kind of size, and sizes out of range.
    """
    probe = as_probe(probe, problem.target.kind)
    _check_sizes(settings, probe)
    folds = make_folds(problem, folds=settings.folds, seed=settings.seed)
    if not settings.allow_leakage:
        check_no_leakage(folds, problem.patient)
    sizes = tuple(sorted(set(settings.fractions or settings.shots)))
    unit: Size = "fraction" if settings.fractions else "shots"
    values, counts = np.empty((len(sizes), settings.repeats)), np.zeros(len(sizes))
    draws: list[Draw] = []
    known: dict[tuple[frozenset[str], ...], float] = {}  # all patients are the same patients in every repeat
    for repeat in range(settings.repeats):
        for s, size in enumerate(sizes):
            plan = drawn_plan(problem, folds, size, settings.seed, repeat, unit)
            key = tuple(frozenset(draw.patients) for draw in plan.drawn)
            if key not in known:
                known[key] = primary_value(problem, probe, plan, settings.threshold)
            values[s, repeat] = known[key]
            counts[s] += sum(len(draw.patients) for draw in plan.drawn) / len(folds) / settings.repeats
            draws += plan.drawn
    return LabelEfficiency(problem.target.name, PRIMARY[problem.target.kind], unit, sizes, values, counts, tuple(draws))


def _check_sizes(settings: RunSettings, probe: BaseProbe) -> None:
    """Raise ArgumentError unless the settings have fractions or shots, and those can be drawn."""
    if bool(settings.fractions) == bool(settings.shots):
        raise ArgumentError("give either fractions (--fractions 0.1,0.5,1) or shots (--shots 5,10,20)")
    if settings.fractions:
        check_fractions(sorted(set(settings.fractions)))
    else:
        check_shots(settings.shots, chooses=probe.chooses())
