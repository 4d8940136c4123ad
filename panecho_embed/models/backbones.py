"""Encoders by name: those of the package, timm's, and a user's own.

A custom backbone takes ten lines; put `factory` under the entry-point group `panecho_embed.backbones` of your
package, and every command knows it by name, without the last line:

    import torch
    from panecho_embed.models.backbones import Backbone, MeanOverFrames, load_backbone, register_backbone
    from panecho_embed.core.feeding import Feeding
    from panecho_embed.core.provenance import WeightsInfo

    def factory(weights, seed):
        encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 16, 16), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        info = WeightsInfo(source="mine", sha256="0" * 64, licence="MIT", pretrained=False)
        return Backbone("tiny", encoder, MeanOverFrames(), dim=8, image_dim=8, feeding=Feeding(), weights=info)

    register_backbone("tiny", factory)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import nearest

if TYPE_CHECKING:
    import torch

    from panecho_embed.models.backbone import Backbone, MeanOverFrames, Pooling

__all__ = [
    "Backbone",
    "Factory",
    "MeanOverFrames",
    "Pooling",
    "backbone_names",
    "check_backbone_name",
    "load_backbone",
    "register_backbone",
]

Factory = Callable[[str | Path | None, int], "Backbone"]
"""factory(weights, seed): weights is the user's file, or None; seed is for random initialisation."""

_ENTRY_POINTS = "panecho_embed.backbones"
_TIMM = "timm:"
_TORCHVISION = "torchvision:"


def __getattr__(name: str) -> Any:
    # Names can be checked without torch: what needs it is loaded when it is used.
    if name in ("Backbone", "MeanOverFrames", "Pooling"):
        return getattr(importlib.import_module("panecho_embed.models.backbone"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _own(name: str) -> Factory:
    """The factory of a backbone of this package: the function of its name in `zoo`."""

    def make(weights: str | Path | None, seed: int) -> Backbone:
        from panecho_embed.models import zoo

        made: Backbone = getattr(zoo, name.replace("-", "_"))(weights, *([seed] if name == "random" else []))
        return made

    return make


_factories: dict[str, Factory] = {
    name: _own(name) for name in ("panecho", "panecho-image", "imagenet", "echoclip", "kinetics", "random", "echoprime")
}


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
) -> Backbone:
    """Load a backbone by name, with its weights.

    Parameters
    ----------
    name : str
        One of `backbone_names()`, "timm:MODEL" for any image model of timm, or "torchvision:MODEL" for a video model of
        torchvision.
    weights : str or Path, optional
        Weights file. Default: looked for, and fetched, as `panecho_embed.models.weights` says.
    seed : int
        Seed for the weights of "random"; no other name ever has random weights.
    device : str or torch.device
        Where the model is put.
    image_size : int, optional
        Side of the model's input in pixels. Default: the size that it was trained with.

    Returns
    -------
    Backbone
        Picture encoder, pooling over a clip, and how they are fed.

    Raises
    ------
    ArgumentError
        For an unknown name, with the nearest ones.
    WeightsNotFoundError, WeightsError
        If the weights are unavailable, or do not fit the model.
    """
    check_backbone_name(name)
    from panecho_embed.models.backbone import resolve_device
    from panecho_embed.models.timm_models import timm_backbone
    from panecho_embed.models.torchvision_models import torchvision_backbone

    where = resolve_device(device)
    if name.startswith(_TIMM):
        backbone = timm_backbone(name.removeprefix(_TIMM), weights, image_size)
    elif name.startswith(_TORCHVISION):
        backbone = torchvision_backbone(name.removeprefix(_TORCHVISION), weights)
    else:
        backbone = _make(name, weights, seed)
    return backbone.at_size(image_size).to(where)


def register_backbone(name: str, factory: Factory) -> None:
    """Make a custom backbone known by name in this process; the head of this module shows one.

    Parameters
    ----------
    name : str
        A name that no other backbone has.
    factory : callable
        factory(weights, seed) returns the `Backbone`; `weights` is the user's file or None.

    Raises
    ------
    ArgumentError
        If the name is taken.
    """
    if not name or name in backbone_names() or name.startswith((_TIMM, _TORCHVISION)):
        raise ArgumentError(f"a backbone can't be called {name!r}; taken are {', '.join(backbone_names())}")
    _factories[name] = factory


def backbone_names() -> list[str]:
    """Every name that `load_backbone` takes, except timm's and torchvision's models."""
    return [*_factories, *(point.name for point in metadata.entry_points(group=_ENTRY_POINTS))]


def check_backbone_name(name: str) -> None:
    """Raise ArgumentError for a name that `load_backbone` does not know; torch is not loaded for it."""
    names = backbone_names()
    if name not in names and not name.startswith((_TIMM, _TORCHVISION)):
        raise ArgumentError(
            f"no backbone is called {name!r}{nearest(name, names)}; allowed: {', '.join(names)}, "
            f"{_TIMM}MODEL for any image model of timm, {_TORCHVISION}MODEL for a video model of torchvision "
            "(--backbone)"
        )


def _make(name: str, weights: str | Path | None, seed: int) -> Backbone:
    from panecho_embed.models.backbone import Backbone

    factory = _factories.get(name)
    if factory is None:
        factory = next(point for point in metadata.entry_points(group=_ENTRY_POINTS) if point.name == name).load()
    backbone = factory(weights, seed)
    if not isinstance(backbone, Backbone):
        raise ArgumentError(
            f"the factory of the backbone {name!r} returned a {type(backbone).__name__}, not a Backbone"
        )
    return backbone
