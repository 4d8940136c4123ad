"""Ids that identify nobody: keyed hashes, and the salt that is their key."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.patients import is_opaque

SALT_VARIABLE = "PANECHO_EMBED_ID_SALT"
SALT_LINE = "# salt: "
"""What the first line of a local table begins with; the salt follows."""

_SHORTEST_SALT, _FEWEST_CHARACTERS = 16, 5


def new_salt() -> str:
    """A random salt, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def checked_salt(salt: str, whence: str) -> str:
    """The salt without blanks around it. Raises ArgumentError, which does not quote it, for one that can be guessed."""
    salt = salt.strip()
    # The identifiers of a hospital are few: whoever guesses the salt finds them all by trying.
    if len(salt) < _SHORTEST_SALT or len(set(salt)) < _FEWEST_CHARACTERS:
        raise ArgumentError(
            f"the salt in {whence} can be guessed: it needs {_SHORTEST_SALT} characters or more, "
            f"{_FEWEST_CHARACTERS} of them different, such as those of "
            'python -c "import secrets; print(secrets.token_hex(16))" > salt.txt'
        )
    return salt


def read_salt(path: Path) -> str:
    """The salt in a file: its text, or that of a local table of ids. Raises ArgumentError."""
    try:
        with path.open(encoding="utf-8") as stream:
            first = stream.readline()
            text = first.removeprefix(SALT_LINE) if first.startswith(SALT_LINE) else first + stream.read(4096)
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path}: no salt can be read from it ({error}) (--salt-file)") from error
    return checked_salt(text, str(path))


def hashed_id(kind: str, value: str, salt: str) -> str:
    """`kind`-xxxxxxxxxxxxxxxx: the first 64 bits of HMAC-SHA-256 of `value` under `salt`; an opaque id stays itself.

    Keyed, because the identifiers of a hospital are few enough to be tried one by one against a plain hash.
    """
    if is_opaque(value, kind):
        return value
    data = f"{kind}\0{value}".encode("utf-8", "surrogateescape")
    return f"{kind}-{hmac.new(salt.encode(), data, hashlib.sha256).hexdigest()[:16]}"
