"""Clip embeddings -> what the heads read from them."""

from __future__ import annotations

import numpy as np
import torch

from panecho_embed.models.panecho import PanEcho
from panecho_embed.records import FloatArray

_BATCH = 8192


@torch.inference_mode()
def read_heads(model: PanEcho, embeddings: FloatArray) -> FloatArray:
    """(N, 768) to (N, K) float32: the columns of `outputs_of(model.tasks)`, as they are reported.

    Probabilities for classes (the model must have been made with `activations`); values in their unit, with the sign
    put right, for regressions.
    """
    signs = torch.tensor([float(task.sign) for task in model.tasks for _ in range(task.num_outputs)])
    parts = [
        torch.cat(list(model.predict(torch.from_numpy(batch.astype(np.float32))).values()), dim=1) * signs
        for batch in (embeddings[i : i + _BATCH] for i in range(0, len(embeddings), _BATCH))
    ]
    return torch.cat(parts).numpy() if parts else np.zeros((0, len(signs)), dtype=np.float32)
