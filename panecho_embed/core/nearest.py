"""The names that a mistyped one may have meant."""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; nearest: a, b" for an error message, or "" if nothing comes near. Case does not count."""
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
