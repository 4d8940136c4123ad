"""A target on embeddings at one level, ready to be evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray, Floats, Ints, Texts
from panecho_embed.core.digests import digest_of_arrays
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.provenance import Level, Provenance
from panecho_embed.core.records import EmbeddingTable, PoolHow
from panecho_embed.datasets import LocalIds
from panecho_embed.evaluation.targets import Reading, Target, read_target, target_names
from panecho_embed.extraction.pooling import pool_table
from panecho_embed.store import EmbeddingFile, RowsOnDisk
from probes.label_table import join_labels
from probes.recording import Facts, as_labelled, fact_name, recording_facts

Fusion = Literal["early", "late"]

_LEVELS: tuple[Level, ...] = ("frame", "clip", "video", "study")


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One target, one level. A unit (a clip, a video, a study) has one label and one prediction, and one row or more.

    source: (M, D) embeddings, shared by all targets of a file; row: (N,) which of them are rows to learn from. unit:
    (N,) which unit each row belongs to. share: (N,) how much a row counts in the mean over its unit: videos of a study
    count the same, whatever the number of their rows. truth: (U,) value or class index, float64. ids: the units' id
    columns (U,), by name. patient, split: (U,) str objects. columns: (U,) view and all labels, for subgroups.
    n_missing: units left out because they have no label. pooling, fusion: how rows become units. provenance: of the
    rows. note: what was taken for granted of the labels. recording: facts of the recordings of the units, see
    `recording_facts`; empty where the file is not known.
    """

    target: Target
    level: Level
    source: FloatArray
    row: Ints
    unit: Ints
    share: Floats
    truth: Floats
    ids: Mapping[str, npt.NDArray[Any]]
    patient: Texts
    split: Texts
    columns: Mapping[str, npt.NDArray[Any]]
    n_missing: int
    pooling: PoolHow
    fusion: Fusion
    provenance: Provenance
    note: str = ""
    recording: Facts = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def values(self) -> FloatArray:
        """(N, D) the rows to learn from, a copy."""
        return self.source[self.row]

    def values_of(self, rows: Ints) -> FloatArray:
        """(len(rows), D) some of the rows, a copy."""
        return self.source[self.row[rows]]

    def rows_of(self, units: Ints) -> Ints:
        """Rows (in ascending order) that belong to any of `units`."""
        return np.flatnonzero(np.isin(self.unit, units))

    def keys(self) -> list[tuple[str, ...]]:
        """The ids of each unit, by which the same units of other files are found."""
        columns = [column for name, column in self.ids.items() if name != "patient_id"]
        return [tuple(map(str, key)) for key in zip(*columns, strict=True)]

    def take(self, units: Ints) -> Problem:
        """The same problem on some of the units, in the given order."""
        new = np.full(len(self), -1, dtype=np.int64)
        new[units] = np.arange(len(units))
        rows = self.rows_of(units)
        return replace(
            self,
            row=self.row[rows],
            unit=new[self.unit[rows]],
            share=self.share[rows],
            truth=self.truth[units],
            ids={name: column[units] for name, column in self.ids.items()},
            patient=self.patient[units],
            split=self.split[units],
            columns={name: column[units] for name, column in self.columns.items()},
            recording={name: values[units] for name, values in self.recording.items()},
        )


def data_digest(problems: Sequence[Problem]) -> str:
    """SHA-256 of the rows used by problems: the ids, embeddings and labels of each target, 64 hexadecimal digits."""
    found: list[npt.NDArray[Any]] = []
    last: tuple[FloatArray, Ints] | None = None
    rows = ""
    for problem in problems:
        # Targets of the same rows share their digest: embeddings can be gigabytes.
        if last is None or problem.source is not last[0] or not np.array_equal(problem.row, last[1]):
            last, rows = (problem.source, problem.row), digest_of_arrays(problem.values)
        texts = [np.array([problem.target.name, rows], dtype=object), *problem.ids.values(), problem.patient]
        found += [*texts, problem.split, problem.unit, problem.truth]
    return digest_of_arrays(*found)


def load_table(
    file: str | Path | EmbeddingTable,
    *,
    labels: str | Path | None = None,
    level: Level | None = None,
    pooling: PoolHow = "mean",
    fusion: Fusion = "early",
) -> tuple[EmbeddingTable, EmbeddingTable]:
    """The rows to learn from and the units to predict, as two tables (the same one, unless the fusion is late).

    level: "video" unless the file is at study level. Raises ArgumentError for a level below the file's, for rows
    without the ids that the level needs, for studies of two patients or in two splits, for a pooling that would pool
    nothing, and for embeddings that are not finite.
    """
    return _load(file, labels, level, pooling, fusion)[1:]


def _load(
    file: str | Path | EmbeddingTable, labels: str | Path | None, level: Level | None, pooling: PoolHow, fusion: Fusion
) -> tuple[EmbeddingTable, EmbeddingTable, EmbeddingTable]:
    """The rows of the file with their labels, then what `load_table` returns."""
    if fusion not in get_args(Fusion):
        raise ArgumentError(f"fusion is {fusion!r}; allowed are {', '.join(get_args(Fusion))} (--fusion)")
    if fusion == "late" and pooling != "mean":
        raise ArgumentError(
            f"pooling {pooling!r} is of embeddings, late fusion is the mean of predictions: give --pooling or --fusion "
            "late, not both"
        )
    if isinstance(file, EmbeddingTable):
        name, rows, values, known = "the table", file, None, None
    else:
        opened = EmbeddingFile(file)
        name, rows, values = str(file), opened.table_without_values(), opened.rows_on_disk
        known = None if labels is None else LocalIds.beside(file)
    check_finite(rows, name, values)
    if labels is not None:
        rows = join_labels(rows, labels, known)
    level = level or ("study" if rows.level == "study" else "video")
    if level not in _LEVELS or _LEVELS.index(level) < _LEVELS.index(rows.level):
        raise ArgumentError(f"{name} stands at {rows.level} level; level {level!r} can't be had from it (--level)")
    if level == "study":
        _check_study_ids(rows, name)
        _check_studies(rows, name)
    if level == rows.level and pooling != "mean":
        raise ArgumentError(f"{name} stands at {level} level already; there is nothing to pool (--pooling {pooling})")
    pooled = None if level == rows.level else _pooled(rows, level, pooling, name, values)
    if values is not None and (pooled is None or fusion == "late"):
        rows = replace(rows, values=np.asarray(values))
    units = rows if pooled is None else pooled
    return rows, (rows if fusion == "late" else units), units


def load_problems(
    file: str | Path | EmbeddingTable,
    target: str,
    *,
    labels: str | Path | None = None,
    level: Level | None = None,
    pooling: PoolHow = "mean",
    fusion: Fusion = "early",
    reading: Reading | None = None,
    refused: dict[str, str] | None = None,
) -> list[Problem]:
    """Problems for "EF", "EF,ESV" or "all", from an embedding file and, if need be, a CSV of labels.

    reading: how the label columns are read. refused: of several targets, takes the reason of each whose labels make no
    task; without it, and for the only target, ArgumentError is raised.
    """
    every, rows, units = _load(file, labels, level, pooling, fusion)
    names = target_names(units.labels, target, also={"view": units.view})
    if reading is not None:
        reading.check_names(names)
    facts: Facts = {}
    if not isinstance(file, EmbeddingTable):
        facts = recording_facts(as_labelled(EmbeddingFile(file).video_columns, every), units)
    options: dict[str, Any] = {"pooling": pooling, "fusion": fusion, "reading": reading, "recording": facts}
    problems = []
    for name in names:
        try:
            problems.append(make_problem(rows, units, name, **options))
        except ArgumentError as error:
            if refused is None or len(names) == 1:
                raise
            refused[name] = str(error)
    return problems


def load_problem(file: str | Path | EmbeddingTable, target: str, **options: Any) -> Problem:
    """One problem; options as in `load_problems`."""
    problems = load_problems(file, target, **options)
    if len(problems) != 1:
        raise ArgumentError(f"target {target!r} names {len(problems)} targets; load_problems gives them all")
    return problems[0]


def make_problem(
    rows: EmbeddingTable,
    units: EmbeddingTable,
    target: str,
    *,
    pooling: PoolHow = "mean",
    fusion: Fusion = "early",
    reading: Reading | None = None,
    recording: Facts | None = None,
) -> Problem:
    """The units of the two tables of `load_table` that have a label, and their rows."""
    columns = {"view": units.view, **units.labels}
    read = read_target(columns[target], target, reading)
    if read.target.kind == "regression" and (known := units.units.get(target)):
        # What the file says of its own column is not a task's general unit.
        read = replace(read, target=replace(read.target, unit=known))
    unit = unit_of_rows(rows, units)
    problem = Problem(
        target=read.target,
        level=units.level,
        source=rows.values,
        row=np.arange(len(rows)),
        unit=unit,
        share=shares(rows, unit),
        truth=read.truth,
        ids=id_columns(units),
        patient=units.patient_id,
        split=units.split,
        columns=columns,
        n_missing=0,
        pooling=pooling,
        fusion=fusion,
        provenance=rows.provenance,
        note=read.note,
        recording={name: values for name, values in (recording or {}).items() if name != fact_name(target)},
    )
    labelled = np.flatnonzero(np.isfinite(read.truth))
    if not len(labelled):
        raise ArgumentError(f"{target} has no value on any of the {len(units)} {units.level} rows")
    return replace(problem.take(labelled), n_missing=len(units) - len(labelled))


def _pooled(
    rows: EmbeddingTable, level: Level, pooling: PoolHow, name: str, values: RowsOnDisk | None
) -> EmbeddingTable:
    if level == "video" or level == "study":
        return pool_table(rows, level, pooling, values)
    raise ArgumentError(
        f"{name} stands at {rows.level} level; clips are made from it by `panecho-embed reclip`, not by --level {level}"
    )


def check_finite(table: EmbeddingTable, name: str, values: RowsOnDisk | None = None) -> None:
    """Raise ArgumentError, naming the first videos, for embeddings that are NaN or infinite.

    name: of the file. values: the embeddings, if they are not in the table.
    """
    bad = np.flatnonzero(~np.isfinite(table.values).all(axis=1)) if values is None else values.not_finite()
    if len(bad):
        videos = list(dict.fromkeys(map(str, table.video_id[bad])))
        raise ArgumentError(
            f"{name}: {len(bad)} of {len(table)} embeddings have NaN or infinite values, first of the videos "
            f"{', '.join(videos[:3])}; extract them again (`panecho-embed verify` lists what is wrong)"
        )


def _check_study_ids(table: EmbeddingTable, name: str) -> None:
    if (table.study_id == "").any() or (table.level != "study" and (table.study_id == table.video_id).all()):
        raise ArgumentError(
            f"{name} has no study ids: every study is one video, or unnamed; use --level video, or extract with a "
            "manifest that has a study_id column"
        )


def _check_studies(table: EmbeddingTable, name: str) -> None:
    """A study is one patient's, and on one side of a split; pooled, it could not be known any more."""
    for what, column in (("patient", table.patient_id), ("split", table.split)):
        pairs = sorted({(str(study), str(value)) for study, value in zip(table.study_id, column, strict=True)})
        values = Counter(study for study, _ in pairs)
        if len(values) < len(pairs):
            shown = "; ".join([f"{study}: {value or 'none'}" for study, value in pairs if values[study] > 1][:6])
            raise ArgumentError(
                f"{name}: {sum(count > 1 for count in values.values())} studies have more than one {what} ({shown}); "
                f"mend the {what} column, or use --level video"
            )


def unit_of_rows(rows: EmbeddingTable, units: EmbeddingTable) -> Ints:
    """Position in `units` of the unit that each row belongs to, (N,)."""
    if rows is units:
        return np.arange(len(units))
    ids = (units.study_id, rows.study_id) if units.level == "study" else (units.video_id, rows.video_id)
    position = {name: i for i, name in enumerate(ids[0])}
    return np.array([position[name] for name in ids[1]], dtype=np.int64)


def shares(rows: EmbeddingTable, unit: Ints) -> Floats:
    """How much each row counts in the mean over its unit, (N,): first over the rows of a video, then over videos."""
    _, video, rows_of_video = np.unique(rows.video_id.astype(str), return_inverse=True, return_counts=True)
    weight = 1 / rows_of_video[video]
    return np.asarray(weight / np.bincount(unit, weights=weight)[unit])


def id_columns(units: EmbeddingTable) -> dict[str, npt.NDArray[Any]]:
    """The columns that name a unit: video, study and patient as far as the level has them; a clip's first frame."""
    columns: dict[str, npt.NDArray[Any]] = {"study_id": units.study_id, "patient_id": units.patient_id}
    if units.level != "study":
        columns = {"video_id": units.video_id, **columns}
    if units.level in ("frame", "clip"):
        columns["first_frame"] = units.first_frame
    return columns
