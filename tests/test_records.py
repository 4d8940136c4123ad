from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from panecho_embed.clips import ClipPlan
from panecho_embed.errors import ArgumentError, ManifestError
from panecho_embed.records import Frames, Manifest, Preprocess, Provenance, Region, VideoRef
from tests.conftest import refs


def test_provenance_survives_json(provenance):
    assert Provenance.from_json(provenance.to_json()) == provenance
    at_frame_level = dataclasses.replace(provenance, clips=None, level="frame")
    assert Provenance.from_json(at_frame_level.to_json()) == at_frame_level


def test_the_fingerprint_follows_the_settings_and_nothing_else(provenance):
    assert dataclasses.replace(provenance, versions={"torch": "9"}).fingerprint == provenance.fingerprint
    elsewhere = dataclasses.replace(provenance.weights, source="other.pt")
    assert dataclasses.replace(provenance, weights=elsewhere).fingerprint == provenance.fingerprint
    for change in (
        {"clips": ClipPlan(stride=4, num_clips=None)},
        {"preprocess": Preprocess(mask_sector=True)},
        {"precision": "bf16"},
        {"weights": dataclasses.replace(provenance.weights, sha256="cd" * 32)},
    ):
        assert dataclasses.replace(provenance, **change).fingerprint != provenance.fingerprint


def test_differences_name_the_field(provenance):
    other = dataclasses.replace(provenance, preprocess=Preprocess(crop=112))
    assert other.differences(provenance) == ["preprocess.crop: 112, not 224"]
    assert provenance.differences(provenance) == []


def test_another_image_size_keeps_the_margin():
    assert Preprocess().at_size(112) == Preprocess(resize=128, crop=112)


def test_a_manifest_refuses_an_id_that_stands_twice():
    with pytest.raises(ManifestError, match=r"a \(2 times\)"):
        Manifest(refs("a", "b", "a"))


def test_a_manifest_refuses_labels_of_another_length():
    with pytest.raises(ManifestError, match="EF"):
        Manifest(refs("a"), {"EF": np.zeros(2)})


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_frames_are_uint8_rgb(pixels):
    with pytest.raises(ArgumentError, match="uint8"):
        Frames(pixels)


def test_a_video_has_ids():
    with pytest.raises(ArgumentError, match="patient_id is empty"):
        VideoRef("v", "s", "", "p.avi")


def test_a_region_has_an_inside():
    with pytest.raises(ArgumentError, match="region"):
        Region(5, 0, 5, 10)
