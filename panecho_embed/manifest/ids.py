"""Ids that identify nobody: what a header says becomes a keyed hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets


def new_salt() -> str:
    """A random salt, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def hashed_id(kind: str, value: str, salt: str) -> str:
    """`kind`-xxxxxxxxxxxxxxxx: the first 64 bits of HMAC-SHA-256 of `value` under `salt`.

    Keyed, because the identifiers of a hospital are few enough to be tried one by one against a plain hash.
    """
    digest = hmac.new(salt.encode(), f"{kind}\0{value}".encode(), hashlib.sha256).hexdigest()
    return f"{kind}-{digest[:16]}"
