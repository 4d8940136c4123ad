"""EchoCLIP: the vector of every frame has unit length before anything is averaged, whichever way the rows are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError
from panecho_embed.core.provenance import Provenance
from panecho_embed.extraction.image_engine import EagerEngine, PictureBatch, RearrangedEngine
from panecho_embed.extraction.pooling import pool
from panecho_embed.extraction.reclipping import reclip
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.models.checkpoint import ECHOCLIP, to_checkpoint_names
from panecho_embed.models.panecho import convnext
from panecho_embed.retrieval.embed_new import Embedder
from panecho_embed.store import EmbeddingFile, merge
from tests.cli.test_extract import run
from tests.test_extraction import moving
from tests.tiny import tiny_3d

WHOLE = ClipPlan(frames_per_clip=12, num_clips=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A narrow image tower in the published layout, whose vectors of frames differ in length."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = nn.Sequential()
        tower.add_module("trunk", convnext("base", 4))
        tower.add_module("proj", nn.Linear(32, 16, bias=False))
    path = tmp_path_factory.mktemp("weights") / "w.bin"
    torch.save(to_checkpoint_names(tower.state_dict(), ECHOCLIP), path)
    return path


@pytest.fixture(scope="module")
def echoclip(weights) -> Backbone:
    return load_backbone("echoclip", weights, image_size=32)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for i in range(2):
        np.savez(folder / f"v{i}.npz", frames=moving(12, seed=i), fps=np.array(30.0))
    return folder


def extracted(studies, out, backbone, **arguments):
    return EmbeddingFile(extract(studies, out, backbone=backbone, workers=0, **arguments).out)


def as_before(backbone: Backbone) -> Backbone:
    """The backbone as it was when vectors kept their length."""
    return replace(backbone, l2_normalised=False)


def test_frames_clips_and_pooled_rows_are_of_unit_vectors(studies, weights, echoclip, tmp_path):
    frames = extracted(studies, tmp_path / "f.h5", echoclip, level="frame")
    raw = extracted(studies, tmp_path / "raw.h5", as_before(echoclip), level="frame").embeddings
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(frames.embeddings, unit, atol=1e-6)
    means = unit.reshape(2, 12, -1).mean(axis=1)
    # The test can tell: averaged first, another direction.
    plain = raw.reshape(2, 12, -1).mean(axis=1)
    assert np.abs(means - plain / np.linalg.norm(plain, axis=1, keepdims=True)).max() > 1e-5
    clips = extracted(studies, tmp_path / "c.h5", echoclip, clips=WHOLE)
    pooled = EmbeddingFile(pool(frames.path, "video", tmp_path / "p.h5"))
    again = EmbeddingFile(reclip(frames.path, tmp_path / "r.h5", clips=WHOLE, weights=weights, device="cpu").out)
    for made in (clips, pooled, again):
        np.testing.assert_allclose(made.embeddings, means, atol=1e-6)
        assert made.provenance.l2_normalised
    assert again.settings_id == clips.settings_id


def test_the_rearranged_encoder_does_so_too(echoclip):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    batch = PictureBatch.of_frames(torch.from_numpy(pixels))
    exact = EagerEngine(echoclip, "fp32")(batch)
    torch.testing.assert_close(exact.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(RearrangedEngine(echoclip, "fp32")(batch), exact, atol=1e-5, rtol=1e-5)


def test_rows_from_before_are_not_mixed_with_new_ones(studies, weights, echoclip, tmp_path):
    old = extracted(studies, tmp_path / "old.h5", as_before(echoclip), level="frame")
    new = extracted(studies, tmp_path / "new.h5", echoclip, level="frame")
    with pytest.raises(SettingsMismatchError, match=r"l2_normalised"):
        merge([old.path, new.path], new.manifest(), new.provenance, tmp_path / "both.h5")
    with pytest.raises(
        SettingsMismatchError, match=r"old\.h5 was made with l2_normalised False, and echoclip has True"
    ):
        reclip(old.path, tmp_path / "c.h5", weights=weights, device="cpu")
    with pytest.raises(ArgumentError, match="made with l2_normalised False, and echoclip has True"):
        Embedder(old.provenance, weights, device="cpu")
    assert "l2_normalised True" in " ".join(run("info", new.path).output.split())


def test_a_record_from_before_keeps_its_settings_id(studies, echoclip, tmp_path):
    made = extracted(studies, tmp_path / "old.h5", as_before(echoclip), clips=WHOLE).provenance
    earlier = Provenance.from_json(made.to_json().replace('"l2_normalised": false, ', ""))
    assert (earlier.l2_normalised, earlier.settings_id) == (False, made.settings_id)
    assert replace(earlier, l2_normalised=True).settings_id != made.settings_id


def test_a_model_of_whole_clips_has_no_vectors_of_frames():
    with pytest.raises(ArgumentError, match="l2_normalised False"):
        replace(tiny_3d(), l2_normalised=True)
