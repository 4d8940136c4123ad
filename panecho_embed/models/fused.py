"""ConvNeXt's blocks and PanEcho's clip encoder by oneDNN's fused operators: products and what follows in one pass.

They are what TorchInductor's programs for CPUs call, so that an encoder built of them is nearly as fast, and there is
nothing to compile. Weights are packed once, as oneDNN wants them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from panecho_embed.models.panecho import ClipEncoder
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


def fused_clip_encoder(encoder: nn.Module, dtype: torch.dtype) -> FusedClipEncoder | None:
    """The same encoder fused, on a CPU where `can_fuse`; None for another than PanEcho's."""
    if type(encoder) is not ClipEncoder or encoder.transformer.norm is not None:
        return None
    return FusedClipEncoder(encoder, dtype) if all(map(_is_known, encoder.transformer.layers)) else None


class FusedClipEncoder(nn.Module):
    """A `ClipEncoder`, (N, L, dim) float32 to (N, dim) float32, with the products computed in `dtype`, on a CPU.

    What is added up and normalised stays float32, as under autocast.
    """

    def __init__(self, encoder: ClipEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self._positions = encoder.positions_of
        self._layers = [_Layer(layer, dtype) for layer in encoder.transformer.layers]

    def forward(self, frames: Tensor) -> Tensor:
        """See the class."""
        count, length, dim = frames.shape
        x = (frames + self._positions(length)).view(count * length, dim)
        for layer in self._layers:
            x = layer(x, count)
        return x.view(count, length, dim).mean(dim=1)


class _Layer:
    """A post-norm layer of a Transformer: attention, and two linear layers with a ReLU between them."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention = layer.self_attn
        self._heads: int = attention.num_heads
        self._project = _Linear(attention.in_proj_weight, attention.in_proj_bias, dtype)
        self._out = _Linear(attention.out_proj.weight, attention.out_proj.bias, dtype)
        self._linear1 = _Linear(layer.linear1.weight, layer.linear1.bias, dtype)
        self._linear2 = _Linear(layer.linear2.weight, layer.linear2.bias, dtype)
        self._norm1, self._norm2 = layer.norm1, layer.norm2

    def __call__(self, x: Tensor, clips: int) -> Tensor:
        """(clips * L, dim) float32 to the same shape."""
        x = self._norm1(self._out.added_to(x, self._attended(x, clips)))
        done: Tensor = self._norm2(self._linear2.added_to(x, self._linear1(x, "relu")))
        return done

    def _attended(self, x: Tensor, clips: int) -> Tensor:
        query, key, value = self._project(x).view(clips, -1, 3, self._heads, x.shape[1] // self._heads).unbind(2)
        attended = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        return attended.transpose(1, 2).reshape(x.shape)


class _Linear:
    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), None)
        self._bias = bias.detach().to(dtype)

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        done: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self._dtype), self._weight, self._bias, activation, [], ""
        )
        return done

    def added_to(self, other: Tensor, x: Tensor) -> Tensor:
        """Its output for `x` plus `other`, which is float32, as the sum is."""
        if self._dtype != torch.float32:
            return other + self(x)
        done: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, "add")
        return done


def _is_known(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.TransformerEncoderLayer
        and not layer.norm_first
        and layer.activation is nn.functional.relu
        and layer.self_attn.batch_first
        and layer.self_attn.in_proj_bias is not None
        and layer.linear1.bias is not None
    )
