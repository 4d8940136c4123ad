"""How values, intervals, p-values, counts and quoted texts are written for people, and what mistyped names meant."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
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
    """A value with three significant digits, or three decimals if it is below 1; "-" where there is none."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if 1e-9 < size < 0.0005:
        return f"{value:.2g}"
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 1.0005 else 3
    text = f"{value:.{decimals}f}"
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
    return f"{noun[:-1]}ies" if noun.endswith("study") else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """ "1 video", "3 videos", "2,000 studies"."""
    return f"{count:,} {plural(noun, count)}"


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


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; nearest: a, b" for an error message, or "" if nothing comes near. Case does not count."""
    import difflib

    lower = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(lower[match] for match in matches)}" if matches else ""


class ManyNames:
    """As `nearest`, among any number of names: only those are compared that begin or end like the mistyped one.

    Sorted once, at the first question; comparing with 100,000 names would take seconds.
    """

    _COMPARED = 50

    def __init__(self, names: Iterable[str]) -> None:
        known = {name.lower(): name for name in names}
        self._forward = sorted(known)
        self._backward = sorted(name[::-1] for name in known)
        self._known = known

    def nearest(self, name: str) -> str:
        """See `nearest`."""
        asked = name.lower()
        alike = [*self._around(self._forward, asked), *(one[::-1] for one in self._around(self._backward, asked[::-1]))]
        return nearest(name, (self._known[one] for one in dict.fromkeys(alike)))

    def _around(self, names: list[str], asked: str) -> list[str]:
        at = bisect_left(names, asked)
        return names[max(0, at - self._COMPARED) : at + self._COMPARED]
