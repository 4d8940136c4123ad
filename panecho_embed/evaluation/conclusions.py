"""What may be concluded of a target, and the plain sentence that says so at the top of a report.

The rule looks at one interval, that of the advantage over guessing, and at nothing else: see `conclude`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from panecho_embed.core.records import Score
from panecho_embed.core.wording import counted, interval, number
from panecho_embed.evaluation.metrics import METRICS, display_name, higher_is_better
from panecho_embed.evaluation.scores import FEWEST_PATIENTS, Scored

Conclusion = Literal["yes", "worse", "no", "undecided", "unknown"]

LABELS: dict[Conclusion, str] = {
    "yes": "Better than guessing",
    "worse": "Worse than guessing",
    "no": "No better than guessing",
    "undecided": "Can't be told",
    "unknown": "Can't be told",
}
"""What each conclusion is called where there is no room for a sentence."""

# What guessing scores by definition, for targets of which no training labels are known.
_BY_CHANCE = {"auroc": 0.5, "weighted_kappa": 0.0}
_WORDS = {"mae": "mean error", "auroc": "AUROC", "weighted_kappa": "weighted kappa"}


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much better than guessing a target was predicted; above 0 is better, whatever the metric.

    value, low, high : float
        With its 95 % interval, in the unit of the metric; NaN where unknown.
    guess : str
        What guessing is and scores, "guessing the mean 8.59"; "" where that is unknown.
    unit : str
        Of the value, within a sentence: "points", "in R²"; "" where it has none.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    guess: str = ""
    unit: str = ""

    def words(self, value: float) -> str:
        """A value of the advantage with its unit: "0.46 points"."""
        return f"{number(value)} {self.unit}".rstrip()


def conclude(advantage: Advantage, n_patients: int) -> Conclusion:
    """What an advantage over guessing says.

    Parameters
    ----------
    advantage : Advantage
    n_patients : int
        Number of tested patients.

    Returns
    -------
    {"yes", "worse", "no", "undecided", "unknown"}
        "unknown" if fewer than `FEWEST_PATIENTS` were tested, or if there is no interval. "yes" if the whole interval
        is above 0, "worse" if it is below 0. Else "undecided" for a value above 0, "no" for one at or below it.
    """
    if n_patients < FEWEST_PATIENTS or not (math.isfinite(advantage.low) and math.isfinite(advantage.high)):
        return "unknown"
    if advantage.low > 0:
        return "yes"
    if advantage.high < 0:
        return "worse"
    return "undecided" if advantage.value > 0 else "no"


def advantage_of(one: Scored) -> Advantage:
    """The advantage of the primary metric over guessing.

    Guessing is the baseline from the training labels. Where these are unknown it is AUROC 0.5 and kappa 0, which hold
    for any guess, and of a regression the mean of the tested labels (the advantage is then R²).
    """
    if gain := one.gain.get(one.metric):
        what = "guessing" if one.target.classes else "guessing the mean"
        guess = f"{what} {number(one.baseline[one.metric].value)}"
        return _oriented(gain, one.metric, guess, _unit(one))
    if (chance := _BY_CHANCE.get(one.metric)) is not None:
        score = one.primary
        return Advantage(score.value - chance, score.low - chance, score.high - chance, f"guessing {chance:g}")
    if "r2" in one.scores:
        r2 = one.scores["r2"]
        return Advantage(
            r2.value, r2.low, r2.high, f"R² {number(r2.value)} ({interval(r2)}), 0 for their mean", "in R²"
        )
    return Advantage()


def sentence(one: Scored, claim: str, doubts: Sequence[str] = ()) -> str:
    """Whether a target can be predicted, with the figures, in plain words.

    Parameters
    ----------
    one : Scored
    claim : str
        What is claimed of the target: "can be read from these embeddings".
    doubts : sequence of str
        Reasons, as clauses without a full stop, why a good figure does not show what is claimed.
    """
    name, advantage, n_patients = one.target.name, advantage_of(one), one.primary.n_patients
    if n_patients < FEWEST_PATIENTS:
        return (
            f"It can't be told whether {name} {claim}: {counted(n_patients, 'patient')} "
            f"{'was' if n_patients == 1 else 'were'} tested, and statistics are reported from {FEWEST_PATIENTS} on."
        )
    figures = f"{_value(one)}; {advantage.guess}." if advantage.guess else f"{_value(one)}."
    found = conclude(advantage, n_patients)
    if found == "yes":
        if doubts:
            return f"It is not shown that {name} {claim}: {figures} But {'; '.join(doubts)}."
        return f"{name} {claim}: {figures}"
    if found == "worse":
        return f"{name} was predicted worse than by guessing: {figures}"
    if found == "no":
        return (
            f"{name} was predicted no better than by guessing: {figures} An advantage of up to "
            f"{advantage.words(advantage.high)} can't be excluded (95 % interval)."
        )
    if found == "undecided":
        return (
            f"It can't be told whether {name} {claim}: {figures} The advantage of {advantage.words(advantage.value)} "
            f"({interval(advantage)}) may be chance in {n_patients} patients."
        )
    return f"It can't be told whether {name} {claim}: {_value(one)}, and there is no interval to compare with guessing."


def overall(scored: Sequence[Scored], claim: str) -> str:
    """What may be concluded of many targets, in a sentence for each conclusion that there is."""
    found: dict[Conclusion, list[str]] = {}
    for one in scored:
        found.setdefault(conclude(advantage_of(one), one.primary.n_patients), []).append(one.target.name)
    undecided = [*found.get("undecided", ()), *found.get("unknown", ())]
    yes = found.get("yes", [])
    parts = [
        f"{len(yes)} of {counted(len(scored), 'target')} {claim}{': ' if yes else ''}{', '.join(yes)}.",
        f"Can't be told: {', '.join(undecided)}." if undecided else "",
        f"No better than guessing: {', '.join(found.get('no', ()))}." if "no" in found else "",
        f"Worse than guessing: {', '.join(found.get('worse', ()))}." if "worse" in found else "",
    ]
    return " ".join(filter(None, parts))


def skill(one: Scored) -> tuple[float, float, float]:
    """The advantage as a share of that of perfect predictions, with its interval: 0 is guessing, 1 perfect.

    It makes targets of different units and metrics comparable. Nothing is above 1. NaN where unknown or withheld.
    """
    advantage = advantage_of(one)
    if one.primary.n_patients < FEWEST_PATIENTS:
        return math.nan, math.nan, math.nan
    room = 1.0
    if one.metric in one.gain:
        guess = one.baseline[one.metric].value
        room = 1 - guess if higher_is_better(one.metric) else guess
    elif one.metric in _BY_CHANCE:
        room = 1 - _BY_CHANCE[one.metric]
    if room <= 0:
        return math.nan, math.nan, math.nan
    return advantage.value / room, advantage.low / room, min(1.0, advantage.high / room)


def metric_words(metric: str) -> str:
    """A primary metric within a sentence: "mean error"."""
    return _WORDS.get(metric) or display_name(metric)


def value_words(one: Scored) -> str:
    """The primary metric's value with unit and interval: "5.12 points (4.81 to 5.43)"; percentages differ by points."""
    unit = _unit(one)
    return f"{number(one.primary.value)}{f' {unit}' if unit else ''} ({interval(one.primary)})"


def _unit(one: Scored) -> str:
    """The unit of differences of the primary metric; percentages differ by points."""
    return {"%": "points"}.get(one.target.unit, one.target.unit) if METRICS[one.metric].in_unit else ""


def _oriented(gain: Score, metric: str, guess: str, unit: str) -> Advantage:
    if higher_is_better(metric):
        return Advantage(gain.value, gain.low, gain.high, guess, unit)
    return Advantage(-gain.value, -gain.high, -gain.low, guess, unit)


def _value(one: Scored) -> str:
    """The primary metric in words, with unit and interval: "mean error 5.12 points (4.81 to 5.43)"."""
    return f"{metric_words(one.metric)} {value_words(one)}"
