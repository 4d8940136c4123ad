"""ConvNeXt's blocks by oneDNN's fused operators: a convolution, its activation and the addition after it in one pass.

They are what TorchInductor's programs for CPUs call, so that an encoder built of them is nearly as fast, and there is
nothing to compile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from panecho_embed.models.rearranged import Block
from panecho_embed.models.torchvision_ops import ensure_torchvision

ensure_torchvision()
from timm.layers.activations import GELU  # noqa: E402


def can_fuse(dtype: torch.dtype) -> bool:
    """Does this build of PyTorch have the operators, and this CPU the instructions for numbers of that type?"""
    if not torch.backends.mkldnn.is_available():
        return False
    operators = torch.ops.mkldnn
    if dtype == torch.float32:
        return True
    return bool(
        operators._is_mkldnn_bf16_supported() if dtype == torch.bfloat16 else operators._is_mkldnn_fp16_supported()
    )


def fuse(encoder: nn.Module) -> None:
    """Replace the blocks of a `rearranged` encoder, which has its final dtype, on a CPU where `can_fuse`."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, Block) and type(child.act) is GELU and type(child.shortcut) is nn.Identity:
                setattr(module, name, _FusedBlock(child))


class _FusedBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm = block.norm
        self._conv_dw, self._fc1, self._fc2 = map(_Convolution, (block.conv_dw, block.fc1, block.fc2))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self._conv_dw(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self._fc2.added_to(x, self._fc1(inner, "gelu", "none"))


class _Convolution:
    """A convolution whose weights oneDNN orders as it likes, for frames of the size that come first."""

    def __init__(self, convolution: Any) -> None:
        self._weight: Tensor = convolution.weight.detach()
        self._bias: Tensor | None = None if convolution.bias is None else convolution.bias.detach()
        self._geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self._is_ordered = False

    def __call__(self, x: Tensor, activation: str = "none", algorithm: str | None = None) -> Tensor:
        self._order(x)
        done: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._geometry, activation, [], algorithm
        )
        return done

    def added_to(self, other: Tensor, x: Tensor) -> Tensor:
        """Its output for `x` plus `other`, in the place of `other`."""
        self._order(x)
        done: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, self._weight, self._bias, *self._geometry, "add", None, None, [], None
        )
        return done

    def _order(self, x: Tensor) -> None:
        if not self._is_ordered:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._geometry, list(x.shape))
            self._is_ordered = True
