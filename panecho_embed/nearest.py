"""The names that a mistyped one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; nearest: a, b" for an error message, or "" if nothing comes near. Case does not count."""
    lower = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(lower[match] for match in matches)}" if matches else ""
