"""How values, intervals, p-values, counts and quoted texts are written for people, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class _Interval(Protocol):
    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def brief(text: object, most: int = 200) -> str:
    """`text` in one line of at most `most` characters; what can't be printed becomes an escape such as \\x00."""
    whole = str(text)
    # What is cut off need not be made printable.
    line = " ".join(whole[: 4 * most].split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(shown) <= most and len(whole) <= 4 * most:
        return shown
    return f"{shown[: most - 3]}..."


def number(value: float) -> str:
    """A value with as many decimals as its size deserves; "-" where there is none."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"
    return "0.000" if text == "-0.000" else text


def interval(score: _Interval) -> str:
    """The interval of a score or difference, "-" where there is none."""
    return f"{number(score.low)} to {number(score.high)}" if math.isfinite(score.low) else "-"


def p_value(value: float) -> str:
    """A p-value as journals print it."""
    if not math.isfinite(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plural(noun: str, count: int) -> str:
    """ "video", "videos", "studies"."""
    if count == 1:
        return noun
    return "studies" if noun == "study" else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """ "1 video", "3 videos", "2 studies"."""
    return f"{count} {plural(noun, count)}"


def file_stem(name: str, instead: str = "_") -> str:
    """A name with `instead` in place of all that the name of a file or folder can't hold."""
    return "".join(c if c.isalnum() or c in "-_." else instead for c in name)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as lines of text: the first column to the left, the others to the right."""
    cells = [list(columns), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        others = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join([row[0].ljust(widths[0]), *others]).rstrip()

    return "\n".join(map(line, cells))
