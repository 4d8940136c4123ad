"""One task of a suite: its candidates probed and compared, as a document of plain numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import ROW_COLUMNS, EmbeddingTable
from panecho_embed.evaluation.metrics import PRIMARY
from panecho_embed.evaluation.scores import Scored
from panecho_embed.evaluation.targets import Reading, as_text
from panecho_embed.store import EmbeddingFile
from probes.base import BaseProbe
from probes.benchmarks.sets import DataSet, embedding_file
from probes.benchmarks.suite import Suite, Task
from probes.commands import make_probe
from probes.comparison import compare_problems
from probes.plans import RunSettings
from probes.problem import Problem, load_problem
from probes.registry import probe_class
from probes.run import evaluate, recording_only

Files = Mapping[tuple[str, str], Sequence[Path]]
"""(backbone, sampling) -> the embedding file of each data set of a task."""


def files_of(task: Task, suite: Suite, sets: Mapping[str, DataSet], out: Path) -> dict[tuple[str, str], list[Path]]:
    """The embeddings of a task that are there, of every backbone and sampling that has all of its given data sets."""
    given = [name for name in task.data if name in sets]
    found = {}
    for start in suite.starts:
        for sampling in task.samplings:
            files = [embedding_file(out, name, start.name, sampling) for name in given]
            if files and all(file.is_file() for file in files):
                found[start.name, sampling] = files
    return found


def candidate_name(suite: Suite, start: str, sampling: str, probe: str) -> str:
    """Backbone, sampling and probe, without those of which the suite has one."""
    several = [(sampling, suite.samplings), (probe, suite.probes)]
    return ", ".join([start, *(name for name, names in several if len(names) > 1)])


def inputs_digest(task: Task, suite: Suite, sets: Mapping[str, DataSet], files: Files) -> str:
    """SHA-256 of all that a task's result depends on: the task, the embeddings, ids and labels, the probes."""
    digest = hashlib.sha256(repr((task, suite.probes, suite.draws, suite.seed)).encode())
    for key, paths in sorted(files.items()):
        digest.update(repr(key).encode())
        for path in paths:
            with EmbeddingFile(path) as file:
                table = file.table_without_values()
                digest.update(file.provenance.settings_id.encode())
                columns = [getattr(table, name) for name in ROW_COLUMNS] + [table.labels[name] for name in table.labels]
                for column in columns:
                    digest.update(repr(column.tolist()).encode("utf-8", "surrogateescape"))
                for begin in range(0, len(file), 4096):
                    digest.update(np.ascontiguousarray(file.read(begin, min(begin + 4096, len(file)))).tobytes())
    for name in task.data:
        if name in sets and (labels := sets[name].labels) is not None:
            digest.update(labels.read_bytes())
    return digest.hexdigest()


def run_task(task: Task, suite: Suite, sets: Mapping[str, DataSet], files: Files) -> dict[str, Any]:
    """Probe and compare every candidate. Raises ArgumentError where the task can't be evaluated."""
    given = [sets[name] for name in task.data if name in sets]
    problems: dict[str, Problem] = {}
    made: dict[str, Callable[[Problem], BaseProbe]] = {}
    about: dict[str, dict[str, Any]] = {}
    dropped = 0
    for (start, sampling), paths in files.items():
        by_fusion: dict[bool, Problem] = {}
        for probe in suite.probes:
            name = candidate_name(suite, start, sampling, probe)
            pools = probe_class(probe).pools
            if pools not in by_fusion:
                by_fusion[pools], dropped = _problem(task, given, paths, pools)
            problems[name] = by_fusion[pools]
            made[name] = _maker(probe, suite.seed)
            with EmbeddingFile(paths[0]) as file:
                known = file.provenance
            about[name] = {"backbone": start, "sampling": sampling, "probe": probe, "weights": known.weights.sha256}
            about[name] |= {"settings_id": known.settings_id, "clips": known.clips.describe() if known.clips else ""}
    folds = task.split.folds if task.split.rule == "folds" else None
    settings = RunSettings(folds=folds, draws=suite.draws, seed=suite.seed)
    document = _evaluated(problems, made, settings)
    for name, one in document["candidates"].items():
        one |= about[name]
    return document | {"n_without_split": dropped, "data": [one.name for one in given]}


def _evaluated(
    problems: Mapping[str, Problem], made: Mapping[str, Callable[[Problem], BaseProbe]], settings: RunSettings
) -> dict[str, Any]:
    if len(problems) == 1:
        (name,) = problems
        found = evaluate(problems[name], made[name](problems[name]), settings)
        alone = recording_only(found.problem, found.plans, settings, chooses=found.probes[0].chooses())
        return _document({name: found.scored}, {name: alone} if alone else {}, [], 0)
    compared = compare_problems({name: [one] for name, one in problems.items()}, made, settings)
    comparison = next(one for one in compared.comparisons if one.standings)
    contrasts = [{"first": one.first, "second": one.second, **asdict(one.difference)} for one in comparison.contrasts]
    return _document(comparison.standings, comparison.recording, contrasts, comparison.n_left_out)


def _document(
    standings: Mapping[str, Scored],
    recording: Mapping[str, Mapping[str, float]],
    differences: Sequence[Mapping[str, Any]],
    left_out: int,
) -> dict[str, Any]:
    first = next(iter(standings.values()))
    rows = first.predictions
    keys = sorted({"|".join((*key, str(truth))) for key, truth in zip(rows.keys(), rows.truth, strict=True)})
    return {
        "kind": first.target.kind,
        "unit": first.target.unit,
        "primary": PRIMARY[first.target.kind],
        "n": first.primary.n,
        "n_patients": first.primary.n_patients,
        "n_left_out": left_out,
        # Whether two labs tested the same rows with the same labels.
        "tested": hashlib.sha256("\n".join(keys).encode("utf-8", "surrogateescape")).hexdigest()[:16],
        "baseline": {metric: one.value for metric, one in first.baseline.items()},
        "candidates": {
            name: {
                "scores": {metric: [one.value, one.low, one.high] for metric, one in scored.scores.items()},
                "recording_only": dict(recording.get(name, {})),
            }
            for name, scored in standings.items()
        },
        "differences": list(differences),
    }


def _maker(probe: str, seed: int) -> Callable[[Problem], BaseProbe]:
    return lambda problem: make_probe(probe, problem, seed)


def _problem(task: Task, given: Sequence[DataSet], paths: Sequence[Path], pools: bool) -> tuple[Problem, int]:
    """The task on the embeddings of one candidate, and how many rows have no part in the split."""
    reading = Reading(task.kind, task.positive, task.order)
    chosen: dict[str, Any] = {"level": task.level, "reading": reading, "fusion": "late" if pools else "early"}
    if task.target == "view":
        problem = load_problem(_views(task, given, paths), "view", **chosen)
    else:
        problem = load_problem(paths[0], task.target, labels=given[0].labels, **chosen)
        target = problem.target
        if target.kind == "regression" and not target.unit:
            problem = replace(problem, target=replace(target, unit=given[0].units.get(target.name, "")))
    for column, values in (task.where or {}).items():
        kept = np.flatnonzero(np.isin(as_text(problem.columns[column]).astype(str), values))
        if not len(kept):
            there = ", ".join(sorted(set(map(str, as_text(problem.columns[column]))))[:10])
            raise ArgumentError(f"no row has {column} {' or '.join(values)}; there are {there}")
        problem = problem.take(kept)
    return _split(task, problem)


def _split(task: Task, problem: Problem) -> tuple[Problem, int]:
    rule = task.split
    if rule.rule == "folds":
        return replace(problem, split=np.full(len(problem), "", dtype=object)), 0
    kept = np.flatnonzero(problem.split != "")
    if not len(kept):
        raise ArgumentError(f"{', '.join(task.data)}: no row has a split, and the task takes {rule}")
    dropped, problem = len(problem) - len(kept), problem.take(kept)
    if rule.rule == "own":
        return problem, dropped
    there = sorted(set(map(str, problem.split)))
    if strangers := [name for name in (*rule.test, *rule.val) if name not in there]:
        raise ArgumentError(f"no row has the split {strangers[0]!r}; there are {', '.join(there)}")
    parts = {**dict.fromkeys(rule.test, "test"), **dict.fromkeys(rule.val, "val")}
    split: Texts = np.array([parts.get(str(name), "train") for name in problem.split], dtype=object)
    return replace(problem, split=split), dropped


def _views(task: Task, given: Sequence[DataSet], paths: Sequence[Path]) -> EmbeddingTable:
    """The rows of all sets with the views that are classes, or `other`; ids with the name of their set."""
    tables = [EmbeddingFile(path).table() for path in paths]
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ROW_COLUMNS}
    for found, table in zip(given, tables, strict=True):
        for name in ROW_COLUMNS:
            column = getattr(table, name)
            if name in ("video_id", "study_id", "patient_id"):
                column = np.array([f"{found.name}/{value}" for value in column], dtype=object)
            columns[name].append(column)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    classes = task.classes or tuple(sorted(set(map(str, joined["view"])) - {""}))
    joined["view"] = np.array(
        [view if view in classes or not view else task.other for view in map(str, joined["view"])], dtype=object
    )
    kept = joined["view"] != ""
    values = np.concatenate([table.values for table in tables])
    rows = {name: column[kept] for name, column in joined.items()}
    first = tables[0]
    return EmbeddingTable(values=values[kept], labels={}, level=first.level, provenance=first.provenance, **rows)
