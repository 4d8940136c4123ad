"""Is one embedding better than another? The same probe on the same patients and splits, differences paired."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from panecho_embed._version import __version__
from panecho_embed.errors import ArgumentError, StoreError
from panecho_embed.evaluation.intervals import Difference, difference_of, holm
from panecho_embed.evaluation.metrics import PRIMARY, higher_is_better
from panecho_embed.records import Score
from panecho_embed.report import picture_file
from probes.base import BaseProbe
from probes.draws import Draw, few_shots
from probes.evaluation import Evaluation, evaluate, make_folds
from probes.outputs import (
    clear_folder,
    file_stem,
    make_folder,
    prediction_table,
    probe_document,
    provenance_document,
    write_json,
)
from probes.problem import Problem
from probes.run import RunSettings

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]

FILES = ("comparison.json", "scores.csv", "differences.csv", "predictions.csv", "draws.json")


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """first minus second, and its p-value corrected for all differences it was made with (Holm)."""

    first: str
    second: str
    difference: Difference
    p_holm: float


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One target. evaluations: by name, best first. differences: of the primary metric. n_left_out: units that not
    every file has. k_shot: as in `RunSettings`; draws: who was trained on then."""

    target: str
    metric: str
    evaluations: Mapping[str, Evaluation]
    differences: tuple[PairedDifference, ...]
    n_left_out: int
    k_shot: int | None = None
    draws: tuple[Draw, ...] = ()

    def score(self, name: str) -> Score:
        """The primary metric of one candidate."""
        return self.evaluations[name].scores[self.metric]

    def table(self) -> pd.DataFrame:
        """Every metric of every candidate, one row each."""
        import pandas as pd

        rows = [
            {"target": self.target, "candidate": name, **asdict(score)}
            for name, evaluation in self.evaluations.items()
            for score in evaluation.scores.values()
        ]
        return pd.DataFrame(rows)

    def difference_table(self) -> pd.DataFrame:
        """Every paired difference, one row each."""
        import pandas as pd

        rows = [
            {"target": self.target, "first": d.first, "second": d.second, **asdict(d.difference), "p_holm": d.p_holm}
            for d in self.differences
        ]
        return pd.DataFrame(rows)


def compare_problems(
    problems: Mapping[str, Problem],
    make_probe: Callable[[Problem], BaseProbe],
    settings: RunSettings,
    *,
    reference: str | None = None,
) -> Comparison:
    """Compare candidates (by name) on the units that all of them have.

    reference: differences to this candidate only; otherwise between all pairs. Raises ArgumentError for fewer than two
    candidates, for no common units, and when the files disagree on a label, a patient or a split.
    """
    if len(problems) < 2:
        raise ArgumentError(f"a comparison needs two candidates or more; there is {', '.join(problems) or 'none'}")
    if reference is not None and reference not in problems:
        raise ArgumentError(f"reference is {reference!r}; the candidates are {', '.join(problems)}")
    common = common_units(problems)
    left_out = len(set().union(*(_keys(p) for p in problems.values()))) - len(next(iter(common.values())))
    first = next(iter(common.values()))
    folds = make_folds(first, folds=settings.folds, seed=settings.seed)
    drawn: list[Draw] = []
    if settings.k_shot is not None:
        folds, drawn = few_shots(first, make_probe(first), folds, settings.k_shot, seed=settings.seed)
    evaluations = {
        name: evaluate(
            problem,
            make_probe(problem),
            folds,
            cutoffs=settings.cutoffs if problem.task == "regression" else (),
            draws=settings.draws,
            seed=settings.seed,
            allow_leakage=settings.allow_leakage,
        )
        for name, problem in common.items()
    }
    metric = PRIMARY[first.task]
    sign = -1 if higher_is_better(metric) else 1
    ranked = sorted(evaluations, key=lambda name: sign * evaluations[name].scores[metric].value)
    pairs = [(a, reference) for a in ranked if a != reference] if reference else list(combinations(ranked, 2))
    differences = _differences(evaluations, pairs, metric)
    by_rank = {name: evaluations[name] for name in ranked}
    return Comparison(first.target, metric, by_rank, differences, left_out, settings.k_shot, tuple(drawn))


def common_units(problems: Mapping[str, Problem]) -> dict[str, Problem]:
    """The same units in the same order for every candidate; ArgumentError where the files contradict each other."""
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
    return taken


def corrected_together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p-values corrected for the differences of all of them, as they stand in one report."""
    corrected = iter(holm([d.difference.p_value for c in comparisons for d in c.differences]))
    return [
        replace(c, differences=tuple(replace(d, p_holm=float(next(corrected))) for d in c.differences))
        for c in comparisons
    ]


def write_comparison(
    comparisons: Sequence[Comparison],
    out: str | Path,
    *,
    command: str = "",
    not_compared: Mapping[str, str] | None = None,
) -> Path:
    """Write comparison.json, the tables (scores, differences, predictions), plots and report.html into `out`.

    not_compared: target -> why, of those that could not be.
    """
    import pandas as pd

    from probes.compare_report import comparison_drawing, write_comparison_report

    folder = make_folder(out)
    try:
        clear_folder(folder, FILES)
        write_json(folder / "comparison.json", comparison_document(comparisons, command, not_compared or {}))
        if draws := {c.target: {"k_shot": [asdict(draw) for draw in c.draws]} for c in comparisons if c.draws}:
            write_json(folder / "draws.json", draws)
        tables = [
            prediction_table(evaluation).assign(candidate=name)
            for comparison in comparisons
            for name, evaluation in comparison.evaluations.items()
        ]
        pd.concat(tables).to_csv(folder / "predictions.csv", index=False)
        pd.concat([c.table() for c in comparisons]).to_csv(folder / "scores.csv", index=False)
        pd.concat([c.difference_table() for c in comparisons]).to_csv(folder / "differences.csv", index=False)
        drawn = [comparison_drawing(comparison) for comparison in comparisons]
        for comparison, figure in zip(comparisons, drawn, strict=True):
            path = folder / "plots" / f"{file_stem(comparison.target)}-comparison.svg"
            path.write_text(picture_file(figure), encoding="utf-8")
        write_comparison_report(
            comparisons, drawn, folder / "report.html", command=command, not_compared=not_compared or {}
        )
    except OSError as error:
        raise StoreError(f"{folder}: the comparison can't be written ({error}) (-o)") from error
    return folder


def comparison_document(
    comparisons: Sequence[Comparison], command: str, not_compared: Mapping[str, str]
) -> dict[str, object]:
    """The content of comparison.json."""
    candidates = comparisons[0].evaluations
    return {
        "schema_version": 1,
        "version": __version__,
        "command": command,
        "not_compared": dict(not_compared),
        "draws": next(iter(candidates.values())).draws,
        "seed": next(iter(candidates.values())).seed,
        "k_shot": comparisons[0].k_shot,
        "candidates": {name: provenance_document(e.problem.provenance) for name, e in candidates.items()},
        "targets": {
            c.target: {
                "task": next(iter(c.evaluations.values())).problem.task,
                "level": next(iter(c.evaluations.values())).problem.level,
                "probe": probe_document(next(iter(c.evaluations.values())).probes[0]),
                "metric": c.metric,
                "n_left_out": c.n_left_out,
                "scores": {
                    name: {metric: asdict(score) for metric, score in e.scores.items()}
                    for name, e in c.evaluations.items()
                },
                "differences": json.loads(c.difference_table().to_json(orient="records")),
            }
            for c in comparisons
        },
    }


def _keys(problem: Problem) -> list[tuple[str, ...]]:
    columns = [problem.ids[name] for name in problem.ids if name != "patient_id"]
    return [tuple(map(str, key)) for key in zip(*columns, strict=True)]


def _check_agreement(one: str, a: Problem, other: str, b: Problem) -> None:
    if (a.task, a.classes) != (b.task, b.classes):
        raise ArgumentError(f"{a.target} is {a.task} {a.classes} in {one} and {b.task} {b.classes} in {other}")
    for what, mine, theirs in (
        ("patient", a.patient, b.patient),
        ("split", a.split, b.split),
        (a.target, a.truth, b.truth),
    ):
        unequal = ~np.isclose(mine, theirs) if mine.dtype.kind == "f" else mine != theirs
        if unequal.any():
            i = int(np.flatnonzero(unequal)[0])
            where = ", ".join(f"{name} {column[i]}" for name, column in a.ids.items())
            raise ArgumentError(
                f"{one} and {other} disagree on the {what} of {np.count_nonzero(unequal)} {a.level} rows, "
                f"first {where}: {mine[i]} and {theirs[i]}; give one table of labels to all (--labels)"
            )


def _differences(
    evaluations: Mapping[str, Evaluation], pairs: Sequence[tuple[str, str]], metric: str
) -> tuple[PairedDifference, ...]:
    # Each was bootstrapped with the same seed on the same patients, so draw i of one is paired with draw i of another.
    scores = {name: evaluation.scores[metric] for name, evaluation in evaluations.items()}
    sampled = {name: evaluation.sampled for name, evaluation in evaluations.items()}
    found = [
        difference_of(
            metric, scores[a].value - scores[b].value, sampled[a] - sampled[b], scores[a].n, scores[a].n_patients
        )
        for a, b in pairs
    ]
    corrected = holm([difference.p_value for difference in found])
    return tuple(
        PairedDifference(a, b, difference, float(p))
        for (a, b), difference, p in zip(pairs, found, corrected, strict=True)
    )
