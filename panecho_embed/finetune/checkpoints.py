"""What a stopped training goes on from: written whole or not at all, read without running what is in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from panecho_embed.errors import StoreError


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Save tensors and plain values; `path` is replaced at once or left as it was; its folder is made.

    Raises StoreError.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        with part.open("wb") as stream:
            torch.save(dict(content), stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    # torch turns some failures to write, such as a full disk, into RuntimeErrors of its own.
    except (OSError, RuntimeError) as error:
        raise StoreError(f"{path}: the checkpoint can't be written ({str(error).splitlines()[0]})") from error
    finally:
        part.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU. Raises StoreError if it is damaged."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch has no common error for bytes that are no checkpoint.
        reason = str(error).splitlines()[0]
        raise StoreError(f"{path}: no readable checkpoint ({reason}); begin anew with --overwrite") from error
    return content
