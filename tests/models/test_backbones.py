from __future__ import annotations

import dataclasses
import inspect
import socket
import sys
import textwrap

import numpy as np
import open_clip
import pytest
import timm
import torch
from torch.testing import assert_close
from torchvision.models import convnext_tiny, get_model
from torchvision.models.video import mvit_v2_s, r3d_18

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, WeightsError, WeightsNotFoundError
from panecho_embed.core.feeding import Feeding
from panecho_embed.models import backbones
from panecho_embed.models.backbones import Backbone, backbone_names, load_backbone, register_backbone
from panecho_embed.models.weights import KNOWN, PLACE_VARIABLE


def pixels(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """uint8 with black and white in it, so that the whole range is there."""
    values = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed))
    values[0, :, 0, 0], values[0, :, 0, 1] = 0, 255
    return values.to(torch.uint8)


@pytest.fixture(scope="module")
def panecho_backbone(checkpoint) -> Backbone:
    return load_backbone("panecho", checkpoint)


@pytest.fixture(scope="module")
def random_backbone() -> Backbone:
    return load_backbone("random")


def test_panecho_in_two_steps_is_panecho_in_one(panecho_backbone, reference):
    frames = pixels(6, 64)
    made = panecho_backbone.pictures([np.array([[0, 1, 2, 3], [2, 3, 4, 5]])], len(frames))
    planes = torch.from_numpy(made.planes)
    given = panecho_backbone.normalise(frames.flatten(0, 1)[planes], planes % 3)
    features = panecho_backbone.encode_pictures(given, planes % 3)
    clips = panecho_backbone.encode_clips(features[made.clips[0]])
    normalised = panecho_backbone.normalise(frames)
    x = torch.stack([normalised[0:4], normalised[2:6]]).transpose(1, 2)
    with torch.no_grad():
        assert_close(clips, reference.encoder.clips(reference.encoder.pictures(x)), atol=1e-4, rtol=0)
    assert features.shape == (8, 768)
    assert (panecho_backbone.dim, panecho_backbone.image_dim, panecho_backbone.pooling) == (768, 768, "transformer")
    assert panecho_backbone.feeding.channel_order == "bgr"
    assert panecho_backbone.weights.pretrained


def test_panecho_image_is_the_mean_over_frames(checkpoint, panecho_backbone):
    backbone = load_backbone("panecho-image", checkpoint)
    frames = backbone.normalise(pixels(3, 64))
    features = backbone.encode_pictures(frames)
    assert torch.equal(features, panecho_backbone.encode_pictures(frames))
    assert_close(backbone.encode_clips(features[None]), features.mean(0, keepdim=True))
    assert (backbone.dim, backbone.pooling) == (768, "mean")


def test_imagenet_agrees_with_torchvision(tmp_path, randomise):
    model = convnext_tiny().eval()
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("imagenet", tmp_path / "w.pth")
    frames = backbone.normalise(pixels(2, 64))
    del model.classifier[2]
    with torch.no_grad():
        assert_close(backbone.encode_pictures(frames), model(frames), atol=1e-4, rtol=0)
    assert backbone.feeding.channel_order == "rgb"


def test_echoclip_agrees_with_open_clip(tmp_path, randomise):
    model = open_clip.create_model("convnext_base").eval()
    randomise(model.visual)
    # Half precision, to see that such files are taken too, and half as long to write; text tower and scale included.
    state = {name: value.half() for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / "w.bin")
    backbone = load_backbone("echoclip", tmp_path / "w.bin")
    frames = backbone.normalise(pixels(2, 64))
    model.load_state_dict({name: value.float() for name, value in state.items()})
    with torch.no_grad():
        raw, expected = model.encode_image(frames), model.encode_image(frames, normalize=True)
    vectors = backbone.encode_pictures(frames)
    assert_close(vectors, expected, atol=2e-5, rtol=1e-4)
    # A clip is the mean of unit vectors, which is shorter itself: published code does not scale it again.
    assert_close(backbone.encode_clips(vectors[None])[0], expected.mean(0), atol=2e-5, rtol=1e-4)
    assert expected.mean(0).norm() < 1 < raw.norm(dim=1).min()
    assert (backbone.dim, backbone.feeding.resize, backbone.feeding.channel_order) == (512, 224, "bgr")
    torch.save(state | {"visual.trunk.extra": torch.zeros(1)}, tmp_path / "w.bin")
    with pytest.raises(WeightsError, match=r"\+ visual\.trunk\.extra"):
        load_backbone("echoclip", tmp_path / "w.bin")


def test_kinetics_agrees_with_torchvision(tmp_path, randomise):
    model = r3d_18().eval()
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("kinetics", tmp_path / "w.pth")
    frames = backbone.normalise(pixels(5, 48))
    assert torch.equal(backbone.encode_pictures(frames), frames)
    clips = frames[torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])]
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        expected = model(clips.permute(0, 2, 1, 3, 4))
    assert_close(backbone.encode_clips(clips), expected, atol=1e-4, rtol=0)
    assert (backbone.dim, backbone.image_dim, backbone.pooling) == (512, None, "3d")
    assert (backbone.feeding.resize, backbone.feeding.crop) == (128, 112)


@pytest.fixture(scope="module")
def echoprime_model() -> torch.nn.Module:
    model = mvit_v2_s().eval()
    model.head = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(768, 512)).eval()
    return model


def test_echoprime_agrees_with_torchvision(tmp_path, echoprime_model):
    torch.save(echoprime_model.state_dict(), tmp_path / "w.pt")
    backbone = load_backbone("echoprime", tmp_path / "w.pt")
    clips = backbone.encode_pictures(backbone.normalise(pixels(16, 224)))[None]
    with torch.no_grad():
        assert_close(backbone.encode_clips(clips), echoprime_model(clips.transpose(1, 2)), atol=1e-4, rtol=0)
    with pytest.raises(ArgumentError, match=r"clips have 8 frames; echoprime takes 16"):
        backbone.encode_clips(clips[:, :8])


def test_echoprime_takes_either_name_of_its_head_and_one_size(tmp_path, echoprime_model):
    state = {name.replace("head.1.", "head."): value for name, value in echoprime_model.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    head = load_backbone("echoprime", tmp_path / "w.pt").clip_encoder.model.head[1]
    assert torch.equal(head.weight, state["head.weight"])
    with pytest.raises(ArgumentError, match=r"image size is 112; echoprime takes 224 alone"):
        load_backbone("echoprime", tmp_path / "w.pt", image_size=112)


@pytest.mark.parametrize("name", ["mc3_18", "swin3d_t"])
def test_torchvision_video_models_are_torchvisions(tmp_path, name):
    torch.manual_seed(0)
    model = get_model(name, weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone(f"torchvision:{name}", tmp_path / "w.pth", image_size=64)
    clips = backbone.normalise(pixels(4, 64))[None]
    setattr(model, "fc" if name == "mc3_18" else "head", torch.nn.Identity())
    with torch.no_grad():
        expected = model(clips.transpose(1, 2))
    assert_close(backbone.encode_clips(clips), expected, atol=1e-4, rtol=0)
    assert (backbone.dim, backbone.image_dim, backbone.plane_order) == (expected.shape[1], None, "frames")
    assert backbone.feeding.clips == (ClipPlan(16, None, 15.0, 5) if name == "mc3_18" else ClipPlan(32, None, 15.0, 12))


def test_clips_that_a_model_cannot_take_are_refused_with_the_flag(random_backbone, tmp_path):
    with pytest.raises(ArgumentError, match=r"zeros.*random sees pictures \(--short"):
        random_backbone.check_clips(ClipPlan(short="zeros"))
    torch.save(get_model("s3d", weights=None).state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("torchvision:s3d", tmp_path / "w.pth")
    with pytest.raises(ArgumentError, match=r"clips have 13 frames; torchvision:s3d takes 14 or more"):
        backbone.check_clips(ClipPlan(13))
    with pytest.raises(ArgumentError, match=r"image size is 112; torchvision:s3d takes 224"):
        backbone.at_size(112)
    assert backbone.overrides(backbone.feeding, backbone.feeding.clips) == ()
    assert backbone.overrides(backbone.feeding, ClipPlan(64, None, 15.0, 1)) == (
        "frames_per_clip 64 (torchvision:s3d's own: 128)",
    )


def test_random_is_the_same_for_the_same_seed_alone(random_backbone):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again, other = load_backbone("random", seed=0), load_backbone("random", seed=1)
    assert torch.equal(before, torch.get_rng_state())
    frames = again.normalise(pixels(2, 32))
    assert torch.equal(again.encode_pictures(frames), random_backbone.encode_pictures(frames))
    assert not torch.allclose(again.encode_pictures(frames), other.encode_pictures(frames), atol=0.1)
    assert again.weights == random_backbone.weights
    assert again.weights.sha256 != other.weights.sha256


def test_random_says_so_and_differs_from_panecho_in_weights_alone(random_backbone, panecho_backbone, checkpoint):
    assert random_backbone.weights.source == "random (seed 0)"
    assert not random_backbone.weights.pretrained
    assert random_backbone.feeding == panecho_backbone.feeding
    with pytest.raises(ArgumentError, match="the random backbone takes none"):
        load_backbone("random", checkpoint)


def test_timm_model_from_a_file(tmp_path):
    model = timm.create_model("test_resnet").eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("timm:test_resnet", tmp_path / "w.pth")
    model.reset_classifier(0)
    frames = backbone.normalise(pixels(2, 160))
    with torch.no_grad():
        assert_close(backbone.encode_pictures(frames), model(frames), atol=1e-5, rtol=0)
    assert (backbone.name, backbone.dim) == ("timm:test_resnet", 96)
    assert backbone.feeding.mean == (0.5, 0.5, 0.5)
    assert (backbone.feeding.crop, backbone.feeding.resize, backbone.feeding.interpolation) == (
        160,
        168,
        "bilinear-antialias",
    )
    assert backbone.weights.licence == "not stated"
    torch.save({**model.state_dict(), "more": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"timm's test_resnet.*\n  \+ more"):
        load_backbone("timm:test_resnet", tmp_path / "w.pth")


def test_timm_model_of_a_fixed_size_says_so(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    assert load_backbone("timm:test_vit", tmp_path / "w.pth", image_size=160).feeding.crop == 160
    with pytest.raises(ArgumentError, match="image size is 224; timm:test_vit takes 160 alone"):
        load_backbone("timm:test_vit", tmp_path / "w.pth").at_size(224)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet81", r"no model 'resnet81'; nearest: resnet"),
        ("timm:resnet18.nope", r"timm has no weights 'resnet18.nope'; it has: resnet18\.a1_in1k"),
        ("panacho", r"no backbone is called 'panacho'; nearest: panecho, .*allowed: panecho, panecho-image, imagenet"),
        ("", r"no backbone is called ''"),
    ],
)
def test_unknown_names_are_errors_with_the_nearest(name, message):
    with pytest.raises(ArgumentError, match=message):
        load_backbone(name)


def test_timm_without_pretrained_weights_is_an_error():
    with pytest.raises(WeightsNotFoundError, match="no pretrained weights for vit_giant_patch14_224"):
        load_backbone("timm:vit_giant_patch14_224")


@pytest.fixture
def offline(monkeypatch) -> None:
    def refuse(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["panecho", "panecho-image", "imagenet", "echoclip", "kinetics", "echoprime"])
def test_without_weights_no_backbone_falls_back(offline, name):
    with pytest.raises(WeightsNotFoundError, match=r"Looked in:[\s\S]*To bring them:[\s\S]*--backbone random"):
        load_backbone(name)


def test_timm_without_a_network_says_how_to_bring_weights(offline, monkeypatch):
    # Else the hub's client tries again for most of a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsNotFoundError, match=r"timm's weights of test_resnet could not be fetched[\s\S]*--weights"
    ):
        load_backbone("timm:test_resnet")


@pytest.mark.parametrize("name", [file.name for file in KNOWN])
def test_weights_of_another_model_are_refused(name, tmp_path):
    torch.save({"weights": {"layer.weight": torch.zeros(2)}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt: these are not the weights of"):
        load_backbone(name, tmp_path / "other.pt")


def test_weights_are_found_by_environment(checkpoint, monkeypatch):
    monkeypatch.setenv(PLACE_VARIABLE, str(checkpoint))
    assert load_backbone("panecho-image").weights.source == "panecho.pt"


def test_normalise_is_scale_mean_std(panecho_backbone):
    raw = pixels(2, 32)
    expected = (raw.numpy() / 255.0 - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
        [0.229, 0.224, 0.225], (3, 1, 1)
    )
    result = panecho_backbone.normalise(raw)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda b, raw: raw.float(),
        lambda b, raw: (b.normalise(raw) - 0.45) / 0.225,
        lambda b, raw: (raw.float() - 29.0) / 48.0,
        lambda b, raw: torch.where(raw == 0, torch.nan, b.normalise(raw)),
    ],
    ids=["0-255", "twice normalised", "normalised for a 0-255 model", "NaN"],
)
def test_pixels_normalised_wrongly_are_refused(panecho_backbone, mistake):
    with pytest.raises(ArgumentError, match=r"panecho: the pictures' values go from .* go from -2\.118 to 2\.64"):
        panecho_backbone.encode_pictures(mistake(panecho_backbone, pixels(2, 32)))


@pytest.mark.parametrize(
    ("scale", "mean", "std", "allowed"),
    [(1 / 255, 0.0, 1.0, "go from 0 to 1"), (1.0, 29.0, 48.0, r"go from -0\.604\d to 4\.708")],
    ids=["0-1 pixels", "EchoPrime's 0-255 scale"],
)
def test_imagenet_pixels_are_refused_by_other_scales(panecho_backbone, scale, mean, std, allowed):
    other = dataclasses.replace(
        panecho_backbone, name="other", feeding=Feeding(scale=scale, mean=(mean,) * 3, std=(std,) * 3)
    )
    with pytest.raises(ArgumentError, match=rf"other: .*{allowed}"):
        other.encode_pictures(panecho_backbone.normalise(pixels(2, 32)))


def test_half_precision_pixels_at_the_limit_pass(random_backbone):
    assert random_backbone.encode_pictures(random_backbone.normalise(pixels(1, 32)).bfloat16()).isfinite().all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(3, 32, 32), r"shape \(3, 32, 32\); allowed is float \(P, 3, S, S\)"),
        (torch.zeros(0, 3, 32, 32), r"P at least 1"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"pictures are torch.uint8"),
    ],
)
def test_frames_of_another_shape_or_type_are_refused(random_backbone, frames, message):
    with pytest.raises(ArgumentError, match=message):
        random_backbone.encode_pictures(frames)


def test_clips_and_pixels_of_another_shape_are_refused(random_backbone):
    with pytest.raises(ArgumentError, match=r"shape \(2, 16, 512\); random takes \(N, L, 768\)"):
        random_backbone.encode_clips(torch.zeros(2, 16, 512))
    with pytest.raises(ArgumentError, match=r"pixels are torch.float32.*uint8 \(P, 3, S, S\)"):
        random_backbone.normalise(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_close_and_gives_float32(random_backbone, precision):
    frames = random_backbone.normalise(pixels(2, 32))
    exact = random_backbone.encode_pictures(frames)
    with random_backbone.autocast(precision):
        rough = random_backbone.encode_pictures(frames)
        clip = random_backbone.encode_clips(rough[None])
    assert rough.dtype == clip.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert torch.cosine_similarity(rough, exact).min() > 0.999


def test_fp32_switches_an_outer_autocast_off(random_backbone):
    frames = random_backbone.normalise(pixels(1, 32))
    with torch.autocast("cpu", torch.bfloat16), random_backbone.autocast("fp32"):
        inside = random_backbone.encode_pictures(frames)
    assert torch.equal(inside, random_backbone.encode_pictures(frames))
    with (
        pytest.raises(ArgumentError, match="precision is 'int8'; allowed are fp32, bf16, fp16"),
        random_backbone.autocast("int8"),
    ):
        pass


def test_image_size_keeps_the_margin(checkpoint):
    feeding = load_backbone("panecho-image", checkpoint, image_size=112).feeding
    assert (feeding.crop, feeding.resize) == (112, 128)


def test_modules_can_be_fine_tuned(random_backbone):
    frames = torch.rand(2, 3, 32, 32)
    random_backbone.clip_encoder(random_backbone.image_encoder(frames)[None]).sum().backward()
    assert all(p.grad is not None for p in random_backbone.image_encoder.parameters())
    random_backbone.image_encoder.zero_grad()


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_an_argument_error(device):
    with pytest.raises(ArgumentError, match=rf"device is '{device}', which this torch .* can't use.*--device"):
        load_backbone("random", device=device)


@pytest.fixture
def own_registry(monkeypatch) -> None:
    monkeypatch.setattr(backbones, "_factories", dict(backbones._factories))


def documented_example() -> str:
    text = inspect.getdoc(backbones)
    assert text is not None
    return textwrap.dedent("".join(f"{line}\n" for line in text.splitlines() if line.startswith("    ") or not line))


def test_the_documented_example_of_an_own_backbone_works(own_registry):
    example = documented_example()
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    exec(example, {})
    backbone = load_backbone("tiny")
    features = backbone.encode_pictures(backbone.normalise(pixels(3, 32)))
    assert backbone.encode_clips(features[None]).shape == (1, 8)
    assert "tiny" in backbone_names()


def test_a_taken_name_is_refused(own_registry):
    for name in ("panecho", "timm:x", ""):
        with pytest.raises(ArgumentError, match="can't be called"):
            register_backbone(name, lambda weights, seed: None)


def test_a_factory_must_give_a_backbone(own_registry):
    register_backbone("odd", lambda weights, seed: torch.nn.Identity())
    with pytest.raises(ArgumentError, match="'odd' returned a Identity, not a Backbone"):
        load_backbone("odd")


def test_a_backbone_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text(documented_example().replace("register_backbone(", "# "))
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[panecho_embed.backbones]\ntheirs = their_package:factory\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "theirs" in backbone_names()
    assert load_backbone("theirs").dim == 8
    sys.modules.pop("their_package")


def test_pooling_and_frame_dim_must_agree(random_backbone):
    with pytest.raises(ArgumentError, match="image_dim is None and pooling 'mean'"):
        Backbone(
            "odd",
            torch.nn.Identity(),
            torch.nn.Identity(),
            dim=8,
            image_dim=None,
            feeding=random_backbone.feeding,
            weights=random_backbone.weights,
        )
