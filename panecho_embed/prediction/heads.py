"""Clip embeddings -> raw outputs of the heads."""

from __future__ import annotations

import numpy as np
import torch

from panecho_embed.models.panecho import PanEcho
from panecho_embed.records import FloatArray

_BATCH = 8192


@torch.inference_mode()
def read_heads(model: PanEcho, embeddings: FloatArray) -> FloatArray:
    """Apply a model's heads to clip embeddings.

    (N, 768) to (N, K) float32, one column for each of `outputs_of(model.tasks)`. Outputs are raw, whether or not the
    model was made with `activations`: logits for classes, for regressions the value as it was trained. `reported` in
    `prediction.outputs` turns them, or means of them, into what is shown.
    """
    columns = sum(task.num_outputs for task in model.tasks)
    parts = [
        torch.cat([model.heads[task.name](clips) for task in model.tasks], dim=1)
        for clips in (
            torch.from_numpy(embeddings[i : i + _BATCH].astype(np.float32)) for i in range(0, len(embeddings), _BATCH)
        )
    ]
    return torch.cat(parts).numpy() if parts else np.zeros((0, columns), dtype=np.float32)
