"""Small whole files of every kind, from which the fuzzer makes damaged and hostile ones."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import MPEG4HP41, JPEG2000Lossless, RLELossless
from safetensors.torch import save as save_safetensors

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Failure, Manifest, VideoFacts, VideoRef
from panecho_embed.finetuning.recipe_files import recipe_names, recipe_text
from panecho_embed.store import EmbeddingWriter
from tests.media.builders import numbered_frames, pydicom_file, ultrasound_region, write_avi, write_dicom, write_video


def seeds(kind: str) -> list[bytes]:
    """Whole inputs of a kind; a folder of images is a zip archive of its files."""
    with tempfile.TemporaryDirectory() as folder:
        return list(_MAKERS[kind](Path(folder)))


def _dicom(folder: Path) -> Iterator[bytes]:
    cine = pydicom.dcmread(pydicom_file("examples_ybr_color.dcm"))
    frames = [frame for frame, _ in zip(generate_frames(cine.PixelData, number_of_frames=30), range(3), strict=False)]
    cine.PixelData = encapsulate(frames, has_bot=True)
    cine.NumberOfFrames = 3
    cine.save_as(folder / "cine.dcm")
    yield (folder / "cine.dcm").read_bytes()
    small = numbered_frames(4, 32, 48)
    region = ultrasound_region(4, 4, 40, 28)
    yield write_dicom(folder / "native.dcm", small, SequenceOfUltrasoundRegions=[region]).read_bytes()
    grey = np.arange(4 * 32 * 32, dtype=np.uint16).reshape(4, 32, 32)
    window = {"WindowCenter": 2000, "WindowWidth": 4000, "RescaleSlope": 2, "RescaleIntercept": -1000}
    yield write_dicom(folder / "grey.dcm", grey, BitsStored=12, **window).read_bytes()
    for syntax in (RLELossless, JPEG2000Lossless):
        dataset = pydicom.dcmread(folder / "native.dcm")
        dataset.compress(syntax)
        dataset.save_as(folder / "compressed.dcm")
        yield (folder / "compressed.dcm").read_bytes()
    stream = write_video(folder / "stream.h264", small, "libx264").read_bytes()
    tags = {"NumberOfFrames": 4, "Rows": 32, "Columns": 48, "PhotometricInterpretation": "YBR_PARTIAL_420"}
    yield write_dicom(folder / "video.dcm", [stream], syntax=MPEG4HP41, **tags).read_bytes()
    for name in ("SC_rgb_jpeg_dcmtk.dcm", "image_dfl.dcm"):
        yield pydicom_file(name).read_bytes()
    dataset = pydicom.dcmread(pydicom_file("emri_small_jpeg_ls_lossless.dcm"))
    frames = [
        frame for frame, _ in zip(generate_frames(dataset.PixelData, number_of_frames=10), range(2), strict=False)
    ]
    dataset.PixelData, dataset.NumberOfFrames = encapsulate(frames), 2
    dataset.save_as(folder / "jpegls.dcm")
    yield (folder / "jpegls.dcm").read_bytes()


def _video(folder: Path) -> Iterator[bytes]:
    frames = numbered_frames(8, 64, 80)
    yield write_avi(folder / "mjpg.avi", frames).read_bytes()
    for name, codec, pixels in (
        ("h264.mp4", "libx264", "yuv420p"),
        ("mpeg4.avi", "mpeg4", "yuv420p"),
        ("mjpg.mov", "mjpeg", "yuvj420p"),
        ("vp8.mkv", "libvpx", "yuv420p"),
        ("wmv.wmv", "wmv2", "yuv420p"),
        ("mpeg.mpg", "mpeg2video", "yuv420p"),
    ):
        yield write_video(folder / name, frames, codec, pixels=pixels).read_bytes()
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    yield write_video(folder / "frag.mp4", frames, "libx264", container=fragmented).read_bytes()
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(folder / "gif.gif", save_all=True, append_images=pictures[1:], duration=40)
    yield (folder / "gif.gif").read_bytes()


def _array(folder: Path) -> Iterator[bytes]:
    frames = numbered_frames(4, 32, 48)
    for array in (frames, frames[..., 0].astype(np.float32) / 255):
        np.save(folder / "a.npy", array)
        yield (folder / "a.npy").read_bytes()
    for save in (np.savez, np.savez_compressed):
        save(folder / "a.npz", frames=frames, fps=np.array(30.0))
        yield (folder / "a.npz").read_bytes()


def _images(folder: Path) -> Iterator[bytes]:
    for suffix in (".png", ".jpg", ".bmp", ".tif"):
        files = {f"frame{i}{suffix}": cv2.imencode(suffix, f)[1].tobytes() for i, f in enumerate(numbered_frames(3))}
        yield pack(files)


def _embeddings(folder: Path) -> Iterator[bytes]:
    weights = WeightsInfo("random (seed 0)", "ab" * 32, "none", pretrained=False)
    for level, rows, dtype in (("clip", 4, "float32"), ("frame", 30, "float16")):
        plan = ClipPlan() if level == "clip" else None
        provenance = Provenance("random", weights, Feeding(), plan, level, dim=8, dtype=dtype)
        videos = [VideoRef(f"v{i}", f"s{i // 2}", f"p{i // 4}", f"/data/v{i}.avi", "A4C", "train") for i in range(6)]
        labels = {"EF": np.arange(6.0), "sex": np.array(["f", "m", "", "f", "m", "f"], dtype=object)}
        facts = [VideoFacts("done", "cd" * 32, 64, 30.0, "container", 1000, 5)] * 5 + [VideoFacts("failed")]
        failures = [Failure("v5", "/data/v5.avi", "decode", "the video is damaged")]
        with EmbeddingWriter(folder / f"{level}.h5", provenance) as writer:
            for i in range(5):
                values = np.random.default_rng(i).normal(size=(rows, 8))
                writer.add(i, values, np.arange(rows), 1, 16 if plan else 1)
            writer.finish(Manifest(tuple(videos), labels), facts, failures)
        yield (folder / f"{level}.h5").read_bytes()


def _manifest(folder: Path) -> Iterator[bytes]:
    yield b"path,video_id,study_id,patient_id,view,split,fps,EF,sex\n" + b"".join(
        f"v{i}.npy,v{i},s{i // 2},p{i // 2},A4C,train,{30 + i},{50 + i}.5,f\n".encode() for i in range(4)
    )
    yield 'path;patient_id;note\nv0.npy;müller;"a;b"\nv1.npy;x;\n'.encode()
    yield b"\xef\xbb\xbfquery_key,view_label,SourceFolder\n1s1_0.png,PLAX,images\n1s1_1.png,A4C,images\n"
    yield b"path\nv0.npy\n"


def _weights(folder: Path) -> Iterator[bytes]:
    state = {"stem.weight": torch.randn(4, 3, 4, 4), "stem.bias": torch.randn(4), "pe": torch.randn(1, 16, 8)}
    for content in ({"weights": state, "epoch": 3}, state, {"state_dict": state}):
        torch.save(content, folder / "w.pt")
        yield (folder / "w.pt").read_bytes()
    torch.save({"weights": state}, folder / "w.pt", _use_new_zipfile_serialization=False)
    yield (folder / "w.pt").read_bytes()
    yield save_safetensors(state)
    yield pickle.dumps({"weights": {"stem.bias": [1.0, 2.0]}}, protocol=2)


def _recipe(folder: Path) -> Iterator[bytes]:
    for name in recipe_names():
        yield recipe_text(name).encode()


_MAKERS = {
    "dicom": _dicom,
    "video": _video,
    "array": _array,
    "images": _images,
    "embeddings": _embeddings,
    "manifest": _manifest,
    "weights": _weights,
    "recipe": _recipe,
}
KINDS = tuple(_MAKERS)


def pack(files: dict[str, bytes]) -> bytes:
    """Files as one zip archive, stored."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """What `pack` packed; empty where it is no such archive any more."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except Exception:
        return {}


def safetensors_file(header: object, data: bytes) -> bytes:
    """A .safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
