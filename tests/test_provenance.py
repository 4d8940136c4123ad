from __future__ import annotations

import dataclasses

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance


def test_provenance_survives_json(provenance):
    assert Provenance.from_json(provenance.to_json()) == provenance
    at_frame_level = dataclasses.replace(provenance, clips=None, level="frame")
    assert Provenance.from_json(at_frame_level.to_json()) == at_frame_level


def test_the_settings_id_follows_the_settings_and_nothing_else(provenance):
    assert dataclasses.replace(provenance, versions={"torch": "9"}).settings_id == provenance.settings_id
    elsewhere = dataclasses.replace(provenance.weights, source="other.pt")
    assert dataclasses.replace(provenance, weights=elsewhere).settings_id == provenance.settings_id
    for change in (
        {"clips": ClipPlan(stride=4, num_clips=None)},
        {"feeding": Feeding(mask="always")},
        {"precision": "bf16"},
        {"weights": dataclasses.replace(provenance.weights, sha256="cd" * 32)},
    ):
        assert dataclasses.replace(provenance, **change).settings_id != provenance.settings_id


def test_differences_name_the_field(provenance):
    other = dataclasses.replace(provenance, feeding=Feeding(crop=112))
    assert other.differences(provenance) == ["feeding.crop: 112, not 224"]
    assert provenance.differences(provenance) == []


def test_another_image_size_keeps_the_margin():
    assert Feeding().at_size(112) == Feeding(resize=128, crop=112)
