"""The nouns that every stage speaks: frozen dataclasses on numpy alone, checked when they are made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from panecho_embed.clips import ClipPlan
from panecho_embed.errors import ArgumentError, ManifestError

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]

Layout = Literal["auto", "folder", "images", "csv", "echonet-dynamic", "echonet-pediatric", "echonet-lvh"]
Level = Literal["frame", "clip", "video", "study"]
Status = Literal["done", "skipped", "failed"]
PoolBy = Literal["video", "study"]
PoolHow = Literal["mean", "mean+std", "max"]
Precision = Literal["fp32", "bf16", "fp16"]
Engine = Literal["local", "ray"]
EngineBackend = Literal["auto", "eager", "rearranged", "compiled"]
StoredType = Literal["float32", "float16"]
Interpolation = Literal["area", "bilinear", "bicubic"]
ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True, slots=True)
class VideoRef:
    """One video (or still) to be embedded, and whose it is.

    video_id: unique in a manifest. study_id, patient_id: never empty. view, split: "" where not known.
    path: a file, or a folder of images. fps: frames per second as the manifest says, None to take it from the file.
    """

    video_id: str
    study_id: str
    patient_id: str
    path: str
    view: str = ""
    split: str = ""
    fps: float | None = None

    def __post_init__(self) -> None:
        for name in ("video_id", "study_id", "patient_id", "path"):
            if not getattr(self, name):
                raise ArgumentError(f"{name} is empty for the video {self.video_id or self.path!r}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ArgumentError(f"fps is {self.fps} for the video {self.video_id!r}; it must be above 0, or left empty")


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The videos of a data set, in the order in which their rows will stand, and what is known of each.

    labels: name -> (M,) float64 (NaN where missing) or str objects ("" where missing), one value a video.
    notes: what a person should know of how the list came about (files without rows, columns taken for granted).
    """

    videos: tuple[VideoRef, ...]
    labels: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = Counter(video.video_id for video in self.videos)
        if twice := [f"{video_id} ({count} times)" for video_id, count in counts.items() if count > 1]:
            raise ManifestError(f"{len(twice)} video_ids stand more than once: {', '.join(twice[:20])}")
        for name, column in self.labels.items():
            if column.shape != (len(self.videos),) or column.dtype.kind not in "fO":
                raise ManifestError(
                    f"label {name!r} is {column.dtype} of shape {column.shape}; it must be float64 or str objects, "
                    f"one for each of {len(self.videos)} videos"
                )

    def __len__(self) -> int:
        return len(self.videos)

    def take(self, indices: Sequence[int]) -> Manifest:
        """The videos at `indices`, in that order, with their labels."""
        picked = np.asarray(indices, dtype=np.int64)
        return Manifest(
            tuple(self.videos[i] for i in picked), {name: column[picked] for name, column in self.labels.items()}
        )


FPS_OF_MANIFEST = "manifest"
"""`VideoFacts.fps_source` of a frame rate that the manifest gave."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What reading a video told.

    status: "done", "skipped" (no cine loop) or "failed". sha256: of the file's bytes ("" where it was not read).
    num_frames: decoded, 0 where none were. fps: frames per second, NaN where not known. fps_source: where it came from.
    size_bytes, mtime_ns: of the file when it was read, to see whether it has changed since.
    """

    status: Status
    sha256: str = ""
    num_frames: int = 0
    fps: float = math.nan
    fps_source: str = ""
    size_bytes: int = -1
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of an ultrasound image (DICOM PS3.3 C.8.5.5, Sequence of Ultrasound Regions, (0018,6011)).

    x0, y0: first column and row inside; x1, y1: first column and row beyond; in pixels of the image.
    spatial_format: (0018,6012): 1 = 2-D, 2 = M-mode, 3 = spectral, 4 = wave form, 5 = graphics.
    data_type: (0018,6014): 1 = tissue, 2 = colour flow, 3 = PW, 4 = CW, ...
    physical_delta_x, physical_delta_y: cm per pixel, None where the file gives no centimetres.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    spatial_format: int = 1
    data_type: int = 1
    physical_delta_x: float | None = None
    physical_delta_y: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 and 0 <= self.y0 < self.y1):
            raise ArgumentError(f"region ({self.x0}, {self.y0})-({self.x1}, {self.y1}) is empty or starts before 0")


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """A decoded video.

    pixels: (T, H, W, 3) uint8, RGB, T, H, W at least 1.
    fps: frames per second, None where nothing says; fps_source: where it came from, "" with None.
    region: the 2-D ultrasound region, None where the file names none that fits its image.
    """

    pixels: UInt8Array
    fps: float | None = None
    fps_source: str = ""
    region: Region | None = None

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[-1] != 3 or not self.pixels.size:
            raise ArgumentError(
                f"pixels are {self.pixels.dtype} of shape {self.pixels.shape}; they must be uint8 of shape (T, H, W, 3)"
            )


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Everything between a decoded frame and what the model sees.

    resize: side of the square that a frame is resized to, aspect ratio ignored, in pixels.
    crop: side of the centre crop taken from it, in pixels, at most `resize`; the model's input size.
    channel_order: order in which the model's weights expect the channels; `mean` and `std` are in that order.
    scale: factor on 0-255 pixels before mean and std (1/255, or 1 for weights trained on 0-255).
    crop_region: cut to the 2-D ultrasound region first. mask_sector: black out all but the moving sector first.
    """

    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "area"
    channel_order: ChannelOrder = "bgr"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_region: bool = False
    mask_sector: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise ArgumentError(f"crop is {self.crop}, resize is {self.resize}; 1 <= crop <= resize (--image-size)")
        if self.interpolation not in get_args(Interpolation):
            raise ArgumentError(f"interpolation is {self.interpolation!r}; allowed: {get_args(Interpolation)}")
        if self.channel_order not in get_args(ChannelOrder):
            raise ArgumentError(f"channel_order is {self.channel_order!r}; allowed: {get_args(ChannelOrder)}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ArgumentError(f"mean {self.mean} and std {self.std}: three values each, std above 0")

    def at_size(self, image_size: int) -> Preprocess:
        """The same for another model input size, the margin of the centre crop kept in proportion."""
        if not 32 <= image_size <= 4096:
            raise ArgumentError(f"image size is {image_size}; the encoders take 32 to 4096 (--image-size)")
        return dataclasses.replace(self, crop=image_size, resize=round(image_size * self.resize / self.crop))


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """Which weights a model carries.

    source: a file name, an address, or "random (seed 0)". sha256: of the file's bytes, or of the tensors when random.
    licence: of the weights. pretrained: False for random weights, which every file and report must say.
    """

    source: str
    sha256: str
    licence: str
    pretrained: bool


@dataclass(frozen=True, slots=True)
class Provenance:
    """How embeddings were made. Two files with the same `fingerprint` may be put together; others may not.

    clips: None at frame level. precision: of the encoder's arithmetic. dtype: of the stored numbers.
    include_stills: whether DICOM stills were taken in. versions: of the packages that could matter. engine: what ran
    the frame encoder, "" where not known. Both are recorded, but no part of the fingerprint: engines of one precision
    differ by its rounding, and neither they nor an upgrade of numpy may stop a resume.
    """

    backbone: str
    weights: WeightsInfo
    preprocess: Preprocess
    clips: ClipPlan | None
    level: Level
    dim: int
    precision: Precision = "fp32"
    dtype: StoredType = "float32"
    include_stills: bool = False
    pooling: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise ArgumentError(f"level is {self.level!r}; allowed are {', '.join(get_args(Level))}")
        if self.precision not in get_args(Precision):
            raise ArgumentError(f"precision is {self.precision!r}; allowed are {', '.join(get_args(Precision))}")
        if self.dtype not in get_args(StoredType):
            raise ArgumentError(f"dtype is {self.dtype!r}; allowed are {', '.join(get_args(StoredType))}")

    def settings(self) -> dict[str, Any]:
        """What decides the values, flat: {"preprocess.crop": 224, ...}. Of the weights: content, not source."""
        flat: dict[str, Any] = {}
        whole = dataclasses.asdict(dataclasses.replace(self, versions={}))
        for recorded in ("versions", "engine"):
            whole.pop(recorded)
        whole["weights"].pop("source")
        whole["weights"].pop("licence")
        for name, value in whole.items():
            if isinstance(value, dict):
                flat |= {f"{name}.{key}": list(v) if isinstance(v, tuple) else v for key, v in value.items()}
            else:
                flat[name] = value
        return flat

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `settings`, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: Provenance) -> list[str]:
        """Every setting that differs, as "name: mine, not theirs"."""
        mine, theirs = self.settings(), other.settings()
        return [
            f"{name}: {mine.get(name)}, not {theirs.get(name)}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]

    def to_json(self) -> str:
        """As JSON text, to be read back by `from_json`."""
        return json.dumps({**dataclasses.asdict(self), "versions": dict(self.versions)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what `to_json` wrote. Raises ArgumentError for anything else."""
        try:
            raw = json.loads(text)
            preprocess: dict[str, Any] = raw.pop("preprocess")
            preprocess |= {name: tuple(map(float, preprocess[name])) for name in ("mean", "std")}
            clips = raw.pop("clips")
            read = cls(
                weights=WeightsInfo(**raw.pop("weights")),
                preprocess=Preprocess(**preprocess),
                clips=None if clips is None else ClipPlan(**clips),
                versions={str(name): str(version) for name, version in dict(raw.pop("versions")).items()},
                **raw,
            )
        except ArgumentError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise ArgumentError(f"no record of settings ({type(error).__name__}: {error})") from error
        for record in (read, read.weights, read.preprocess, *([read.clips] if read.clips else [])):
            _check_types(record)
        return read


_PLAIN_TYPES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool}


def _check_types(record: Any) -> None:
    """Raise ArgumentError for a field of a plain type that holds another, as a record from a file can."""
    for entry in dataclasses.fields(record):
        value, plain = getattr(record, entry.name), _PLAIN_TYPES.get(str(entry.type))
        if plain is not None and not (isinstance(value, plain) and (plain is bool or not isinstance(value, bool))):
            raise ArgumentError(f"{entry.name} is {str(value)[:80]!r}; it must be {entry.type}")


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that gave no rows. stage "skipped": readable, but no cine loop; all others are errors.

    size_bytes, mtime_ns: of the file before it was read, where that is known.
    """

    video_id: str
    path: str
    stage: str
    message: str
    size_bytes: int = dataclasses.field(default=-1, compare=False)
    mtime_ns: int = dataclasses.field(default=0, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingTable:
    """Embeddings with one id row each; what every later stage takes.

    values: (N, D) float. video_id, study_id, patient_id, view, split: (N,) str objects; "" where not known.
    first_frame: (N,) int; frame_step: (N,) float, in frames; frames_per_clip: (N,) int; 0 where pooling took them away.
    labels: name -> (N,) float (NaN where missing) or str objects ("" where missing).
    """

    values: FloatArray
    video_id: npt.NDArray[np.object_]
    study_id: npt.NDArray[np.object_]
    patient_id: npt.NDArray[np.object_]
    view: npt.NDArray[np.object_]
    split: npt.NDArray[np.object_]
    first_frame: npt.NDArray[np.integer[Any]]
    frame_step: FloatArray
    frames_per_clip: npt.NDArray[np.integer[Any]]
    labels: Mapping[str, npt.NDArray[Any]]
    level: Level
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ArgumentError(f"values have shape {self.values.shape}; they must be (N, D)")
        columns = {name: getattr(self, name) for name in ROW_COLUMNS} | dict(self.labels)
        for name, column in columns.items():
            if column.shape != (len(self.values),):
                raise ArgumentError(f"{name} has shape {column.shape}; there are {len(self.values)} rows")

    def __len__(self) -> int:
        return len(self.values)


ROW_COLUMNS = (
    "video_id",
    "study_id",
    "patient_id",
    "view",
    "split",
    "first_frame",
    "frame_step",
    "frames_per_clip",
)


@dataclass(frozen=True, slots=True)
class Score:
    """A metric with its 95 % interval, from bootstraps over patients; low and high are NaN where none was made."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    n_patients: int
