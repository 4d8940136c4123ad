"""The processes that train together: a single one, or as many as torchrun or accelerate started."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from panecho_embed.core.errors import ArgumentError, NotInstalledError, PanEchoEmbedError
from panecho_embed.core.provenance import Precision
from panecho_embed.core.workers import end_with_torchrun
from panecho_embed.finetuning.recipe import RunPrecision
from panecho_embed.models.backbone import resolve_device

try:
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list, gather_object
except ImportError as error:
    raise NotInstalledError("accelerate", "finetune") from error

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=nn.Module)

_DEVICES = ("auto", "cpu", "cuda", "mps")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class Processes:
    """This process among `count`, on its device, with a precision of arithmetic."""

    accelerator: Accelerator
    precision: Precision

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self.accelerator.num_processes)

    @property
    def index(self) -> int:
        """Which one this is, from 0."""
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.index == 0

    @property
    def device(self) -> torch.device:
        """Where this one computes."""
        return torch.device(self.accelerator.device)

    @property
    def on_cuda(self) -> bool:
        """Whether that is a CUDA device."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[object]:
        """Compute inside in the precision; weights stay float32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_HALF[self.precision])

    def synced(self, model: _Model) -> _Model:
        """The model with batch norms that take their statistics over all processes, where there are several.

        Only on CUDA: torch has no such batch norm for CPUs.
        """
        if self.count > 1 and self.on_cuda:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def share_statistics(self, model: nn.Module) -> None:
        """Give all processes the mean of what their batch norms have counted, so that they evaluate the same model."""
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        for counted in (statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)):
            if self.count > 1 and counted is not None:
                counted.copy_(self.summed(counted) / self.count)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model on its device, in step with its copies in the other processes."""
        prepared: nn.Module = self.accelerator.prepare_model(model)
        return prepared

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]:
        """Add gradients up inside without telling the other processes."""
        context: AbstractContextManager[object] = self.accelerator.no_sync(model)
        return context

    def summed(self, values: Tensor) -> Tensor:
        """The sum over all processes, in all of them."""
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total

    def gathered(self, items: list[_T]) -> list[_T]:
        """The items of all processes, in all of them."""
        if self.count == 1:
            return items
        everything: list[_T] = gather_object(items)
        return everything

    def on_main(self, work: Callable[[], _T]) -> _T:
        """What `work` returns in the main process, in all of them; an error that it raises on purpose as well."""
        held: list[Any] = [None]
        if self.is_main:
            try:
                held = [work()]
            except PanEchoEmbedError as error:
                held = [error]
        if self.count > 1:
            broadcast_object_list(held, from_process=0)
        if isinstance(held[0], PanEchoEmbedError):
            raise held[0]
        shared: _T = held[0]
        return shared

    def wait(self) -> None:
        """Go on when all are here."""
        self.accelerator.wait_for_everyone()


def join_processes(device: str, precision: RunPrecision) -> Processes:
    """This process, together with those that were started beside it.

    device: "auto", "cpu", "cuda" or "mps"; each process takes the card of its number. Raises ArgumentError for a
    device that is not there, and for fp16 on a CPU.
    """
    if device not in _DEVICES:
        raise ArgumentError(
            f"device is {device!r}; allowed are {', '.join(_DEVICES)}. Choose among cards with CUDA_VISIBLE_DEVICES"
        )
    wanted = resolve_device(device)
    end_with_torchrun()
    try:
        # Precision is this module's own business: accelerate fixes it for the life of the process.
        accelerator = Accelerator(cpu=wanted.type == "cpu", mixed_precision="no")
    except ValueError as error:
        raise ArgumentError(f"device is {device!r}, and this process computes elsewhere already: {error}") from error
    if precision == "auto":
        precision = "fp16" if accelerator.device.type == "cuda" else "fp32"
    if precision == "fp16" and accelerator.device.type != "cuda":
        raise ArgumentError(
            f"precision is fp16, which needs a CUDA device to train on; here is {accelerator.device.type} "
            "(--set precision=bf16 or fp32)"
        )
    return Processes(accelerator, precision)


def leave_processes() -> None:
    """Take leave of the other processes, at the end of a command."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
