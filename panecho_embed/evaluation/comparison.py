"""Which of several candidates is better on the same patients, how sure that is, and whether they are equivalent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from panecho_embed.errors import ArgumentError, StoreError
from panecho_embed.evaluation.inference import (
    Difference,
    Sample,
    Verdict,
    difference,
    mean_over_targets,
    sample,
    verdict,
)
from panecho_embed.evaluation.intervals import DEFAULT_DRAWS, holm
from panecho_embed.evaluation.metrics import METRICS, OVER_TARGETS, PRIMARY, base_name, higher_is_better
from panecho_embed.evaluation.predictions import FILE, LEVELS, Predictions, concatenated, read_predictions
from panecho_embed.evaluation.scores import Scored, check_tested, read_metrics, score
from panecho_embed.evaluation.targets import Target

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MEANS = {"auroc": "Mean over {} class targets", "r2": "Mean over {} regressions"}


@dataclass(frozen=True, slots=True)
class Chance:
    """How the training sets of a candidate were drawn from the training patients; as `inference.difference` takes it.

    share: fraction of them that one training set holds; None where it is not known. sets: number of separately drawn
    training sets in one training. refits: the primary metric after training on random subsets; () for none.
    """

    share: float | None = None
    sets: int = 1
    refits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A line of the tables: a model and what it predicted.

    Parameters
    ----------
    name : str
    predictions : mapping of str to Predictions
        Predictions by target; several trainings of the model in one, told apart by run and draw.
    made_by : str
        Command that made them, "" for a table.
    chance : mapping of str to Chance
        By target, what is known of how its training sets were drawn.
    """

    name: str
    predictions: Mapping[str, Predictions]
    made_by: str = ""
    chance: Mapping[str, Chance] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contrast:
    """The difference of one candidate to another.

    first, second: names; the difference is first minus second. p_holm: p-value corrected for all differences of the
    report. verdict: of the first, "better", "worse", "equivalent" or "undecided".
    """

    first: str
    second: str
    difference: Difference
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One target, or the mean over those of a kind.

    Parameters
    ----------
    name : str
    metric : str
        The one that differences are of.
    unit : str
    standings : mapping of str to Scored
        By candidate, best first; empty for a mean over targets.
    means : mapping of str to float
        The metric's mean over targets by candidate, best first; empty for one target.
    contrasts : tuple of Contrast
    n_left_out : int
        Test rows that not every candidate has.
    margin : float or None
        Differences smaller than that do not matter.
    """

    name: str
    metric: str
    unit: str
    standings: Mapping[str, Scored]
    means: Mapping[str, float]
    contrasts: tuple[Contrast, ...]
    n_left_out: int = 0
    margin: float | None = None

    @property
    def ranked(self) -> list[str]:
        """The candidates, best first."""
        return list(self.standings or self.means)


def read_candidates(runs: Sequence[tuple[str, str | Path]], level: str | None = None) -> list[Candidate]:
    """Candidates from finished runs of any kind, all at the same level.

    Parameters
    ----------
    runs : sequence of (name, path)
        Folder of a run of a probe, `finetune` or `predict`, or a table of predictions; docs/statistics.md describes its
        columns. An empty name stands for the folder's or file's. Several paths that are given one name are trainings of
        one candidate, such as seeds.
    level : {"study", "video", "clip", "frame"}, optional
        What a row is; the highest level that all runs have by default.

    Raises
    ------
    StoreError
        For a path without predictions, and metrics of another schema beside them.
    ArgumentError
        For a table that lacks a column, runs without a level in common, and paths whose own names are the same.
    """
    _check_names(runs)
    read = [(name or _stem(Path(path)), Path(path), *_read_run(Path(path))) for name, path in runs]
    levels = [{one.level for one in found} for *_, found in read]
    common = [one for one in LEVELS if all(one in there for there in levels)]
    if (level is not None and level not in common) or not common:
        shown = "; ".join(
            f"{name} has {', '.join(sorted(there))}" for (name, *_), there in zip(read, levels, strict=True)
        )
        raise ArgumentError(f"the runs have no rows of level {level or 'that all of them have'}: {shown} (--level)")
    chosen = level or common[0]
    named: dict[str, list[Candidate]] = {}
    for name, _, made_by, chance, found in read:
        by_target = {one.target.name: one if made_by else _of_one_training(one) for one in found if one.level == chosen}
        named.setdefault(name, []).append(Candidate(name, by_target, made_by, chance))
    return [_joined(same) if len(same) > 1 else same[0] for same in named.values()]


def compare_candidates(
    candidates: Sequence[Candidate],
    *,
    reference: str | None = None,
    margin: str = "",
    targets: Sequence[str] = (),
    cutoffs: Sequence[float] = (),
    refused: dict[str, str] | None = None,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> list[Comparison]:
    """Compare candidates on the labelled test rows that all of them have, one comparison a target, means first.

    Parameters
    ----------
    candidates : sequence of Candidate
    reference : str, optional
        Differences to this candidate alone; otherwise between all pairs.
    margin : str
        Differences smaller than that do not matter: "0.5", or with the unit of the metric "0.5 %"; "" for none.
    targets : sequence of str
        Names; all that every candidate has by default.
    cutoffs : sequence of float
        For AUROC of regressions below these values, beside the other metrics.
    refused : dict, optional
        Takes the reason of each of several targets that can't be compared; without it such a target raises.
    draws, seed : int
        Of the bootstrap over patients.

    Raises
    ------
    ArgumentError
        For fewer than two candidates, an unknown reference, no target or no patients in common, candidates that
        contradict each other on a label or a patient, and a margin in another unit.
    """
    names = [candidate.name for candidate in candidates]
    if len(candidates) < 2:
        raise ArgumentError(f"a comparison needs two candidates or more; there is {', '.join(names) or 'none'}")
    if reference is not None and reference not in names:
        raise ArgumentError(f"the reference is {reference!r}; the candidates are {', '.join(names)} (--reference)")
    common = _common_targets(candidates, targets)
    check_margin(margin, [candidates[0].predictions[name].target for name in common])
    if len(set(names)) < len(names):
        raise ArgumentError(f"candidates are called {', '.join(names)}; each needs a name of its own (NAME=RUN)")
    found = []
    for target in common:
        try:
            lined_up, left_out = line_up({one.name: one.predictions[target] for one in candidates})
            found.append(_compared(candidates, lined_up, left_out, reference, margin, cutoffs, draws, seed))
        except ArgumentError as error:
            if refused is None or len(common) == 1:
                raise
            refused[target] = str(error)
    if not found:
        reasons = "; ".join((refused or {}).values())
        raise ArgumentError(f"no target can be compared: {reasons}")
    return corrected([*_over_targets(candidates, found, reference, seed), *found])


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p-values corrected for the differences of all of them, as they stand in one report."""
    adjusted = iter(holm([one.difference.p_value for c in comparisons for one in c.contrasts]))

    def with_p(comparison: Comparison, contrast: Contrast) -> Contrast:
        p = float(next(adjusted))
        better = higher_is_better(comparison.metric)
        told = verdict(contrast.difference, higher_is_better=better, margin=comparison.margin, p=p)
        return replace(contrast, p_holm=p, verdict=told)

    return [replace(c, contrasts=tuple(with_p(c, contrast) for contrast in c.contrasts)) for c in comparisons]


def line_up(predictions: Mapping[str, Predictions]) -> tuple[dict[str, Predictions], int]:
    """The labelled test rows that every candidate has, in the same order in every training; how many were left out.

    Raises ArgumentError if there are none, or where candidates contradict each other.
    """
    tested = {name: one.of_split("test") for name, one in predictions.items()}
    for one in tested.values():
        check_tested(one)
    places = {
        name: [{key: i for i, key in enumerate(replicate.keys())} for replicate in one.replicates().values()]
        for name, one in tested.items()
    }
    every = [place for several in places.values() for place in several]
    keys = [key for key in every[0] if all(key in place for place in every[1:])]
    union = set().union(*every)
    name, first = next(iter(tested.items()))
    if not keys:
        shown = "; ".join(
            f"{other} has {len(one)} rows, first {' '.join(one.keys()[0])}" for other, one in tested.items()
        )
        shared = len(set.intersection(*(set(map(str, one.patient)) for one in tested.values())))
        raise ArgumentError(
            f"{first.target.name}: the candidates have no test row ({first.level}) in common, and "
            f"{shared} patients: {shown}"
        )
    lined_up = {}
    for other, one in tested.items():
        parts = [
            replicate.take(np.array([place[key] for key in keys], dtype=np.int64))
            for replicate, place in zip(one.replicates().values(), places[other], strict=True)
        ]
        lined_up[other] = concatenated(parts)
        _check_agreement(name, lined_up[name], other, lined_up[other])
    return lined_up, len(union) - len(keys)


def check_margin(margin: str, targets: Sequence[Target]) -> None:
    """Raise ArgumentError for a margin and several targets, and for one that does not fit the target's metric."""
    if margin and len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise ArgumentError(f"the margin {margin!r} is for one target, and {names} are compared; name one (--target)")
    if margin and targets[0].unit:
        parse_margin(margin, PRIMARY[targets[0].kind], targets[0].unit)


def parse_margin(text: str, metric: str, unit: str) -> float | None:
    """The margin in "0.5" or "0.5 %"; None for "".

    Raises ArgumentError for text that is no number above 0, another unit than the metric's, and a margin of 1 or more
    for a metric that lies between 0 and 1.
    """
    if not text.strip():
        return None
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*", text)
    try:
        value = float(found[1]) if found else 0.0
    except ValueError:
        value = 0.0
    known = METRICS[base_name(metric)]
    right = unit if known.in_unit else ""
    example = f'"0.5 {right}"' if right else "0.02"
    if not found or value <= 0:
        raise ArgumentError(f"the margin is {text!r}; a number above 0 is needed, such as {example} (--margin)")
    if found[2] and found[2] != right:
        of = f"in {right}" if right else "without a unit"
        raise ArgumentError(f"the margin is {text!r}, and {known.title} is {of}: give it such as {example} (--margin)")
    if not known.in_unit and value >= 1:
        raise ArgumentError(
            f"the margin is {text!r}, and {known.title} lies between 0 and 1: such as 0.02 (--margin); --target names "
            "the targets that it is for"
        )
    return value


def score_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Every metric of every candidate and target, one row each; of a mean over targets its one metric."""
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {"target": comparison.name, "candidate": name, "metric": comparison.metric, "value": value}
        for comparison in comparisons
        for name, value in comparison.means.items()
    ]
    rows += [
        {
            "target": comparison.name,
            "candidate": name,
            "trainings": len(scored.by_run[metric]),
            **asdict(one),
            "sd_over_trainings": _sd(scored.by_run[metric]),
        }
        for comparison in comparisons
        for name, scored in comparison.standings.items()
        for metric, one in scored.scores.items()
    ]
    return pd.DataFrame(rows)


def difference_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Every difference with its sources of chance, one row each."""
    import pandas as pd

    rows = []
    for comparison in comparisons:
        for one in comparison.contrasts:
            told = asdict(one.difference)
            variances = told.pop("variances")
            told["unknown"] = ";".join(one.difference.unknown)
            row = {"target": comparison.name, "first": one.first, "second": one.second, **told}
            row |= {f"variance_{source}": value for source, value in variances.items()}
            rows.append(row | {"p_holm": one.p_holm, "margin": comparison.margin, "verdict": one.verdict})
    return pd.DataFrame(rows)


def _check_names(runs: Sequence[tuple[str, str | Path]]) -> None:
    """Raise ArgumentError for two runs of one name that nobody gave them, and for one run given twice."""
    named: dict[str, list[tuple[str, Path]]] = {}
    for name, path in runs:
        named.setdefault(name or _stem(Path(path)), []).append((name, Path(path).resolve()))
    for name, same in named.items():
        shown = ", ".join(str(path) for _, path in same)
        if len(same) > 1 and any(not given for given, _ in same):
            raise ArgumentError(
                f"{len(same)} runs are called {name}: {shown}. Give each a name (NAME=RUN), or trainings of one model "
                "the same name"
            )
        if len({path for _, path in same}) < len(same):
            raise ArgumentError(f"{name} has the same run twice: {shown}; trainings of one model are different runs")


def _of_one_training(table: Predictions) -> Predictions:
    """A table that names no training: one, of which nobody knows what another seed would have made of it."""
    named = set(table.run) | set(table.draw) != {""}
    return table if named else replace(table, run=np.full(len(table), "unnamed", dtype=object))


def _stem(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _read_run(path: Path) -> tuple[str, dict[str, Chance], list[Predictions]]:
    """The command that made a run ("" for a table), how its training sets were drawn, and its predictions."""
    if not path.exists():
        raise StoreError(f"{path}: no such run; name a folder with {FILE}, or a table of predictions")
    if not path.is_dir():
        return "", {}, read_predictions(path)
    if not (path / FILE).is_file():
        raise StoreError(f"{path} holds no {FILE}; a run of `probe`, `finetune` or `predict` (with labels) leaves one")
    document = read_metrics(path)
    chance = {}
    for name, target in document["targets"].items():
        told = target.get("chance") or {}
        chance[name] = Chance(told.get("share"), told.get("sets", 1), tuple(told.get("refits", ())))
    made_by = str(document["made_by"])
    if (document.get("model") or {}).get("fine_tuned"):
        made_by += " with a fine-tuned model"  # which other seeds would have made otherwise
    return made_by, chance, read_predictions(path / FILE)


def _joined(same: Sequence[Candidate]) -> Candidate:
    names = [name for name in same[0].predictions if all(name in one.predictions for one in same)]
    joined = {}
    for name in names:
        parts = [one.predictions[name] for one in same]
        runs = [set(part.run) for part in parts]
        if sum(map(len, runs)) > len(set().union(*runs)):
            parts = [
                replace(
                    part,
                    run=np.array(
                        [f"{i}/{run}" if len(set(part.run)) > 1 else str(i) for run in part.run], dtype=object
                    ),
                )
                for i, part in enumerate(parts)
            ]
        joined[name] = concatenated(parts)
    return Candidate(same[0].name, joined, same[0].made_by, same[0].chance)


def _common_targets(candidates: Sequence[Candidate], wanted: Sequence[str]) -> list[str]:
    every = dict.fromkeys(name for candidate in candidates for name in candidate.predictions)
    common = [name for name in every if all(name in candidate.predictions for candidate in candidates)]
    for name in wanted:
        if name not in common:
            lacking = [one.name for one in candidates if name not in one.predictions]
            raise ArgumentError(
                f"no target {name!r} in {', '.join(lacking)}; in common are {', '.join(common)} (--target)"
            )
    if not common:
        shown = "; ".join(f"{one.name} has {', '.join(one.predictions)}" for one in candidates)
        raise ArgumentError(f"the candidates have no target in common: {shown}")
    return list(wanted) or common


def _check_agreement(name: str, mine: Predictions, other: str, theirs: Predictions) -> None:
    target, same = mine.target, theirs.target
    if (target.kind, target.classes) != (same.kind, same.classes):
        raise ArgumentError(
            f"{target.name} is {_of(target)} in {name} and {_of(same)} in {other}; make both runs with the same "
            "reading of the labels (their --task, --order, --positive; of a table the columns task and classes)"
        )
    first = next(iter(mine.replicates().values()))
    for second in theirs.replicates().values():
        unequal = (first.patient != second.patient) | ~np.isclose(first.truth, second.truth)
        if unequal.any():
            i = int(np.flatnonzero(unequal)[0])
            raise ArgumentError(
                f"{name} and {other} disagree on {np.count_nonzero(unequal)} test rows of {target.name}, first "
                f"{' '.join(first.keys()[i])}: patients {first.patient[i]} and {second.patient[i]}, truth "
                f"{first.truth[i]:g} and {second.truth[i]:g}; make the runs with one table of labels"
            )


def _of(target: Target) -> str:
    return f"{target.kind} ({', '.join(target.classes)})" if target.classes else target.kind


def _compared(
    candidates: Sequence[Candidate],
    lined_up: Mapping[str, Predictions],
    left_out: int,
    reference: str | None,
    margin: str,
    cutoffs: Sequence[float],
    draws: int,
    seed: int,
) -> Comparison:
    standings = {name: score(one, cutoffs=cutoffs, draws=draws, seed=seed) for name, one in lined_up.items()}
    target = next(iter(lined_up.values())).target
    metric = PRIMARY[target.kind]
    sign = -1 if higher_is_better(metric) else 1
    ranked = sorted(standings, key=lambda name: sign * standings[name].primary.value)
    units = {one.target.unit for one in lined_up.values()} - {""}
    if len(units) > 1:
        raise ArgumentError(f"{target.name} is in {' and '.join(sorted(units))}; give all runs the same unit")
    unit = units.pop() if units else ""
    limit = parse_margin(margin, metric, unit)
    samples = {
        name: sample([one.metrics() for one in lined_up[name].replicates().values()], metric, seed=seed)
        for name in ranked
    }
    parties = {one.name: _Party.of(one, lined_up[one.name], samples[one.name], left_out) for one in candidates}
    contrasts = [_contrast(parties[a], parties[b]) for a, b in _pairs(ranked, reference)]
    by_rank = {name: standings[name] for name in ranked}
    return Comparison(target.name, metric, unit, by_rank, {}, tuple(contrasts), left_out, limit)


@dataclass(frozen=True, slots=True, eq=False)
class _Party:
    """What a difference needs to know of a candidate. trainings: names of its runs. trained: whether it was at all."""

    name: str
    sample: Sample
    kind: str
    trainings: tuple[tuple[str, str], ...]
    trained: bool
    chance: Chance

    @classmethod
    def of(cls, one: Candidate, rows: Predictions, found: Sample, left_out: int) -> _Party:
        chance = one.chance.get(rows.target.name, Chance())
        if left_out:
            chance = replace(chance, refits=())  # they were tested on other rows
        kind = "draws" if chance.sets > 1 else replicates_of(rows)
        return cls(one.name, found, kind, tuple(rows.replicates()), one.made_by != "predict", chance)


def _pairs(ranked: Sequence[str], reference: str | None) -> list[tuple[str, str]]:
    if reference is None:
        return list(combinations(ranked, 2))
    return [(name, reference) for name in ranked if name != reference]


def _contrast(a: _Party, b: _Party) -> Contrast:
    """First minus second; paired where both were trained on the same draws or partitions."""
    chance = max(a.chance, b.chance, key=lambda one: one.share or 0)
    if a.kind == b.kind in ("draws", "folds") and a.trainings == b.trainings:
        found = difference(
            a.sample,
            b.sample,
            replicates="draws" if a.kind == "draws" else "folds",
            share=chance.share,
            sets=chance.sets,
        )
    elif a.kind == b.kind == "none":
        both = bool(a.chance.refits) and (len(a.chance.refits), a.chance.share) == (
            len(b.chance.refits),
            b.chance.share,
        )
        found = difference(
            a.sample,
            b.sample,
            replicates="none",
            share=chance.share if both else None,
            refits=(a.chance.refits, b.chance.refits) if both else None,
        )
        if not both and (a.trained or b.trained):
            found = replace(found, unknown=("training set",))
    else:
        found = difference(a.sample, b.sample, replicates="seeds", seeded=(a.kind != "none", b.kind != "none"))
    if not (a.trained or b.trained):
        found = replace(found, unknown=())
    return Contrast(a.name, b.name, found, float("nan"), "undecided")


def replicates_of(predictions: Predictions) -> str:
    """What tells several trainings apart: "draws" of patients, partitions into "folds", "seeds", or "none" of them."""
    if len(set(predictions.draw)) > 1 or predictions.draw[0]:
        one = next(iter(predictions.replicates().values()))
        return "folds" if len(set(one.fold)) > 1 else "draws"
    return "seeds" if len(set(predictions.run)) > 1 or predictions.run[0] else "none"


def _over_targets(
    candidates: Sequence[Candidate], found: Sequence[Comparison], reference: str | None, seed: int
) -> list[Comparison]:
    """The mean over the targets of a kind, where there are several."""
    means = []
    for metric, title in _MEANS.items():
        of_kind = [c for c in found if OVER_TARGETS[_kind(c)] == metric]
        if len(of_kind) < 2:
            continue
        parties, value = {}, {}
        if any(len({len(c.standings[one.name].by_run[metric]) for c in of_kind}) > 1 for one in candidates):
            continue  # trainings that predicted some of the targets have no mean over all
        for one in candidates:
            rows = [c.standings[one.name].predictions for c in of_kind]
            runs = [[replicate.metrics() for replicate in part.replicates().values()] for part in rows]
            together = [mean_over_targets(parts, metric) for parts in zip(*runs, strict=True)]
            chances = [one.chance[c.name] for c in of_kind if c.name in one.chance]
            largest = {rows[0].target.name: max(chances, key=lambda chance: chance.share or 0)} if chances else {}
            party = replace(one, chance=largest)
            parties[one.name] = _Party.of(party, rows[0], sample(together, metric, seed=seed), 1)
            value[one.name] = float(np.mean([c.standings[one.name].scores[metric].value for c in of_kind]))
        ranked = sorted(value, key=lambda name: -value[name])
        contrasts = tuple(_contrast(parties[a], parties[b]) for a, b in _pairs(ranked, reference))
        by_rank = {name: value[name] for name in ranked}
        means.append(Comparison(title.format(len(of_kind)), metric, "", {}, by_rank, contrasts))
    return means


def _kind(comparison: Comparison) -> Any:
    return next(iter(comparison.standings.values())).target.kind


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
