"""model.pt: the trained weights, in PanEcho's layout where the model has PanEcho's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panecho_embed.finetune.checkpoints import write_checkpoint
from panecho_embed.finetune.model import FineTuneModel
from panecho_embed.finetune.recipe import ClipSettings
from panecho_embed.finetune.starts import Start
from panecho_embed.models.convnext import CHANNELS
from panecho_embed.models.names import POSITION_KEY, to_checkpoint_names
from panecho_embed.models.panecho import PanEcho, sinusoid
from panecho_embed.models.recorded import KEY, OWN_LAYOUT, PANECHO_LAYOUT
from panecho_embed.models.weights import NOT_STATED
from panecho_embed.records import Preprocess, WeightsInfo
from panecho_embed.tasks import Task

SCHEMA_VERSION = 1
_STEM = "frame_encoder.stem.0"


def write_model(model: FineTuneModel, start: Start, tasks: Sequence[Task], clips: ClipSettings, path: Path) -> bool:
    """Write model.pt; returns whether it has PanEcho's layout.

    {"weights": state dict, "panecho_embed": plain values}. A model of PanEcho's shape takes PanEcho's pixels, whatever
    it was trained on: the difference in normalisation and channel order is worked into its first layer, which is
    linear. Any other keeps its own names and pixels. Raises StoreError.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    preprocess = start.preprocess
    whole = is_panecho(state)
    if whole:
        theirs = Preprocess()
        preprocess = replace(
            preprocess, scale=theirs.scale, mean=theirs.mean, std=theirs.std, channel_order=theirs.channel_order
        )
        state = to_checkpoint_names(_with_pixels_of(state, start.preprocess, preprocess))
        state[POSITION_KEY] = sinusoid(clips.frames, start.dim)
    about = {
        "schema_version": SCHEMA_VERSION,
        "init": start.name,
        "pretrained": start.weights.pretrained,
        "layout": PANECHO_LAYOUT if whole else OWN_LAYOUT,
        "licence": _licence(start.weights),
        "start": _plain(asdict(start.weights)),
        "preprocess": _plain(asdict(preprocess)),
        "clips": _plain(asdict(clips.plan(clips.test))),
        "tasks": [_plain(asdict(task)) for task in tasks],
    }
    write_checkpoint({"weights": state, KEY: about}, path)
    return whole


def _licence(start: WeightsInfo) -> str:
    """Of weights that were trained from others: theirs, where they have one; "" where nothing is stated."""
    if not start.pretrained or start.licence == NOT_STATED:
        return ""
    return f"{start.licence} (of {start.source}, which it was trained from)"


def is_panecho(state: Mapping[str, Tensor]) -> bool:
    """Whether a model's tensors, by our names, are those of a PanEcho of some width, whatever its heads."""
    stem = state.get(f"{_STEM}.weight")
    if stem is None or stem.ndim != 4 or len(stem) > CHANNELS["tiny"]:
        return False
    with torch.device("meta"):
        expected = PanEcho(pretrained=False, backbone_only=True, width=len(stem) / CHANNELS["tiny"]).state_dict()
    found = {name: tensor.shape for name, tensor in state.items() if not name.startswith("heads.")}
    return found == {name: tensor.shape for name, tensor in expected.items()}


def _with_pixels_of(state: Mapping[str, Tensor], mine: Preprocess, theirs: Preprocess) -> dict[str, Tensor]:
    """The same function of the same frames, for pixels as `theirs` normalises and orders them.

    The first layer cuts the image into patches, without padding, so what normalisation adds and multiplies can be moved
    into its bias and weights exactly.
    """
    weight, bias = (state[f"{_STEM}.{name}"].double() for name in ("weight", "bias"))
    mean, std, their_mean, their_std = (
        torch.tensor(values, dtype=torch.float64)
        for values in (mine.mean, mine.std, _in_order(theirs.mean, mine, theirs), _in_order(theirs.std, mine, theirs))
    )
    ratio = mine.scale / theirs.scale
    factor, shift = ratio * their_std / std, (ratio * their_mean - mean) / std
    bias = bias + (weight.sum(dim=(2, 3)) * shift).sum(dim=1)
    weight = weight * factor[:, None, None]
    if mine.channel_order != theirs.channel_order:
        weight = weight.flip(1)
    return {**state, f"{_STEM}.weight": weight.float(), f"{_STEM}.bias": bias.float()}


def _in_order(values: Sequence[float], mine: Preprocess, theirs: Preprocess) -> Sequence[float]:
    """Their numbers a channel, in my order of channels."""
    return values if mine.channel_order == theirs.channel_order else values[::-1]


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
