"""model.pt: the trained weights, in PanEcho's layout where PanEcho's own code would compute the same from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panecho_embed.core.errors import StoreError
from panecho_embed.core.outputs import explain_os_error
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.tasks import Task
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe import ClipSettings
from panecho_embed.finetuning.starts import Start, stem_for
from panecho_embed.models.checkpoint import KEY, OWN_LAYOUT, load_whole, save_tensors
from panecho_embed.models.panecho import CHANNELS, PANECHO_FEEDING, PanEcho, checkpoint_content, sinusoid
from panecho_embed.models.weights import NOT_STATED

_SCHEMA_VERSION = 2
_STEM = "image_encoder.stem.0"


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Save tensors and plain values; `path` is replaced at once or left as it was; its folder is made.

    Raises StoreError.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"can't write {path}: {explain_os_error(error)}") from error
    save_tensors(content, path, StoreError)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU. Raises StoreError if it is damaged."""
    try:
        with path.open("rb") as stream:
            content: dict[str, Any] = load_whole(stream)
    except Exception as error:
        # torch has no common error for bytes that are no checkpoint.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StoreError(f"{path}: no readable checkpoint ({reason}); begin anew with --overwrite") from error
    return content


def write_model(
    model: FineTuneModel,
    start: Start,
    tasks: Sequence[Task],
    clips: ClipSettings,
    path: Path,
    *,
    thresholds: Mapping[str, float] | None = None,
    rule: str = "",
    patients: TrainingPatients | None = None,
) -> str:
    """Write model.pt; returns its layout: see `panecho_embed.models.checkpoint`.

    thresholds: target -> that of its yes-or-no decision, chosen on validation rows by `rule`; recorded with the model.
    patients: those whom it was trained on; recorded as keyed hashes.

    {"weights" or "state_dict": state dict, "panecho_embed": plain values}. A model of PanEcho's shape whose pictures
    are frames takes PanEcho's pixels, whatever it was trained on: the difference in normalisation and channel order is
    worked into its first layer, which is linear. In the published order that layer sees any channel at any of its
    inputs, so the pixels stay those of the start, and are recorded. Raises StoreError.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    feeding = start.feeding
    if _is_panecho(state):
        if start.plane_order == "frames":
            theirs = PANECHO_FEEDING
            feeding = replace(
                feeding, scale=theirs.scale, mean=theirs.mean, std=theirs.std, channel_order=theirs.channel_order
            )
            weight, bias = (state[f"{_STEM}.{name}"] for name in ("weight", "bias"))
            state[f"{_STEM}.weight"], state[f"{_STEM}.bias"] = stem_for(weight, bias, start.feeding, feeding)
        content = checkpoint_content(state, start.plane_order, feeding, sinusoid(clips.frames, start.dim))
    else:
        content = {
            "weights": state,
            KEY: {"layout": OWN_LAYOUT, "plane_order": None if start.whole_clips else start.plane_order},
        }
    content[KEY] |= {
        "schema_version": _SCHEMA_VERSION,
        "init": start.name,
        "pretrained": start.weights.pretrained,
        "licence": _licence(start.weights),
        "start": asdict(start.weights),
        "tasks": [_plain(asdict(task)) for task in tasks],
        "thresholds": dict(thresholds or {}),
        "threshold_rule": rule,
        **({"patients": patients.record()} if patients is not None else {}),
        "feeding": replace(feeding, clips=clips.plan(clips.test)).record(),
    }
    write_checkpoint(content, path)
    layout: str = content[KEY]["layout"]
    return layout


def _licence(start: WeightsInfo) -> str:
    """Of weights that were trained from others: theirs, where they have one; "" where nothing is stated."""
    if not start.pretrained or start.licence == NOT_STATED:
        return ""
    return f"{start.licence} (of {start.source}, which it was trained from)"


def _is_panecho(state: Mapping[str, Tensor]) -> bool:
    """Whether a model's tensors, by our names, are those of a PanEcho of some width, whatever its heads."""
    stem = state.get(f"{_STEM}.weight")
    if stem is None or stem.ndim != 4 or len(stem) > CHANNELS["tiny"]:
        return False
    return _panecho_shapes(len(stem)) == {
        name: tensor.shape for name, tensor in state.items() if not name.startswith("heads.")
    }


@cache
def _panecho_shapes(channels: int) -> dict[str, torch.Size]:
    """The shapes of a headless PanEcho's tensors by name, for a stem of this many channels."""
    with torch.device("meta"):
        expected = PanEcho(pretrained=False, backbone_only=True, width=channels / CHANNELS["tiny"]).state_dict()
    return {name: tensor.shape for name, tensor in expected.items()}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a dataclass with lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
