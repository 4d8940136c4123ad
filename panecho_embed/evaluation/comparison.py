"""Which of several candidates is better on the same patients, how sure that is, and whether they are equivalent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.candidates import Candidate, Chance, line_up
from panecho_embed.evaluation.inference import (
    DEFAULT_DRAWS,
    Difference,
    Replicates,
    Sample,
    Verdict,
    difference,
    holm,
    mean_over_targets,
    sample,
    verdict,
)
from panecho_embed.evaluation.metrics import METRICS, OVER_TARGETS, PRIMARY, base_name, higher_is_better
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.evaluation.scores import Scored, score
from panecho_embed.evaluation.targets import Target

if TYPE_CHECKING:
    import pandas as pd


_MEANS = {"auroc": "Mean over {} class targets", "r2": "Mean over {} regressions"}


@dataclass(frozen=True, slots=True)
class Contrast:
    """The difference of one candidate to another.

    first, second: names; the difference is first minus second. p_holm, p_equivalent: p-values of a difference and of
    equivalence (NaN without a margin), each corrected for their number in the report. verdict: of the first, "better",
    "worse", "equivalent" or "undecided".
    """

    first: str
    second: str
    difference: Difference
    p_holm: float = float("nan")
    p_equivalent: float = float("nan")
    verdict: Verdict = "undecided"


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
    recording : mapping of str to mapping
        By candidate, the metrics of its recording-only baseline, where it is known; of one target.
    """

    name: str
    metric: str
    unit: str
    standings: Mapping[str, Scored]
    means: Mapping[str, float]
    contrasts: tuple[Contrast, ...]
    n_left_out: int = 0
    margin: float | None = None
    recording: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def ranked(self) -> list[str]:
        """The candidates, best first."""
        return list(self.standings or self.means)


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
        Differences to this candidate only; otherwise between all pairs.
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
        raise ArgumentError(f"candidates are called {', '.join(names)}; each needs its own name (NAME=RUN)")
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
    """The comparisons with p-values corrected for the differences of all of them, as they appear in one report.

    Tests of a difference and tests of equivalence are each corrected for their own number.
    """
    contrasts = [(one, c.margin) for c in comparisons for one in c.contrasts]
    adjusted = iter(holm([one.difference.p_value for one, _ in contrasts]))
    equivalent = iter(
        holm([np.nan if margin is None else one.difference.p_equivalent(margin) for one, margin in contrasts])
    )

    def with_p(metric: str, contrast: Contrast) -> Contrast:
        p, p_equivalent = float(next(adjusted)), float(next(equivalent))
        better = higher_is_better(metric)
        told = verdict(contrast.difference, higher_is_better=better, p=p, p_equivalent=p_equivalent)
        return replace(contrast, p_holm=p, p_equivalent=p_equivalent, verdict=told)

    return [replace(c, contrasts=tuple(with_p(c.metric, contrast) for contrast in c.contrasts)) for c in comparisons]


def check_margin(margin: str, targets: Sequence[Target]) -> None:
    """Raise ArgumentError for a margin and several targets, and for one that does not fit the target's metric."""
    if margin and len(targets) > 1:
        names = ", ".join(target.name for target in targets)
        raise ArgumentError(f"the margin {margin!r} is for one target, and {names} are compared; name one (--target)")
    if margin and targets[0].unit:
        _parse_margin(margin, PRIMARY[targets[0].kind], targets[0].unit)


def _parse_margin(text: str, metric: str, unit: str) -> float | None:
    """The margin in "0.5" or "0.5 %"; None for "". Raises ArgumentError for any that does not fit the metric."""
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
            "sd_over_trainings": pd.Series(scored.by_run[metric]).std(),
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
            row |= {"p_holm": one.p_holm, "margin": comparison.margin, "p_equivalent": one.p_equivalent}
            rows.append(row | {"verdict": one.verdict})
    return pd.DataFrame(rows)


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
    limit = _parse_margin(margin, metric, unit)
    samples = {
        name: sample([one.metrics() for one in lined_up[name].replicates().values()], metric, seed=seed)
        for name in ranked
    }
    parties = {one.name: _Party.of(one, lined_up[one.name], samples[one.name], left_out) for one in candidates}
    contrasts = [_contrast(parties[a], parties[b]) for a, b in _pairs(ranked, reference)]
    by_rank = {name: standings[name] for name in ranked}
    recording = {one.name: one.recording[target.name] for one in candidates if one.recording.get(target.name)}
    return Comparison(target.name, metric, unit, by_rank, {}, tuple(contrasts), left_out, limit, recording)


@dataclass(frozen=True, slots=True, eq=False)
class _Party:
    """What a difference needs to know of a candidate. trainings: names of its runs. trained: whether it was at all."""

    name: str
    sample: Sample
    kind: Replicates
    trainings: tuple[tuple[str, str], ...]
    trained: bool
    chance: Chance

    @classmethod
    def of(cls, one: Candidate, rows: Predictions, found: Sample, left_out: int) -> _Party:
        chance = one.chance.get(rows.target.name, Chance())
        if left_out:
            chance = replace(chance, refits=())  # they were tested on other rows
        kind: Replicates = "draws" if chance.sets > 1 else _replicates_of(rows)
        return cls(one.name, found, kind, tuple(rows.replicates()), one.made_by != "predict", chance)


def _pairs(ranked: Sequence[str], reference: str | None) -> list[tuple[str, str]]:
    if reference is None:
        return list(combinations(ranked, 2))
    return [(name, reference) for name in ranked if name != reference]


def _contrast(a: _Party, b: _Party) -> Contrast:
    """First minus second; paired where both were trained on the same draws or partitions."""
    chance = max(a.chance, b.chance, key=lambda one: one.share or 0)
    refits = (a.chance.refits, b.chance.refits)
    if a.kind == b.kind in ("draws", "folds") and a.trainings == b.trainings:
        found = difference(a.sample, b.sample, replicates=a.kind, share=chance.share, sets=chance.sets)
    elif a.kind == b.kind == "none":
        if refits[0] and (len(refits[0]), a.chance.share) == (len(refits[1]), b.chance.share):
            found = difference(a.sample, b.sample, replicates="none", share=chance.share, refits=refits)
        else:
            found = replace(difference(a.sample, b.sample, replicates="none"), unknown=("training set",))
    else:
        found = difference(a.sample, b.sample, replicates="seeds", seeded=(a.kind != "none", b.kind != "none"))
    if not (a.trained or b.trained):
        found = replace(found, unknown=())
    return Contrast(a.name, b.name, found)


def _replicates_of(predictions: Predictions) -> Replicates:
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
        of_kind = [c for c in found if OVER_TARGETS[next(iter(c.standings.values())).target.kind] == metric]
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
