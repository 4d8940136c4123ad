"""Reading of tables, for every layout that has one: cells as text, and everything wrong told in one error."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import VideoRef
from panecho_embed.datasets.text import is_undecodable, shown

if TYPE_CHECKING:
    import pandas as pd

_LISTED = 20
_LONGEST_HEADER = 100_000
"""Characters of a table's first line that are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table as it was read.

    frame: every cell as text, empty cells as ""; its index is the line of the file in which a row begins.
    problems: line -> what makes that row unusable.
    """

    path: Path
    frame: pd.DataFrame
    problems: Mapping[int, str]


def read_table(path: Path, undecodable: Sequence[str] = (), first_column: str = "") -> Table:
    """A table with comma, semicolon or (.tsv) tab between its cells, or the first sheet of an .xlsx file.

    undecodable: columns whose cells may hold what is not UTF-8, as names of files do. Every other column must be
    UTF-8. first_column: rows above the one with this cell are titles, and passed over; "" takes the first row for the
    names of the columns. Blank lines are passed over. Raises ManifestError where the columns themselves can't be known
    apart; cells are left to `collect`.
    """
    import pandas as pd

    is_sheet = path.suffix.lower() == ".xlsx"
    text = "" if is_sheet else path.read_bytes().decode("utf-8-sig", "surrogateescape")
    rows = list(_sheet_rows(path) if is_sheet else _rows(text, path))
    titles = next((i for i, (_, cells) in enumerate(rows) if first_column in cells), 0) if first_column else 0
    rows = rows[titles:]
    if not rows:
        raise ManifestError(f"{path}: not a table: it is empty")
    (_, header), *body = rows
    names = _column_names(header, [cells for _, cells in body], path)
    problems: dict[int, str] = {}
    lines, cells = [], []
    all_plain = text.isascii() and "\0" not in text
    for line, row in body:
        if (len(row) > len(names) or not all_plain) and (problem := _cell_problem(names, row, undecodable)):
            problems[line] = problem
        lines.append(line)
        # Every cell stays text: 007 is an id, not 7.
        cells.append([*row[: len(names)], *[""] * (len(names) - len(row))])
    # An object column takes what pandas's own text column does not: surrogates.
    frame = pd.DataFrame(cells, columns=names, index=lines, dtype=object)
    return Table(path, frame, problems)


def column_names(path: Path) -> list[str]:
    """The names of the columns of a .csv or .tsv file; none of any other, or where it can't be read as one."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return []
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline(_LONGEST_HEADER)
    except (OSError, UnicodeDecodeError):
        return []
    return [name.strip().strip('"') for name in re.split("[,;\t]", header)] if header.strip() else []


def require_columns(table: Table, names: Sequence[str]) -> None:
    """Raise ManifestError naming the columns that a table lacks, the ones it has, and the nearest to each."""
    columns = [str(name) for name in table.frame.columns]
    missing = [name for name in names if name not in columns]
    if not missing:
        return
    near = {n: difflib.get_close_matches(n.lower(), [c.lower() for c in columns], 1, 0.6) for n in missing}
    hints = "; ".join(f"did you mean {match[0]!r} for {name!r}?" for name, match in near.items() if match)
    raise ManifestError(
        f"{table.path}: no column {', '.join(missing)}; the columns are {', '.join(columns) or '(none)'}"
        + (f"; {hints}" if hints else "")
    )


def collect(
    table: Table, make: Callable[[Mapping[str, str]], VideoRef], *, unique: bool = True
) -> tuple[list[VideoRef], list[str]]:
    """The videos that `make` makes of each row, and a line of text for every row that gives none.

    make: may raise ArgumentError and OSError. unique: a video_id that is in an earlier row is a problem as well.
    """
    problems = dict(table.problems)
    first: dict[str, int] = {}
    videos = []
    rows: list[dict[str, str]] = table.frame.to_dict("records")  # type: ignore[assignment]
    for line, row in zip(table.frame.index, rows, strict=True):
        if line in problems:
            continue
        try:
            video = make(row)
        except (ArgumentError, OSError) as error:
            problems[line] = shown(error)
            continue
        if unique and video.video_id in first:
            problems[line] = f"video_id {video.video_id!r} stands in line {first[video.video_id]} already"
        first.setdefault(video.video_id, line)
        videos.append(video)
    return videos, [f"line {line}: {text}" for line, text in sorted(problems.items())]


def raise_problems(path: Path, problems: Sequence[str]) -> None:
    """Raise ManifestError listing `problems`, if there are any."""
    if problems:
        more = f"\n  and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise ManifestError(f"{path}: {len(problems)} problems:\n  " + "\n  ".join(problems[:_LISTED]) + more)


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and stripped cells of every row that is not blank."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    separator = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header and "," not in header else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if len(cells) > 1 or any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path}: not a table: {error} in the row of line {line}") from error


def _sheet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = list(book.worksheets[0].iter_rows(values_only=True))
        book.close()
    except Exception as error:
        # zipfile, the XML parser and openpyxl raise whatever they trip over.
        raise ManifestError(f"{path}: not a table: it can't be read as .xlsx ({error})") from error
    for line, row in enumerate(rows, start=1):
        # Names of columns are broken over lines; a whole number may come as 12.0.
        cells = [" ".join(_cell_text(cell).split()) for cell in row]
        if any(cells):
            yield line, cells


def _column_names(header: Sequence[str], body: Sequence[Sequence[str]], path: Path) -> list[str]:
    names = list(header)
    if any(is_undecodable(name) or "\0" in name for name in names):
        raise ManifestError(f"{path}: not UTF-8 text in its header; save the table as UTF-8")
    # A comma at the end of every line is not a column.
    while names and not names[-1] and not any("".join(row[len(names) - 1 : len(names)]) for row in body):
        names.pop()
    if nameless := [str(number) for number, name in enumerate(names, start=1) if not name]:
        raise ManifestError(f"{path}: column {', '.join(nameless)} has no name; name or remove it")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ManifestError(f"{path}: columns named twice: {', '.join(twice)}")
    return names


def _cell_text(cell: object) -> str:
    return "" if cell is None else f"{cell:.15g}" if isinstance(cell, float) else str(cell)


def _cell_problem(names: Sequence[str], cells: Sequence[str], undecodable: Sequence[str]) -> str:
    if any(cells[len(names) :]):
        return f"it has {len(cells)} cells; the table has {len(names)} columns"
    for name, cell in zip(names, cells, strict=False):
        if "\0" in cell:
            return f"{name} holds a NUL character: {cell!r}"
        if name not in undecodable and is_undecodable(cell):
            return f"{name} is not UTF-8 text: {cell!r}; save the table as UTF-8"
    return ""
