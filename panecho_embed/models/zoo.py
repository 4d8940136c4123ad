"""The encoders that come with the package: architecture, feeding and how a published file maps onto it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.models.backbone import Backbone, MeanOverFrames
from panecho_embed.models.checkpoint import (
    CONVNEXT_TINY,
    ECHOCLIP,
    from_checkpoint_names,
    matching_tensors,
    read_checkpoint,
    tensors_sha256,
    to_checkpoint_names,
)
from panecho_embed.models.panecho import DIM, PANECHO_FEEDING, PanEcho, TaskTable, channels_in, convnext, make_head
from panecho_embed.models.torchvision_models import UNTRAINED_COUNTER, WholeClips, torchvision_feeding
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.models.weights import find_weights, weights_info

ensure_torchvision()
from torchvision.models.video import mvit_v2_s, r3d_18  # noqa: E402

_WeightsArgument = str | Path | None

ECHOCLIP_FEEDING = Feeding(
    geometry="square",
    cut=0.1,
    resize=224,
    interpolation="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
"""A centre square, a tenth cut off each side, OpenCV's bicubic to 224, BGR. It sees frames, and has no clips."""

ECHOPRIME_FEEDING = replace(
    ECHOCLIP_FEEDING,
    channel_order="echoprime",
    scale=1.0,
    mean=(29.110628, 28.076836, 29.096405),
    std=(47.989223, 46.456997, 47.20083),
    mask="dicom",
    mask_method="echoprime",
    clips=ClipPlan(16, 2, num_clips=1, start=0, short="zeros"),
)
"""EchoCLIP's geometry on 0-255 pixels; the sector of a DICOM file; frames 0, 2, ..., 30, zeros after normalising."""

IMAGENET_FEEDING = Feeding(geometry="shortest", resize=236, interpolation="bilinear-antialias", channel_order="rgb")
"""torchvision's preset for ConvNeXt-Tiny."""

# What an open_clip checkpoint holds besides its image tower.
_OPEN_CLIP_TEXT = (
    r"(text|transformer|token_embedding|ln_final)\..+"
    r"|positional_embedding|text_projection|logit_scale|logit_bias|attn_mask"
)


def panecho(weights: _WeightsArgument) -> Backbone:
    """PanEcho's embedding of a clip. 256 x 256 resized with pixel areas, 224 cut out, BGR; DICOM files are masked.

    Its pictures are those of the released forward pass, three consecutive planes of the clip each, not frames: see
    `panecho_embed.core.planes`. A fine-tuned file that records another order, other pixels and clips is given those.
    """
    return _from_panecho(PanEcho(backbone_only=True, weights=weights), "panecho")


def panecho_image(weights: _WeightsArgument) -> Backbone:
    """Only PanEcho's image encoder, on frames; a clip is the mean of its frames."""
    return _from_panecho(PanEcho(image_encoder_only=True, weights=weights), "panecho-image")


def random(weights: _WeightsArgument, seed: int, width: float = 1.0) -> Backbone:
    """PanEcho's architecture, order of planes and feeding with random weights, the same for the same seed.

    width: channels as a share of PanEcho's.

    The paper's fine-tuning from random weights fed 0-1 pixels without mean and std. That is a setting of such training:
    here, where nothing is trained, a stem without bias and the LayerNorm after it would make frozen features blind to
    brightness, and the weights would no longer be all that differs from PanEcho.
    """
    return _from_panecho(_random_panecho(weights, seed, backbone_only=True, width=width), "random")


def panecho_with_heads(
    name: str, weights: _WeightsArgument, seed: int, tasks: str | Sequence[str], task_table: TaskTable
) -> tuple[Backbone, PanEcho]:
    """The backbone `name`, panecho or random, and the model that it is part of, which reads its clip embeddings.

    The model gives probabilities. Random heads are each drawn from a separate seed, so that a task has the same one
    whichever others are asked for, and the backbone is the same as without them.
    Raises ArgumentError for another name, and as `PanEcho` does.
    """
    if name == "panecho":
        model = PanEcho(weights=weights, tasks=tasks, task_table=task_table, activations=True)
    elif name == "random":
        model = _random_panecho(weights, seed, tasks=tasks, task_table=task_table, activations=True)
    else:
        raise ArgumentError(f"{name} has no reporting heads; allowed are panecho and random (--backbone)")
    return _from_panecho(model, name), model


def imagenet(weights: _WeightsArgument) -> Backbone:
    """ConvNeXt-Tiny trained on ImageNet-1K by torchvision (IMAGENET1K_V1), RGB; a clip is the mean of its frames."""
    path = find_weights("imagenet", weights)
    file = read_checkpoint(path)
    found = file.tensors
    channels = channels_in("tiny", found, "features.0.0.weight")
    encoder = convnext("tiny", channels)
    taken = matching_tensors(
        to_checkpoint_names(encoder.state_dict(), CONVNEXT_TINY),
        found,
        model="torchvision's ConvNeXt-Tiny",
        path=path,
        spare=r"classifier\.2\.(weight|bias)",
    )
    encoder.load_state_dict(from_checkpoint_names(taken, CONVNEXT_TINY))
    dim = 8 * channels
    info = weights_info("imagenet", path, file.recorded.licence)
    return Backbone("imagenet", encoder, MeanOverFrames(), dim, dim, IMAGENET_FEEDING, info)


def echoclip(weights: _WeightsArgument) -> Backbone:
    """EchoCLIP's image tower (ConvNeXt-Base and its projection to 512), BGR as released.

    The vector of a frame has unit length. A clip is the mean of its frames' vectors, not scaled again, as published.
    """
    path = find_weights("echoclip", weights)
    file = read_checkpoint(path)
    found = file.tensors
    channels = channels_in("base", found, "visual.trunk.stem.0.weight")
    encoder = nn.Sequential()
    encoder.add_module("trunk", convnext("base", channels))
    encoder.add_module("proj", nn.Linear(8 * channels, 4 * channels, bias=False))
    taken = matching_tensors(
        to_checkpoint_names(encoder.state_dict(), ECHOCLIP),
        found,
        model="EchoCLIP's image tower",
        path=path,
        spare=_OPEN_CLIP_TEXT,
    )
    encoder.load_state_dict(from_checkpoint_names(taken, ECHOCLIP))
    info = weights_info("echoclip", path, file.recorded.licence)
    dim = 4 * channels
    return Backbone("echoclip", encoder, MeanOverFrames(), dim, dim, ECHOCLIP_FEEDING, info, l2_normalised=True)


def kinetics(weights: _WeightsArgument) -> Backbone:
    """3-D ResNet-18 trained on Kinetics-400 by torchvision (KINETICS400_V1), RGB, 112 x 112, without its classifier.

    Its clips have 16 frames at 15 per second, 5 a video, as torchvision states its accuracy.
    """
    path = find_weights("kinetics", weights)
    file = read_checkpoint(path)
    model = r3d_18(weights=None)
    model.fc = nn.Identity()
    taken = matching_tensors(
        model.state_dict(),
        file.tensors,
        model="torchvision's r3d_18",
        path=path,
        spare=r"fc\.(weight|bias)",
        optional=UNTRAINED_COUNTER,
    )
    model.load_state_dict({**model.state_dict(), **taken})
    feeding = torchvision_feeding("r3d_18")
    info = weights_info("kinetics", path, file.recorded.licence)
    return Backbone("kinetics", nn.Identity(), WholeClips(model), 512, None, feeding, info, pooling="3d")


def echoprime(weights: _WeightsArgument) -> Backbone:
    """EchoPrime's video encoder (MViT-v2-S): one clip a video, frames 0, 2, ..., 30.

    It is fed as in its published pipeline, see `ECHOPRIME_FEEDING` and docs/models.md. Its weights are part of a zip
    release and are only read from a file.
    """
    path = find_weights("echoprime", weights)
    model = mvit_v2_s(weights=None)
    model.head[-1] = nn.Linear(DIM, 512)
    file = read_checkpoint(path)
    found = file.tensors
    # The whole head may have been replaced, or only its last layer, behind the dropout.
    found = {
        name.replace("head.", "head.1.") if name in ("head.weight", "head.bias") else name: found[name]
        for name in found
    }
    model.load_state_dict(matching_tensors(model.state_dict(), found, model="EchoPrime's video encoder", path=path))
    return Backbone(
        "echoprime",
        nn.Identity(),
        WholeClips(model),
        dim=512,
        image_dim=None,
        feeding=ECHOPRIME_FEEDING,
        weights=weights_info("echoprime", path, file.recorded.licence),
        pooling="3d",
        fixed_clip_length=True,
        fixed_image_size=True,
    )


def _random_panecho(weights: _WeightsArgument, seed: int, **arguments: Any) -> PanEcho:
    if weights is not None:
        raise ArgumentError(f"weights is {str(weights)!r}; the random backbone takes none (--seed chooses them)")
    if not -(2**63) <= seed < 2**63:
        raise ArgumentError(f"seed is {seed}; allowed are whole numbers of 64 bits (--seed)")
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Only the CPU's generator: torch.manual_seed would reseed the accelerators too.
        torch.default_generator.manual_seed(seed)
        model = PanEcho(pretrained=False, **arguments)
        for task in model.tasks:
            of_task = hashlib.sha256(f"{seed} {task.name}".encode()).digest()
            torch.default_generator.manual_seed(int.from_bytes(of_task[:4], "big"))
            model.heads[task.name] = make_head(task, model.dim)
        # Drawn after the module was put into eval mode.
        model.eval()
    backbone = {key: value for key, value in model.state_dict().items() if not key.startswith("heads.")}
    model.weights_info = WeightsInfo(
        source=f"random (seed {seed})",
        sha256=tensors_sha256(backbone),
        licence="none (random weights)",
        pretrained=False,
    )
    return model


def _from_panecho(model: PanEcho, name: str) -> Backbone:
    assert model.weights_info is not None
    return Backbone(
        name,
        model.image_encoder,
        model.clip_encoder or MeanOverFrames(),
        dim=model.dim,
        image_dim=model.dim,
        feeding=model.recorded.feeding or PANECHO_FEEDING,
        weights=model.weights_info,
        patients=model.recorded.patients,
        pooling="mean" if model.clip_encoder is None else "transformer",
        plane_order="frames" if model.clip_encoder is None else model.plane_order,
    )
