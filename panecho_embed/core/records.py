"""The nouns that every stage speaks: frozen dataclasses that need only numpy, checked when they are made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray, Texts, UInt8Array
from panecho_embed.core.beats import Beat
from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.core.provenance import Level, Provenance

Ids = Literal["auto", "opaque", "plain"]
Status = Literal["done", "skipped", "failed"]
PoolBy = Literal["video", "study"]
PoolHow = Literal["mean", "mean+std", "max"]
Engine = Literal["local", "ray"]
EngineBackend = Literal["auto", "eager", "rearranged", "compiled"]


@dataclass(frozen=True, slots=True, repr=False)
class Origin:
    """What the opaque ids of a video stand for, and its path; it never leaves the local table of ids."""

    video_id: str
    study_id: str
    patient_id: str
    path: str

    def __repr__(self) -> str:
        return "Origin(hidden)"


@dataclass(frozen=True, slots=True)
class VideoRef:
    """One video (or still) to be embedded, and whose it is.

    video_id: unique in a manifest. study_id, patient_id: never empty. view, split: "" where not known.
    path: a file, or a folder of images; where ids are opaque the video_id again, and what is read is the origin's.
    fps: frames per second as the manifest says, None to take it from the file. origin: see `Origin`; None where ids
    are plain, or where they were read from a file. phases: the frames of end diastole and end systole, NaN where not
    known; None where no clip is cut by them, see `Manifest.with_phases`.
    """

    video_id: str
    study_id: str
    patient_id: str
    path: str
    view: str = ""
    split: str = ""
    fps: float | None = None
    origin: Origin | None = field(default=None, repr=False, compare=False)
    phases: tuple[float, float] | None = field(default=None, repr=False, compare=False)

    @property
    def location(self) -> str:
        """The file or folder to read; not to be shown to anybody."""
        return self.path if self.origin is None else self.origin.path

    def __post_init__(self) -> None:
        for name in ("video_id", "study_id", "patient_id", "path"):
            if not getattr(self, name):
                raise ArgumentError(f"{name} is empty for the video {self.video_id or self.path!r}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ArgumentError(f"fps is {self.fps} for the video {self.video_id!r}; it must be above 0, or left empty")


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """The videos of a data set, in the order in which their rows will stand, and what is known of each.

    labels: name -> (M,) float64 (NaN where missing) or str objects ("" where missing), one value per video.
    notes: what a person should know of how the list came about (files without rows, columns taken for granted).
    layout: how the input was read, "echonet-dynamic" say. units: of labels, "" or absent where not known.
    unmatched: whether one of the notes says that rows of a data set have no file, or files no row.
    """

    videos: tuple[VideoRef, ...]
    labels: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    layout: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    unmatched: bool = False

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
        labels = {name: column[picked] for name, column in self.labels.items()}
        return Manifest(tuple(self.videos[i] for i in picked), labels, layout=self.layout, units=self.units)

    def phases(self) -> list[tuple[float, float]]:
        """The frames of end diastole and end systole of every video, from its labels ed_frame and es_frame.

        Raises ManifestError if one of the two labels is missing, or is text.
        """
        columns = [self.labels.get(name) for name in PHASE_LABELS]
        known = [column.tolist() for column in columns if column is not None and column.dtype.kind == "f"]
        if len(known) < len(columns):
            raise ManifestError(
                "clips from end diastole to end systole (--clips ed-es) need the columns ed_frame and es_frame, frame "
                f"numbers from 0; the input has {', '.join(self.labels) or 'no labels'}"
            )
        end_diastole, end_systole = known
        return list(zip(end_diastole, end_systole, strict=True))

    def with_phases(self) -> Manifest:
        """The same, its videos knowing end diastole and end systole. Raises as `phases`."""
        pairs = zip(self.videos, self.phases(), strict=True)
        return replace(self, videos=tuple(replace(video, phases=phases) for video, phases in pairs))


PHASE_LABELS = ("ed_frame", "es_frame")
"""Labels that hold the frames of end diastole and end systole, counted from 0."""


FPS_OF_MANIFEST = "manifest"
"""`VideoFacts.fps_source` of a frame rate that the manifest gave."""

SELF_SIMILARITY = "self-similarity"
"""`Recording.heart_rate_source` of a heart rate that was found in the pictures."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file tells of its recording; nothing here names anybody.

    frame_height, frame_width: pixels of a frame, 0 where not known. cm_per_pixel_x, cm_per_pixel_y: of the 2-D region,
    along a row and along a column; NaN where not known. colour_flow: 1 with colour Doppler, 0 without, NaN where not
    known. manufacturer, scanner_model: "" where not known. heart_rate_bpm: beats per minute, NaN where not known;
    heart_rate_source: how it was found, "" with NaN; heart_rate_confidence: of one that was looked for in the pictures,
    0 to 1, whether it was believed or not, else NaN. r_wave_times_ms: of the R waves of the ECG, in milliseconds from
    the first frame, () where not known. end_diastole, end_systole: frames by which the manifest had clips cut, from 0,
    NaN where it did not.
    """

    frame_height: int = 0
    frame_width: int = 0
    cm_per_pixel_x: float = math.nan
    cm_per_pixel_y: float = math.nan
    colour_flow: float = math.nan
    manufacturer: str = ""
    scanner_model: str = ""
    heart_rate_bpm: float = math.nan
    heart_rate_source: str = ""
    heart_rate_confidence: float = math.nan
    r_wave_times_ms: tuple[float, ...] = ()
    end_diastole: float = math.nan
    end_systole: float = math.nan

    def beat(self, fps: float | None) -> Beat:
        """The heartbeat in frames of a video; fps: its frame rate in Hz, None or NaN where it is not known."""
        if fps is None or math.isnan(fps) or math.isnan(self.heart_rate_bpm):
            return Beat(end_diastole=self.end_diastole, end_systole=self.end_systole)
        r_waves = tuple(sorted({t * fps / 1000 for t in self.r_wave_times_ms}))
        return Beat(60 * fps / self.heart_rate_bpm, r_waves, self.end_diastole, self.end_systole)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What reading a video told.

    status: "done", "skipped" (no cine loop) or "failed". sha256: of the file's bytes ("" where it was not read).
    num_frames: decoded, 0 where none were. fps: frames per second, NaN where not known. fps_source: where it came from.
    size_bytes, mtime_ns: of the file when it was read, to see whether it has changed since.
    recording: what it tells of how it was made.
    """

    status: Status
    sha256: str = ""
    num_frames: int = 0
    fps: float = math.nan
    fps_source: str = ""
    size_bytes: int = -1
    mtime_ns: int = 0
    recording: Recording = field(default_factory=Recording)

    @property
    def timing(self) -> tuple[int, float | None, Beat]:
        """What clips depend on: number of frames, frames per second (None where not known) and heartbeat."""
        fps = None if math.isnan(self.fps) else self.fps
        return self.num_frames, fps, self.recording.beat(fps)


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
class Failure:
    """An input that gave no rows. stage "skipped": readable, but no cine loop; all others are errors.

    size_bytes, mtime_ns: of the file before it was read, where that is known.
    """

    video_id: str
    path: str
    stage: str
    message: str
    size_bytes: int = field(default=-1, compare=False)
    mtime_ns: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingTable:
    """Embeddings with one id row each; what every later stage takes.

    values: (N, D) float. video_id, study_id, patient_id, view, split: (N,) str objects; "" where not known.
    first_frame: (N,) int; frame_step: (N,) float, in frames; frames_per_clip: (N,) int; 0 where pooling took them away.
    labels: name -> (N,) float (NaN where missing) or str objects ("" where missing). units: of labels, absent where not
    known.
    """

    values: FloatArray
    video_id: Texts
    study_id: Texts
    patient_id: Texts
    view: Texts
    split: Texts
    first_frame: npt.NDArray[np.integer[Any]]
    frame_step: FloatArray
    frames_per_clip: npt.NDArray[np.integer[Any]]
    labels: Mapping[str, npt.NDArray[Any]]
    level: Level
    provenance: Provenance
    units: Mapping[str, str] = field(default_factory=dict)

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
