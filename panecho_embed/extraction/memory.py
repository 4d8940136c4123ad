"""What running out of memory looks like, on every device."""

from __future__ import annotations

import torch

_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Is that memory that ran out? CPUs' allocators say it as a RuntimeError, in words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
