"""What fuzzing has found, each as the smallest input that did it."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ManifestError, MediaError, RecipeError, WeightsError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import Failure, VideoRef
from panecho_embed.datasets import read_manifest
from panecho_embed.extraction import decode
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings, decode_video
from panecho_embed.finetuning.recipe_files import parse_recipe, recipe_text
from panecho_embed.media import open_cine
from panecho_embed.media.cine import Cine
from panecho_embed.models.checkpoint import read_checkpoint

SMALL = Feeding(resize=40, crop=32)
VIDEO = VideoRef("v", "s", "p", "v.npy")


def archive(data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A .pt file with this pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")
    return buffer.getvalue()


class Call:
    """Pickled as a call that makes the file CANARY."""

    def __reduce__(self):
        return os.system, ("touch CANARY",)


def test_a_text_in_bare_weights_that_claims_an_exabyte(tmp_path):
    path = tmp_path / "w.pt"
    path.write_bytes(b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"short")
    with pytest.raises(WeightsError, match="no readable weights file"):
        read_checkpoint(path)


COMPRESSIONS = {"deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}


def damaged(whole: bytes) -> bytes:
    """A zip archive of one member or two, in whose compressed bytes nothing makes sense."""
    (size,) = struct.unpack_from("<H", whole, 26)
    return whole[: 40 + size] + b"\xff" * 20 + whole[60 + size :]


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_weights_whose_compressed_bytes_are_damaged(tmp_path, compression):
    (tmp_path / "w.pt").write_bytes(damaged(archive(pickle.dumps(list(range(500))), compression)))
    with pytest.raises(WeightsError, match="no readable weights file"):
        read_checkpoint(tmp_path / "w.pt")


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_an_array_whose_compressed_bytes_are_damaged(tmp_path, compression):
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 255, (4, 32, 48), np.uint8))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", compression) as file:
        file.writestr("frames.npy", buffer.getvalue())
    (tmp_path / "v.npz").write_bytes(damaged(whole.getvalue()))
    with pytest.raises(MediaError):
        list(open_cine(str(tmp_path / "v.npz")).frames())


def test_an_entry_with_a_name_of_megabytes_gives_a_short_message(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"a" * 5_000_000: 1}, path)
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("wrap", [archive, bytes], ids=["archive", "bare"])
@pytest.mark.parametrize("content", [Call(), {"weights": {"a": Call()}}, {Call(): 1}], ids=["alone", "value", "key"])
def test_no_code_in_a_weights_file_runs(tmp_path, monkeypatch, wrap, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pt").write_bytes(wrap(pickle.dumps(content, protocol=2)))
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "w.pt")
    assert not (tmp_path / "CANARY").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_no_code_in_an_array_file_runs(tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    objects = np.empty((2, 16, 16), dtype=object)
    objects[...] = Call()
    if suffix == ".npy":
        np.save(tmp_path / "v.npy", objects)
    else:
        np.savez(tmp_path / "v.npz", frames=objects, fps=np.array(Call(), dtype=object))
    with pytest.raises(MediaError):
        open_cine(str(tmp_path / f"v{suffix}"))
    assert not (tmp_path / "CANARY").exists()


def test_an_error_of_a_zip_archive_does_not_quote_its_bytes(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, frames=np.zeros((4, 32, 48), np.uint8))
    # The name in the member's own head differs from that in the directory.
    path.write_bytes(path.read_bytes().replace(b"frames.npy", b"fr\xffm\x00s.npy", 1))
    with pytest.raises(MediaError) as caught:
        open_cine(str(path))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_an_array_whose_header_unfolds_into_gigabytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("frames.npy", b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b" " * (1 << 20))
    with pytest.raises(MediaError, match="header claims 2147483648 bytes"):
        open_cine(str(tmp_path / "v.npz"))


def test_an_npz_of_thousands_of_arrays(tmp_path):
    np.savez(tmp_path / "v.npz", **{f"a{i}": np.zeros(1) for i in range(1001)})
    with pytest.raises(MediaError, match="holds 1001 arrays") as caught:
        open_cine(str(tmp_path / "v.npz"))
    assert len(str(caught.value)) < 400


def test_a_png_whose_chunk_claims_gigabytes(tmp_path):
    whole = cv2.imencode(".png", np.zeros((64, 80, 3), np.uint8))[1].tobytes()
    where = whole.index(b"IDAT") - 4
    (tmp_path / "frame0.png").write_bytes(whole[:where] + b"\xff\0\0\0" + whole[where + 4 :])
    with pytest.raises(MediaError, match="cut or damaged"):
        list(open_cine(str(tmp_path), include_stills=True).frames())


def claiming(frames: int | None, true: int = 20) -> Cine:
    def read() -> Iterator[np.ndarray]:
        return (
            np.full((32, 32, 3), (i % 256, 0, 0), np.uint8) + np.eye(32, dtype=np.uint8)[..., None] for i in range(true)
        )

    return Cine("v.npy", "array", 30.0, "test", None, frames, read)


@pytest.mark.parametrize("claimed", [None, 3, 10**9])
def test_a_false_number_of_frames_costs_no_memory(monkeypatch, tmp_path, claimed):
    monkeypatch.setattr(decode, "open_cine", lambda path, include_stills: claiming(claimed))
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.zeros(1))
    decoded = decode_video(VIDEO, DecodeSettings(SMALL, (ClipPlan(num_clips=None, stride=1),)))
    assert isinstance(decoded, DecodedVideo)
    assert decoded.facts.num_frames == 20
    assert [clips.shape for clips in decoded.clips] == [(5, 16)]


@pytest.mark.parametrize("clips", [None, ClipPlan(num_clips=None, stride=1)])
def test_a_video_too_long_for_memory_is_a_failure(monkeypatch, clips):
    monkeypatch.setattr(decode, "open_cine", lambda path, include_stills: claiming(64, true=500))
    monkeypatch.setattr(decode, "_MOST_BYTES", 100 * 3 * 32 * 32)
    failure = decode_video(VIDEO, DecodeSettings(SMALL, None if clips is None else (clips,)))
    assert isinstance(failure, Failure)
    assert "cut the video into shorter ones" in failure.message


def test_a_table_of_images_whose_names_are_not_utf_8(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"query_key,view_label\n1s1_\xff.png,PLAX\n")
    with pytest.raises(ManifestError, match="query_key is not UTF-8 text"):
        read_manifest(tmp_path / "t.csv", salt="a salt of the tests")


def test_a_url_that_nothing_is_known_of_is_a_failure():
    failure = decode_video(VideoRef("v", "s", "p", "nosuch://x"), DecodeSettings(SMALL, (ClipPlan(),)))
    assert isinstance(failure, Failure)
    assert failure.message == "nothing can be read or written at nosuch://...; a URL begins with s3:// or gs://"


CUSTOM = recipe_text("custom")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("\nx = " + "[" * 100_000, "no TOML"),
        ("\n" + "a." * 10_000 + "b = 1", "a name of more than 20 parts"),
        ("\nx = " + "9" * 5000, "no TOML"),
        ("\n[optimizer]\nlr = 1" + "0" * 400, "optimizer.lr"),
        ("\n" + "k" * 100_000 + " = 1", "no such setting"),
        ("\n" + "\n".join(f"key{i} = 1" for i in range(10_000)), "no such setting"),
        ("\n#" + "x" * 300_000, "characters"),
    ],
    ids=["deep", "dotted", "digits", "large", "long name", "many names", "long"],
)
def test_recipes_that_are_long_to_read(added, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(f"{added}\n" if "lr" in added else f"{CUSTOM}{added}", "r.toml")
    assert len(str(caught.value)) < 3000
