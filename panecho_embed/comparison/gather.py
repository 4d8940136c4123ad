"""From the predictions of runs to what the statistics take: the same test rows, in the same order, for every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from panecho_embed.comparison.statistics import Candidate, Target
from panecho_embed.errors import ArgumentError
from panecho_embed.finetune.outcome import TargetRows

Rows = Mapping[str, TargetRows]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A line of the tables, before its rows are lined up. runs: the predictions of each run, by target.

    random, contrasted, start: see `Candidate`.
    """

    name: str
    fraction: float
    runs: tuple[Rows, ...]
    random: bool = True
    contrasted: bool = True
    start: str = ""


def line_up(entries: Sequence[Entry]) -> tuple[tuple[Target, ...], tuple[Candidate, ...], int]:
    """Targets and candidates on the test rows that all runs have, and how many rows were left out.

    A target that a run lacks is left out altogether. Raises ArgumentError where runs disagree on a patient or a label,
    or have no row in common.
    """
    runs = [(f"{entry.name} (run {i + 1})", rows) for entry in entries for i, rows in enumerate(entry.runs)]
    names = [name for name in runs[0][1] if all(name in rows for _, rows in runs)]
    if not names:
        raise ArgumentError(f"the runs have no target in common; {runs[0][0]} has {', '.join(runs[0][1])}")
    targets, places, left_out = [], {}, 0
    for name in names:
        rows_of = {label: rows[name] for label, rows in runs}
        ids = _common(name, rows_of)
        left_out += len(set().union(*(rows.ids.tolist() for rows in rows_of.values()))) - len(ids)
        label, first = next(iter(rows_of.items()))
        target = _taken(first, ids)
        for other, rows in rows_of.items():
            _check_agreement(name, label, target, other, _taken(rows, ids))
        targets.append(
            Target(name, first.task.type, target.classes, target.truth, target.patients.astype(str), first.task.unit)
        )
        places[name] = ids
    candidates = tuple(
        Candidate(
            entry.name,
            {name: tuple(_taken(rows[name], places[name]).prediction for rows in entry.runs) for name in names},
            entry.fraction,
            entry.random,
            entry.contrasted,
            entry.start,
        )
        for entry in entries
    )
    return tuple(targets), candidates, left_out


def _common(name: str, rows_of: Mapping[str, TargetRows]) -> npt.NDArray[np.object_]:
    ids = set.intersection(*(set(rows.ids.tolist()) for rows in rows_of.values()))
    if not ids:
        shown = "; ".join(f"{label} has {rows.ids[0] if len(rows.ids) else 'none'}" for label, rows in rows_of.items())
        raise ArgumentError(f"{name}: the runs have no test row in common: {shown}")
    return np.array(sorted(ids), dtype=object)


def _taken(rows: TargetRows, ids: npt.NDArray[np.object_]) -> TargetRows:
    """The rows of `ids`, in that order."""
    return rows.take(np.searchsorted(rows.ids.astype(str), ids.astype(str)))


def _check_agreement(name: str, label: str, mine: TargetRows, other: str, theirs: TargetRows) -> None:
    if mine.classes != theirs.classes:
        raise ArgumentError(f"{name} has the classes {mine.classes} in {label} and {theirs.classes} in {other}")
    unequal = (mine.patients != theirs.patients) | ~np.isclose(mine.truth, theirs.truth)
    if unequal.any():
        i = int(np.flatnonzero(unequal)[0])
        raise ArgumentError(
            f"{label} and {other} disagree on {np.count_nonzero(unequal)} test rows of {name}, first {mine.ids[i]}: "
            f"patients {mine.patients[i]} and {theirs.patients[i]}, truth {mine.truth[i]:g} and {theirs.truth[i]:g}"
        )
