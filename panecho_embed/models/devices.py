"""Where a model runs."""

from __future__ import annotations

import torch


def resolve_device(device: str) -> str:
    """ "auto" -> "cuda" where there is one, else "mps" on Apple machines, else "cpu"; another name stays as it is."""
    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
