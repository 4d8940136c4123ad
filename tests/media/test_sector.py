"""The sector mask: right for any number of frames, on clean and on noisy loops; what is burned in is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.media import apply_mask, open_cine, sector_mask
from tests.media.builders import EchoPhantom, pydicom_file

Frames = Iterable[np.ndarray]


def overlap(mask: np.ndarray, sector: np.ndarray) -> float:
    """Intersection over union."""
    return float((mask & sector).sum() / (mask | sector).sum())


def clean(frames: Frames) -> Frames:
    return frames


def as_jpeg(frames: Frames) -> Iterator[np.ndarray]:
    for frame in frames:
        encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
        yield cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def with_noise(frames: Frames) -> Iterator[np.ndarray]:
    """As of an analogue capture card, over all of the image."""
    rng = np.random.default_rng(0)
    for frame in frames:
        noise = rng.normal(0, 3, frame.shape[:2])[..., None]
        yield np.clip(frame + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 255, 256, 257, 300])
def test_sector_is_found_whatever_the_number_of_frames(count: int) -> None:
    phantom = EchoPhantom()
    mask = sector_mask(phantom.frames(count))
    assert overlap(mask, phantom.sector) > 0.95
    assert not (mask & phantom.overlay).any()


@pytest.mark.parametrize("count", [2, 5, 60])
@pytest.mark.parametrize("spoil", [as_jpeg, with_noise, lambda frames: as_jpeg(with_noise(frames))])
def test_sector_is_found_under_noise(count: int, spoil: Callable[[Frames], Frames]) -> None:
    phantom = EchoPhantom(480, 640)
    mask = sector_mask(spoil(phantom.frames(count)))
    assert overlap(mask, phantom.sector) > 0.9
    assert not (mask & phantom.overlay).any()


@pytest.mark.parametrize("spoil", [clean, as_jpeg])
def test_burned_in_text_is_gone(spoil: Callable[[Frames], Frames]) -> None:
    phantom = EchoPhantom()
    frames = list(spoil(phantom.frames(30)))
    assert max(frame[phantom.overlay].max() for frame in frames) > 200
    mask = sector_mask(frames)
    assert max(apply_mask(frame, mask)[phantom.overlay].max() for frame in frames) == 0


def test_small_videos_of_112_pixels() -> None:
    phantom = EchoPhantom(112, 112, overlays=False)
    assert overlap(sector_mask(phantom.frames(60)), phantom.sector) > 0.95


def test_frozen_loop_is_treated_as_one_frame() -> None:
    phantom = EchoPhantom()
    (frame,) = phantom.frames(1)
    np.testing.assert_array_equal(sector_mask([frame] * 5), sector_mask([frame]))


def test_frozen_loop_with_a_running_clock() -> None:
    phantom = EchoPhantom()
    (frame,) = phantom.frames(1)
    clock = [frame.copy() for _ in range(90)]
    for number, copy in enumerate(clock):
        cv2.putText(copy, f"{number}", (250, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    mask = sector_mask(clock)
    assert overlap(mask, phantom.sector) > 0.9


def test_black_video_is_left_alone() -> None:
    assert sector_mask([np.zeros((64, 64, 3), np.uint8)] * 3).all()


def test_image_that_is_all_sector_is_kept_whole() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (120, 160, 3), dtype=np.uint8) for _ in range(10)]
    assert sector_mask(frames).mean() > 0.97


def test_both_sectors_of_a_biplane_view_are_kept() -> None:
    left, right = EchoPhantom(seed=1), EchoPhantom(seed=2, overlays=False)
    frames = [np.hstack(pair) for pair in zip(left.frames(20), right.frames(20), strict=True)]
    assert overlap(sector_mask(frames), np.hstack([left.sector, right.sector])) > 0.95


@pytest.mark.parametrize("count", [1, 2, 30])
def test_real_loop_keeps_its_heart_and_loses_its_text(count: int) -> None:
    frames = list(open_cine(pydicom_file("examples_ybr_color.dcm")).frames())[:count]
    mask = sector_mask(frames)
    assert mask[40:190, 120:200].mean() > 0.95
    text = frames[0].max(axis=-1) > 50
    text[12:222, 38:292] = False
    assert text.sum() > 500
    # One tick of the depth scale touches the sector's very corner.
    assert (mask & text).sum() <= 2


def test_frames_are_read_once_and_not_kept() -> None:
    def frames() -> Iterator[np.ndarray]:
        buffer = np.zeros((64, 64, 3), np.uint8)
        for number in range(20):
            buffer[16:48, 16:48] = 100 * (number % 2) + 50
            yield buffer.copy()

    assert sector_mask(frames())[20:44, 20:44].all()


def test_mask_is_applied_to_a_copy() -> None:
    frame = np.full((20, 20, 3), 7, np.uint8)
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    masked = apply_mask(frame, mask)
    assert frame.min() == 7
    np.testing.assert_array_equal(masked, np.where(mask[..., None], frame, 0))
    assert masked.dtype == np.uint8


def test_mask_of_another_size_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="the mask is"):
        apply_mask(np.zeros((20, 20, 3), np.uint8), np.zeros((10, 10), bool))


def test_video_without_frames_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="without frames"):
        sector_mask([])
