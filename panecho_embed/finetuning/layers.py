"""A model's layers from the pixels to the heads: which of them learn, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from panecho_embed.core.errors import ArgumentError
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe import OptimizerSettings

_CONTAINERS = (nn.Sequential, nn.ModuleList)
# A module that holds nearly all that its parent holds is looked into.
_MOST = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A part of a model that gets one learning rate."""

    name: str
    module: nn.Module


def layers_of(model: FineTuneModel) -> list[Layer]:
    """The layers with weights, from the pixels to the last one before the heads."""
    return [
        Layer(name, module)
        for part in ("image_encoder", "clip_encoder")
        for name, module in _opened(part, getattr(model, part))
        if _size(module)
    ]


def choose_trainable(model: FineTuneModel, trainable: str) -> list[Layer]:
    """Freeze what is not to learn, as `ModelSettings.trainable` says; returns the frozen layers.

    Raises ArgumentError if there are fewer layers than "last-N" asks for.
    """
    layers = layers_of(model)
    if trainable == "all":
        frozen = []
    elif trainable == "heads":
        frozen = layers
    elif trainable == "temporal":
        frozen = [layer for layer in layers if layer.name.startswith("image_encoder")]
    else:
        count = int(trainable.removeprefix("last-"))
        if count > len(layers):
            names = ", ".join(layer.name for layer in layers)
            raise ArgumentError(f"model.trainable is {trainable}; the start has {len(layers)} layers: {names}")
        frozen = layers[: len(layers) - count]
    for layer in frozen:
        layer.module.requires_grad_(False)
    return frozen


def parameter_groups(model: FineTuneModel, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Groups for torch's optimisers: the heads at the full rate, every layer before them times `layer_decay` more.

    Biases, norms and other vectors are not decayed.
    """
    parts = [("heads", model.heads), *((layer.name, layer.module) for layer in reversed(layers_of(model)))]
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for depth, (name, module) in enumerate(parts):
        parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(map(id, parameters))
        for decays in (True, False):
            some = [p for p in parameters if (p.ndim > 1) == decays]
            if some:
                groups.append(
                    {
                        "name": f"{name}{'' if decays else ' (not decayed)'}",
                        "params": some,
                        "lr": settings.lr * settings.layer_decay**depth,
                        "weight_decay": settings.weight_decay if decays else 0.0,
                    }
                )
    return groups


def set_training(model: nn.Module, frozen: Sequence[Layer]) -> None:
    """Train mode, but for frozen layers, whose batch statistics and dropout stay as in use."""
    model.train()
    for layer in frozen:
        layer.module.eval()


def _opened(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A module's children by name; containers, and a child that is nearly all of it, are opened in turn."""
    children = list(module.named_children())
    if not children:
        yield name, module
        return
    if any(True for _ in module.parameters(recurse=False)):
        # What no child holds, such as a position table, is met first.
        yield name, _Own(module)
    for child_name, child in children:
        inner = f"{name}.{child_name}"
        if isinstance(child, _CONTAINERS) or _size(child) > _MOST * _size(module):
            yield from _opened(inner, child)
        else:
            yield inner, child


class _Own(nn.Module):
    """The parameters of a module that are not its children's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.own = nn.ParameterList(module.parameters(recurse=False))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
