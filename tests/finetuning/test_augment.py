"""What augmentation does to a clip: the same for the same seed, to all frames alike, and to no label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.datasets import read_manifest
from panecho_embed.finetuning.recipe import AugmentationSettings
from panecho_embed.finetuning.sampling import Key, MicroBatches, TrainingClips, augment, training_loader

EVERYTHING = AugmentationSettings(True)
NOTHING = AugmentationSettings(True, zoom_out=1.0, crop=False, flip=0.0, rotation=0.0)


def clip(frames=3, size=20):
    """One picture, repeated, all of it bright."""
    picture = torch.randint(100, 255, (1, 3, size, size), generator=torch.Generator().manual_seed(0))
    return picture.expand(frames, -1, -1, -1).to(torch.uint8)


def augmented(seed, settings=EVERYTHING, side=16):
    return augment(clip(), side, settings, np.random.default_rng(seed))


def test_it_is_decided_by_the_seed():
    assert torch.equal(augmented(1), augmented(1))
    assert not torch.equal(augmented(1), augmented(2))


@pytest.mark.parametrize("seed", range(8))
def test_shape_and_type_stay_and_frames_change_alike(seed):
    found = augmented(seed)
    assert (found.shape, found.dtype, found.is_contiguous()) == ((3, 3, 16, 16), torch.uint8, True)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_with_nothing_asked_for_it_is_the_centre_crop():
    for seed in range(4):
        assert torch.equal(augmented(seed, NOTHING), clip()[:, :, 2:18, 2:18])


def test_a_crop_is_a_piece_of_the_picture_and_goes_everywhere():
    settings = AugmentationSettings(True, zoom_out=1.0, crop=True, flip=0.0, rotation=0.0)
    places = set()
    for seed in range(60):
        found = augmented(seed, settings)
        places |= {
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(found, clip()[:, :, top : top + 16, left : left + 16])
        }
    assert {place for pair in places for place in pair} == {0, 1, 2, 3, 4}


def test_a_flip_mirrors_half_of_the_clips():
    settings = AugmentationSettings(True, zoom_out=1.0, crop=False, flip=0.5, rotation=0.0)
    plain, mirrored = clip()[:, :, 2:18, 2:18], clip()[:, :, 2:18, 2:18].flip(-1)
    found = [augmented(seed, settings) for seed in range(60)]
    flipped = [torch.equal(one, mirrored) for one in found]
    assert all(torch.equal(one, plain) != flip for one, flip in zip(found, flipped, strict=True))
    assert 20 < sum(flipped) < 40


def test_zooming_out_puts_half_of_the_clips_on_black():
    settings = AugmentationSettings(True, zoom_out=1.5, crop=True, flip=0.0, rotation=0.0)
    with_black = [bool((augmented(seed, settings, side=20) == 0).any()) for seed in range(60)]
    assert 20 < sum(with_black) < 40


def test_a_rotation_leaves_the_corners_black():
    settings = AugmentationSettings(True, zoom_out=1.0, crop=False, flip=0.0, rotation=15.0)
    found = [augmented(seed, settings) for seed in range(20)]
    assert any(not one[0, :, 0, 0].any() for one in found)
    assert all(one[0, :, 8, 8].all() for one in found)


@pytest.fixture(scope="module")
def training(dynamic):
    manifest = read_manifest(dynamic)
    return TrainingClips(manifest.videos, Feeding(resize=48, crop=40), ClipPlan(2, num_clips=1), EVERYTHING, seed=0)


def test_a_clip_follows_from_seed_epoch_and_video(training):
    key = Key(epoch=3, video=1, counted=1.0)
    first, second = training[key], training[key]
    assert torch.equal(first.pixels, second.pixels)
    assert first.pixels.shape == (1, 2, 3, 40, 40)
    assert not torch.equal(first.pixels, training[key._replace(epoch=4)].pixels)


def test_the_video_that_a_clip_is_of_stays_with_it(training):
    found = training[Key(1, 5, 1.0)]
    assert (found.video.tolist(), found.counted.tolist(), found.failures) == ([5], [1.0], [])


def test_workers_decode_the_same(training):
    keys = [[Key(2, 0, 1.0), Key(2, 3, 1.0)], [Key(2, 1, 0.0)]]
    here = list(training_loader(training, MicroBatches(keys), 0, pin=False))
    there = list(training_loader(training, MicroBatches(keys), 1, pin=False))
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine.pixels, theirs.pixels)
        assert torch.equal(mine.video, theirs.video)
        assert torch.equal(mine.counted, theirs.counted)
