"""What a comparison found, and the files that it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panecho_embed._version import __version__
from panecho_embed.comparison.plan import Trial
from panecho_embed.comparison.statistics import Comparison, Standing
from panecho_embed.finetune.outcome import Outcome
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.jsonable import without_nan

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be had: a start's weights, a run, a frozen probe."""

    name: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonResult:
    """How a comparison ended.

    inits: in the order asked for. outcomes: the runs that are done. comparisons: one a target, their means first.
    reference: what the differences are to, None where it has no run. n_left_out: test rows that not every run has.
    trained, reused: how many runs this call did, and found done.
    """

    folder: Path
    recipe: Recipe
    inits: tuple[str, ...]
    fractions: tuple[float, ...]
    seeds: int
    outcomes: Mapping[Trial, Outcome]
    comparisons: tuple[Comparison, ...]
    reference: str | None
    problems: tuple[Problem, ...]
    n_left_out: int
    trained: int
    reused: int
    command: str

    @property
    def exit_code(self) -> int:
        """0 if every run is done, else 3."""
        return 3 if self.problems else 0


def score_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Every metric of every candidate and target, one row each."""
    import pandas as pd

    rows = [
        {
            "target": comparison.name,
            "candidate": standing.candidate.name,
            "fraction": standing.candidate.fraction,
            "runs": len(standing.by_run[metric]),
            **asdict(score),
            "seed_sd": standing.seed_sd(metric),
            "sampling_sd": standing.sampling_sd[metric],
        }
        for comparison in comparisons
        for standing in comparison.standings
        for metric, score in standing.scores.items()
    ]
    return pd.DataFrame(rows)


def difference_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Every paired difference, one row each."""
    import pandas as pd

    columns = ["target", "first", "second", "fraction", "metric", "value", "low", "high"]
    columns += ["p_value", "p_holm", "seed_se", "n", "n_patients"]
    rows = [
        {"target": comparison.name, **asdict(contrast.difference), **_fields(contrast)}
        for comparison in comparisons
        for contrast in comparison.contrasts
    ]
    return pd.DataFrame(rows, columns=columns)


def run_table(outcomes: Mapping[Trial, Outcome], comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Every run with its weights, training and primary metric of each target, one row each."""
    import pandas as pd

    rows = []
    for trial, outcome in outcomes.items():
        info = outcome.info
        row = {"init": trial.init, "fraction": trial.fraction, "seed": trial.seed, "folder": str(trial.folder)}
        row |= {"weights_sha256": info["weights"]["sha256"], "pretrained": info["weights"]["pretrained"]}
        row |= {"epochs": sum(map(len, outcome.histories.values())), "seconds": training_seconds(outcome)}
        for comparison in comparisons:
            row[f"{comparison.metric}:{comparison.name}"] = _value_of(trial, outcomes, comparison)
        rows.append(row)
    return pd.DataFrame(rows)


def training_seconds(outcome: Outcome) -> float:
    """Time that the epochs of a run took, over all folds."""
    return sum(float(table["seconds"].sum()) for table in outcome.histories.values())


def write_files(result: ComparisonResult) -> None:
    """Write comparison.json, scores.csv, differences.csv and runs.csv. Raises OSError."""
    folder, comparisons = result.folder, result.comparisons
    score_table(comparisons).to_csv(folder / "scores.csv", index=False)
    difference_table(comparisons).to_csv(folder / "differences.csv", index=False)
    run_table(result.outcomes, comparisons).to_csv(folder / "runs.csv", index=False)
    text = json.dumps(without_nan(_document(result)), indent=2, allow_nan=False)
    (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")


def _document(result: ComparisonResult) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "version": __version__,
        "command": result.command,
        "recipe": asdict(result.recipe),
        "inits": result.inits,
        "fractions": result.fractions,
        "seeds": result.seeds,
        "reference": result.reference,
        "problems": [asdict(problem) for problem in result.problems],
        "n_left_out": result.n_left_out,
        "weights": {trial.init: outcome.info["weights"] for trial, outcome in result.outcomes.items()},
        "scores": score_table(result.comparisons).to_dict("records"),
        "differences": difference_table(result.comparisons).to_dict("records"),
    }


def _fields(contrast: Any) -> dict[str, Any]:
    return {name: getattr(contrast, name) for name in ("first", "second", "fraction", "p_holm", "seed_se")}


def _value_of(trial: Trial, outcomes: Mapping[Trial, Outcome], comparison: Comparison) -> float:
    """The primary metric of one run: runs stand in the order of their seeds."""
    seeds = [other.seed for other in outcomes if (other.init, other.fraction) == (trial.init, trial.fraction)]
    standing = standing_of(comparison, trial.init, trial.fraction)
    return float(standing.by_run[comparison.metric][sorted(seeds).index(trial.seed)])


def standing_of(comparison: Comparison, name: str, fraction: float) -> Standing:
    """A candidate's standing by its name and fraction."""
    return next(s for s in comparison.standings if (s.candidate.name, s.candidate.fraction) == (name, fraction))
