"""Names that are not UTF-8, as old file systems hold them: carried as surrogates (PEP 383), shown as escapes."""

from __future__ import annotations


def is_undecodable(text: str) -> bool:
    """Whether `text` holds bytes that were no UTF-8 when it was read with errors="surrogateescape"."""
    return not text.isascii() and any("\udc80" <= character <= "\udcff" for character in text)


def shown(text: object) -> str:
    r"""`text` for a message: what can't be printed as UTF-8 becomes \udcff."""
    return str(text).encode("utf-8", "backslashreplace").decode()
