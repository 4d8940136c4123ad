"""Where a model runs."""

from __future__ import annotations

import torch

from panecho_embed.core.errors import ArgumentError


def resolve_device(device: str | torch.device) -> torch.device:
    """The device of that name, if this torch can use it; "auto": "cuda" or "mps" where there is one, else "cpu".

    Raises ArgumentError for a device that is unknown or not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # torch raises AssertionError for an accelerator that it was built without.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(
            f"device is {str(device)!r}, which this torch {torch.__version__} can't use: "
            f"{str(error).splitlines()[0]}; cpu always works (--device)"
        ) from error
    return found
