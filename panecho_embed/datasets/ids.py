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

_DIGEST_LINE = b"# sha256: "

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
        with path.open("rb") as stream:
            text = stream.readline() + stream.read(4096)
            if text.startswith(SALT_LINE.encode()):
                return unsealed(text + stream.read(), path)[0]
            return checked_salt(text.decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{path}: no salt can be read from it ({error}) (--salt-file)") from error


def sealed(salt: str, rows: bytes) -> bytes:
    """The content of a local table: a line with the salt, one with the SHA-256 of all else, and the rows."""
    first = f"{SALT_LINE}{salt}\n".encode()
    return first + _DIGEST_LINE + hashlib.sha256(first + rows).hexdigest().encode() + b"\n" + rows


def unsealed(content: bytes, path: Path) -> tuple[str, bytes]:
    """Salt and rows of a local table. Raises ArgumentError, which quotes nothing, for one that is damaged or none."""
    first, _, rest = content.partition(b"\n")
    second, _, rows = rest.partition(b"\n")
    if not first.startswith(SALT_LINE.encode()):
        raise ArgumentError(f"{path}: not a local table of ids; put the right one there, or move this away")
    salt = checked_salt(first.decode("utf-8", "replace").removeprefix(SALT_LINE), str(path))
    if not second.startswith(_DIGEST_LINE):
        raise ArgumentError(f"{path} is damaged, or of an earlier release: its second line is no SHA-256; move it away")
    if sealed(salt, rows) != content:
        raise ArgumentError(f"{path} is damaged, or was changed by hand: its SHA-256 is another one than it says")
    return salt, rows


def hashed_id(kind: str, value: str, salt: str) -> str:
    """`kind`-xxxxxxxxxxxxxxxx: the first 64 bits of HMAC-SHA-256 of `value` under `salt`; an opaque id stays itself.

    Keyed, because the identifiers of a hospital are few enough to be tried one by one against a plain hash.
    """
    if is_opaque(value, kind):
        return value
    data = f"{kind}\0{value}".encode("utf-8", "surrogateescape")
    return f"{kind}-{hmac.new(salt.encode(), data, hashlib.sha256).hexdigest()[:16]}"
