"""Narrower models: for trying out and small data, through the same files as the published ones."""

from __future__ import annotations

import pytest
import torch

from panecho_embed.core.errors import ArgumentError, WeightsError
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.panecho import PanEcho, save_checkpoint


def test_a_narrow_panecho_is_saved_and_loads_as_a_whole_one(tmp_path):
    model = PanEcho(pretrained=False, tasks=["EF"], width=1 / 12)
    assert (model.dim, sum(p.numel() for p in model.parameters()) < 1e6) == (64, True)
    save_checkpoint(model, tmp_path / "narrow.pt")
    again = PanEcho(weights=tmp_path / "narrow.pt")
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x)["EF"], model(x)["EF"])
    assert load_backbone("panecho", tmp_path / "narrow.pt").dim == 64


def test_width_one_is_the_released_architecture():
    shapes = {name: tensor.shape for name, tensor in PanEcho(pretrained=False, width=1.0).state_dict().items()}
    assert shapes["image_encoder.stem.0.weight"] == (96, 3, 4, 4)
    assert shapes["heads.EF.1.weight"] == (1, 768)


@pytest.mark.parametrize("width", [0, 1.5, -1])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(ArgumentError, match="width is"):
        PanEcho(pretrained=False, width=width)


def test_a_file_whose_layers_disagree_in_width_is_refused(tmp_path):
    wide, narrow = PanEcho(pretrained=False, width=0.25), PanEcho(pretrained=False, width=1 / 12)
    wide.image_encoder.stem[0] = narrow.image_encoder.stem[0]
    save_checkpoint(wide, tmp_path / "mixed.pt")
    with pytest.raises(WeightsError, match="another shape"):
        PanEcho(weights=tmp_path / "mixed.pt", backbone_only=True)
