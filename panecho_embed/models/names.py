"""PanEcho's checkpoint names and ours: one table of rules, read in both directions.

The checkpoint's image encoder has torchvision's ConvNeXt names, ours has timm's; the arrays are the same, but for
`layer_scale` (C, 1, 1), which timm keeps as `gamma` (C,).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from panecho_embed.core.errors import ArgumentError

Rules = tuple[tuple[str, str], ...]

_BLOCKS_PER_STAGE = (3, 3, 9, 3)
_BLOCK: Rules = (
    ("gamma", "layer_scale"),
    ("conv_dw.", "block.0."),
    ("norm.", "block.2."),
    ("mlp.fc1.", "block.3."),
    ("mlp.fc2.", "block.5."),
)


def _convnext_tiny_rules(ours: str, theirs: str) -> Iterable[tuple[str, str]]:
    yield f"{ours}stem.", f"{theirs}features.0."
    for stage, blocks in enumerate(_BLOCKS_PER_STAGE):
        if stage:
            yield f"{ours}stages.{stage}.downsample.", f"{theirs}features.{2 * stage}."
        for block in range(blocks):
            for timm_name, torchvision_name in _BLOCK:
                yield (
                    f"{ours}stages.{stage}.blocks.{block}.{timm_name}",
                    f"{theirs}features.{2 * stage + 1}.{block}.{torchvision_name}",
                )
    yield f"{ours}head.norm.", f"{theirs}classifier.0."


CONVNEXT_TINY: Rules = tuple(_convnext_tiny_rules("", ""))
"""timm's names to torchvision's."""

PANECHO: Rules = (
    *_convnext_tiny_rules("image_encoder.", "encoder.encoder.model."),
    ("clip_encoder.transformer.", "encoder.transformer."),
)
"""Our names to the released checkpoint's, all but the heads."""

ECHOCLIP: Rules = (("trunk.", "visual.trunk."), ("proj.", "visual.head.proj."))
"""The image tower's names to open_clip's."""

POSITION_KEY = "encoder.time_encoder.pe"
"""The checkpoint's position table, (1, clip length, 768): a fixed sinusoid, recomputed and never loaded."""

_HEAD = re.compile(r"heads\.([^.]+)\.(.+)")
_CHECKPOINT_HEAD = re.compile(r"([^.]+)_head\.(.+)")


def to_checkpoint_names(state: Mapping[str, Tensor], rules: Rules = PANECHO) -> dict[str, Tensor]:
    """A state dict of ours under the checkpoint's names, `gamma` in the checkpoint's shape."""
    renamed = {}
    for name, tensor in state.items():
        head = _HEAD.fullmatch(name)
        key = f"{head[1]}_head.{head[2]}" if head else _rename(name, rules)
        renamed[key] = tensor.reshape(-1, 1, 1) if key.endswith(".layer_scale") else tensor
    return renamed


def from_checkpoint_names(state: Mapping[str, Tensor], rules: Rules = PANECHO) -> dict[str, Tensor]:
    """The inverse of `to_checkpoint_names`; the position table is left out."""
    inverse = tuple((theirs, ours) for ours, theirs in rules)
    renamed = {}
    for key, tensor in state.items():
        if key == POSITION_KEY:
            continue
        head = _CHECKPOINT_HEAD.fullmatch(key)
        name = f"heads.{head[1]}.{head[2]}" if head else _rename(key, inverse)
        renamed[name] = tensor.reshape(-1) if key.endswith(".layer_scale") else tensor
    return renamed


def _rename(name: str, rules: Rules) -> str:
    for old, new in rules:
        if name.startswith(old):
            return new + name[len(old) :]
    raise ArgumentError(
        f"no rule renames {name!r}; known are names that begin with {rules[0][0]!r}, {rules[1][0]!r}, ..."
    )
