"""MIMIC-IV-ECHO's long table of measurements -> one row per measurement_id, one column per measurement.

The table has 28 million rows. It is read once, in chunks, and kept as a compact file. mimic_measurements.csv and
mimic_grades.csv, beside this module, say which measurements are read, in which unit, and what their grades are.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Floats, Texts
from panecho_embed.core.digests import read_checked
from panecho_embed.core.errors import ManifestError, StoreError
from panecho_embed.core.wording import counted

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("subject_id", "measurement_id", "measurement_datetime", "test_type", "measurement", "result", "unit")
"""The columns of the long table that are read; measurement_description is not."""

_TIME, _TYPE = "measurement_datetime", "test_type"
_ABOUT = ("subject_id", _TIME, _TYPE)
"""What the rows of a report have in common."""

_CHUNK_ROWS = 250_000
_FIRST_ROWS = 1 << 14
_NOTED, _LISTED = 12, 5

_FACTORS: dict[str, dict[str, float]] = {
    "cm": {"cm": 1, "mm": 0.1, "m": 100},
    "m/s": {"m/s": 1, "cm/s": 0.01},
    "ms": {"ms": 1, "msec": 1, "s": 1000},
    "mmHg": {"mmhg": 1},
    "mL": {"ml": 1, "cc": 1, "cm3": 1, "l": 1000},
    "cm2": {"cm2": 1, "mm2": 0.01},
    "m2": {"m2": 1},
    "%": {"%": 1, "percent": 1},
    "bpm": {"bpm": 1, "beats/min": 1, "/min": 1},
    "ratio": {"ratio": 1},
}
"""Unit of a column -> unit of a row, as `_unit` spells it -> factor."""

# Some rows of this measurement are in mm without saying so; in cm nobody has as much.
_TAPSE, _TAPSE_MM = "tapse", (5.0, 40.0)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measurement that is a number.

    Parameters
    ----------
    name : str
        The set's name of it, and the column's.
    unit : str
        Unit of the column.
    blank_unit : str
        Unit of a row that states none; "" if such a row is skipped.
    low, high : float
        Values beyond are excluded, in `unit`.
    """

    name: str
    unit: str
    blank_unit: str
    low: float
    high: float


@cache
def quantities() -> tuple[Quantity, ...]:
    """The measurements that are read as numbers."""
    return tuple(
        Quantity(name, unit, blank_unit, float(low or "-inf"), float(high or "inf"))
        for name, unit, blank_unit, low, high in (row.values() for row in _table("mimic_measurements.csv"))
    )


@cache
def grades() -> Mapping[str, tuple[str, ...]]:
    """Measurement -> its grades, the lowest first."""
    found: dict[str, dict[str, None]] = {}
    for row in _table("mimic_grades.csv"):
        if row["grade"]:
            found.setdefault(row["measurement"], {})[row["grade"]] = None
    return {name: tuple(order) for name, order in found.items()}


@cache
def _grade_of_result() -> dict[tuple[str, str], int]:
    """(measurement, result without blanks around it) -> index of its grade, -1 for a result that says none."""
    return {
        (row["measurement"], row["result"].strip()): (
            grades()[row["measurement"]].index(row["grade"]) if row["grade"] else -1
        )
        for row in _table("mimic_grades.csv")
    }


def _table(name: str) -> list[dict[str, str]]:
    text = resources.files("panecho_embed.datasets").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def _reading() -> str:
    """Digest of how the long table is read: another one, and a compact file has to be made again."""
    text = repr((_table("mimic_measurements.csv"), _table("mimic_grades.csv"), _FACTORS, _TAPSE_MM))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """The measurements of N reports, in order of their measurement_id.

    Parameters
    ----------
    measurement_id, subject_id, test_type : (N,) str
        test_type: the first in alphabetical order where the rows of a report give several, so "tte" only if all do.
    time : (N,) datetime64[s]
        The earliest where the rows of a report give several.
    numbers : mapping of str to (N,) float64
        In the units of `quantities`, NaN where missing; the mean where a report has several.
    grade : mapping of str to (N,) int8
        Index in `grades`, -1 where missing; the highest where a report has several.
    notes : tuple of str
        What was left out of the long table, and why.
    sha256 : str
        Of the long table's bytes, compressed as they are.
    """

    measurement_id: npt.NDArray[np.str_]
    subject_id: npt.NDArray[np.str_]
    test_type: npt.NDArray[np.str_]
    time: npt.NDArray[np.datetime64]
    numbers: Mapping[str, Floats]
    grade: Mapping[str, npt.NDArray[np.int8]]
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.measurement_id)

    def graded(self, name: str) -> Texts:
        """The grades of a measurement as text (N,), "" where missing."""
        order = np.array([*grades()[name], ""], dtype=object)
        return np.asarray(order[self.grade[name]], dtype=object)

    def save(self, path: Path, source: Path) -> None:
        """Write the compact file (arrays of NumPy); `read` compares `source` with what it was made of."""
        about = {"reading": _reading(), "size_bytes": source.stat().st_size, "sha256": self.sha256, "notes": self.notes}
        arrays = {name: getattr(self, name) for name in ("measurement_id", "subject_id", "test_type")}
        arrays["seconds"] = self.time.astype(np.int64)
        arrays["numbers"] = np.stack(list(self.numbers.values()), axis=1)
        arrays["grade"] = np.stack(list(self.grade.values()), axis=1)
        with path.open("wb") as stream:
            np.savez(stream, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def read(cls, path: Path, source: Path) -> Self | None:
        """Read a compact file; None if it was made of another table, or read otherwise, and is to be made again.

        Raises StoreError if it is damaged: its SHA-256 is not that of its folder's SHA256SUMS.
        """
        content = read_checked(path, needed=True)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                if about["reading"] != _reading() or about["size_bytes"] != source.stat().st_size:
                    return None
                numbers, grade = arrays["numbers"], arrays["grade"]
                return cls(
                    arrays["measurement_id"],
                    arrays["subject_id"],
                    arrays["test_type"],
                    arrays["seconds"].astype("datetime64[s]"),
                    {one.name: numbers[:, i] for i, one in enumerate(quantities())},
                    {name: grade[:, i] for i, name in enumerate(grades())},
                    tuple(about["notes"]),
                    about["sha256"],
                )
        except (KeyError, ValueError, zlib.error) as error:
            raise StoreError(f"{path} is no compact file of measurements ({error}); remove it") from error


def pivot_measurements(path: Path, progress: Callable[[int], object] | None = None) -> Measurements:
    """Read structured-measurement.csv (or .csv.gz) once, in bounded memory.

    Memory: one chunk of 250,000 rows, and at most 2 kB per measurement_id. The order of the rows makes no difference.

    Parameters
    ----------
    path : Path
    progress : callable, optional
        Called with the number of bytes read since the last call.

    Returns
    -------
    Measurements

    Raises
    ------
    ManifestError
        For a table that is cut, damaged, lacks a column, has none of the measurements that are read, or gives one
        measurement_id to several patients.
    """
    pivot = _Pivot()
    with path.open("rb") as file:
        whole = _Watched(file, hashlib.sha256())
        text: _Watched = whole
        if path.suffix == ".gz":
            text = _Watched(gzip.GzipFile(fileobj=io.BufferedReader(whole, 1 << 20), mode="rb"))
        done = 0
        try:
            for chunk in _chunks(path, text):
                pivot.add(chunk)
                if progress is not None:
                    progress(whole.count - done)
                    done = whole.count
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _cut(path, pivot.rows, str(error)) from error
        if text.last != b"\n":
            raise _cut(path, pivot.rows, "its last row has no end of line")
        digest = whole.digest
    if not pivot.read:
        raise ManifestError(
            f"{path}: none of its {pivot.rows:,} rows has a measurement_id and a measurement that is read, such as "
            f"{', '.join(one.name for one in quantities()[:5])}; is it structured-measurement.csv of MIMIC-IV-ECHO 1.0?"
        )
    if shared := pivot.others["subject_id"]:
        ids = list(pivot.row_of_id)
        some = ", ".join(sorted(ids[row] for row in shared)[:_LISTED]) + (", ..." if len(shared) > _LISTED else "")
        raise ManifestError(f"{path}: {len(shared):,} measurement_ids have rows of several subject_ids: {some}")
    return pivot.finished(digest.hexdigest() if digest is not None else "")


def _cut(path: Path, rows: int, how: str) -> ManifestError:
    return ManifestError(
        f"{path}: the table is cut or damaged after about {rows:,} rows ({how}). Download it again, and compare it "
        "with the set's SHA256SUMS.txt"
    )


class _Watched(io.RawIOBase):
    """Bytes on their way to a parser: their number, the last one, and their digest if one is given."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, digest: hashlib._Hash | None = None) -> None:
        self.count, self.last, self.digest = 0, b"", digest
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self.count, self.last = self.count + len(data), data[-1:] or self.last
        if self.digest is not None:
            self.digest.update(data)
        return len(data)


def _chunks(path: Path, stream: _Watched) -> Iterator[pd.DataFrame]:
    """The columns that are read, every one categorical: as texts, they would take ten times the memory."""
    import pandas as pd

    try:
        chunks = pd.read_csv(
            io.BufferedReader(stream, 1 << 20),
            usecols=lambda name: name in COLUMNS,
            dtype="category",
            na_filter=False,
            chunksize=_CHUNK_ROWS,
            encoding="utf-8",
        )
        with chunks:
            for chunk in chunks:
                if missing := [name for name in COLUMNS if name not in chunk.columns]:
                    raise ManifestError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
                yield chunk
    except pd.errors.EmptyDataError as error:
        raise ManifestError(f"{path}: not a table: it is empty") from error
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: the table is cut or damaged: {error}") from error


@dataclass(slots=True, eq=False)
class _Pivot:
    """Sums and counts of every number, and the highest of every grade, by measurement_id.

    rows: of the long table so far; nameless: those without a measurement_id; read: those of measurements that are read.
    about: column -> a cell of each report; others: the cells that differ from it, by column and row.
    """

    rows: int = 0
    nameless: int = 0
    read: int = 0
    row_of_id: dict[str, int] = field(default_factory=dict)
    about: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _ABOUT})
    others: dict[str, defaultdict[int, set[str]]] = field(
        default_factory=lambda: {name: defaultdict(set) for name in _ABOUT}
    )
    left_out: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _sum: Floats = field(default_factory=lambda: np.zeros((_FIRST_ROWS, len(quantities()))))
    _count: npt.NDArray[np.uint16] = field(
        default_factory=lambda: np.zeros((_FIRST_ROWS, len(quantities())), dtype=np.uint16)
    )
    _grade: npt.NDArray[np.int8] = field(
        default_factory=lambda: np.full((_FIRST_ROWS, len(grades())), -1, dtype=np.int8)
    )

    def add(self, chunk: pd.DataFrame) -> None:
        """Take in a chunk of the long table."""
        self.rows += len(chunk)
        texts = {name: [str(text) for text in chunk[name].cat.categories] for name in COLUMNS}
        blank = np.array([not text.strip() for text in texts["measurement_id"]], dtype=bool)
        named = ~blank[chunk["measurement_id"].cat.codes.to_numpy()]
        self.nameless += len(chunk) - int(named.sum())
        codes = {name: chunk[name].cat.codes.to_numpy()[named] for name in COLUMNS}
        row = self._rows(codes, texts)
        for i, one in enumerate(quantities()):
            if one.name in texts["measurement"]:
                here = np.flatnonzero(codes["measurement"] == texts["measurement"].index(one.name))
                self.read += len(here)
                value = self._values(one, here, codes, texts)
                valid = ~np.isnan(value)
                # In one step for each row: a report may have several.
                unique, which = np.unique(row[here[valid]], return_inverse=True)
                self._sum[unique, i] += np.bincount(which, value[valid], len(unique))
                self._count[unique, i] += np.bincount(which, minlength=len(unique)).astype(np.uint16)
        for i, name in enumerate(grades()):
            if name in texts["measurement"]:
                here = np.flatnonzero(codes["measurement"] == texts["measurement"].index(name))
                self.read += len(here)
                np.maximum.at(self._grade[:, i], row[here], self._grades(name, here, codes, texts))

    def _rows(self, codes: Mapping[str, npt.NDArray[Any]], texts: Mapping[str, list[str]]) -> npt.NDArray[np.int64]:
        """The row of each line of a chunk; new ones for measurement_ids that were not there before."""
        row_of_code = np.zeros(len(texts["measurement_id"]), dtype=np.int64)
        for code in np.unique(codes["measurement_id"]).tolist():
            row_of_code[code] = self.row_of_id.setdefault(texts["measurement_id"][code], len(self.row_of_id))
        if len(self.row_of_id) > len(self._sum):
            self._grow()
        row = np.asarray(row_of_code[codes["measurement_id"]], dtype=np.int64)
        for column, kept in self.about.items():
            # New rows are numbered on, so that they come one by one, after those that were there before.
            for pair in np.unique(row * len(texts[column]) + codes[column]).tolist():
                number, code = divmod(pair, len(texts[column]))
                if number == len(kept):
                    kept.append(texts[column][code])
                elif kept[number] != texts[column][code]:
                    self.others[column][number].add(texts[column][code])
        return row

    def _grow(self) -> None:
        size = max(len(self.row_of_id), len(self._sum) * 3 // 2)
        for name, fill in (("_sum", 0), ("_count", 0), ("_grade", -1)):
            old = getattr(self, name)
            new = np.full((size, old.shape[1]), fill, dtype=old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def _values(
        self,
        one: Quantity,
        here: npt.NDArray[np.int64],
        codes: Mapping[str, npt.NDArray[Any]],
        texts: Mapping[str, list[str]],
    ) -> Floats:
        """The numbers of a measurement, in its unit; NaN where one is excluded."""
        result, unit = codes["result"][here], codes["unit"][here]
        number = np.full(len(texts["result"]), np.nan)
        for code in np.unique(result).tolist():
            number[code] = _number(texts["result"][code])
        factor = np.full(len(texts["unit"]), np.nan)
        for code in np.unique(unit).tolist():
            factor[code] = _factor(one, texts["unit"][code])
        value = number[result]
        if one.name == _TAPSE:
            in_mm = (value >= _TAPSE_MM[0]) & (value <= _TAPSE_MM[1])
            scale = np.where(in_mm & ~np.isnan(factor[unit]), 0.1, factor[unit])
        else:
            scale = factor[unit]
        for why, code, bad in (
            ("result", result, np.isnan(value)),
            ("unit", unit, np.isnan(scale) & ~np.isnan(value)),
        ):
            self._leave_out(one.name, why, code[bad], texts[why])
        value = value * scale
        beyond = (value < one.low) | (value > one.high)
        if beyond.any():
            limits = f"{one.low:g} to {one.high:g}" if np.isfinite(one.low) else f"up to {one.high:g}"
            self.left_out[one.name, "range", f"{limits} {one.unit}"] += int(beyond.sum())
        return np.where(beyond, np.nan, value)

    def _grades(
        self,
        name: str,
        here: npt.NDArray[np.int64],
        codes: Mapping[str, npt.NDArray[Any]],
        texts: Mapping[str, list[str]],
    ) -> npt.NDArray[np.int8]:
        known, result = _grade_of_result(), codes["result"][here]
        found = [known.get((name, text.strip())) for text in texts["result"]]
        self._leave_out(name, "result", result[np.array([one is None for one in found])[result]], texts["result"])
        grade = np.array([-1 if one is None else one for one in found], dtype=np.int8)
        return np.asarray(grade[result])

    def _leave_out(self, name: str, why: str, code: npt.NDArray[Any], texts: list[str]) -> None:
        """Count the cells that are not read; a blank one is a missing value."""
        for there, count in zip(*np.unique(code, return_counts=True), strict=True):
            if texts[there].strip() or why == "unit":
                self.left_out[name, why, texts[there]] += int(count)

    def _times(self) -> npt.NDArray[np.datetime64]:
        """The earliest readable time of each report."""
        import pandas as pd

        every = [(row, text) for row, text in enumerate(self.about[_TIME])]
        every += [(row, text) for row, texts in self.others[_TIME].items() for text in texts]
        rows, texts = zip(*every, strict=True)
        times = pd.to_datetime(pd.Series(texts), errors="coerce", format="mixed")
        return times.groupby(np.array(rows)).min().to_numpy("datetime64[s]")

    def finished(self, sha256: str) -> Measurements:
        """The reports in order of their measurement_id."""
        ids = np.array(list(self.row_of_id))
        order = np.argsort(ids)
        types = self.about[_TYPE]
        for row, others in self.others[_TYPE].items():
            types[row] = min(sorted(filter(str.strip, {types[row], *others})), key=str.casefold, default="")
        count = self._count[order]
        with np.errstate(invalid="ignore"):
            # The last bits of a sum depend on the order of the rows.
            mean = np.round(self._sum[order] / count, 9)
        grade = self._grade[order]
        return Measurements(
            ids[order],
            np.array(self.about["subject_id"])[order],
            np.array(types)[order],
            self._times()[order],
            {one.name: mean[:, i] for i, one in enumerate(quantities())},
            {name: grade[:, i] for i, name in enumerate(grades())},
            self._notes(),
            sha256,
        )

    def _notes(self) -> tuple[str, ...]:
        """What differs within reports, and a line for every reason to leave rows out, the most frequent first."""
        words = {
            "result": "{} of {} skipped: the result {!r} can't be read",
            "unit": "{} of {} skipped: the unit {!r} is not known",
            "range": "{} of {} skipped: not in {}",
        }
        about = [
            f"{counted(len(self.others[name]), 'report')} with rows of several {name}s: {which} is used"
            for name, which in ((_TIME, "the earliest"), (_TYPE, "the first in alphabetical order"))
            if self.others[name]
        ]
        about += [f"{counted(self.nameless, 'row')} skipped: no measurement_id"] * bool(self.nameless)
        ranked = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        lines = [words[why].format(counted(count, "row"), name, text) for (name, why, text), count in ranked[:_NOTED]]
        if len(ranked) > _NOTED:
            rest = sum(count for _, count in ranked[_NOTED:])
            reasons = counted(len(ranked) - _NOTED, "other reason")
            lines.append(f"{counted(rest, 'more row')} skipped for {reasons} of these kinds")
        return (*about, *lines)


def _number(text: str) -> float:
    """The number in a result, which may carry a percent sign; NaN for anything else, such as bounds and ranges."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def _unit(text: str) -> str:
    """A unit as `_FACTORS` spells it: "mm Hg" is "mmhg", "cm²" is "cm2", "m/sec" is "m/s"."""
    plain = "".join(text.split()).casefold().replace("²", "2").replace("³", "3").replace("^", "")
    return plain.replace("/sec", "/s") if plain != "sec" else "s"


def _factor(one: Quantity, text: str) -> float:
    """What a number in the unit `text` is multiplied by; NaN for a unit that is not known."""
    return _FACTORS[one.unit].get(_unit(text.strip() or one.blank_unit), np.nan)
