"""What predictions are worth: metrics with intervals beside the baseline, and metrics.json, which holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed._version import __version__
from panecho_embed.core.arraytypes import Floats, Ints
from panecho_embed.core.digests import read_checked
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import write_json
from panecho_embed.core.records import Score
from panecho_embed.core.wording import counted
from panecho_embed.evaluation.estimates import Draws, EstimatedPart, mean_estimates
from panecho_embed.evaluation.inference import DEFAULT_DRAWS, bootstrap, percentile_interval, scores_of
from panecho_embed.evaluation.metrics import (
    METRICS,
    PRIMARY,
    Metrics,
    base_name,
    has_better_side,
    higher_is_better,
    point_values,
)
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.evaluation.targets import Target

Scores = Mapping[str, Score]

FILE = "metrics.json"
_SCHEMA_VERSION = 2
FEWEST_PATIENTS = 10
"""Number of tested patients from which reports show statistics; below, they are withheld."""
_FEW_PATIENTS = 30  # below, percentile intervals of the bootstrap cover clearly less than they say (docs/statistics.md)
_FEW_OF_A_CLASS = 20  # the same of the rarer side (docs/statistics.md)
TOO_NARROW = f"intervals from fewer than {_FEW_PATIENTS} patients, or {_FEW_OF_A_CLASS} of a class, may be too narrow"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Predictions of one target with what they are worth.

    Parameters
    ----------
    predictions : Predictions
        The labelled test rows, of every training (run, draw) that there is.
    scores : mapping of str to Score
        Mean of each metric over the trainings, with its 95 % interval.
    by_run : mapping of str to (R,) float64
        Each metric of every training.
    baseline, gain : mapping of str to Score
        The baseline's metrics, and the differences to them; empty where no baseline is known.
    cutoffs : tuple of float
        Of a regression, for AUROC.
    draws, seed : int
        Of the bootstrap.
    """

    predictions: Predictions
    scores: Scores
    by_run: Mapping[str, Floats]
    baseline: Scores = field(default_factory=dict)
    gain: Scores = field(default_factory=dict)
    cutoffs: tuple[float, ...] = ()
    draws: int = DEFAULT_DRAWS
    seed: int = 0

    @property
    def target(self) -> Target:
        """What was predicted."""
        return self.predictions.target

    @property
    def metric(self) -> str:
        """The primary metric of this kind of target."""
        return PRIMARY[self.target.kind]

    @property
    def primary(self) -> Score:
        """The primary metric's score."""
        return self.scores[self.metric]

    @property
    def few(self) -> str:
        """How many patients, or of the rarest class, were tested where that is too few; else ""."""
        one = next(iter(self.predictions.replicates().values()))
        return few_tested(one.patient, one.truth, one.target.classes)


def score(
    predictions: Predictions, *, cutoffs: Sequence[float] = (), draws: int = DEFAULT_DRAWS, seed: int = 0
) -> Scored:
    """Score the labelled test rows of predictions.

    Raises ArgumentError if there are none, or all of one class.
    """
    tested = predictions.of_split("test")
    check_tested(tested)
    cutoffs = tuple(cutoffs) if tested.target.kind == "regression" else ()
    replicates = list(tested.replicates().values())
    runs = [replicate.metrics(cutoffs) for replicate in replicates]
    baselines = [replicate.baseline_metrics(cutoffs) for replicate in replicates]
    trivial = None if any(one is None for one in baselines) else averaged([one for one in baselines if one is not None])
    mean = averaged(runs)
    models = [mean] if trivial is None else [mean, trivial]
    sampled = bootstrap(models, draws=draws, seed=seed)
    values = [point_values(run) for run in runs]
    by_run = {name: np.array([value[name] for value in values]) for name in values[0]}
    scores_of_mean = scores_of(mean, sampled[0])
    found = with_runs(scores_of_mean, by_run, sampled[0])
    if trivial is None:
        return Scored(tested, found, by_run, cutoffs=cutoffs, draws=draws, seed=seed)
    n_patients, points = len(mean.patients), point_values(trivial)
    gain = {
        name: Score(
            name,
            one.value - points[name],
            *percentile_interval(sampled[0][name] - sampled[1][name], n_patients),
            one.n,
            n_patients,
        )
        for name, one in scores_of_mean.items()
        if has_better_side(name)
    }
    # Where the baseline is one number whoever is tested, the difference is as sure as the score.
    gain |= {
        name: Score(name, one.value, known.low - one_number, known.high - one_number, one.n, one.n_patients)
        for name, one in gain.items()
        if (one_number := _one_number(sampled[1][name])) is not None and (known := scores_of_mean[name])
    }
    apart = {name: sampled[0][name] - sampled[1][name] for name in gain}
    trivial_values = [point_values(one) for one in baselines if one is not None]
    gain_by_run = {name: by_run[name] - np.array([value[name] for value in trivial_values]) for name in gain}
    return Scored(
        tested,
        found,
        by_run,
        scores_of(trivial, sampled[1]),
        with_runs(gain, gain_by_run, apart, bounded=False),
        cutoffs,
        draws,
        seed,
    )


def _one_number(sampled: Floats) -> float | None:
    """The value that all defined bootstraps have; None where they differ."""
    known = sampled[np.isfinite(sampled)]
    return float(known[0]) if len(known) and np.ptp(known) < 1e-12 else None


def few_tested(patients: npt.NDArray[Any], truth: Floats, classes: Sequence[str]) -> str:
    """How many patients there are, or how many of the rarest class among them, where too few; else "".

    patients, truth: (N,) id, and value or index in `classes`, of the rows tested. classes: () of a regression.
    """
    who = patients.astype(str)
    count = len(np.unique(who))
    few = counted(count, "patient") if count < _FEW_PATIENTS else ""
    if not classes:
        return few
    of_class = {classes[int(i)]: len(np.unique(who[truth == i])) for i in np.unique(truth)}
    rarest, fewest = min(of_class.items(), key=lambda item: item[1])
    if fewest >= _FEW_OF_A_CLASS:
        return few
    return f"{few} ({fewest} of class {rarest})" if few else f"{counted(fewest, 'patient')} of class {rarest}"


def recording_suffices(scored: Scored, recording: Mapping[str, float]) -> bool:
    """Whether the recordings alone beat the baseline, and come within the interval of the model or better.

    recording: the metrics of the recording-only baseline, {} where there is none.
    """
    sign = 1 if higher_is_better(scored.metric) else -1
    alone = sign * recording.get(scored.metric, float("nan"))
    worst = min(sign * scored.primary.low, sign * scored.primary.high)
    return bool(scored.baseline and alone >= worst and alone > sign * scored.baseline[scored.metric].value)


def caution_of(few: str) -> str:
    """The warning that belongs to what `few_tested` said; "" without one."""
    return f"Only {few} {'was' if few == '1 patient' else 'were'} tested: {TOO_NARROW}." if few else ""


def check_tested(tested: Predictions) -> None:
    """Raise ArgumentError unless there are labelled test rows of two classes."""
    name = tested.target.name
    if not len(tested):
        raise ArgumentError(f"{name}: no test row has a label")
    if tested.target.classes and len(np.unique(tested.truth)) < 2:
        only = tested.target.classes[int(tested.truth[0])]
        raise ArgumentError(f"{name}: the test set has only one class, {only!r}; AUROC needs two")


def averaged(runs: Sequence[Metrics]) -> Metrics:
    """The mean of the same metrics of several trainings on the same rows, as metrics that can be bootstrapped."""
    if any(run.n != runs[0].n or not np.array_equal(run.patients, runs[0].patients) for run in runs):
        raise ArgumentError("trainings that are averaged must be tested on the same rows of the same patients")
    if len(runs) == 1:
        return runs[0]

    def mean(weights: Floats) -> Draws:
        values = [run(weights) for run in runs]
        return {name: np.mean([value[name] for value in values], axis=0) for name in values[0]}

    return Metrics(
        (EstimatedPart(mean, lambda: mean_estimates([run.parts for run in runs])),), runs[0].patients, runs[0].n
    )


def with_runs(
    scores: Scores, by_run: Mapping[str, Floats], sampled: Draws, *, bounded: bool = True
) -> dict[str, Score]:
    """Scores whose intervals hold the chance of the training too: that of its seed, its draw, its folds.

    The variance over patients and that of the mean over R trainings are added, with Satterthwaite's degrees of freedom;
    the interval over patients is stretched by as much, each side by itself. One training changes nothing. bounded: cut
    at the values that a metric can have, which is not for differences.
    """
    from scipy.special import stdtrit

    found = {}
    for name, one in scores.items():
        runs = by_run[name][np.isfinite(by_run[name])]
        known = sampled[name][np.isfinite(sampled[name])]
        if len(runs) < 2 or len(known) < 2 or not math.isfinite(one.low):
            found[name] = one
            continue
        of_patients, of_runs = float(known.var()), float(runs.var(ddof=1)) / len(runs)
        if of_patients + of_runs <= 0:
            found[name] = one
            continue
        freedom = (of_patients + of_runs) ** 2 / (
            of_patients**2 / max(one.n_patients - 1, 1) + of_runs**2 / (len(runs) - 1)
        )
        wider = math.sqrt((of_patients + of_runs) / of_patients) if of_patients > 0 else 1.0
        stretch = wider * float(stdtrit(freedom, 0.975) / stdtrit(max(one.n_patients - 1, 1), 0.975))
        low, high = one.value - stretch * (one.value - one.low), one.value + stretch * (one.high - one.value)
        if bounded:
            known_metric = METRICS[base_name(name)]
            low, high = max(low, known_metric.lowest), min(high, known_metric.highest)
        found[name] = Score(name, one.value, low, high, one.n, one.n_patients)
    return found


def score_documents(scores: Scores) -> dict[str, Any]:
    """Scores as they appear in metrics.json, by metric."""
    return {name: asdict(one) for name, one in scores.items()}


def _target_document(scored: Scored) -> dict[str, Any]:
    """One target's part of metrics.json."""
    target, predictions = scored.target, scored.predictions
    thresholds = sorted({float(value) for value in predictions.threshold if np.isfinite(value)})
    return {
        "task": target.kind,
        "classes": list(target.classes),
        "unit": target.unit,
        "level": predictions.level,
        "n": scored.primary.n,
        "n_patients": scored.primary.n_patients,
        "primary": scored.metric,
        "thresholds": thresholds,
        "cutoffs": list(scored.cutoffs),
        "trainings": len(predictions.replicates()),
        "metrics": score_documents(scored.scores),
        "baseline": score_documents(scored.baseline),
        "versus_baseline": score_documents(scored.gain),
    }


def write_metrics(
    folder: Path,
    made_by: str,
    scored: Sequence[Scored],
    *,
    about: Mapping[str, Any],
    of_target: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write metrics.json of one run.

    Parameters
    ----------
    folder : Path
    made_by : str
        Command that made the run: "probe linear", "finetune", "predict".
    scored : sequence of Scored
    about : mapping
        Facts of the run at the top: command, data, settings.
    of_target : mapping, optional
        Further facts of targets, by their names.
    """
    further = of_target or {}
    document = {
        "schema_version": _SCHEMA_VERSION,
        "made_by": made_by,
        "version": __version__,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "draws": scored[0].draws if scored else DEFAULT_DRAWS,
        "seed": scored[0].seed if scored else 0,
        "targets": {one.target.name: {**_target_document(one), **further.get(one.target.name, {})} for one in scored},
    }
    return write_json(folder / FILE, document)


def read_metrics(folder: str | Path) -> dict[str, Any]:
    """The content of a run's metrics.json. Raises StoreError if there is none, or of another schema."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise StoreError(f"{path}: no metrics of a finished run (there is no such file)")
    try:
        document: dict[str, Any] = json.loads(read_checked(path).decode("utf-8"))
        version = document.get("schema_version")
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{path}: no metrics of a finished run ({error})") from error
    if version != _SCHEMA_VERSION:
        raise StoreError(f"{path}: of schema version {version}, not {_SCHEMA_VERSION}: run the command again")
    return document


_MAX_TEXTS = 12
_MAX_NUMBERS = 6


def subgroup_scores(scored: Scored, column: str, values: npt.NDArray[np.generic]) -> dict[str, Scores]:
    """Scores by subgroup of the tested rows, each with its own n and interval.

    Parameters
    ----------
    scored : Scored
    column : str
        Name of the column, for messages.
    values : (N,) array
        Of the rows of `scored.predictions`. Texts (at most 12) and numbers of at most 6 different values are groups;
        other numbers are cut into thirds; rows without a value are the group "missing".

    Returns
    -------
    dict
        Group -> metric -> score. A metric that a group does not allow (AUROC of one class) is NaN.

    Raises
    ------
    ArgumentError
        For a column with too many different texts.
    """
    found: dict[str, Scores] = {}
    for name, rows in subgroup_rows(values, column).items():
        runs = [part.metrics(scored.cutoffs) for part in scored.predictions.take(rows).replicates().values()]
        mean, points = averaged(runs), [point_values(run) for run in runs]
        (sampled,) = bootstrap([mean], draws=scored.draws, seed=scored.seed)
        by_run = {metric: np.array([point[metric] for point in points]) for metric in points[0]}
        found[name] = with_runs(scores_of(mean, sampled), by_run, sampled)
    return found


def subgroup_rows(values: npt.NDArray[np.generic], column: str) -> dict[str, Ints]:
    """Row numbers of each subgroup, as `subgroup_scores` makes them."""
    if values.dtype.kind in "fiu":
        return _number_groups(values.astype(np.float64))
    names = sorted({str(value) for value in values})
    if len(names) > _MAX_TEXTS:
        raise ArgumentError(
            f"{column} has {len(names)} different texts; a subgroup column has at most {_MAX_TEXTS} (--subgroups)"
        )
    missing = "missing" if "missing" not in names else "(missing)"
    return {name or missing: np.flatnonzero(values == name) for name in names}


def _number_groups(values: Floats) -> dict[str, Ints]:
    there = np.isfinite(values)
    different = np.unique(values[there])
    groups: dict[str, Ints]
    if len(different) <= _MAX_NUMBERS:
        groups = {f"{value:.15g}": np.flatnonzero(values == value) for value in different}
    else:
        low, high = np.quantile(values[there], [1 / 3, 2 / 3])
        groups = {
            f"below {low:.4g}": np.flatnonzero(values < low),
            f"{low:.4g} to {high:.4g}": np.flatnonzero((values >= low) & (values < high)),
            f"{high:.4g} and above": np.flatnonzero(values >= high),
        }
    if not there.all():
        groups["missing"] = np.flatnonzero(~there)
    return {name: rows for name, rows in groups.items() if len(rows)}
