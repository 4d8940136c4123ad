from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.records import Frames, Manifest, Region, VideoRef
from tests.conftest import refs


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
