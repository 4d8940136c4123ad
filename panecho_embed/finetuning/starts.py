"""Starting points: a backbone by name, fed as the recipe says, made ready to be trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.digests import checked_sha256
from panecho_embed.core.errors import ArgumentError, WeightsNotFoundError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.finetuning.recipe import ModelSettings, Recipe
from panecho_embed.models import zoo
from panecho_embed.models.backbones import Backbone, MeanOverFrames, load_backbone
from panecho_embed.models.panecho import PANECHO_FEEDING, ClipEncoder
from panecho_embed.models.torchvision_models import torchvision_feeding
from panecho_embed.models.weights import KNOWN, locate

RANDOM = "random"
_HEADS_OF_ATTENTION = 8
_CLIPS = {
    "panecho": PANECHO_FEEDING.clips,
    "panecho-image": PANECHO_FEEDING.clips,
    RANDOM: PANECHO_FEEDING.clips,
    "imagenet": zoo.IMAGENET_FEEDING.clips,
    "echoclip": zoo.ECHOCLIP_FEEDING.clips,
    "echoprime": zoo.ECHOPRIME_FEEDING.clips,
    "kinetics": torchvision_feeding("r3d_18").clips,
}


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Modules to train, and what goes with them.

    image_encoder: (P, 3, S, S) -> (P, D), or the identity if `whole_clips`. clip_encoder: (N, L, D) -> (N, dim), or
    (N, L, 3, S, S) -> (N, dim) if `whole_clips`. plane_order: which pictures a clip is made of. feeding: how frames
    become the pixels that they take; a model normalises by it. own_feeding: that of the weights. patients: that the
    weights were trained on, as their file says.
    """

    name: str
    image_encoder: nn.Module
    clip_encoder: nn.Module
    dim: int
    whole_clips: bool
    plane_order: PlaneOrder
    feeding: Feeding
    own_feeding: Feeding
    weights: WeightsInfo
    patients: TrainingPatients = field(default_factory=TrainingPatients)


def load_start(
    name: str, settings: ModelSettings, frames: int, *, weights: str | Path | None = None, seed: int = 0
) -> Start:
    """The starting point `name`, any that `load_backbone` takes.

    "random" is PanEcho's architecture, and the one start whose pixels are only scaled to 0-1, as the paper fine-tuned
    it: no weights file is opened. frames: of a clip, 0 for the start's own. weights: a file in place of the one found
    or fetched. seed: of all weights that no file gives. Raises ArgumentError for settings that the start can't
    take, WeightsError, WeightsNotFoundError.
    """
    if name != RANDOM and settings.width != 1:
        raise ArgumentError(
            f"model.width is {settings.width:g}; it is for random weights, and {name} has its own (--set model.width=1)"
        )
    backbone = fed_backbone(name, settings, weights=weights, seed=seed)
    frames = frames or (backbone.own_feeding or backbone.feeding).clips.frames_per_clip
    _check(backbone, settings, frames)
    with seeded(seed):
        clip_encoder = _clip_encoder(backbone, settings, frames)
    for module in (backbone.image_encoder, clip_encoder):
        module.requires_grad_(True)
    return Start(
        name,
        backbone.image_encoder,
        clip_encoder,
        backbone.dim if backbone.image_dim is None else _dim_of(backbone, clip_encoder),
        backbone.image_dim is None,
        _plane_order(backbone, settings),
        backbone.feeding,
        backbone.own_feeding or backbone.feeding,
        backbone.weights,
        backbone.patients,
    )


def with_own_clips(recipe: Recipe, name: str, weights: str | Path | None = None) -> Recipe:
    """The recipe with the clips of the start `name` where it leaves them to the start.

    Weights are opened only for a start whose clips are not known without: one that is not of the package, or a file
    that may record others. Raises ArgumentError and WeightsError as `load_backbone` does.
    """
    if recipe.clips.frames and recipe.clips.frame_step:
        return recipe
    own = _CLIPS.get(name) if weights is None or name != "panecho" else None
    if own is None and name.startswith("timm:"):
        own = ClipPlan()
    if own is None:
        backbone = load_backbone(name, weights)
        own = (backbone.own_feeding or backbone.feeding).clips
    return replace(recipe, clips=recipe.clips.resolved(own))


def fed_backbone(name: str, settings: ModelSettings, *, weights: str | Path | None = None, seed: int = 0) -> Backbone:
    """The backbone of a start, fed as the settings say."""
    panecho = settings.feeding == "panecho"
    size = settings.image_size or (PANECHO_FEEDING.crop if panecho else None)
    if name == RANDOM:
        backbone = _random_start(weights, seed, settings).at_size(size)
    else:
        # timm makes a model of one size for another; any other model of one size keeps it.
        backbone = load_backbone(name, weights, seed, image_size=size if name.startswith("timm:") else None)
        if backbone.fixed_image_size and size not in (None, backbone.feeding.crop):
            raise ArgumentError(
                f"model.feeding is {settings.feeding}, model.image_size {settings.image_size}: that is {size} pixels a "
                f"side; {name} takes {backbone.feeding.crop} only (--set model.feeding=own --set model.image_size=0)"
            )
        backbone.at_size(size)
    if panecho:
        backbone.feeding = backbone.feeding.geometry_of(PANECHO_FEEDING.at_size(backbone.feeding.crop))
    return backbone


def _random_start(weights: str | Path | None, seed: int, settings: ModelSettings) -> Backbone:
    """PanEcho's architecture with random weights, as it is trained: in the settings' order of planes, on 0-1 pixels."""
    backbone = zoo.random(weights, seed, settings.width)
    backbone.plane_order = _plane_order(backbone, settings)
    return _of_plain_pixels(backbone)


def _plane_order(backbone: Backbone, settings: ModelSettings) -> PlaneOrder:
    """Which pictures a clip of this start is made of in training; see `ModelSettings.plane_order`."""
    if backbone.image_dim is None or settings.temporal == "none":
        return "frames"
    if backbone.weights.pretrained and _has_transformer(backbone):
        return backbone.plane_order
    return settings.plane_order


def weights_sha256(name: str, recipe: Recipe, weights: str | Path | None) -> str | None:
    """SHA-256 of the weights that `name` would begin from now; None where none are given and none lie here.

    Nothing is fetched. Raises WeightsError, and ArgumentError as `load_start` does.
    """
    published = name == "panecho-image" or name in {file.name for file in KNOWN}
    if not published:
        if weights is None:
            return None
        return load_start(name, recipe.model, recipe.clips.frames, weights=weights, seed=recipe.seed).weights.sha256
    try:
        path = locate(name, weights)
    except WeightsNotFoundError:
        if weights is not None:
            raise
        return None
    return None if path is None else checked_sha256(path)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw random weights inside from this seed, on the CPU, and leave the generators as they were."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def _of_plain_pixels(backbone: Backbone) -> Backbone:
    """The random start for pixels of 0-1: the same function of a picture, its normalisation moved into the first layer.

    In the published order any channel comes to any input of that layer, so what is moved is the mean over channels.

    The paper's fine-tuning from random weights knows no mean and deviation. But a first layer without bias gives 0 for
    the black around the sector, and the norm behind it divides by next to nothing: gradients of the first layer are
    then a million times those of all others, fp16 overflows, and Adam, which remembers them, leaves it where it is.
    """
    made_for = backbone.feeding
    plain = replace(made_for, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if backbone.plane_order == "published":
        mean, std = sum(made_for.mean) / 3, sum(made_for.std) / 3
        made_for = replace(made_for, mean=(mean, mean, mean), std=(std, std, std))
    layer: Any = backbone.image_encoder.get_submodule("stem.0")
    weight, bias = stem_for(layer.weight.detach(), layer.bias.detach(), made_for, plain)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    backbone.feeding = plain
    return backbone


def _clip_encoder(backbone: Backbone, settings: ModelSettings, frames: int) -> nn.Module:
    if backbone.image_dim is None:
        return backbone.clip_encoder
    if settings.temporal == "none":
        return MeanOverFrames()
    if _has_transformer(backbone):
        return backbone.clip_encoder
    return ClipEncoder(backbone.image_dim, frames)


def _has_transformer(backbone: Backbone) -> bool:
    return any(True for _ in backbone.clip_encoder.parameters())


def _dim_of(backbone: Backbone, clip_encoder: nn.Module) -> int:
    own = clip_encoder is backbone.clip_encoder
    assert backbone.image_dim is not None
    return backbone.dim if own else backbone.image_dim


def _check(backbone: Backbone, settings: ModelSettings, frames: int) -> None:
    name = backbone.name
    if backbone.image_dim is None:
        if settings.temporal == "none":
            raise ArgumentError(
                f"{name} sees clips as a whole and has no image encoder to be used alone; model.temporal must be "
                "transformer, or take another start (--init)"
            )
        if settings.trainable == "temporal":
            raise ArgumentError(
                f"model.trainable is temporal, but {name} has no transformer over pictures; all, heads or last-N"
            )
    elif settings.temporal == "transformer" and backbone.image_dim % _HEADS_OF_ATTENTION:
        raise ArgumentError(
            f"{name} gives {backbone.image_dim} numbers a picture; a transformer over them needs a multiple of "
            f"{_HEADS_OF_ATTENTION}. --set model.temporal=none averages the frames"
        )
    own = backbone.feeding.clips.frames_per_clip
    if backbone.fixed_clip_length and frames != own:
        raise ArgumentError(f"clips.frames is {frames}; {name} takes {own} (--set clips.frames={own})")
    if frames < backbone.min_frames:
        raise ArgumentError(
            f"clips.frames is {frames}; {name} takes {backbone.min_frames} or more (--set clips.frames=...)"
        )


def stem_for(weight: Tensor, bias: Tensor, mine: Feeding, theirs: Feeding) -> tuple[Tensor, Tensor]:
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


def _in_order(values: Sequence[float], mine: Feeding, theirs: Feeding) -> Sequence[float]:
    """Their numbers a channel, in my order of channels."""
    return values if mine.channel_order == theirs.channel_order else values[::-1]
