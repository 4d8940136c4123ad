"""Engines agree with eager by value, are refused where they do not, and say what was chosen."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch

from panecho_embed.core.errors import ArgumentError, EngineError
from panecho_embed.extraction import choose
from panecho_embed.extraction.image_engine import AcceleratorEngine, EagerEngine, PictureBatch, RearrangedEngine
from panecho_embed.models.backbones import Backbone, MeanOverFrames
from panecho_embed.models.fused import can_fuse
from panecho_embed.models.rearranged import rearranged
from tests.tiny import FEEDING, INFO, overflowing, tiny, tiny_3d

BATCH = 5


@pytest.fixture(scope="module")
def narrow() -> Backbone:
    """A ConvNeXt of four blocks, at 32 pixels."""
    torch.manual_seed(0)
    # Imported late: timm before the package trips over mismatched builds of torchvision.
    import timm

    encoder = timm.create_model("convnext_tiny", num_classes=0, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            # As they are at first, blocks would hardly count.
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return Backbone("narrow", encoder, MeanOverFrames(), 16, 16, FEEDING, INFO)


@pytest.fixture(scope="module")
def batch() -> PictureBatch:
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 3, 32, 32), dtype=np.uint8)
    return PictureBatch.of_frames(torch.from_numpy(pixels))


def chosen(backbone, backend, batch, precision="fp32", expected_pictures=0.0):
    said: list[str] = []
    engine = choose.choose_engine(backbone, backend, precision, BATCH, batch, expected_pictures, said.append)
    return engine, " ".join(said)


def test_rearranged_modules_give_the_same_values(narrow, batch):
    assert rearranged(narrow.image_encoder)[1] == 4
    exact = EagerEngine(narrow, "fp32")(batch)
    torch.testing.assert_close(RearrangedEngine(narrow, "fp32")(batch), exact, atol=1e-5, rtol=1e-5)
    for precision in ("bf16", "fp16"):
        assert choose.agreement(RearrangedEngine(narrow, precision)(batch), exact).within(precision)


def test_fused_operators_and_plain_ones_agree_whatever_the_batch(narrow, batch, monkeypatch):
    """Weights are ordered for the first batch's shape."""
    assert can_fuse(torch.float32)
    fused = RearrangedEngine(narrow, "fp32")
    assert any(type(module).__name__ == "_FusedBlock" for module in fused._encoder.modules())
    monkeypatch.setattr("panecho_embed.extraction.image_engine.can_fuse", lambda dtype: False)
    plain = RearrangedEngine(narrow, "fp32")
    assert not any(type(module).__name__ == "_FusedBlock" for module in plain._encoder.modules())
    for some in (batch, batch[:2], batch[:1], PictureBatch.of_frames(torch.cat([batch.pixels, batch.pixels]))):
        torch.testing.assert_close(fused(some), plain(some), atol=1e-5, rtol=1e-5)


def test_the_model_itself_is_left_as_it_was(narrow, batch):
    before = EagerEngine(narrow, "fp32")(batch)
    RearrangedEngine(narrow, "bf16")
    assert torch.equal(EagerEngine(narrow, "fp32")(batch), before)


def test_a_model_without_convnext_blocks_is_not_rearranged(batch):
    with pytest.raises(EngineError, match="tiny has no ConvNeXt blocks"):
        chosen(tiny(), "rearranged", batch)


def test_compiling_is_for_gpus(narrow, batch):
    with pytest.raises(ArgumentError, match="compiled is for GPUs"):
        chosen(narrow, "compiled", batch)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_the_compiled_encoder_gives_the_same_values_also_for_a_smaller_batch(narrow, batch):
    """TorchInductor compiles for a CPU what it does for a GPU."""
    engine = AcceleratorEngine(narrow, "fp32", BATCH)
    exact = EagerEngine(narrow, "fp32")(batch)
    torch.testing.assert_close(engine(batch), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(engine(batch[:2]), exact[:2], atol=1e-5, rtol=1e-5)


class Wrong:
    """An engine whose values are a little off."""

    name = "rearranged"
    batch_pictures = None

    def __init__(self, backbone, precision):
        self._eager = EagerEngine(backbone, precision)

    def __call__(self, batch):
        return self._eager(batch) * 1.001


def test_an_engine_that_gives_other_values_is_refused_and_never_chosen(narrow, batch, monkeypatch):
    monkeypatch.setattr(choose, "RearrangedEngine", Wrong)
    with pytest.raises(EngineError, match=r"gives other vectors of pictures than eager.*--engine-backend eager"):
        chosen(narrow, "rearranged", batch)
    monkeypatch.setattr(choose, "_TRIAL_SECONDS", 0.0)
    engine, said = chosen(narrow, "auto", batch, expected_pictures=1.0)
    assert engine.name != "rearranged"
    assert "rearranged left out: the engine rearranged gives other" in said


def test_auto_says_what_it_chose_and_why(narrow, batch, monkeypatch):
    engine, said = chosen(narrow, "auto", batch, expected_pictures=1)
    assert engine.name == "eager"
    assert "too little for a trial" in said
    monkeypatch.setattr(choose, "_TRIAL_SECONDS", 0.0)
    engine, said = chosen(narrow, "auto", batch, expected_pictures=1)
    assert said.startswith(f"engine {engine.name}, the fastest in fp32: eager ")
    assert "rearranged " in said


def test_auto_takes_the_fastest(narrow, batch, monkeypatch):
    monkeypatch.setattr(choose, "_TRIAL_SECONDS", 0.0)
    speeds = {"eager": 3.0, "rearranged": 2.0}
    monkeypatch.setattr(choose._Trial, "seconds_per_picture", lambda self, engine: speeds[engine.name])
    assert chosen(narrow, "auto", batch, expected_pictures=1)[0].name == "rearranged"
    speeds |= {"rearranged": 5.0}
    assert chosen(narrow, "auto", batch, expected_pictures=1)[0].name == "eager"


def test_auto_compiles_only_where_that_pays(narrow, batch, monkeypatch):
    monkeypatch.setattr(choose._Trial, "seconds_per_picture", lambda self, engine: 0.01)
    monkeypatch.setattr(choose._Trial, "make", lambda self, backend: EagerEngine(self.backbone, self.precision))
    narrow = copy.copy(narrow)
    narrow.device = torch.device("meta")
    monkeypatch.setattr(EagerEngine, "__call__", lambda self, batch: torch.ones(len(batch), 4))
    assert (
        "compiled not tried: of 50 s of work it might save 18, and costs 60"
        in chosen(narrow, "auto", batch, expected_pictures=5000)[1]
    )
    assert "compiled 10.0 ms" in chosen(narrow, "auto", batch, expected_pictures=50_000)[1]


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_a_precision_that_the_model_does_not_bear_is_refused(narrow, batch, monkeypatch, backend):
    monkeypatch.setitem(choose.BOUNDS, "bf16", (1.0, 0.0))
    with pytest.raises(EngineError, match=r"engine eager gives other.*--precision fp32"):
        chosen(narrow, backend, batch, "bf16")


def test_an_engine_that_nothing_can_be_compared_with_is_refused_and_never_chosen(batch, monkeypatch):
    model = overflowing()
    bright = PictureBatch.of_frames(torch.full_like(batch.pixels, 255))
    monkeypatch.setattr(choose, "RearrangedEngine", Wrong)
    with pytest.raises(EngineError, match=r"engine rearranged can't be checked.*--engine-backend eager"):
        chosen(model, "rearranged", bright)
    with pytest.raises(EngineError, match=r"engine eager can't be checked.*--precision fp32"):
        chosen(model, "eager", bright, "bf16")
    monkeypatch.setattr(choose, "_TRIAL_SECONDS", 0.0)
    engine, said = chosen(model, "auto", bright, expected_pictures=1.0)
    assert engine.name == "eager"
    assert "rearranged left out: the engine rearranged can't be checked" in said


def test_a_3d_model_has_no_frame_encoder_to_choose_an_engine_for(batch):
    assert chosen(tiny_3d(), "auto", batch)[0].name == "eager"
    with pytest.raises(ArgumentError, match="sees a clip as a whole"):
        chosen(tiny_3d(), "compiled", batch)
    with pytest.raises(ArgumentError, match="engine is 'fast'; allowed are auto, eager"):
        chosen(tiny(), "fast", batch)


def test_frames_that_overflow_in_eager_are_not_compared():
    exact = torch.tensor([[torch.inf, 1.0], [1.0, 0.0]])
    found = choose.agreement(torch.tensor([[torch.nan, 1.0], [1.0, 0.0]]), exact)
    assert (found.cosine, found.difference) == (1.0, 0.0)
