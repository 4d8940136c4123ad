"""The same image encoder, arranged for a CPU: pixels as they come, ConvNeXt's linear layers as 1x1 convolutions."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from panecho_embed.models.backbone import Backbone
from panecho_embed.models.torchvision_ops import ensure_torchvision

ensure_torchvision()
from timm.layers.mlp import Mlp  # noqa: E402
from timm.models.convnext import ConvNeXtBlock  # noqa: E402


class PixelEncoder(nn.Module):
    """Pictures of uint8 pixels to vectors: what `Backbone.normalise` and `Backbone.encode_pictures` do.

    encoder: takes what `Backbone.normalise` gives, converted to `dtype`, in which its weights are too.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, encoder: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.encoder = encoder.to(dtype)
        self._scale = backbone.feeding.scale
        self._dtype = dtype
        self._l2_normalised = backbone.l2_normalised
        for name in ("mean", "std"):
            values = torch.tensor(getattr(backbone.feeding, name), dtype=torch.float32)
            self.register_buffer(name, values)

    def forward(self, pixels: Tensor, channels: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 and (P, 3) int64, the channel of every plane, to (P, image_dim) float32."""
        mean, std = self.mean[channels][..., None, None], self.std[channels][..., None, None]
        pictures = (pixels.to(torch.float32) * self._scale - mean) / std
        encoded: Tensor = self.encoder(pictures.to(self._dtype, memory_format=torch.channels_last))
        encoded = encoded.to(torch.float32)
        return nn.functional.normalize(encoded) if self._l2_normalised else encoded


def rearranged(encoder: nn.Module) -> tuple[nn.Module, int]:
    """A copy whose ConvNeXt blocks compute the same in another order, and how many blocks that are.

    oneDNN runs a 1x1 convolution of channels-last frames faster than the BLAS of PyTorch's own builds runs the linear
    layer that it equals; the layer scale becomes part of the second one's weights. Values differ by rounding.
    """
    encoder = copy.deepcopy(encoder)
    count = 0
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if _is_known(child):
                setattr(module, name, Block(child))
                count += 1
    return encoder.eval().to(memory_format=torch.channels_last), count  # type: ignore[call-overload]  # the stubs lack it


def _is_known(module: nn.Module) -> bool:
    """A block of ConvNeXt as published: others of that name have a normalisation inside, or convolutions already."""
    return (
        type(module) is ConvNeXtBlock
        and type(module.mlp) is Mlp
        and isinstance(module.mlp.fc1, nn.Linear)
        and isinstance(module.mlp.norm, nn.Identity)
    )


class Block(nn.Module):
    """A block of ConvNeXt with 1x1 convolutions for its linear layers, channels first throughout."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv_dw: nn.Module = block.conv_dw
        self.norm: nn.Module = block.norm
        self.act: nn.Module = block.mlp.act
        self.shortcut: nn.Module = block.shortcut
        self.fc1 = _pointwise(block.mlp.fc1)
        self.fc2 = _pointwise(block.mlp.fc2, block.gamma)

    def forward(self, x: Tensor) -> Tensor:
        """(T, C, H, W) to the same shape."""
        inner = self.norm(self.conv_dw(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        added: Tensor = self.shortcut(x) + self.fc2(self.act(self.fc1(inner)))
        return added


def _pointwise(linear: nn.Linear, scale: Tensor | None = None) -> nn.Conv2d:
    """The 1x1 convolution that equals a linear layer, its outputs times `scale`."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    if scale is not None:
        weight, bias = weight * scale.detach()[:, None], bias * scale.detach()
    convolution = nn.Conv2d(linear.in_features, linear.out_features, 1)
    convolution.weight = nn.Parameter(weight[:, :, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(bias, requires_grad=False)
    return convolution
