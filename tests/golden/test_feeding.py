"""From a file to a model's first tensor, against published pipelines: their numbers, or their own transforms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.models import ConvNeXt_Tiny_Weights, get_model_weights

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.extraction.preprocess import _resized_size, _shaped
from panecho_embed.extraction.run import extract
from panecho_embed.media.sector import dicom_colours, echoprime_mask
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.panecho import PANECHO_FEEDING
from panecho_embed.models.timm_models import _feeding
from panecho_embed.models.torchvision_models import torchvision_feeding
from panecho_embed.models.zoo import ECHOCLIP_FEEDING, ECHOPRIME_FEEDING, IMAGENET_FEEDING
from panecho_embed.store import EmbeddingFile
from tests.golden.feeding import colours, fed, saved
from tests.media.builders import write_dicom

HERE = Path(__file__).parent
SIZES = ["600x800", "708x1016", "480x640", "112x112", "434x636", "100x103", "103x100", "768x1024"]
ONE_FRAME = ClipPlan(1, num_clips=1)


@pytest.fixture(scope="module")
def square_crop():
    with np.load(HERE / "square_crop.npz") as file:
        return {name: file[name] for name in file.files}


def one_frame(feeding: Feeding) -> Feeding:
    return replace(feeding, clips=ONE_FRAME)


def pixels_of(size: str, number: int = 0) -> np.ndarray:
    return colours(number, *map(int, size.split("x")))


def as_tensor(image: np.ndarray, feeding: Feeding) -> np.ndarray:
    """(S, S, 3) uint8 in the model's order of channels, normalised with numpy, (3, S, S)."""
    scaled = image.astype(np.float32) * np.float32(feeding.scale)
    return ((scaled - np.float32(feeding.mean)) / np.float32(feeding.std)).transpose(2, 0, 1)


def assert_same(found: np.ndarray, published: np.ndarray, feeding: Feeding) -> None:
    """Equal, except one grey level in at most 4 of 150,528 values.

    The golden numbers are of another OpenCV, which rounds some sums of its bicubic filter to the other level.
    """
    off = np.abs(found - published)
    assert off.max() < 1.01 * feeding.scale / min(feeding.std)
    assert (off > 1e-6).sum() <= 4


@pytest.mark.parametrize(("number", "size"), list(enumerate(SIZES)))
def test_echoprime_and_echoclip_see_what_their_published_code_makes(square_crop, tmp_path, number, size):
    path = saved(tmp_path, np.stack([pixels_of(size, number)] * 2))
    # A file that is no DICOM is RGB for EchoPrime; EchoCLIP takes BGR from any file.
    (prime,) = fed(path, one_frame(ECHOPRIME_FEEDING))
    assert_same(prime[0], as_tensor(square_crop[size], ECHOPRIME_FEEDING), ECHOPRIME_FEEDING)
    (clip,) = fed(path, one_frame(ECHOCLIP_FEEDING))
    assert_same(clip[0], as_tensor(square_crop[size][..., ::-1], ECHOCLIP_FEEDING), ECHOCLIP_FEEDING)


@pytest.mark.parametrize("size", ["600x800", "103x100"])
def test_echoclip_after_its_crop_is_open_clips_own_transform(square_crop, tmp_path, size):
    number = SIZES.index(size)
    (clip,) = fed(saved(tmp_path, np.stack([pixels_of(size, number)] * 2)), one_frame(ECHOCLIP_FEEDING))
    transform = open_clip.image_transform(224, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN,
                                          std=open_clip.OPENAI_DATASET_STD)  # fmt: skip
    published = transform(Image.fromarray(np.ascontiguousarray(square_crop[size][..., ::-1])))
    assert_same(clip[0], published.numpy(), ECHOCLIP_FEEDING)


@pytest.mark.parametrize(
    ("height", "width", "square", "cut"),
    [
        (600, 800, (600, 600), (480, 480)),
        (708, 1016, (708, 708), (568, 568)),
        (480, 640, (480, 480), (384, 384)),
        (768, 1024, (768, 768), (616, 616)),
        (112, 112, (112, 112), (90, 90)),
        (434, 636, (434, 434), (348, 348)),
        (100, 103, (100, 99), (80, 81)),
        # The published crop fails on a difference of one pixel; here nothing is cut, as of 0.
        (600, 601, (600, 601), (480, 481)),
        (601, 600, (601, 600), (481, 480)),
    ],
)
def test_the_square_crop_to_the_pixel(height, width, square, cut):
    frame = np.zeros((height, width, 3), np.uint8)
    assert _shaped(frame, replace(ECHOPRIME_FEEDING, cut=0.0)).shape[:2] == square
    assert _shaped(frame, ECHOPRIME_FEEDING).shape[:2] == cut


def test_one_pixel_off_square_is_fed_whole(tmp_path):
    frame = pixels_of("600x601")
    (clip,) = fed(saved(tmp_path, np.stack([frame] * 2)), one_frame(ECHOPRIME_FEEDING))
    expected = cv2.resize(frame[60:540, 60:541], (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(clip[0], as_tensor(expected, ECHOPRIME_FEEDING), atol=1e-6)


@pytest.mark.parametrize("size", ["600x800", "256x256", "103x100"])
def test_panecho_squashes_by_area_and_crops_the_centre(tmp_path, size):
    frame = pixels_of(size)
    (clip,) = fed(saved(tmp_path, np.stack([frame] * 2)), one_frame(PANECHO_FEEDING))
    squashed = cv2.resize(frame[..., ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    if size == "256x256":
        np.testing.assert_array_equal(squashed, frame[..., ::-1])
    np.testing.assert_allclose(clip[0], as_tensor(squashed[16:240, 16:240], PANECHO_FEEDING), atol=1e-6)


def test_a_grey_file_is_three_equal_channels(tmp_path):
    grey = pixels_of("100x103")[..., 0]
    (clip,) = fed(saved(tmp_path, np.stack([grey] * 2)), one_frame(ECHOPRIME_FEEDING))
    expected = cv2.resize(grey[10:90, 11:92], (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(clip[0], as_tensor(np.stack([expected] * 3, -1), ECHOPRIME_FEEDING), atol=1e-6)


@pytest.mark.parametrize("size", ["480x640", "601x600", "112x112", "103x100"])
@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "mvit_v2_s", "swin3d_t", "s3d"])
def test_torchvision_video_models_see_their_presets_tensor(tmp_path, name, size):
    frames = np.stack([pixels_of(size, number) for number in range(3)])
    feeding = replace(torchvision_feeding(name), clips=ClipPlan(3, num_clips=1))
    (clip,) = fed(saved(tmp_path, frames), feeding)
    preset = get_model_weights(name)["DEFAULT"].transforms()
    published = preset(torch.from_numpy(frames).permute(0, 3, 1, 2)).transpose(0, 1).numpy()
    level = feeding.scale / min(feeding.std)
    off = np.abs(clip - published)
    # torch adds in another order, and a sum that lies between two grey levels may go to either.
    assert off.max() < 1.01 * level
    assert (off > 1e-5).mean() < 1e-4


@pytest.mark.parametrize("size", ["480x640", "601x600", "112x112", "434x636"])
def test_imagenet_sees_torchvisions_preset(tmp_path, size):
    frame = pixels_of(size)
    (clip,) = fed(saved(tmp_path, np.stack([frame] * 2)), one_frame(IMAGENET_FEEDING))
    published = ConvNeXt_Tiny_Weights.DEFAULT.transforms()(Image.fromarray(frame))
    np.testing.assert_allclose(clip[0], published.numpy(), atol=1e-6)


@pytest.fixture(scope="module", params=["test_resnet", "test_vit"])
def timm_weights(request, tmp_path_factory) -> tuple[str, Path]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "w.pth"
    torch.save(timm.create_model(request.param).state_dict(), path)
    return request.param, path


@pytest.mark.parametrize("side", [160, 224])
def test_timm_is_timms_own_transform_and_model(timm_weights, tmp_path, side):
    name, path = timm_weights
    frames = [pixels_of(size, number) for number, size in enumerate(["240x240", "240x320", "270x480"])]
    for number, frame in enumerate(frames):
        np.save(tmp_path / f"{number}.npy", np.stack([frame] * 2))
    extract(
        tmp_path, tmp_path / "out.h5", backbone=load_backbone(f"timm:{name}", path, image_size=side), clips=ONE_FRAME,
        workers=0, engine_backend="eager",
    )  # fmt: skip
    sized = {"img_size": side} if "vit" in name else {}
    model = timm.create_model(name, num_classes=0, **sized).eval()
    state = {key: value for key, value in torch.load(path).items() if not key.startswith(("head.", "fc."))}
    if "vit" in name:
        state = timm.models.vision_transformer.checkpoint_filter_fn(state, model)
    model.load_state_dict(state)
    transform = create_transform(**resolve_data_config({"input_size": (3, side, side)}, model=model))
    with torch.no_grad():
        expected = model(torch.stack([transform(Image.fromarray(frame)) for frame in frames])).numpy()
    found = EmbeddingFile(tmp_path / "out.h5").embeddings
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_a_squash_of_timm_is_timms_own(tmp_path):
    model = timm.create_model("test_resnet", num_classes=0)
    model.pretrained_cfg["crop_mode"] = "squash"
    feeding = _feeding("test_resnet", model, 96)
    frame = pixels_of("240x320")
    (clip,) = fed(saved(tmp_path, np.stack([frame] * 2)), one_frame(feeding))
    transform = create_transform(**resolve_data_config({"input_size": (3, 96, 96)}, model=model))
    np.testing.assert_allclose(clip[0], transform(Image.fromarray(frame)).numpy(), atol=1e-6)


def test_the_longer_side_is_truncated_as_by_torchvision():
    assert _resized_size(434, 636, IMAGENET_FEEDING) == (236, 345)
    assert _resized_size(636, 434, IMAGENET_FEEDING) == (345, 236)


# EchoPrime's mask, colours and clips


@pytest.fixture(scope="module")
def sector():
    with np.load(HERE / "sector_mask.npz") as file:
        kept = np.unpackbits(file["kept"])[: 240 * 320].reshape(240, 320).astype(bool)
        return file["grey"], kept, file["frame0"]


def as_ybr(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1)


def test_echoprimes_mask_keeps_what_the_published_code_keeps(sector):
    grey, kept, frame0 = sector
    mask = echoprime_mask(np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(mask & (grey > 0).any(axis=0), kept)
    np.testing.assert_array_equal(np.where(mask, grey[0], 0), frame0)
    assert not np.array_equal(grey[0], frame0)


def test_255_frames_do_not_turn_the_mask_black(sector):
    # In eight bits the count of 255 frames, the first of them counted twice, is 0.
    grey = np.repeat(sector[0][..., None], 3, axis=-1)
    frames = np.concatenate([grey] * 13)[:254]
    long = np.concatenate([frames, grey[-1:]])
    np.testing.assert_array_equal(echoprime_mask(long), echoprime_mask(grey))


def test_echoprime_masks_dicom_and_nothing_else(sector, tmp_path):
    grey, _, frame0 = sector
    path = write_dicom(tmp_path / "loop.dcm", as_ybr(grey), PhotometricInterpretation="YBR_FULL")
    (clip,) = fed(path, ECHOPRIME_FEEDING)
    expected = cv2.resize(frame0[24:216, 64:256], (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(clip[0], as_tensor(np.stack([expected] * 3, -1), ECHOPRIME_FEEDING), atol=1e-6)
    (plain,) = fed(saved(tmp_path, grey), ECHOPRIME_FEEDING)
    expected = cv2.resize(grey[0, 24:216, 64:256], (224, 224), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(plain[0], as_tensor(np.stack([expected] * 3, -1), ECHOPRIME_FEEDING), atol=1e-6)


def test_a_loop_that_does_not_move_is_not_blacked_out(sector):
    still = np.repeat(sector[0][:1, ..., None], 3, axis=-1)
    assert echoprime_mask(np.concatenate([still] * 3)).all()


def test_red_as_echoprime_sees_it():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 254
    assert np.abs(dicom_colours(red).astype(int) - (221, 19, 0)).max() <= 1
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)
    np.testing.assert_array_equal(dicom_colours(grey), grey)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_red_in_a_dicom_file_reaches_echoprime_in_the_last_channel(tmp_path, photometric):
    value = (254, 0, 0) if photometric == "RGB" else (76, 85, 255)
    frames = np.zeros((4, 64, 64, 3), np.uint8) + np.uint8(value)
    frames[:, 0, 0] = (9, 128, 128)  # a frame of one colour shows nothing; this corner is cut off
    path = write_dicom(tmp_path / "red.dcm", frames, PhotometricInterpretation=photometric)
    (clip,) = fed(path, one_frame(ECHOPRIME_FEEDING))
    back = clip[0].mean(axis=(1, 2)) * np.float32(ECHOPRIME_FEEDING.std) + np.float32(ECHOPRIME_FEEDING.mean)
    np.testing.assert_allclose(back, (0, 19, 221), atol=1.5)


@pytest.mark.parametrize(("frames", "zeros"), [(10, 11), (31, 0), (40, 0), (1, 15)])
def test_echoprime_takes_frames_0_to_30_and_pads_with_zeros_after_normalising(tmp_path, frames, zeros):
    video = np.zeros((frames, 32, 32), np.uint8) + np.arange(1, frames + 1, dtype=np.uint8)[:, None, None]
    video[:, 0, 0] = 255  # a frame of one colour shows nothing; this corner is cut off
    (clip,) = fed(saved(tmp_path, video), ECHOPRIME_FEEDING, include_stills=True)
    numbers = clip[:, 0, 0, 0] * ECHOPRIME_FEEDING.std[0] + ECHOPRIME_FEEDING.mean[0]
    taken = list(range(0, min(frames, 32), 2))[:16]
    np.testing.assert_allclose(numbers[: len(taken)], np.array(taken) + 1, atol=1e-4)
    assert (clip[len(taken) :] == 0).all()
    assert len(clip) - len(taken) == zeros


def test_panecho_masks_dicom_files_unasked(tmp_path):
    noise = np.random.default_rng(0).integers(40, 255, (12, 80, 80), dtype=np.uint8)
    grey = np.zeros((12, 100, 120), np.uint8)
    grey[:, 10:90, 30:110] = noise
    grey[:, 40:60, 4:24] = 255
    path = write_dicom(tmp_path / "loop.dcm", np.repeat(grey[..., None], 3, axis=-1))
    text = np.s_[:, :, :, 90:110, 0:20]
    by_default, off = (fed(path, PANECHO_FEEDING, mask_sector=mask)[text] for mask in ("auto", "off"))
    elsewhere, on = (fed(saved(tmp_path, grey), PANECHO_FEEDING, mask_sector=mask)[text] for mask in ("auto", "on"))
    black = (0 - np.float32(PANECHO_FEEDING.mean)) / np.float32(PANECHO_FEEDING.std)
    np.testing.assert_allclose(by_default.max(axis=(0, 1, 3, 4)), black, atol=1e-5)
    np.testing.assert_array_equal(on, by_default)
    assert off.max() > 2
    np.testing.assert_array_equal(off, elsewhere)
