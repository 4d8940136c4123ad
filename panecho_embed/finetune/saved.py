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
from panecho_embed.finetune.stem import stem_for
from panecho_embed.models.convnext import CHANNELS
from panecho_embed.models.names import POSITION_KEY, to_checkpoint_names
from panecho_embed.models.panecho import PanEcho, sinusoid
from panecho_embed.models.recorded import KEY, OWN_LAYOUT, PANECHO_LAYOUT
from panecho_embed.models.weights import NOT_STATED
from panecho_embed.provenance import Preprocess, WeightsInfo
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
        weight, bias = (state[f"{_STEM}.{name}"] for name in ("weight", "bias"))
        weight, bias = stem_for(weight, bias, start.preprocess, preprocess)
        state = to_checkpoint_names({**state, f"{_STEM}.weight": weight, f"{_STEM}.bias": bias})
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


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
