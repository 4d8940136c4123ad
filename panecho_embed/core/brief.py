"""Texts from files, fit for a message: one line, of limited length, printable."""

from __future__ import annotations


def brief(text: object, most: int = 200) -> str:
    """`text` in one line of at most `most` characters; what can't be printed becomes an escape such as \\x00."""
    whole = str(text)
    # What is cut off need not be made printable.
    line = " ".join(whole[: 4 * most].split())
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    if len(shown) <= most and len(whole) <= 4 * most:
        return shown
    return f"{shown[: most - 3]}..."
