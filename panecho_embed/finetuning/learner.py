"""A model that learns from batches: its layers, gradients over batches and processes, optimiser, learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Failure
from panecho_embed.finetuning.data import Fold
from panecho_embed.finetuning.model import FineTuneModel, Loss, mean_loss
from panecho_embed.finetuning.processes import Processes
from panecho_embed.finetuning.recipe import OptimizerSettings, Recipe, ScheduleSettings
from panecho_embed.finetuning.sampling import Batch

_CONTAINERS = (nn.Sequential, nn.ModuleList)
# A module that holds nearly all that its parent holds is looked into.
_MOST = 0.9
_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def _running_mean(decay: float) -> Callable[..., None]:
    """Averages as `AveragedModel` wants them: of few steps at first, or the first weights would stay in for long."""

    def average(averaged: Any, current: Any, steps: Any) -> None:
        done = float(steps)
        get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averaged, current, steps)

    return average


class Learner:
    """A model, its loss and its optimiser. note: receives the videos that can't be decoded."""

    def __init__(
        self,
        model: FineTuneModel,
        fold: Fold,
        recipe: Recipe,
        processes: Processes,
        note: Callable[[Sequence[Failure]], object],
    ) -> None:
        self._recipe, self._processes, self._note = recipe, processes, note
        self._targets = torch.from_numpy(fold.targets.values).float()
        self.loss = Loss(fold.targets.tasks, fold.targets.values[fold.train], recipe.loss)
        self._model = processes.synced(model)
        self._frozen = choose_trainable(self._model, recipe.model.trainable)
        self._wrapped = processes.wrapped(self._model)
        groups = parameter_groups(self._model, recipe.optimizer)
        self._rates: list[float] = [group["lr"] for group in groups]
        self._optimizer = _OPTIMIZERS[recipe.optimizer.name](groups)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=processes.precision == "fp16")
        decay = recipe.optimizer.ema
        average = _running_mean(decay)
        self._averaged = AveragedModel(self._model, multi_avg_fn=average, use_buffers=True) if decay else None
        self.rate = Rate(recipe.schedule, higher_is_better=recipe.early_stopping.monitor == "score")

    @property
    def evaluated(self) -> FineTuneModel:
        """The model whose predictions count: with the running mean of the weights, if the recipe has one."""
        if self._averaged is None:
            return self._model
        averaged = self._averaged.module
        assert isinstance(averaged, FineTuneModel)
        return averaged

    @property
    def heads_rate(self) -> float:
        """The heads' learning rate in the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def begin_epoch(self) -> None:
        """Turn to training after an evaluation."""
        set_training(self._model, self._frozen)

    def set_step(self, epochs_done: float, seed: Sequence[int], step: float = 0.0) -> None:
        """Set the rates of a step that ends at `epochs_done` and is that part of an epoch; what dropout draws from."""
        factor = self.rate.factor(epochs_done, step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        state = np.random.SeedSequence([*seed, self._processes.index]).generate_state(1)
        torch.manual_seed(int(state[0]))

    def gradients(self, videos: Ints, micro_batches: int, stream: Iterator[Batch]) -> Tensor:
        """The gradient of the loss over `videos`, of which this process's share comes in micro batches.

        Returns (2,) on the device: its share of the loss, and how many of the videos it could decode; the sums over
        processes are the loss and their number. A video that can't be decoded has a loss of 0.
        """
        processes = self._processes
        targets = self._targets[torch.from_numpy(videos)]
        weights = self.loss.weights(targets, torch.ones(len(targets))).to(processes.device)
        total = torch.zeros(2, device=processes.device)
        self._optimizer.zero_grad(set_to_none=True)
        for number in range(micro_batches):
            last = number == micro_batches - 1
            with nullcontext() if last else processes.no_sync(self._wrapped):
                total += self._one(next(stream), weights)
        return total

    def update(self) -> None:
        """Take the step that the gradients say."""
        limit = self._recipe.optimizer.clip_norm
        if limit:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), limit)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._averaged is not None:
            self._averaged.update_parameters(self._model)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "model": self._model.state_dict(),
            "averaged": None if self._averaged is None else self._averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "rate": self.rate.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._model.load_state_dict(state["model"])
        if self._averaged is not None:
            self._averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.rate.restore(state["rate"])

    def _one(self, batch: Batch, weights: Tensor) -> Tensor:
        """Add the gradient of a micro batch; returns its share of the step's loss, and how many clips it has."""
        processes = self._processes
        if batch.failures:
            self._note(batch.failures)
        pixels = batch.pixels.to(processes.device, non_blocking=True)
        targets = self._targets[batch.video].to(processes.device, non_blocking=True)
        counted = batch.counted.to(processes.device, torch.float32, non_blocking=True)
        with processes.autocast():
            outputs = self._wrapped(pixels)
        part = mean_loss(self.loss.sums(outputs, targets, counted), weights)
        # Gradients are averaged over processes; the loss is a sum over them.
        self._scaler.scale(part * processes.count).backward()
        return torch.stack([part.detach(), counted.sum()])


class Rate:
    """A factor on every layer's learning rate: warm-up, then constant, cosine or stepwise down on a plateau."""

    def __init__(self, settings: ScheduleSettings, *, higher_is_better: bool) -> None:
        self._settings = settings
        # torch's scheduler wants an optimiser; this one's rate is the factor.
        self._factor = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self._plateau = ReduceLROnPlateau(
            self._factor,
            mode="max" if higher_is_better else "min",
            factor=settings.factor,
            patience=settings.patience,
        )

    def factor(self, epochs_done: float, step: float = 0.0) -> float:
        """The factor after this many epochs, whole and in part; with "plateau" as of the last `epoch_ended`.

        step: what part of an epoch the step is that ends there. The cosine is taken at its middle: at its end, the last
        step would learn nothing.
        """
        settings = self._settings
        if epochs_done < settings.warmup_epochs:
            return epochs_done / settings.warmup_epochs
        if settings.name == "cosine":
            share = (epochs_done - step / 2 - settings.warmup_epochs) / (settings.epochs - settings.warmup_epochs)
            return 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))
        return float(self._factor.param_groups[0]["lr"])

    def epoch_ended(self, monitored: float) -> None:
        """Tell how good the epoch was."""
        if self._settings.name == "plateau":
            self._plateau.step(monitored)

    def state(self) -> dict[str, Any]:
        """To be given to `restore`."""
        return {"factor": self._factor.param_groups[0]["lr"], "plateau": self._plateau.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._factor.param_groups[0]["lr"] = state["factor"]
        self._plateau.load_state_dict(state["plateau"])


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A part of a model that gets one learning rate."""

    name: str
    module: nn.Module


def layers_of(model: FineTuneModel) -> list[_Layer]:
    """The layers with weights, from the pixels to the last one before the heads."""
    return [
        _Layer(name, module)
        for part in ("image_encoder", "clip_encoder")
        for name, module in _opened(part, getattr(model, part))
        if _size(module)
    ]


def choose_trainable(model: FineTuneModel, trainable: str) -> list[_Layer]:
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


def set_training(model: nn.Module, frozen: Sequence[_Layer]) -> None:
    """Train mode, except for frozen layers, whose batch statistics and dropout stay as in use."""
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
