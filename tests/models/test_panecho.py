from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from panecho_embed.core.errors import ArgumentError, WeightsError
from panecho_embed.core.tasks import all_tasks
from panecho_embed.models import panecho as module
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.panecho import ClipEncoder, PanEcho, save_checkpoint, tasks_in
from panecho_embed.models.verify import verify_weights

# The seven whose normal class has index 1.
NORMAL_IS_ONE = {
    "pericardial-effusion",
    "LVWallThickness-increased-any",
    "LVWallThickness-increased-modsev",
    "RVSystolicFunction",
    "RASize",
    "AVStructure",
    "MVStenosis",
}


def clip(n: int, length: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, length, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("n", "length", "size"),
    [(2, 16, 112), (1, 32, 112), (1, 16, 224), pytest.param(1, 32, 224, marks=pytest.mark.slow)],
)
@torch.inference_mode()
def test_agrees_with_an_independent_implementation(reference, panecho, n, length, size):
    x = clip(n, length, size)
    pictures = reference.encoder.pictures(x)
    clips = reference.encoder.clips(pictures)
    seen = []
    hook = panecho.clip_encoder.register_forward_hook(lambda _, given, result: seen.extend((*given, result)))
    outputs = panecho(x)
    hook.remove()
    assert_close(seen[0], pictures, atol=1e-4, rtol=0)
    assert_close(seen[1], clips, atol=1e-4, rtol=0)
    assert list(outputs) == [task.name for task in all_tasks()]
    assert len(outputs) == 40
    for name, value in reference.outputs(clips).items():
        assert_close(outputs[name], value, atol=1e-4, rtol=0)


def test_no_two_heads_or_clips_are_alike(reference):
    with torch.no_grad():
        outputs = torch.cat(list(reference(clip(2, 3, 64)).values()), dim=1)
    assert (outputs[0] - outputs[1]).abs().median() > 0.05
    assert torch.pdist(outputs.T).min() > 1e-3


@torch.no_grad()
def test_the_backbone_alone_gives_clip_embeddings(reference, checkpoint):
    x = clip(2, 5, 64)
    backbone = PanEcho(weights=checkpoint, backbone_only=True)
    assert_close(backbone(x), reference.encoder.clips(reference.encoder.pictures(x)), atol=1e-4, rtol=0)
    assert backbone(x).shape == (2, 768)


@torch.no_grad()
def test_the_image_encoder_alone_gives_frame_embeddings(reference, checkpoint):
    x = clip(2, 1, 64)
    images = PanEcho(weights=checkpoint, image_encoder_only=True)
    assert_close(images(x[:, :, 0]), reference.encoder.encoder(x[:, :, 0]), atol=1e-4, rtol=0)
    assert images(x[:, :, 0]).shape == (2, 768)


@torch.no_grad()
def test_a_subset_of_tasks_in_the_order_asked_for(checkpoint, panecho):
    x = clip(1, 2, 64)
    names = ["AVStenosis", "EF", "AVPkVel(m|s)"]
    outputs = PanEcho(weights=checkpoint, tasks=names)(x)
    whole = panecho(x)
    assert list(outputs) == names
    assert all(torch.equal(outputs[name], whole[name]) for name in names)
    assert outputs["AVStenosis"].shape == (1, 3)


@torch.no_grad()
def test_activations_are_probabilities_of_the_positive_class(checkpoint, reference):
    x = clip(2, 2, 64)
    outputs, raw = PanEcho(weights=checkpoint, activations=True)(x), reference(x)
    for task in all_tasks():
        expected = {
            "regression": raw[task.name],
            "multiclass": torch.softmax(raw[task.name], 1),
            "binary": torch.sigmoid(raw[task.name]),
        }[task.type]
        if task.name in NORMAL_IS_ONE:
            expected = 1 - expected
        assert_close(outputs[task.name], expected, atol=1e-4, rtol=0)


def test_a_confident_normal_gives_a_probability_near_zero():
    model = PanEcho(pretrained=False, tasks=["MVStenosis", "LVWallMotionAbnormalities"], activations=True)
    for head in model.heads.values():
        torch.nn.init.constant_(head[1].bias, 50.0)
    outputs = model.predict(torch.zeros(1, 768))
    assert 0 < outputs["MVStenosis"].item() < 1e-20
    assert outputs["LVWallMotionAbnormalities"].item() == 1


@torch.no_grad()
def test_clip_len_only_sizes_the_position_table(checkpoint, panecho):
    x = clip(1, 9, 64)
    short = PanEcho(weights=checkpoint, clip_len=4)
    assert short.clip_encoder.positions.shape == (1, 4, 768)
    assert_close(short(x)["EF"], panecho(x)["EF"], atol=1e-6, rtol=0)


def test_fast_and_slow_transformer_paths_agree():
    encoder = ClipEncoder().eval()
    frames = torch.randn(3, 20, 768)
    slow = encoder(frames)
    with torch.inference_mode():
        fast = encoder(frames)
    assert slow.requires_grad
    assert_close(fast, slow, atol=1e-5, rtol=0)


def test_one_output_biases_start_at_the_training_mean():
    model = PanEcho(pretrained=False)
    for task in all_tasks():
        if task.num_outputs == 1:
            assert model.heads[task.name][1].bias.item() == pytest.approx(task.training_mean, rel=1e-6)
    assert model.weights_info is None


def test_gradients_reach_every_parameter():
    model = PanEcho(pretrained=False).train()
    sum(output.square().sum() for output in model(clip(1, 2, 32)).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_weights_info_names_file_hash_and_licence(panecho, checkpoint):
    assert panecho.weights_info.source == "panecho.pt"
    assert panecho.weights_info.licence == "CC BY-NC-SA 4.0"
    assert panecho.weights_info.pretrained
    expected = subprocess.run(["sha256sum", checkpoint], capture_output=True, text=True, check=True).stdout.split()[0]
    assert panecho.weights_info.sha256 == expected


@pytest.mark.parametrize(
    "mode", [{"backbone_only": True}, {"image_encoder_only": True}, {"tasks": ["EF", "RAP-8-or-higher"]}]
)
def test_saved_models_load_again(mode, tmp_path):
    model = PanEcho(pretrained=False, **mode)
    save_checkpoint(model, tmp_path / "mine.pt")
    again = PanEcho(weights=tmp_path / "mine.pt", **mode).state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.pt"]


def test_saved_models_have_the_released_layout(panecho, reference, tmp_path):
    save_checkpoint(panecho, tmp_path / "mine.pt")
    saved = torch.load(tmp_path / "mine.pt", weights_only=True)["weights"]
    expected = reference.state_dict()
    assert saved.keys() == expected.keys()
    assert all(saved[key].shape == value.shape for key, value in expected.items())
    assert all(torch.equal(saved[key], value) for key, value in expected.items() if not key.endswith(".pe"))
    assert_close(saved["encoder.time_encoder.pe"], expected["encoder.time_encoder.pe"], atol=1e-6, rtol=0)
    assert tasks_in(tmp_path / "mine.pt") == [task.name for task in all_tasks()]


def test_saving_where_nothing_can_be_written_says_so(tmp_path):
    model = PanEcho(pretrained=False, image_encoder_only=True)
    with pytest.raises(WeightsError, match=r"can't write .*nowhere"):
        save_checkpoint(model, tmp_path / "nowhere" / "mine.pt")


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"tasks": ["EF", "AVStenosiss"]}, r"unknown tasks: 'AVStenosiss'; nearest: AVStenosis,.*allowed: pericardial-eff"),
    ({"tasks": ["ef"]}, r"unknown tasks: 'ef'; nearest: EF"),
    ({"tasks": "EF"}, r"tasks is 'EF'; allowed are 'all' and a list of names, such as \['EF'\]"),
    ({"tasks": []}, r"tasks is \[\]; name one task or more"),
    ({"tasks": ["EF", "EF"]}, r"each once"),
    ({"clip_len": 0}, r"clip_len is 0; it must be a whole number of frames, 1 or more"),
    ({"clip_len": 2.5}, r"clip_len is 2.5"),
    ({"backbone_only": True, "image_encoder_only": True}, r"at most one of them"),
    ({"backbone_only": True, "activations": True}, r"activations is True, but a model without heads"),
    ({"image_encoder_only": True, "tasks": ["EF"]}, r"tasks is \['EF'\].*without heads"),
    ({"weights": "x.pt"}, r"weights is 'x.pt' and pretrained is False"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_value_errors_that_say_what_is_allowed(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        PanEcho(pretrained=False, **arguments)
    assert isinstance(caught.value, ArgumentError)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 16, 3, 64, 64), r"shape \(1, 16, 3, 64, 64\); allowed is \(N, 3, T, H, W\)"),
        (torch.zeros(3, 16, 64, 64), r"allowed is \(N, 3, T, H, W\)"),
        (torch.zeros(1, 3, 1, 31, 64), r"at least 32"),
        (torch.zeros(1, 3, 0, 64, 64), r"shape \(1, 3, 0, 64, 64\)"),
        (torch.zeros(1, 3, 1, 64, 64, dtype=torch.uint8), r"input is torch.uint8"),
    ],
)
def test_wrong_input_says_what_is_allowed(panecho, x, message):
    with pytest.raises(ArgumentError, match=message):
        panecho(x)


LEAN_IMPORT = """
import json, socket, sys

sys.modules |= dict.fromkeys({blocked})
def refuse(*arguments, **keywords):
    raise OSError("no network is needed for random weights")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse

from panecho_embed.models.panecho import PanEcho
import torch
print(json.dumps(list(PanEcho(pretrained=False, tasks=["EF"])(torch.rand(1, 3, 2, 32, 32))["EF"].shape)))
"""


def test_needs_only_numpy_torch_timm_and_no_network(tmp_path):
    blocked = [
        "click",
        "cv2",
        "faiss",
        "h5py",
        "jinja2",
        "matplotlib",
        "pandas",
        "pebble",
        "pydicom",
        "scipy",
        "sklearn",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAN_IMPORT.format(blocked=blocked)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, 1]


def test_a_file_that_lacks_a_head_is_refused(checkpoint, tmp_path):
    path = altered(checkpoint, tmp_path, drop="GLS_head.1.bias")
    with pytest.raises(WeightsError, match=r"1 are missing \(-\)[^$]*  - GLS_head\.1\.bias \(1,\)"):
        PanEcho(weights=path)
    assert PanEcho(weights=path, tasks=["EF"]).weights_info is not None


def test_a_file_with_a_foreign_array_is_refused(checkpoint, tmp_path):
    path = altered(checkpoint, tmp_path, add={"encoder.extra.weight": torch.zeros(2, 3)})
    with pytest.raises(WeightsError, match=r"  \+ encoder\.extra\.weight \(2, 3\)"):
        PanEcho(weights=path, backbone_only=True)


def test_the_position_table_of_a_file_does_not_matter(checkpoint, panecho, tmp_path):
    path = altered(checkpoint, tmp_path, add={"encoder.time_encoder.pe": torch.full((1, 64, 768), 7.0)})
    x = clip(1, 2, 32)
    assert torch.equal(PanEcho(weights=path)(x)["EF"], panecho(x)["EF"])


def test_a_truncated_file_is_named_with_its_size(checkpoint, tmp_path):
    path = tmp_path / "cut.pt"
    path.write_bytes(checkpoint.read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match=r"cut\.pt: no readable weights file.*1,000,000 bytes"):
        PanEcho(weights=path)


def altered(checkpoint: Path, folder: Path, drop: str = "", add: dict[str, torch.Tensor] | None = None) -> Path:
    content = torch.load(checkpoint, weights_only=True)
    content["weights"].pop(drop, None)
    content["weights"] |= add or {}
    torch.save(content, folder / "altered.pt")
    return folder / "altered.pt"


def test_a_narrow_panecho_is_saved_and_loads_as_a_whole_one(tmp_path):
    model = PanEcho(pretrained=False, tasks=["EF"], width=1 / 12)
    assert (model.dim, sum(p.numel() for p in model.parameters()) < 1e6) == (64, True)
    save_checkpoint(model, tmp_path / "narrow.pt")
    again = PanEcho(weights=tmp_path / "narrow.pt")
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(x)["EF"], model(x)["EF"])
    assert load_backbone("panecho", tmp_path / "narrow.pt").dim == 64


def test_width_one_is_the_released_architecture():
    shapes = {name: tensor.shape for name, tensor in PanEcho(pretrained=False, width=1.0).state_dict().items()}
    assert shapes["image_encoder.stem.0.weight"] == (96, 3, 4, 4)
    assert shapes["heads.EF.1.weight"] == (1, 768)


@pytest.mark.parametrize("width", [0, 1.5, -1])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(ArgumentError, match="width is"):
        PanEcho(pretrained=False, width=width)


def test_a_file_whose_layers_disagree_in_width_is_refused(tmp_path):
    wide, narrow = PanEcho(pretrained=False, width=0.25), PanEcho(pretrained=False, width=1 / 12)
    wide.image_encoder.stem[0] = narrow.image_encoder.stem[0]
    save_checkpoint(wide, tmp_path / "mixed.pt")
    with pytest.raises(WeightsError, match="another shape"):
        PanEcho(weights=tmp_path / "mixed.pt", backbone_only=True)


def test_the_first_load_in_a_process_says_that_it_returns_logits(tmp_path, caplog):
    """Whoever comes from the released code expects probabilities."""
    path = tmp_path / "w.pt"
    save_checkpoint(PanEcho(pretrained=False, tasks=["EF", "MVStenosis"], width=1 / 12), path)
    module._say_logits.cache_clear()
    PanEcho(pretrained=False, tasks=["EF"], width=1 / 12)
    PanEcho(weights=path, backbone_only=True)
    PanEcho(weights=path, activations=True)
    verify_weights(path)
    assert not caplog.messages
    first, second = PanEcho(weights=path), PanEcho(weights=path)
    (said,) = caplog.messages
    assert "returns logits" in said
    assert "PanEcho(activations=True)" in said
    x = clip(1, 4, 32)
    with torch.no_grad():
        logit, again = first(x)["MVStenosis"], second(x)["MVStenosis"]
        probability = PanEcho(weights=path, activations=True)(x)["MVStenosis"]
    assert torch.equal(logit, again)
    # Of this task the normal class has index 1.
    assert_close(probability, torch.sigmoid(-logit))
