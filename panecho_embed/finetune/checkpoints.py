"""What a stopped training goes on from: written whole or not at all, read without running what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panecho_embed.errors import StoreError
from panecho_embed.models.checkpoint import load_whole, save_tensors
from panecho_embed.outputs import explain_os_error


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Save tensors and plain values; `path` is replaced at once or left as it was; its folder is made.

    Raises StoreError.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"can't write {path}: {explain_os_error(error)}") from error
    save_tensors(content, path, StoreError)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU. Raises StoreError if it is damaged."""
    try:
        with path.open("rb") as stream:
            content: dict[str, Any] = load_whole(stream)
    except Exception as error:
        # torch has no common error for bytes that are no checkpoint.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StoreError(f"{path}: no readable checkpoint ({reason}); begin anew with --overwrite") from error
    return content
