"""The clip encoder by fused operators: the same values as eager's, or none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panecho_embed.extraction import clip_engine
from panecho_embed.extraction.choose import agreement
from panecho_embed.extraction.clip_engine import FUSED, ClipEngine
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.fused import can_fuse, fused_clip_encoder
from panecho_embed.models.panecho import ClipEncoder
from tests.tiny import tiny

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

needs_onednn = pytest.mark.skipif(not can_fuse(torch.float32), reason="this build has no oneDNN")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("random", seed=2, image_size=32)


@pytest.fixture(scope="module")
def features():
    return torch.randn(40, 768, generator=torch.Generator().manual_seed(0))


def clips_of(count, length=16):
    return np.random.default_rng(count).integers(0, 40, (count, length))


@needs_onednn
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("length", [1, 16, 19])
def test_fused_clips_are_eagers(backbone, features, precision, length):
    if not can_fuse(DTYPES[precision]):
        pytest.skip(f"this CPU has no {precision}")
    said: list[str] = []
    engine = ClipEngine(backbone, precision, announce=said.append, clip_batch=8)
    clips = clips_of(21, length)
    fused, exact = engine(features, clips), ClipEngine(backbone, "fp32", "eager")(features, clips)
    assert agreement(fused, exact).within(precision)
    assert fused.dtype == torch.float32
    assert engine.names == [FUSED]
    assert said[0].startswith("clips by fused operators: cosine")


@needs_onednn
def test_a_clip_does_not_depend_on_those_beside_it(backbone, features):
    engine, clips = ClipEngine(backbone, "fp32"), clips_of(21)
    alone = torch.cat([engine(features, clips[i : i + 1]) for i in range(len(clips))])
    torch.testing.assert_close(engine(features, clips), alone, atol=1e-5, rtol=1e-5)


@needs_onednn
def test_operators_that_give_other_values_are_left_alone(backbone, features, monkeypatch):
    class Wrong(torch.nn.Module):
        def forward(self, frames):
            return frames.mean(dim=1) + 1

    monkeypatch.setattr(clip_engine, "fused_clip_encoder", lambda *_: Wrong())
    said: list[str] = []
    engine = ClipEngine(backbone, "fp32", announce=said.append)
    eager = ClipEngine(backbone, "fp32", "eager")(features, clips_of(5))
    assert torch.equal(engine(features, clips_of(5)), eager)
    assert engine.names == []
    assert said[0].startswith("clips by eager: the fused operators of this CPU give others in fp32: cosine")


def test_other_clip_encoders_stay_as_they_are(features):
    engine = ClipEngine(tiny(), "fp32")
    torch.testing.assert_close(engine(features[:, :12], clips_of(3)), features[clips_of(3)][..., :12].mean(1))
    assert engine.names == []
    for change in ("norm_first", "activation"):
        encoder = ClipEncoder(16)
        setattr(encoder.transformer.layers[2], change, torch.nn.functional.gelu)
        assert fused_clip_encoder(encoder, torch.float32) is None


@needs_onednn
def test_frames_that_are_not_finite_do_not_decide_for_those_that_come(backbone, features):
    engine, clips = ClipEngine(backbone, "fp32"), clips_of(2)
    assert engine(torch.full_like(features, torch.nan), clips).isnan().all()
    assert engine.names == []
    assert engine(features, clips).isfinite().all()
    assert engine.names == [FUSED]
