"""Numbers made by the published code itself, and the rules by which its weights and inputs are made again.

panecho.npz: PanEcho as released, all 40 heads, weights by rule. L16/...: input `normal(0, 2, 3, 16, 64, 64)`; L32/...:
`normal(1, 2, 3, 32, 64, 64)`; L8/...: `normal(2, 2, 3, 8, 96, 96)`. Keys raw/TASK (logits), probabilities/TASK,
backbone (2, 768), image_encoder (2, 768), of `x[:, :, 3]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from panecho_embed.models.checkpoint import to_checkpoint_names
from panecho_embed.models.panecho import PanEcho, sinusoid

PANECHO = Path(__file__).with_name("panecho.npz")


def normal(seed: int, *shape: int) -> np.ndarray:
    """An input by rule, float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def by_rule(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of a tensor by its name in the published checkpoint, float32."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    values = normal(seed, *shape)
    if name.endswith("layer_scale"):
        return np.float32(0.3) + np.float32(0.1) * values
    if name.endswith(".weight") and len(shape) >= 2:
        return values / np.float32(np.sqrt(np.prod(shape[1:])))
    return np.float32(name.endswith(".weight")) + np.float32(0.1) * values


def write_panecho(path: Path) -> Path:
    """A file in the released checkpoint's layout, weights by rule."""
    shapes = {name: value.shape for name, value in to_checkpoint_names(PanEcho(pretrained=False).state_dict()).items()}
    state = {name: torch.from_numpy(by_rule(name, tuple(shape))) for name, shape in shapes.items()}
    state["encoder.time_encoder.pe"] = sinusoid(16, 768)
    torch.save({"weights": state}, path)
    return path


def difference(found: Tensor | np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, as a share of the largest value: single values near 0 differ more."""
    return float(np.abs(np.asarray(found) - exact).max() / np.abs(exact).max())


def largest_difference(found: Mapping[str, Tensor], golden: Mapping[str, np.ndarray], prefix: str) -> float:
    """Over all tasks."""
    return max(difference(value, golden[f"{prefix}/{name}"]) for name, value in found.items())
