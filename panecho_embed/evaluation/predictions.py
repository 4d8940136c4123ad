"""What every probe, every fine-tuned model and every reporting head ends in: predictions of rows that carry their ids.

One table holds them, with the same columns whoever made it, so that any two runs can be compared.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Ints, Texts
from panecho_embed.core.digests import read_checked
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import write_text
from panecho_embed.evaluation.estimates import Draws
from panecho_embed.evaluation.metrics import OF_THE_ORDER, Metrics, base_name, target_metrics
from panecho_embed.evaluation.splits import SPLITS, split_name
from panecho_embed.evaluation.targets import ABSENT, KINDS, Reading, Target, read_target, some

if TYPE_CHECKING:
    import pandas as pd


FILE = "predictions.csv"
LEVELS = ("study", "video", "clip", "frame")
_IDS = ("video_id", "study_id", "first_frame")
_NEEDED = ("target", "patient_id", "truth")
COLUMNS = (
    *("target", "task", "classes", "unit", "level", "video_id", "study_id", "patient_id", "first_frame"),
    *("split", "fold", "run", "draw", "truth", "prediction", "probability", "threshold", "baseline"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions of one target for N rows.

    Parameters
    ----------
    target : Target
    level : {"study", "video", "clip", "frame"}
        What a row is.
    ids : mapping of str to (N,) objects
        "video_id", "study_id" and "first_frame" as far as the level has them; together unique for each run and draw.
    patient : (N,) str objects
        Patient of each row, never empty.
    split : (N,) str objects
        "train", "val" or "test": whether the model that predicted the row was trained on it, chosen on it, or neither.
    truth : (N,) float64
        Value or class index; NaN where not labelled.
    prediction : (N,) or (N, K) float64
        Value, probability of the positive class, or probabilities of the classes.
    fold : (N,) str objects
        Name of the fold that predicted the row, "" without folds.
    run, draw : (N,) str objects
        Which training predicted the row: its seed, and the number of its draw of training patients or of its partition
        into folds; "" where nothing was left to chance.
    threshold : (N,) float64
        Of a yes-or-no decision, chosen without the test rows; NaN where none was chosen.
    baseline : (N,) or (N, K) float64
        What the training labels alone predict: their mean, or the frequencies of the classes; NaN where not known.

    Raises
    ------
    ArgumentError
        For arrays of another length, empty patients, unknown splits, truths that are no class, probabilities outside 0
        to 1, and predictions that are not finite.
    """

    target: Target
    level: str
    ids: Mapping[str, Texts]
    patient: Texts
    split: Texts
    truth: Floats
    prediction: Floats
    fold: Texts = field(default=cast(Any, None))
    run: Texts = field(default=cast(Any, None))
    draw: Texts = field(default=cast(Any, None))
    threshold: Floats = field(default=cast(Any, None))
    baseline: Floats = field(default=cast(Any, None))

    def __post_init__(self) -> None:
        n = len(self.truth)
        for name in ("fold", "run", "draw"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(n, "", dtype=object))
        if self.threshold is None:
            object.__setattr__(self, "threshold", np.full(n, np.nan))
        if self.baseline is None:
            object.__setattr__(self, "baseline", np.full(self.target.shape(n), np.nan))
        self._check(n)

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: npt.NDArray[Any]) -> Predictions:
        """Some of the rows, in the given order."""
        names = ("patient", "split", "truth", "prediction", "fold", "run", "draw", "threshold", "baseline")
        return replace(
            self,
            ids={name: column[rows] for name, column in self.ids.items()},
            **{name: getattr(self, name)[rows] for name in names},
        )

    def of_split(self, split: str) -> Predictions:
        """The labelled rows of "train", "val" or "test"."""
        return self.take(np.flatnonzero((self.split == split) & np.isfinite(self.truth)))

    def replicates(self) -> dict[tuple[str, str], Predictions]:
        """The rows of each (run, draw), in the order of their names, numbers by size."""
        keys = list(zip(self.run.tolist(), self.draw.tolist(), strict=True))
        if len(set(keys)) == 1:
            return {keys[0]: self}
        rows: dict[tuple[str, str], list[int]] = {}
        for i, key in enumerate(keys):
            rows.setdefault(key, []).append(i)
        ordered = sorted(rows.items(), key=lambda item: [(len(name), name) for name in item[0]])
        return {key: self.take(np.array(some, dtype=np.int64)) for key, some in ordered}

    def by_study(self) -> Predictions:
        """The videos of each study averaged, one row per study.

        A regression's truth is the mean of the labelled videos; a class that the videos do not share is no truth. A
        study of two patients, splits or trainings has a row for each; one of two folds has one, of the first.
        """
        columns = (self.ids["study_id"], self.patient, self.split, self.run, self.draw)
        keys = list(zip(*(column.tolist() for column in columns), strict=True))
        first: dict[tuple[Any, ...], int] = {}
        study = np.array([first.setdefault(key, len(first)) for key in keys], dtype=np.int64)
        rows = np.unique(study, return_index=True)[1]
        truth = _shared_by(study, self.truth) if self.target.classes else mean_by(study, self.truth)
        return replace(
            self.take(rows),
            level="study",
            ids={"study_id": self.ids["study_id"][rows]},
            truth=truth,
            prediction=mean_by(study, self.prediction),
            baseline=mean_by(study, self.baseline),
        )

    def keys(self) -> list[tuple[str, ...]]:
        """The ids of each row, unique within a run and draw."""
        named = [self.ids[name] for name in _IDS if name in self.ids and (name != "study_id" or self.level == "study")]
        return [tuple(map(str, key)) for key in zip(*named, strict=True)]

    def metrics(self, cutoffs: Sequence[float] = ()) -> Metrics:
        """The target's metrics, to be bootstrapped; rows must be labelled."""
        return target_metrics(
            self.target,
            self.truth,
            self.prediction,
            self.patient.astype(str),
            threshold=self.threshold,
            cutoffs=cutoffs if self.target.kind == "regression" else (),
        )

    def baseline_metrics(self, cutoffs: Sequence[float] = ()) -> Metrics | None:
        """The metrics of the baseline; None where it is not known.

        It is constant in each fold and orders nothing: AUROC is 0.5, correlation and slope are not defined. From one
        fold to the next the constant differs by chance, and against the fold's own truth (who is tested is not trained
        on), so what looks at the order of all predictions together would call that difference skill, or its opposite.
        Its decision is that of the more frequent class.
        """
        if not np.isfinite(self.baseline).all():
            return None
        cutoffs = cutoffs if self.target.kind == "regression" else ()
        level = np.broadcast_to(self.baseline.mean(axis=0), self.baseline.shape)
        given = (self.target, self.truth)
        patients = self.patient.astype(str)
        folded = target_metrics(*given, self.baseline, patients, threshold=0.5, cutoffs=cutoffs)
        constant = target_metrics(*given, level, patients, threshold=0.5, cutoffs=cutoffs)

        def without_order(weights: Floats) -> Draws:
            return {name: values for name, values in constant(weights).items() if base_name(name) in OF_THE_ORDER}

        return Metrics((*folded.parts, without_order), folded.patients, folded.n)

    def called(self) -> Texts:
        """The class that each row is called, by name; "" where there is no threshold. Not for a regression."""
        names = self.target.names_of(self.target.called(self.prediction, self.threshold))
        if self.target.kind == "binary":
            names[np.isnan(self.threshold)] = ""
        return names

    def frame(self) -> pd.DataFrame:
        """The rows as a table with the columns of `COLUMNS`."""
        import pandas as pd

        n, target = len(self), self.target
        columns: dict[str, Any] = {name: np.full(n, "", dtype=object) for name in COLUMNS}
        columns |= {"target": target.name, "task": target.kind, "classes": ";".join(map(_escaped, target.classes))}
        columns |= {"unit": target.unit, "level": self.level, "patient_id": self.patient, **self.ids}
        columns |= {name: getattr(self, name) for name in ("split", "fold", "run", "draw")}
        columns["baseline"] = _joined(self.baseline)
        if target.kind == "regression":
            columns |= {"truth": _numbers(self.truth), "prediction": _numbers(self.prediction)}
        else:
            columns |= {"truth": target.names_of(self.truth), "prediction": self.called()}
            columns |= {"probability": _joined(self.prediction), "threshold": _numbers(self.threshold)}
        return pd.DataFrame({name: columns[name] for name in COLUMNS}, index=range(n))

    def _check(self, n: int) -> None:
        target, name = self.target, self.target.name
        if self.level not in LEVELS:
            raise ArgumentError(f"{name}: level is {self.level!r}; allowed are {', '.join(LEVELS)}")
        own = "study_id" if self.level == "study" else "video_id"
        if own not in self.ids:
            raise ArgumentError(f"{name}: rows of level {self.level} need the column {own}")
        columns = {"patient_id": self.patient, "split": self.split, "prediction": self.prediction, **self.ids}
        for what, column in columns.items():
            if len(column) != n:
                raise ArgumentError(f"{name}: {what} has {len(column)} rows and truth has {n}")
        if self.prediction.shape != target.shape(n):
            raise ArgumentError(f"{name}: predictions have shape {self.prediction.shape}, not {target.shape(n)}")
        if any(not who for who in self.patient):
            raise ArgumentError(f"{name}: a row has no patient_id")
        if strange := set(self.split) - set(SPLITS):
            raise ArgumentError(f"{name}: split has {some(sorted(strange))}; allowed are {', '.join(SPLITS)}")
        if not np.isfinite(self.prediction).all():
            raise ArgumentError(f"{name}: {(~np.isfinite(self.prediction)).sum()} predictions are NaN or infinite")
        if target.classes:
            known = self.truth[np.isfinite(self.truth)]
            if not np.isin(known, range(len(target.classes))).all():
                raise ArgumentError(f"{name}: truth is no index of the classes {', '.join(target.classes)}")
            if n and not (-1e-6 <= self.prediction.min() <= self.prediction.max() <= 1 + 1e-6):
                raise ArgumentError(f"{name}: probabilities must lie between 0 and 1")
            if n and target.outputs > 1 and (off := np.abs(self.prediction.sum(axis=1) - 1)).max() > 1e-3:
                raise ArgumentError(
                    f"{name}: the probabilities of {(off > 1e-3).sum()} rows do not add up to 1 (first row "
                    f"{int((off > 1e-3).argmax())}: {self.prediction[int((off > 1e-3).argmax())].sum():g})"
                )


def concatenated(parts: Sequence[Predictions]) -> Predictions:
    """Several trainings of the same target and level as one. Raises ArgumentError for different ones."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for other in parts[1:]:
        if (other.target, other.level) != (first.target, first.level):
            raise ArgumentError(f"trainings of one model predicted {first.target} and {other.target}")
    names = ("patient", "split", "truth", "prediction", "fold", "run", "draw", "threshold", "baseline")
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    shared = [name for name in first.ids if all(name in part.ids for part in parts)]
    ids = {name: np.concatenate([part.ids[name] for part in parts]) for name in shared}
    return Predictions(first.target, first.level, ids, **columns)


def trivial_prediction(target: Target, truth: Floats, n: int) -> Floats:
    """What the labels of training rows alone predict for n rows: their mean, or the frequencies of the classes.

    truth: values or class indices, NaN where not labelled. Returns (n,), or (n, K).
    """
    known = truth[np.isfinite(truth)]
    if target.outputs == 1:
        return np.full(n, known.mean())
    frequency = np.bincount(known.astype(np.int64), minlength=target.outputs) / len(known)
    return np.tile(frequency, (n, 1))


def mean_by(group: Ints, values: Floats) -> Floats:
    """Mean of the known values (N, ...) of each group 0..G-1; NaN where a group has none."""
    flat = values.reshape(len(values), -1)
    known = np.isfinite(flat)
    sums, counts = np.zeros((2, group.max(initial=-1) + 1, flat.shape[1]))
    np.add.at(sums, group, np.where(known, flat, 0.0))
    np.add.at(counts, group, known)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.asarray(mean.reshape(len(mean), *values.shape[1:]))


def _shared_by(group: Ints, values: Floats) -> Floats:
    """The value that all known ones of a group share; NaN where they differ, or where a group has none."""
    low, high = np.full((2, group.max(initial=-1) + 1), np.nan)
    np.fmin.at(low, group, values)
    np.fmax.at(high, group, values)
    return np.where(low == high, low, np.nan)


def write_predictions(predictions: Sequence[Predictions], path: Path) -> Path:
    """Write a table of predictions; it appears at `path` only when it is whole. Raises StoreError."""
    import pandas as pd

    table = pd.concat([part.frame() for part in predictions], ignore_index=True)
    return write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_predictions(path: str | Path) -> list[Predictions]:
    """The predictions in a table, one for each target and level, in the order of the table.

    The columns target, patient_id, truth, video_id or study_id, and prediction (numbers) or probability (classes) are
    needed; docs/statistics.md describes all. Without task and classes the table is of regressions where it has no
    probability, else of yes-or-no questions of the classes in `truth`, or of classes; without split every row is a test
    row; without level a row is a video, or a study if there is no video_id.

    Raises
    ------
    ArgumentError
        For a missing column, cells that are no number, a class that is none.
    StoreError
        For a file that can't be read.
    """
    import pandas as pd

    path = Path(path)
    try:
        content = io.BytesIO(read_checked(path))
        table = pd.read_csv(content, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    except ValueError as error:
        raise StoreError(f"{path}: no readable table of predictions ({error})") from error
    missing: list[str] = [name for name in _NEEDED if name not in table]
    if not {"video_id", "study_id"} & set(table):
        missing.append("video_id or study_id")
    if not {"prediction", "probability"} & set(table):
        missing.append("prediction (numbers) or probability (classes)")
    if missing:
        raise ArgumentError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}. A table of "
            f"predictions has the columns {', '.join(COLUMNS)}; those beside {', '.join(_NEEDED)}, an id and the "
            "prediction may be left out (docs/statistics.md)"
        )
    for column in COLUMNS:
        if column not in table:
            table[column] = ""
    table["level"] = np.where(table["level"] != "", table["level"], np.where(table["video_id"] != "", "video", "study"))
    found = []
    for (name, level), rows in table.groupby(["target", "level"], sort=False):
        try:
            found.append(_of_rows(rows, str(name), str(level)))
        except ArgumentError as error:
            raise ArgumentError(f"{path}: {error}") from error
    if not found:
        raise ArgumentError(f"{path}: the table of predictions has no rows")
    return found


def _of_rows(rows: pd.DataFrame, name: str, level: str) -> Predictions:
    column = {key: rows[key].to_numpy(dtype=object) for key in COLUMNS}
    target = _target_of(column, name)
    n, numbers = len(rows), target.kind == "regression"
    ids = {key: column[key] for key in _IDS if (column[key] != "").any()}
    split = np.array([split_name(text) or text for text in column["split"]], dtype=object)
    split[split == ""] = "test"
    given = column["prediction"] if numbers else column["probability"]
    predictions = Predictions(
        target=target,
        level=level,
        ids=ids,
        patient=column["patient_id"],
        split=split,
        truth=_cells(column["truth"], name, "truth") if numbers else _indices(column["truth"], target),
        prediction=_split_cells(given, target, "prediction" if numbers else "probability"),
        fold=column["fold"],
        run=column["run"],
        draw=column["draw"],
        threshold=_cells(column["threshold"], name, "threshold"),
        baseline=_split_cells(column["baseline"], target, "baseline")
        if (column["baseline"] != "").all()
        else np.full(target.shape(n), np.nan),
    )
    for replicate in predictions.replicates().values():
        # A unit may choose settings in one fold and be tested in another.
        keys = list(zip(replicate.keys(), replicate.split, replicate.fold, strict=True))
        if len(set(keys)) < len(keys):
            twice, *_ = next(key for key, count in Counter(keys).items() if count > 1)
            raise ArgumentError(
                f"{name}: {' '.join(twice)} stands more than once; a row is one {level}, and several trainings are "
                "told apart by the columns run and draw"
            )
    return predictions


def _target_of(column: Mapping[str, Texts], name: str) -> Target:
    kind = _single(column["task"], name, "task")
    classes = _unescaped(_single(column["classes"], name, "classes"))
    has_probability = (column["probability"] != "").any()
    if not kind:
        kind = "regression" if not has_probability else "multiclass" if ";" in column["probability"][0] else "binary"
    if kind not in KINDS:
        raise ArgumentError(f"{name}: task is {kind!r}; allowed are {', '.join(KINDS)}")
    if kind != "regression" and not has_probability:
        raise ArgumentError(f"{name}: {kind} predictions need the column probability")
    if kind != "regression" and not classes:
        if kind != "binary":
            raise ArgumentError(
                f'{name}: the column classes is needed, the names in the order of the probabilities: "none;mild;severe"'
            )
        there = sorted({text for text in column["truth"] if text})
        if len(there) != 2 or not any(text.casefold().removesuffix(".0") in ABSENT for text in there):
            raise ArgumentError(
                f"{name}: truth has {some(there)}, and which class the probability is of is not known; the column "
                'classes says it, the positive one last: "no;yes"'
            )
        classes = read_target(column["truth"], name, Reading(task="binary", tasks={})).target.classes
    return Target(name, kind, classes, _single(column["unit"], name, "unit"))


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace(";", "\\;")


def _unescaped(text: str) -> tuple[str, ...]:
    """The class names in "none;mild;severe"; a backslash comes before a semicolon that is part of a name."""
    names = [found[0] for found in re.finditer(r"(?:\\.|[^;\\])+", text)]
    return tuple(re.sub(r"\\(.)", r"\1", name) for name in names)


def _single(column: Texts, name: str, what: str) -> str:
    values = set(column.tolist())
    if len(values) > 1:
        raise ArgumentError(f"{name}: the column {what} has {some(sorted(values))}; a target has one")
    return str(values.pop())


def _indices(column: Texts, target: Target) -> Floats:
    index = {label: float(i) for i, label in enumerate(target.classes)}
    plain = {label.casefold().removesuffix(".0"): i for label, i in index.items()}
    found = np.full(len(column), np.nan)
    for i, text in enumerate(column):
        if text:
            place = index.get(text, plain.get(str(text).casefold().removesuffix(".0")))
            if place is None:
                raise ArgumentError(f"{target.name}: truth is {text!r}; the classes are {', '.join(target.classes)}")
            found[i] = place
    return found


def _cells(column: Texts, name: str, what: str) -> Floats:
    try:
        return np.array([float(text) if text else np.nan for text in column], dtype=np.float64)
    except ValueError as error:
        raise ArgumentError(f"{name}: {what} has a cell that is no number ({error})") from error


def _split_cells(column: Texts, target: Target, what: str) -> Floats:
    """(N,) of numbers, or (N, K) of numbers joined by ";"."""
    if target.outputs == 1:
        return _cells(column, target.name, what)
    parts = [str(text).split(";") for text in column]
    if any(len(part) != target.outputs for part in parts):
        raise ArgumentError(f'{target.name}: {what} needs {target.outputs} numbers, joined by ";", one for each class')
    flat = np.array([cell for part in parts for cell in part], dtype=object)
    return _cells(flat, target.name, what).reshape(-1, target.outputs)


def _joined(values: Floats) -> Texts:
    if values.ndim == 1:
        return _numbers(values)
    text = np.empty(len(values), dtype=object)
    text[:] = ["" if not np.isfinite(row).all() else ";".join(map(repr, row.tolist())) for row in values]
    return text


def _numbers(values: Floats) -> Texts:
    text = np.empty(len(values), dtype=object)
    text[:] = [repr(value) if np.isfinite(value) else "" for value in values.tolist()]
    return text
