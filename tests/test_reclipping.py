from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.extraction.reclipping import reclip
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.store import EmbeddingFile, verify
from tests.resealed import reseal
from tests.test_extraction import moving


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for i, count in enumerate([24, 5, 17]):
        np.savez(folder / f"v{i}.npz", frames=moving(count, seed=i), fps=np.array(30.0))
    (folder / "broken.avi").write_text("x")
    return folder


def on_frames(path, seed):
    """A model of PanEcho's shape whose pictures are frames, as `finetune` makes them."""
    torch.manual_seed(seed)
    model = PanEcho(pretrained=False, backbone_only=True, width=1 / 12)
    model.plane_order = "frames"
    save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return on_frames(tmp_path_factory.mktemp("weights") / "mine.pt", 3)


@pytest.fixture(scope="module")
def model(weights):
    return load_backbone("panecho", weights, image_size=32)


@pytest.fixture(scope="module")
def frames(studies, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("frames") / "frames.h5"
    extract(studies, out, backbone=model, level="frame", workers=0)
    return out


@pytest.mark.parametrize(
    "plan",
    [
        ClipPlan(),
        ClipPlan(num_clips=None, stride=3, frames_per_clip=8),
        ClipPlan(frame_step=None, target_fps=15.0, short="wrap"),
    ],
)
def test_the_same_as_extracting_with_that_plan(frames, studies, model, weights, tmp_path, plan):
    again = EmbeddingFile(reclip(frames, tmp_path / "clips.h5", clips=plan, weights=weights).out)
    extract(studies, tmp_path / "direct.h5", backbone=model, clips=plan, workers=0)
    direct = EmbeddingFile(tmp_path / "direct.h5")
    assert verify(again.path) == []
    np.testing.assert_allclose(again.embeddings, direct.embeddings, atol=1e-5)
    assert again.rows.equals(direct.rows)
    assert again.failures.equals(direct.failures)
    assert again.settings_id == direct.settings_id


def test_short_videos_may_be_skipped(frames, weights, tmp_path):
    summary = reclip(frames, tmp_path / "clips.h5", clips=ClipPlan(short="skip"), weights=weights)
    assert [failure.video_id for failure in summary.skipped] == ["v1.npz"]
    assert ([failure.video_id for failure in summary.failed], summary.exit_code) == (["broken.avi"], 3)
    file = EmbeddingFile(summary.out)
    assert verify(file.path) == []
    assert dict(zip(file.failures["video_id"], file.failures["stage"], strict=True)) == {
        "broken.avi": "open",
        "v1.npz": "skipped",
    }


def test_other_weights_are_refused(frames, tmp_path):
    other = on_frames(tmp_path / "other.pt", 4)
    with pytest.raises(SettingsMismatchError, match=r"weights mine\.pt .* not other\.pt .*--weights"):
        reclip(frames, tmp_path / "clips.h5", weights=other)
    assert not (tmp_path / "clips.h5").exists()


def test_clips_have_no_frames(frames, weights, tmp_path):
    clips = reclip(frames, tmp_path / "clips.h5", weights=weights).out
    with pytest.raises(ArgumentError, match="holds clip rows"):
        reclip(clips, tmp_path / "again.h5", weights=weights)


def test_an_output_is_not_replaced_unasked(frames, weights, tmp_path):
    (tmp_path / "clips.h5").write_text("precious")
    with pytest.raises(StoreError, match="--overwrite"):
        reclip(frames, tmp_path / "clips.h5", weights=weights)


def test_a_video_with_other_rows_than_frames_does_not_take_those_of_the_next(frames, weights, tmp_path):
    shutil.copy(frames, tmp_path / "frames.h5")
    longest = int(np.argmax(EmbeddingFile(frames).video_columns["num_frames"]))
    reseal(tmp_path / "frames.h5", "videos/num_frames", lambda values: values.__setitem__(longest, values[longest] + 5))
    with pytest.raises(StoreError, match=r"has .* frames and .* rows"):
        reclip(tmp_path / "frames.h5", tmp_path / "clips.h5", weights=weights)
    assert not (tmp_path / "clips.h5").exists()


def test_panecho_s_clips_are_not_made_of_frames(studies, tmp_path):
    """Its pictures are others; the message says what to do instead."""
    extract(studies, tmp_path / "frames.h5", backbone="random", image_size=32, level="frame", workers=0)
    assert EmbeddingFile(tmp_path / "frames.h5").provenance.plane_order == "published"
    with pytest.raises(ArgumentError, match=r"random builds its clips from other pictures .* --plan"):
        reclip(tmp_path / "frames.h5", tmp_path / "clips.h5")
    assert not (tmp_path / "clips.h5").exists()
