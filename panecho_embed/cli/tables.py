"""Rows as a table for a terminal, or as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from panecho_embed.cli.printable import echo_line

PLURALS = {"clip": "clips", "video": "videos", "study": "studies"}

_SHOWN_LABELS = 5


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print some columns of rows in line, numbers to the right."""
    if not rows:
        click.echo("nothing found")
        return
    places = {name: max(_places(row[name]) for row in rows) for name in columns}
    cells = [[_cell(row[name], places[name]) for name in columns] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(columns)]
    right = [all(isinstance(row[name], int | float | None) for row in rows) for name in columns]
    for line in [list(columns), *cells]:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        echo_line("  ".join(padded).rstrip())


def _places(value: Any) -> int:
    """Decimals that a number needs, four at most: 55.2 is no 55.2000."""
    return len(f"{value:.4f}".rstrip("0").partition(".")[2]) if isinstance(value, float) else 0


def _cell(value: Any, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}" if isinstance(value, int | float) else str(value)


def print_csv(rows: Sequence[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Print rows as CSV. columns: the header, where there may be no row to take it from."""
    import pandas as pd

    click.echo(pd.DataFrame(rows, columns=columns).to_csv(index=False), nl=False)


def shown_columns(columns: Any, first: tuple[str, ...]) -> list[str]:
    """The columns of a table on a terminal: ids and the first labels."""
    ids = ["video_id", "study_id", "patient_id", "view"]
    hidden = {*ids, "split", "num_frames", "fps", "first_frame", *first}
    labels = [name for name in columns if name not in hidden][:_SHOWN_LABELS]
    known = [name for name in (*ids, "first_frame") if name in columns and name not in first]
    return [*(name for name in first if name in columns or name in ("rank", "similarity", "distance")), *known, *labels]
