"""What is done with an input of each kind, as the commands do it, and what may come of it.

An input may end in a result, in a Failure, or in an error of the package's own. Everything else is a finding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import MediaError, PanEchoEmbedError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.records import VideoRef
from panecho_embed.datasets import describe_manifest, read_manifest
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings, decode_video
from panecho_embed.extraction.describing import info as describe_file
from panecho_embed.extraction.pooling import pool
from panecho_embed.finetuning.recipe_files import load_recipe, parse_recipe, to_toml
from panecho_embed.media import describe, is_dicom, read_identity
from panecho_embed.models.checkpoint import matching_tensors, read_checkpoint
from panecho_embed.retrieval.collection import Collection
from panecho_embed.retrieval.find import study_query
from panecho_embed.store import EmbeddingFile, verify
from panecho_embed.store.merge import merge
from tests.fuzz import mutate_media as media
from tests.fuzz import mutate_recipe
from tests.fuzz import mutate_stores as stores
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import unpack


class Finding(AssertionError):
    """An input did what no input may do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of input.

    name_of: the file name under which an input is written; its suffix decides how it is read. run: what is done with
    it; gives a word for what came of it. mutators: those that know the format.
    """

    name_of: Callable[[bytes], str]
    run: Callable[[Path], str]
    mutators: Sequence[Mutator]


def feed(kind: str, data: bytes, folder: Path) -> str:
    """Write an input into `folder` and do with it what the commands do; a word for what came of it.

    Raises Finding, or whatever escaped, for what must not happen.
    """
    target = TARGETS[kind]
    path = folder / target.name_of(data)
    if kind == "images":
        path.mkdir()
        for name, content in unpack(data).items():
            _write(path / Path(name).name, content)
    else:
        _write(path, data)
    outcome = target.run(path)
    if (folder / stores.CANARY).exists() or Path(stores.CANARY).exists():
        raise Finding("code from the input has run")
    return outcome


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except (OSError, ValueError):
        # A name that no file system takes.
        path.with_name("renamed.png").write_bytes(data)


_FEEDING = Feeding(resize=40, crop=32)
_SETTINGS = (
    DecodeSettings(_FEEDING, (ClipPlan(),)),
    DecodeSettings(_FEEDING, (ClipPlan(num_clips=None, stride=1),), include_stills=True),
    DecodeSettings(Feeding(resize=40, crop=32, interpolation="bilinear", mask="always", crop_region=True), None, True),
)


def _decode(path: Path) -> str:
    describe(path)
    if path.is_file() and is_dicom(path):
        with contextlib.suppress(MediaError):
            read_identity(path)
    # The input itself says which settings it meets, so that an input is always met by the same.
    settings = _SETTINGS[sum(path.name.encode()) % 3 if path.is_dir() else path.stat().st_size % 3]
    outcome = decode_video(VideoRef("v", "s", "p", str(path)), settings)
    if not isinstance(outcome, DecodedVideo):
        if "(unexpected, in" in outcome.message:
            raise Finding(outcome.message)
        if not outcome.message or len(outcome.message) > 2000 or "\n" in outcome.message:
            raise Finding(f"a poor message: {outcome.message[:3000]!r}")
        return outcome.stage
    whole = outcome.pixels.shape[1:] == (3, 32, 32) and outcome.pixels.dtype == np.uint8
    frames = 0 < len(outcome.pixels) <= outcome.facts.num_frames
    clips = outcome.clips or ()
    inside = all(some.size and some.min() >= 0 and some.max() < len(outcome.pixels) for some in clips)
    if not (whole and frames and inside):
        raise Finding(f"an impossible result: {outcome.pixels.shape}, {outcome.facts}, {clips}")
    return "decoded"


def _embeddings(path: Path) -> str:
    problems = verify(path)
    try:
        file = EmbeddingFile(path)
        describe_file(file)
        _ = file.rows, file.videos, file.failures
        table = file.table()
        rows = np.asarray(file.rows_on_disk)
        file.manifest(), file.facts(), file.failure_records()
        merge([path], file.manifest(), file.provenance, path.with_name("merged.h5"))
        pool(path, "study", path.with_name("pooled.h5"))
    except PanEchoEmbedError:
        if not problems:
            raise Finding("verified as whole, and then refused") from None
        return "refused"
    if rows.tobytes() != table.values.tobytes():
        raise Finding("rows read from the disk are others than those of the table")
    with contextlib.suppress(PanEchoEmbedError):
        collection = Collection(path)
        study_query(collection, str(collection.studies.ids[0]))
    return "whole" if not problems else "read"


def _manifest(path: Path) -> str:
    for i in range(4):
        np.save(path.with_name(f"v{i}.npy"), np.zeros((2, 16, 16), np.uint8))
    os.mkfifo(path.with_name("pipe"))
    folder = path.with_name("images")
    folder.mkdir()
    for i in range(2):
        (folder / f"1s1_{i}.png").write_bytes(b"")
    try:
        manifest = read_manifest(path, salt="a salt of the tests")
        described = describe_manifest(manifest)
    except PanEchoEmbedError as error:
        str(error).encode()
        return type(error).__name__
    described.to_csv(path.with_name("again.csv"), index=False, errors="surrogateescape")
    for video in manifest.videos:
        if Path(video.path).is_file():
            decode_video(video, _SETTINGS[0])
    return "read"


def _weights(path: Path) -> str:
    expected = {"stem.weight": torch.empty(4, 3, 4, 4), "stem.bias": torch.empty(4), "pe": torch.empty(1, 16, 8)}
    try:
        state = read_checkpoint(path).tensors
        matching_tensors(expected, state, model="a model", path=path)
    except PanEchoEmbedError as error:
        if len(str(error)) > 20_000:
            raise Finding(f"a message of {len(str(error))} characters") from None
        return "refused"
    return "loaded"


def _recipe(path: Path) -> str:
    try:
        recipe = load_recipe(path)
    except PanEchoEmbedError as error:
        if len(str(error)) > 5000:
            raise Finding(f"a message of {len(str(error))} characters") from None
        return "refused"
    if parse_recipe(to_toml(recipe), "again") != recipe:
        raise Finding("written and read back, it is another recipe")
    return "read"


def _video_name(data: bytes) -> str:
    return "input.avi" if data[:4] == b"RIFF" else "input.gif" if data[:3] == b"GIF" else "input.mp4"


def _array_name(data: bytes) -> str:
    return "input.npz" if b"PK" in data[:2] else "input.npy"


def _weights_name(data: bytes) -> str:
    return "input.safetensors" if data[8:9] in (b"{", b"[") else "input.pt"


_DICOM = (
    media.dicom_value,
    media.dicom_value,
    media.dicom_element,
    media.dicom_items,
    media.dicom_nested,
    media.codestream,
)
_WEIGHTS = (stores.pickled, stores.pickled, stores.code, stores.bomb, stores.safetensors, media.zip_records)

TARGETS = {
    "dicom": Target(lambda data: "input.dcm", _decode, _DICOM),
    "video": Target(_video_name, _decode, (media.codestream,)),
    "array": Target(_array_name, _decode, (media.npy_header, media.npy_header, media.zip_records)),
    "images": Target(lambda data: "images", _decode, (media.images,)),
    "embeddings": Target(lambda data: "input.h5", _embeddings, (stores.embedding_file,)),
    "manifest": Target(lambda data: "input.csv", _manifest, (stores.table,)),
    "weights": Target(_weights_name, _weights, _WEIGHTS),
    "recipe": Target(
        lambda data: "input.toml", _recipe, (mutate_recipe.setting, mutate_recipe.setting, mutate_recipe.bomb)
    ),
}
