"""A model's first layer, made for pixels that are normalised otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from panecho_embed.provenance import Preprocess


def stem_for(weight: Tensor, bias: Tensor, mine: Preprocess, theirs: Preprocess) -> tuple[Tensor, Tensor]:
    """Weight (C, 3, P, P) and bias (C,) that give the same, for pixels as `theirs` normalises and orders them.

    The first layer of a ConvNeXt cuts the image into patches, without padding, so what normalisation adds and
    multiplies can be moved into its bias and weights exactly. Returned as float32.
    """
    exact, added = weight.double(), bias.double()
    mean, std, their_mean, their_std = (
        torch.tensor(values, dtype=torch.float64)
        for values in (mine.mean, mine.std, _in_order(theirs.mean, mine, theirs), _in_order(theirs.std, mine, theirs))
    )
    ratio = mine.scale / theirs.scale
    factor, shift = ratio * their_std / std, (ratio * their_mean - mean) / std
    added = added + (exact.sum(dim=(2, 3)) * shift).sum(dim=1)
    exact = exact * factor[:, None, None]
    if mine.channel_order != theirs.channel_order:
        exact = exact.flip(1)
    return exact.float(), added.float()


def _in_order(values: Sequence[float], mine: Preprocess, theirs: Preprocess) -> Sequence[float]:
    """Their numbers a channel, in my order of channels."""
    return values if mine.channel_order == theirs.channel_order else values[::-1]
