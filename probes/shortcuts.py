"""Shortcuts: what the embedding gives away of how and where a video was recorded, and what that says of a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints, Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import ROW_COLUMNS, EmbeddingTable, Score
from panecho_embed.core.wording import interval, number
from panecho_embed.evaluation.metrics import display_name, higher_is_better
from panecho_embed.evaluation.targets import Reading, Target, as_text, target_names
from panecho_embed.store import EmbeddingFile
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import Problem, id_columns, load_table, make_problem
from probes.recording import as_labelled, fact_values, recording_facts
from probes.run import evaluate

Where = Literal["recording", "label"]

_FOLDS = 5
_MOST_UNITS = 2_000  # more patients would only narrow the intervals
_LEAST_PATIENTS = 10  # of a value, so that every fold can learn it
_MOST_VALUES = 20  # of a text, the most frequent first


@dataclass(frozen=True, slots=True)
class ReadOut:
    """A linear probe on held-out patients, beside guessing.

    Parameters
    ----------
    score : Score
        The primary metric of the kind of target, with its interval over patients.
    guess : float
        The same metric of the training labels' mean or frequencies.
    beats_guessing : bool
        Whether the interval of the difference excludes no gain.
    """

    score: Score
    guess: float
    beats_guessing: bool

    def __str__(self) -> str:
        name = display_name(self.score.metric)
        return f"{name} {number(self.score.value)} ({interval(self.score)}), guessing {number(self.guess)}"


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A fact of the recording or a label that an embedding might read in place of the heart.

    Parameters
    ----------
    name : str
    where : {"recording", "label"}
    given_away : ReadOut, optional
        The fact, read from the embedding.
    predicts : mapping of str to ReadOut
        Each target, read only from the fact.
    why_not : str
        Why the fact was not read from the embedding.
    """

    name: str
    where: Where
    given_away: ReadOut | None
    predicts: Mapping[str, ReadOut]
    why_not: str = ""

    def is_one_of(self, target: str) -> bool:
        """Whether the embedding gives the fact away, and the fact predicts the target."""
        found = self.predicts.get(target)
        return bool(self.given_away and self.given_away.beats_guessing and found and found.beats_guessing)


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """What `find_shortcuts` found.

    Parameters
    ----------
    facts : tuple of Shortcut
    recording_only : mapping of str to ReadOut
        Each target, read from all facts of the recording together.
    n, n_patients : int
        Videos (or studies) and patients that were looked at.
    level : {"video", "study"}
    not_looked_for : mapping of str to str
        Targets that could not be learned -> why.
    """

    facts: tuple[Shortcut, ...]
    recording_only: Mapping[str, ReadOut]
    n: int
    n_patients: int
    level: str = "video"
    not_looked_for: Mapping[str, str] = field(default_factory=dict)


def find_shortcuts(
    source: str | Path | EmbeddingTable,
    targets: str = "",
    *,
    labels: str | Path | None = None,
    columns: Sequence[str] = (),
    reading: Reading | None = None,
    seed: int = 0,
) -> Shortcuts:
    """Read every fact of the recordings, and every label of text, from the embeddings; and each target from every fact.

    Linear probes, 5 folds grouped by patient whatever the split column says. At most 2,000 videos, of randomly drawn
    patients. Values of a text that fewer than 10 patients have count as missing. A label that is called like a fact of
    the recordings, such as "view", is among the facts as "label view".

    Parameters
    ----------
    source : path or EmbeddingTable
        Embedding file; a table knows no facts of recordings.
    targets : str
        "EF", "EF,ESV"; "" for none.
    labels : path, optional
        CSV of labels, joined by id.
    columns : sequence of str
        Label columns to look at besides those of text.
    reading : Reading, optional
        How the targets are read.
    seed : int
        Of the patients, folds and bootstraps.

    Raises
    ------
    ArgumentError
        For a target or column that there is not.
    """
    _, units = load_table(source, labels=labels)
    names = target_names(units.labels, targets, also={"view": units.view}) if targets else []
    if unknown := [name for name in columns if name not in units.labels]:
        raise ArgumentError(
            f"no label column {unknown[0]!r}; there are {', '.join(units.labels) or 'none'} (--shortcut)"
        )
    units = _sampled(units, seed)
    facts, features = _facts_of(source, units)
    where: dict[str, Where] = dict.fromkeys(features, "recording")
    for name, column in units.labels.items():
        if name not in names and (name in columns or column.dtype.kind == "O"):
            called = name
            while called in where:
                called = f"label {called}"
            facts[called], features[called], where[called] = column, _indicators(column), "label"
    settings = RunSettings(folds=_FOLDS, trainings=1, draws=1_000, seed=seed)
    predicts: dict[str, dict[str, ReadOut]] = {}
    together: dict[str, ReadOut] = {}
    refused: dict[str, str] = {}
    for target in names:
        try:
            problem = make_problem(units, units, target, reading=reading, recording=features)
            known = [name for name in problem.recording if where[name] == "recording"]
            each = {name: _from_facts(problem, [name], settings) for name in facts if name in problem.recording}
            if known:
                together[target] = _from_facts(problem, known, settings)
            predicts[target] = each
        except ArgumentError as error:
            refused[target] = str(error)
    found = []
    for name, column in facts.items():
        given_away, why_not = _read_from_embedding(units, name, column, settings)
        predicted = {target: each[name] for target, each in predicts.items() if name in each}
        found.append(Shortcut(name, where[name], given_away, predicted, why_not))
    return Shortcuts(tuple(found), together, len(units), len(set(units.patient_id)), units.level, refused)


def _facts_of(
    source: str | Path | EmbeddingTable, units: EmbeddingTable
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Floats]]:
    """Facts that differ between recordings: as they are (U,), and as features (U, F)."""
    if isinstance(source, EmbeddingTable):
        return {}, {}
    videos = as_labelled(EmbeddingFile(source).video_columns, units)
    features = dict(recording_facts(videos, units))
    values = fact_values(videos, units)
    return {name: values[name] for name in features if name in values}, features


def _read_from_embedding(
    units: EmbeddingTable, name: str, column: npt.NDArray[Any], settings: RunSettings
) -> tuple[ReadOut | None, str]:
    """The fact as a target of the embedding; or why it can't be one."""
    try:
        target, truth = _as_target(name, column, units.patient_id)
        every = np.arange(len(units))
        whole = Problem(
            target=target,
            level=units.level,
            source=units.values,
            row=every,
            unit=every,
            share=np.ones(len(units)),
            truth=truth,
            ids=id_columns(units),
            patient=units.patient_id,
            split=units.split,
            columns={},
            n_missing=0,
            pooling="mean",
            fusion="early",
            provenance=units.provenance,
        )
        return _read_out(whole.take(np.flatnonzero(np.isfinite(truth))), settings), ""
    except ArgumentError as error:
        return None, str(error)


def _as_target(name: str, column: npt.NDArray[Any], patient: Texts) -> tuple[Target, Floats]:
    """A number of three values or more is a regression, all else classes."""
    if column.dtype.kind in "fiub":
        values = column.astype(np.float64)
        if len(np.unique(values[np.isfinite(values)])) > 2:
            return Target(name, "regression"), values
    texts = as_text(column)
    patients = Counter(text for text, _ in {(str(t), str(who)) for t, who in zip(texts, patient, strict=True) if t})
    kept = sorted(text for text, count in patients.most_common(_MOST_VALUES) if count >= _LEAST_PATIENTS)
    if len(kept) < 2:
        raise ArgumentError(f"no two values of {name} have {_LEAST_PATIENTS} patients each")
    place = {text: float(i) for i, text in enumerate(kept)}
    truth = np.array([place.get(str(text), np.nan) for text in texts])
    return Target(name, "binary" if len(kept) == 2 else "multiclass", tuple(kept)), truth


def _from_facts(problem: Problem, names: Sequence[str], settings: RunSettings) -> ReadOut:
    """The target, read from facts in place of embeddings."""
    every = np.arange(len(problem))
    values = np.column_stack([problem.recording[name] for name in names])
    return _read_out(replace(problem, source=values, row=every, unit=every, share=np.ones(len(problem))), settings)


def _read_out(problem: Problem, settings: RunSettings) -> ReadOut:
    scored = evaluate(problem, LinearProbe(problem.target.kind), settings).scored
    gain = scored.gain[scored.metric]
    better = gain.low > 0 if higher_is_better(scored.metric) else gain.high < 0
    return ReadOut(scored.primary, scored.baseline[scored.metric].value, bool(better))


def _indicators(column: npt.NDArray[Any]) -> Floats:
    """(U, V) of a label: a number as it is and whether it is missing, a text as 0 and 1 for each value."""
    if column.dtype.kind in "fiub":
        values = column.astype(np.float64)
        known = np.isfinite(values)
        mean = values[known].mean() if known.any() else 0.0
        return np.column_stack([np.where(known, values, mean), ~known])
    texts = as_text(column)
    most = [text for text, _ in Counter(map(str, texts)).most_common(_MOST_VALUES)]
    return np.column_stack([texts == text for text in most]).astype(np.float64)


def _sampled(units: EmbeddingTable, seed: int) -> EmbeddingTable:
    """The videos of randomly drawn patients, up to the most that are looked at; a sample of very large patients'."""
    if len(units) <= _MOST_UNITS:
        return units
    rng = np.random.default_rng(seed)
    ids, patient = np.unique(units.patient_id.astype(str), return_inverse=True)
    count = np.bincount(patient)
    room, too_large = _MOST_UNITS, []
    fits = np.zeros(len(ids), dtype=np.bool_)
    for one in rng.permutation(len(ids)).tolist():
        if count[one] <= room:
            fits[one] = True
            room -= int(count[one])
        else:
            too_large.append(one)
    kept = fits[patient]
    # Patients of very many videos share the room that is left.
    share = room // max(len(too_large), 1)
    for one in too_large if share else ():
        kept[rng.choice(np.flatnonzero(patient == one), share, replace=False)] = True
    rows: Ints = np.flatnonzero(kept)
    taken = {name: getattr(units, name)[rows] for name in ROW_COLUMNS}
    columns = {name: column[rows] for name, column in units.labels.items()}
    return replace(units, values=units.values[rows], labels=columns, **taken)
