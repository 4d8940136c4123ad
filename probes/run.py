"""A whole run of a probe: trained as often as chance is to be seen, tested, and scored beside the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.comparison import Chance
from panecho_embed.evaluation.intervals import DEFAULT_DRAWS
from panecho_embed.evaluation.metrics import PRIMARY, point_values
from panecho_embed.evaluation.predictions import Predictions, concatenated
from panecho_embed.evaluation.scores import Scored, Scores, score
from panecho_embed.evaluation.splits import (
    Draw,
    Fold,
    Size,
    check_fractions,
    check_no_leakage,
    check_shots,
    draw_patients,
    given_folds,
    kfold,
    patients_of_classes,
    with_patients,
)
from panecho_embed.evaluation.subgroups import subgroup_scores
from panecho_embed.evaluation.thresholds import ThresholdRule
from probes.base import BaseProbe, ClassHeldOutError, Floats, Ints
from probes.efficiency import LabelEfficiency
from probes.fitting import fit_fold, predict_units, too_few, trivial_prediction
from probes.foreign import adapted
from probes.problem import Problem

DEFAULT_FOLDS = 5
DRAWS_OF_SHOTS = 20
PARTITIONS = 5
REFIT_SHARE = 0.8  # of the training patients, in each of `RunSettings.refits`
SHUFFLES = 20
ATTEMPTS = 100  # to shuffle labels so that every class can still be learned


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What to compute.

    Parameters
    ----------
    folds : int, optional
        Grouped folds over patients; None for the split column, or 5 without one.
    k_shot : int, optional
        Patients of each class to train on (in a regression: patients); None for all.
    trainings : int, optional
        How often to train: with `k_shot` on other draws of patients (20 by default), with folds on other partitions (5
        by default). A given split has one training.
    threshold : ThresholdRule
        Of a yes-or-no decision.
    cutoffs : tuple of float
        For AUROC of a regression below these values.
    subgroups : tuple of str
        Columns to score by.
    control : bool
        Also train on shuffled labels.
    fractions, shots : tuple
        Sizes of the training set for a curve of label efficiency; one of the two.
    repeats : int, default 10
        Draws of each size of that curve.
    refits : int, default 0
        Trainings on random subsets of the training patients, where there is one training: for the chance of a
        comparison.
    draws : int, default 10,000
        Bootstraps over patients.
    seed : int, default 0
        Of folds, draws and bootstraps.
    allow_leakage : bool
        Go on with patients on both sides of a fold.
    """

    folds: int | None = None
    k_shot: int | None = None
    trainings: int | None = None
    threshold: ThresholdRule = field(default_factory=ThresholdRule)
    cutoffs: tuple[float, ...] = ()
    subgroups: tuple[str, ...] = ()
    control: bool = False
    fractions: tuple[float, ...] = ()
    shots: tuple[int, ...] = ()
    repeats: int = 10
    refits: int = 0
    draws: int = DEFAULT_DRAWS
    seed: int = 0
    allow_leakage: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One training: its name ("" of a given split), the folds, and who was drawn where it was not everybody."""

    name: str
    folds: tuple[Fold, ...]
    drawn: tuple[Draw, ...] = ()


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
    """

    evaluation: Evaluation
    settings: RunSettings
    probe: BaseProbe
    threshold: float
    control: dict[str, Floats] | None = None
    no_control: str = ""
    subgroups: dict[str, dict[str, Scores]] = field(default_factory=dict)
    efficiency: LabelEfficiency | None = None


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
    probe = as_probe(problem, probe)
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
    chance = _chance(problem, probe, plans, settings)
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
    probe = as_probe(problem, probe)
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
        except (ControlError, ClassHeldOutError) as error:
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
    )


def as_probe(problem: Problem, probe: BaseProbe | BaseEstimator) -> BaseProbe:
    """A probe as it is, any other scikit-learn estimator as a probe of the problem's kind."""
    return probe if isinstance(probe, BaseProbe) else adapted(probe, problem.target.kind)


def make_folds(problem: Problem, *, folds: int | None = None, seed: int = 0, partition: int = 0) -> list[Fold]:
    """The split column if it is filled in and no number is given, else grouped folds over patients.

    partition: number of the division into folds; each is another one.
    """
    if folds is None and (problem.split != "").any():
        if (problem.split == "").any():
            count = int((problem.split == "").sum())
            raise ArgumentError(
                f"{count} of {len(problem)} {problem.level} rows have no split; fill the split column in, or use "
                "--folds K to make grouped folds instead"
            )
        return given_folds(problem.split)
    discrete = problem.target.kind != "regression"
    drawn = seed if not partition else int(np.random.SeedSequence([seed, partition]).generate_state(1)[0])
    return kfold(problem.patient, problem.truth, folds or DEFAULT_FOLDS, discrete=discrete, seed=drawn)


def make_plans(problem: Problem, settings: RunSettings, *, chooses: bool) -> tuple[Plan, ...]:
    """The trainings that the settings ask for. chooses: whether the probe needs held-out units for its settings."""
    first = make_folds(problem, folds=settings.folds, seed=settings.seed)
    if not settings.allow_leakage:
        check_no_leakage(first, problem.patient)
    if settings.trainings is not None and settings.trainings < 1:
        raise ArgumentError(f"trainings is {settings.trainings}; it must be 1 or more (--trainings)")
    if settings.k_shot is not None:
        check_shots([settings.k_shot], chooses=chooses)
        count = settings.trainings or DRAWS_OF_SHOTS
        return tuple(_drawn(problem, first, settings.k_shot, settings.seed, i) for i in range(count))
    made_here = settings.folds is not None or (problem.split == "").all()
    if not made_here:
        if (settings.trainings or 1) > 1:
            raise ArgumentError(
                "the split column gives one training; --trainings is for --folds (other partitions) and --k-shot "
                "(other draws)"
            )
        return (Plan("", tuple(first)),)
    count = settings.trainings or PARTITIONS
    others = [
        make_folds(problem, folds=settings.folds, seed=settings.seed, partition=partition)
        for partition in range(1, count)
    ]
    return tuple(Plan(str(i), tuple(folds)) for i, folds in enumerate([first, *others]))


def run_plan(
    problem: Problem, probe: BaseProbe, plan: Plan, rule: ThresholdRule, truths: Sequence[Floats] | None = None
) -> tuple[Predictions, Ints, tuple[BaseProbe, ...], tuple[float, ...]]:
    """Train on every fold of one training, and predict its test units once.

    truths: other labels (U,) to learn from, one array a fold.

    Returns
    -------
    predictions : Predictions
        Of the units that chose settings (split "val", where the fold has validation units), then of the tested ones.
    unit : (N,) int64
        Unit of each of these rows.
    probes, thresholds
        One for each fold.
    """
    parts: list[tuple[str, str, Ints, Floats, float, Floats]] = []
    probes, thresholds = [], []
    for number, fold in enumerate(plan.folds):
        learned = problem if truths is None else replace(problem, truth=truths[number])
        fitted, held_out = fit_fold(learned, probe, fold)
        is_binary = problem.target.kind == "binary"
        threshold = rule.choose(learned.truth, held_out) if is_binary else float("nan")
        baseline = trivial_prediction(learned, np.concatenate([fold.train, fold.validation]))
        chose = held_out[fold.validation]
        known = fold.validation[np.isfinite(chose if chose.ndim == 1 else chose.sum(axis=1))]
        parts.append(("val", fold.name, known, held_out[known], threshold, baseline))
        predicted = predict_units(problem, fitted, fold.test)
        parts.append(("test", fold.name, fold.test, predicted, threshold, baseline))
        probes.append(fitted)
        thresholds.append(threshold)
    parts.sort(key=lambda part: part[0] == "test")
    unit = np.concatenate([units for _, _, units, *_ in parts])
    predictions = Predictions(
        target=problem.target,
        level=problem.level,
        ids={name: column[unit].astype(object) for name, column in problem.ids.items() if name != "patient_id"},
        patient=problem.patient[unit],
        split=_repeated([(split, len(units)) for split, _, units, *_ in parts]),
        truth=problem.truth[unit],
        prediction=np.concatenate([values for *_, values, _, _ in parts]),
        fold=_repeated([(name, len(units)) for _, name, units, *_ in parts]),
        draw=np.full(len(unit), plan.name, dtype=object),
        threshold=np.concatenate([np.full(len(units), cut) for _, _, units, _, cut, _ in parts]),
        baseline=np.concatenate(
            [np.broadcast_to(one, problem.target.shape(len(units))) for _, _, units, _, _, one in parts]
        ),
    )
    return predictions, unit, tuple(probes), tuple(thresholds)


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


class ControlError(ArgumentError):
    """Labels that can't be shuffled so that a probe could still learn all classes."""


def shuffled_label_control(
    problem: Problem, probe: BaseProbe, plan: Plan, settings: RunSettings, repeats: int = SHUFFLES
) -> dict[str, Floats]:
    """Every metric, (repeats,), of probes that learned from shuffled labels and were tested on the true ones.

    One shuffle says little: a direction chosen at random among few that vary much often goes with the target. Their
    mean should be that of the baseline. Raises ControlError where a class is too rare to be shuffled.
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


def label_efficiency(problem: Problem, probe: BaseProbe | BaseEstimator, settings: RunSettings) -> LabelEfficiency:
    """Train on a part of the training patients, again and again, and test on all test units.

    Sizes are `settings.fractions` of the training patients, or `settings.shots`. In each repeat the smaller draws lie
    inside the larger ones. Settings are chosen on inner grouped folds of the draw, so that no label is used that is not
    counted. A fraction has at least two patients of each class.

    Raises ArgumentError for both or neither kind of size, and sizes out of range.
    """
    probe = as_probe(problem, probe)
    _check_sizes(settings, probe)
    folds = make_folds(problem, folds=settings.folds, seed=settings.seed)
    if not settings.allow_leakage:
        check_no_leakage(folds, problem.patient)
    sizes = tuple(sorted(set(settings.fractions or settings.shots)))
    unit: Size = "fraction" if settings.fractions else "shots"
    metric = PRIMARY[problem.target.kind]
    values, counts = np.empty((len(sizes), settings.repeats)), np.zeros(len(sizes))
    draws: list[Draw] = []
    known: dict[tuple[frozenset[str], ...], float] = {}  # all patients are the same patients in every repeat
    for repeat in range(settings.repeats):
        for s, size in enumerate(sizes):
            plan = _drawn(problem, folds, size, settings.seed, repeat, unit)
            key = tuple(frozenset(draw.patients) for draw in plan.drawn)
            if key not in known:
                predictions, *_ = run_plan(problem, probe, plan, settings.threshold)
                known[key] = point_values(predictions.of_split("test").metrics())[metric]
            values[s, repeat] = known[key]
            counts[s] += sum(len(draw.patients) for draw in plan.drawn) / len(folds) / settings.repeats
            draws += plan.drawn
    return LabelEfficiency(problem.target.name, metric, unit, sizes, values, counts, tuple(draws))


def _check_sizes(settings: RunSettings, probe: BaseProbe) -> None:
    if bool(settings.fractions) == bool(settings.shots):
        raise ArgumentError("give either fractions (--fractions 0.1,0.5,1) or shots (--shots 5,10,20)")
    if settings.fractions:
        check_fractions(sorted(set(settings.fractions)))
    else:
        check_shots(settings.shots, chooses=probe.chooses())


def _drawn(problem: Problem, folds: Sequence[Fold], size: float, seed: int, repeat: int, unit: Size = "shots") -> Plan:
    """A training on patients that are drawn from the training patients of every fold."""
    small, draws = [], []
    classes = len(problem.target.classes)
    for fold in folds:
        truth = problem.truth[fold.train] if classes else None
        who = draw_patients(
            problem.patient[fold.train],
            truth,
            classes,
            size,
            unit,
            seed=seed,
            repeat=repeat,
        )
        small.append(with_patients(fold, problem.patient, who))
        draws.append(Draw(fold.name, size, repeat, tuple(who)))
    return Plan(str(repeat), tuple(small), tuple(draws))


def _chance(problem: Problem, probe: BaseProbe, plans: Sequence[Plan], settings: RunSettings) -> Chance:
    """How the training sets of the plans were drawn."""
    folds = plans[0].folds
    if plans[0].drawn:
        shares = [
            _share(problem, whole, small)
            for whole, small in zip(
                make_folds(problem, folds=settings.folds, seed=settings.seed), plans[0].folds, strict=True
            )
        ]
        return Chance(max(shares), len(folds))
    if plans[0].name:
        return Chance(1 - 1 / len(folds))
    if not settings.refits:
        return Chance()
    metric = PRIMARY[problem.target.kind]
    values = []
    for repeat in range(settings.refits):
        plan = _drawn(problem, folds, REFIT_SHARE, settings.seed, repeat, "fraction")
        predictions, *_ = run_plan(problem, probe, plan, settings.threshold)
        values.append(point_values(predictions.of_split("test").metrics())[metric])
    return Chance(REFIT_SHARE, 1, tuple(values))


def _share(problem: Problem, whole: Fold, small: Fold) -> float:
    """Share of the training patients that were drawn, in the class in which it is largest."""
    classes = len(problem.target.classes)
    pool = patients_of_classes(problem.patient[whole.train], problem.truth[whole.train], classes)
    drawn = patients_of_classes(problem.patient[small.train], problem.truth[small.train], classes)
    # A draw of everybody repeats itself: then there is no chance in it, and no factor for it.
    return min(max(drawn.get(index, 0) / count for index, count in pool.items()), 0.99)


def _final_probe(evaluation: Evaluation, probe: BaseProbe, settings: RunSettings) -> tuple[BaseProbe, float]:
    problem = evaluation.problem
    if len(evaluation.folds) == 1:
        return evaluation.probes[0], evaluation.thresholds[0]
    none = np.empty(0, dtype=np.int64)
    everybody = Fold("all", np.arange(len(problem)), none, none)
    if settings.k_shot is not None:
        everybody = _drawn(problem, [everybody], settings.k_shot, settings.seed, 0).folds[0]
    fitted, held_out = fit_fold(problem, probe, everybody)
    if problem.target.kind != "binary":
        return fitted, float("nan")
    return fitted, settings.threshold.choose(problem.truth, held_out)


def _learnable(problem: Problem, probe: BaseProbe, fold: Fold, rng: np.random.Generator) -> Floats:
    """Shuffled labels in which every class still has as many patients as it takes: patients differ in their units."""
    for _ in range(ATTEMPTS):
        truth = shuffled(problem, fold, rng)
        if not too_few(replace(problem, truth=truth), probe, fold):
            return truth
    raise ControlError(
        f"{problem.target.name} has no control: in {ATTEMPTS} shuffles of {fold.name} a class had too few patients left"
    )


def _repeated(parts: Sequence[tuple[str, int]]) -> npt.NDArray[np.object_]:
    return np.array([text for text, count in parts for _ in range(count)], dtype=object)
