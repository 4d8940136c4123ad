from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, WeightsError
from panecho_embed.core.feeding import Feeding
from panecho_embed.models.checkpoint import (
    Recorded,
    from_checkpoint_names,
    matching_tensors,
    read_checkpoint,
    tensors_sha256,
    to_checkpoint_names,
    write_weights,
)

ARRAYS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2)}
OURS = {"layout": "panecho", "plane_order": "published"}
MANY = {f"a{i}.weight": torch.randn(30, 30) for i in range(40)}


@pytest.mark.parametrize("content", [ARRAYS, {"weights": ARRAYS, "epoch": 1}, {"state_dict": ARRAYS, "name": "x"}])
def test_reads_a_state_dict_bare_or_wrapped(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    read = read_checkpoint(tmp_path / "w.pt").tensors
    assert read.keys() == ARRAYS.keys()
    assert torch.equal(read["a.weight"], ARRAYS["a.weight"])


def test_reads_safetensors(tmp_path):
    save_file(ARRAYS, tmp_path / "w.safetensors")
    assert read_checkpoint(tmp_path / "w.safetensors").tensors.keys() == ARRAYS.keys()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@given(bytes_=st.binary(max_size=200))
def test_any_bytes_that_are_no_checkpoint_are_a_weights_error(tmp_path_factory, name, bytes_):
    path = tmp_path_factory.mktemp("noise") / name
    path.write_bytes(bytes_)
    with pytest.raises(WeightsError, match=rf"{re.escape(name)}: .*{len(bytes_)} bytes|holds a|no tensors"):
        read_checkpoint(path)


@given(keep=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_a_weights_error(tmp_path_factory, keep):
    folder = tmp_path_factory.mktemp("cut")
    torch.save({"weights": MANY}, folder / "whole.pt")
    whole = (folder / "whole.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(WeightsError, match=r"cut\.pt: no readable weights file.*bytes"):
        read_checkpoint(folder / "cut.pt")


class Harmful:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_code_in_a_file_never_runs(tmp_path):
    torch.save({"weights": Harmful(str(tmp_path / "ran"))}, tmp_path / "zip.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Harmful(str(tmp_path / "ran")), protocol=2))
    for name in ("zip.pt", "pickle.pt"):
        with pytest.raises(WeightsError, match=name):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(2), "holds a Tensor, not a dict of tensors"),
        ({}, "not a dict of tensors"),
        ({"epoch": 3, "model": ARRAYS}, r"these entries are no tensors: epoch, model"),
    ],
)
def test_other_torch_files_are_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "w.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"w\.pt: can't be read: No such file"):
        read_checkpoint(tmp_path / "w.pt")


def match(found, **more):
    return matching_tensors(ARRAYS, found, model="a test", path=Path("w.pt"), **more)


def test_differences_are_listed_line_by_line():
    found = {"a.weight": torch.zeros(3, 2), "c": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        match(found)
    assert str(caught.value).splitlines() == [
        "w.pt: these are not the weights of a test: of 2 arrays 1 are missing (-), 1 have another shape (-+); "
        "1 are left over (+)",
        "  - b.bias (2,)",
        "  + c (1,)",
        "  -+ a.weight (2, 3), not (3, 2)",
    ]


def test_long_lists_are_cut():
    with pytest.raises(WeightsError, match=r"\+ \.\.\. and 88 more") as caught:
        match(ARRAYS | {f"x{i}": torch.zeros(1) for i in range(100)})
    assert len(str(caught.value).splitlines()) == 14


def test_only_what_is_named_as_spare_or_optional_may_differ():
    assert match(ARRAYS | {"c.x": torch.zeros(1)}, spare=r"c\..+").keys() == ARRAYS.keys()
    assert match({"a.weight": ARRAYS["a.weight"]}, optional=r"b\.bias").keys() == {"a.weight"}
    with pytest.raises(WeightsError, match=r"\+ cc\.x"):
        match(ARRAYS | {"cc.x": torch.zeros(1)}, spare=r"c\..+")


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(WeightsError, match=r"not finite \(NaN or infinite\) in b.bias"):
        match(ARRAYS | {"b.bias": torch.tensor([0.0, float("nan")])})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    write_weights({"weights": ARRAYS}, path)
    before = path.read_bytes()
    monkeypatch.setattr("torch.save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(WeightsError, match=r"can't write .*w\.pt: no space left on the device"):
        write_weights({"weights": ARRAYS}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_of_tensors_sees_names_shapes_types_and_values():
    variants = [
        {"a": torch.zeros(2, 3)},
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.bfloat16)},
        {"a": torch.ones(2, 3)},
    ]
    assert len({tensors_sha256(state) for state in variants}) == 5
    image = torch.rand(1, 3, 4, 4)
    assert tensors_sha256({"a": image}) == tensors_sha256({"a": image.to(memory_format=torch.channels_last)})


def test_every_name_of_the_released_layout_goes_there_and_back(reference, panecho):
    ours = panecho.state_dict()
    theirs = to_checkpoint_names(ours)
    assert theirs.keys() == reference.state_dict().keys() - {"encoder.time_encoder.pe"}
    back = from_checkpoint_names(theirs)
    assert list(back) == list(ours)
    assert all(back[name].shape == value.shape for name, value in ours.items())
    assert from_checkpoint_names({"encoder.time_encoder.pe": torch.zeros(1, 16, 768)}) == {}


def test_a_name_without_a_rule_is_an_error():
    with pytest.raises(ArgumentError, match=r"no rule renames 'decoder\.weight'"):
        to_checkpoint_names({"decoder.weight": torch.zeros(1)})


@pytest.mark.parametrize("key", ["licence", "license"])
def test_what_a_file_says_of_itself_is_read(key, tmp_path):
    about = OURS | {
        key: "MIT\n",
        "feeding": {"resize": 37, "crop": 32, "mean": [0, 0, 0], "clips": {"frames_per_clip": 4}},
    }
    torch.save({"weights": ARRAYS, "panecho_embed": about}, tmp_path / "w.pt")
    recorded = read_checkpoint(tmp_path / "w.pt").recorded
    assert recorded.licence == "MIT"
    assert recorded.feeding == Feeding(resize=37, crop=32, mean=(0, 0, 0), clips=ClipPlan(4))


def test_a_file_of_an_earlier_release_is_refused_for_its_feeding(tmp_path):
    torch.save({"weights": ARRAYS, "panecho_embed": OURS | {"preprocess": {"resize": 256}}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="made by an earlier release, which fed several models otherwise"):
        read_checkpoint(tmp_path / "w.pt")


def test_what_a_file_does_not_say_is_not_made_up(tmp_path):
    torch.save({"weights": ARRAYS, "license": "MIT"}, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt").recorded == Recorded("MIT")
    torch.save(ARRAYS, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt").recorded == Recorded()


@pytest.mark.parametrize(
    "feeding", [{"crop": 0}, {"crop": "x"}, {"colour": 1}, 7, {"mean": 3}, {"clips": 3}, {"clips": {"start": -1}}]
)
def test_pixels_that_there_cannot_be_are_refused(feeding, tmp_path):
    torch.save({"weights": ARRAYS, "panecho_embed": OURS | {"feeding": feeding}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="records as its feeding can't be"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    "odd", [torch.Tensor.to_sparse, lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)]
)
def test_tensors_that_are_sparse_or_quantised_are_named(tmp_path, odd):
    torch.save({"weights": {"a": torch.eye(3), "stem.bias": odd(torch.eye(3))}}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"sparse or quantised.*stem\.bias"):
        read_checkpoint(tmp_path / "w.pt")
