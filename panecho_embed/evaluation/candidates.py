"""The candidates of a comparison: finished runs, read and lined up on the test rows that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints, Texts
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import settled
from panecho_embed.evaluation.predictions import FILE, LEVELS, Predictions, concatenated, read_predictions
from panecho_embed.evaluation.scores import check_tested, read_metrics
from panecho_embed.evaluation.targets import Target


class _Rows(Protocol):
    """Labelled rows of a target: `Predictions`, or what a probe learns from."""

    @property
    def target(self) -> Target: ...
    @property
    def level(self) -> str: ...
    @property
    def patient(self) -> Texts: ...
    @property
    def split(self) -> Texts: ...
    @property
    def truth(self) -> Floats: ...
    def keys(self) -> list[tuple[str, ...]]: ...
    def take(self, rows: Ints, /) -> Self: ...


_R = TypeVar("_R", bound=_Rows)


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
    overrides : tuple of str
        How its backbone was fed otherwise than its own feeding, a line each.
    inputs : tuple of (str, str)
        Settings id and data digest of each training; () where not known.
    recording : mapping of str to mapping
        By target, the metrics of the recording-only baseline on the candidate's own test rows; empty where not known.
    """

    name: str
    predictions: Mapping[str, Predictions]
    made_by: str = ""
    chance: Mapping[str, Chance] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    recording: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    inputs: tuple[tuple[str, str], ...] = ()


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
    for name, path, made_by, chance, overrides, found in read:
        by_target = {one.target.name: one if made_by else _of_one_training(one) for one in found if one.level == chosen}
        alone = _recording_only(path, chosen) if made_by else {}
        inputs = _inputs(path) if made_by else ()
        named.setdefault(name, []).append(Candidate(name, by_target, made_by, chance, overrides, alone, inputs))
    return [_joined(same) if len(same) > 1 else same[0] for same in named.values()]


def line_up(predictions: Mapping[str, Predictions]) -> tuple[dict[str, Predictions], int]:
    """The labelled test rows that every candidate has, in the same order in every training; how many were left out.

    Raises ArgumentError as `common_rows`, and for test rows without a label or of one class.
    """
    tested = {name: one.of_split("test") for name, one in predictions.items()}
    for one in tested.values():
        check_tested(one)
    trainings = [(name, part) for name, one in tested.items() for part in one.replicates().values()]
    taken, left_out = common_rows(trainings)
    parts: dict[str, list[Predictions]] = {}
    for (name, _), part in zip(trainings, taken, strict=True):
        parts.setdefault(name, []).append(part)
    return {name: concatenated(of_name) for name, of_name in parts.items()}, left_out


def common_rows(candidates: Sequence[tuple[str, _R]]) -> tuple[list[_R], int]:
    """The rows that all of the named candidates have, in the order of the first; how many are not in all.

    Raises ArgumentError if there are none, or where candidates disagree on the target, a patient, a split or a label.
    """
    places = [{key: i for i, key in enumerate(rows.keys())} for _, rows in candidates]
    keys = [key for key in places[0] if all(key in place for place in places[1:])]
    name, first = candidates[0]
    if not keys:
        each: dict[str, _R] = {}
        for one, rows in candidates:
            each.setdefault(one, rows)  # of several trainings the first
        shown = "; ".join(
            f"{one} has {len(rows.truth)} rows, first {' '.join(rows.keys()[0])}" for one, rows in each.items()
        )
        shared = len(set.intersection(*(set(map(str, rows.patient)) for rows in each.values())))
        raise ArgumentError(
            f"{first.target.name}: the candidates have no row ({first.level}) in common, and {shared} patients: {shown}"
        )
    taken = [
        rows.take(np.array([place[key] for key in keys], dtype=np.int64))
        for (_, rows), place in zip(candidates, places, strict=True)
    ]
    for (other, _), rows in zip(candidates[1:], taken[1:], strict=True):
        _check_agreement(name, taken[0], other, rows)
    return taken, len(set().union(*places)) - len(keys)


def _check_agreement(name: str, mine: _Rows, other: str, theirs: _Rows) -> None:
    target, same = mine.target, theirs.target
    if (target.kind, target.classes) != (same.kind, same.classes):
        raise ArgumentError(
            f"{target.name} is {_of(target)} in {name} and {_of(same)} in {other}; make both with the same reading of "
            "the labels (their --task, --order, --positive; of a table the columns task and classes)"
        )
    columns: list[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]] = [
        ("patient", mine.patient, theirs.patient),
        ("split", mine.split, theirs.split),
        (target.name, mine.truth, theirs.truth),
    ]
    for what, a, b in columns:
        unequal = ~np.isclose(a, b) if a.dtype.kind == "f" else a != b
        if unequal.any():
            i = int(np.flatnonzero(unequal)[0])
            raise ArgumentError(
                f"{name} and {other} disagree on the {what} of {np.count_nonzero(unequal)} rows, first "
                f"{' '.join(mine.keys()[i])}: {a[i]} and {b[i]}; give one table of labels to both (--labels)"
            )


def _of(target: Target) -> str:
    return f"{target.kind} ({', '.join(target.classes)})" if target.classes else target.kind


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


def _inputs(folder: Path) -> tuple[tuple[str, str], ...]:
    """The settings id and the data digest of one run."""
    document = read_metrics(folder)
    return ((str(document.get("settings_id") or ""), str(document.get("data_digest") or "")),)


def _read_run(path: Path) -> tuple[str, dict[str, Chance], tuple[str, ...], list[Predictions]]:
    """The command that made a run ("" for a table), the chance of its training sets, its overrides, its predictions."""
    if not path.exists():
        raise StoreError(f"{path}: no such run; name a folder with {FILE}, or a table of predictions")
    if not path.is_dir():
        settled(path.parent)
        return "", {}, (), read_predictions(path)
    settled(path)
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
    overrides = document.get("overrides") or (document.get("embeddings") or {}).get("overrides") or ()
    return made_by, chance, tuple(map(str, overrides)), read_predictions(path / FILE)


def _recording_only(folder: Path, level: str) -> dict[str, dict[str, float]]:
    """What a run says of its recording-only baseline, by target; {} for targets of another level or without one."""
    found = {}
    for name, target in read_metrics(folder)["targets"].items():
        metrics = (target.get("recording_only") or {}).get("metrics") or {}
        if metrics and target.get("level") == level:
            found[name] = {metric: np.nan if value is None else float(value) for metric, value in metrics.items()}
    return found


def _joined(same: Sequence[Candidate]) -> Candidate:
    names = [name for name in same[0].predictions if all(name in one.predictions for one in same)]
    joined = {}
    for name in names:
        parts = [one.predictions[name] for one in same]
        runs = [set(part.run) for part in parts]
        if sum(map(len, runs)) > len(set().union(*runs)):
            for i, part in enumerate(parts):
                named = [f"{i}/{run}" if len(set(part.run)) > 1 else str(i) for run in part.run]
                parts[i] = replace(part, run=np.array(named, dtype=object))
        joined[name] = concatenated(parts)
    overrides = tuple(dict.fromkeys(line for one in same for line in one.overrides))
    inputs = tuple(dict.fromkeys(pair for one in same for pair in one.inputs))
    return Candidate(same[0].name, joined, same[0].made_by, same[0].chance, overrides, _mean_recording(same), inputs)


def _mean_recording(same: Sequence[Candidate]) -> dict[str, dict[str, float]]:
    """The mean over trainings of one candidate, of targets for which all of them know it."""
    return {
        target: {metric: float(np.mean([one.recording[target][metric] for one in same])) for metric in metrics}
        for target, metrics in same[0].recording.items()
        if all(target in one.recording for one in same)
    }
