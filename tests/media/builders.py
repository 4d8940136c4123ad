"""Files and loops for the media tests, made here so that every right answer is known."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pydicom
import pydicom.data
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

SECRET = "Doe^Jane"
SECRET_ID = "MRN-4711"


def numbered_frames(count: int, height: int = 64, width: int = 80, *, seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) uint8: smooth colours that no codec smears, each frame its own: its number stands in it in bits."""
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(40, 200, (4, 5, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    frames = np.repeat(base[None], count, axis=0)
    for number in range(count):
        for bit in range(12):
            frames[number, :16, bit * 5 : bit * 5 + 5] = 255 if number >> bit & 1 else 0
    return frames


def number_of(frame: np.ndarray) -> int:
    """The number that `numbered_frames` wrote into a frame."""
    return sum(1 << bit for bit in range(12) if frame[2:14, bit * 5 + 1 : bit * 5 + 4].mean() > 127)


def write_avi(path: Path, frames: np.ndarray, fps: float = 30.0) -> Path:
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def write_video(
    path: Path,
    frames: np.ndarray,
    codec: str,
    *,
    fps: int = 30,
    pixels: str = "yuv420p",
    durations: list[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write through PyAV. durations: of each frame, in ticks of 1/1000 s, for a variable frame rate."""
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if durations is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        time = 0
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if durations is not None:
                picture.time_base, picture.pts = Fraction(1, 1000), time
                time += durations[number]
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return path


def decode_independently(path: Path) -> list[np.ndarray]:
    """Every frame by PyAV, as RGB."""
    with av.open(str(path)) as source:
        return [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]


def write_dicom(
    path: Path, pixels: np.ndarray | bytes | list[bytes], *, syntax: str = ExplicitVRLittleEndian, **tags: Any
) -> Path:
    """Write a cine loop. pixels: (T, H, W[, 3]) to be stored as they are, raw bytes, or one compressed image a frame.

    tags: by keyword, replacing the defaults; None leaves a tag out.
    """
    dataset = _image_dataset(syntax)
    if isinstance(pixels, np.ndarray):
        order = ">" if syntax == pydicom.uid.ExplicitVRBigEndian else "<"
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
        dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
        dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 4 else "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        pixels = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    encapsulated = isinstance(pixels, list)
    for keyword, value in tags.items():
        if value is None:
            if keyword in dataset:
                del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.HighBit = dataset.get("BitsStored", 8) - 1
    data = encapsulate(pixels, has_bot=False) if isinstance(pixels, list) else pixels
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if encapsulated or dataset.get("BitsAllocated", 8) == 8 else "OW"
    dataset["PixelData"].is_undefined_length = encapsulated
    dataset.save_as(path, enforce_file_format=True)
    return path


def _image_dataset(syntax: str) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    meta.TransferSyntaxUID = syntax
    dataset = Dataset()
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.PatientName, dataset.PatientID, dataset.IssuerOfPatientID = SECRET, SECRET_ID, "Clinic"
    dataset.Modality = "US"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "TTE", "0001"]
    dataset.FrameTime, dataset.FrameIncrementPointer = "20", 0x00181063
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 1, 64, 80
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.PixelRepresentation = 0
    return dataset


def ultrasound_region(x0: int, y0: int, x1: int, y1: int, spatial_format: int = 1, data_type: int = 1) -> Dataset:
    """An item of Sequence of Ultrasound Regions; x1, y1: last column and row inside."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType = spatial_format, data_type
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x0, y0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x1, y1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = 0.05, 0.04
    return item


def jpeg(frame: np.ndarray, *, subsampling: int = 2, rgb: bool = False) -> bytes:
    """Baseline JPEG by Pillow, 4:2:0 (2), 4:2:2 (1) or 4:4:4 (0); rgb: no YCbCr, and Adobe's tag says so."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95, subsampling=subsampling, keep_rgb=rgb)
    return buffer.getvalue()


def without_segments(image: bytes, *markers: int) -> bytes:
    """A JPEG without its segments of these markers, such as 0xE0 (JFIF)."""
    out, position = bytearray(image[:2]), 2
    while image[position + 1] != 0xDA:
        length = 2 + int.from_bytes(image[position + 2 : position + 4], "big")
        if image[position + 1] not in markers:
            out += image[position : position + length]
        position += length
    return bytes(out) + image[position:]


def pydicom_file(name: str) -> Path:
    """A file of pydicom or pydicom-data that is on this disk; nothing is downloaded."""
    path = pydicom.data.get_testdata_file(name, download=False)
    assert path is not None, name
    return Path(str(path))


class EchoPhantom:
    """A grey loop as systems show it: speckled sector, patient text, clock, depth scale and a sweeping ECG trace."""

    def __init__(self, height: int = 240, width: int = 320, *, seed: int = 0, overlays: bool = True) -> None:
        self.height, self.width, self.overlays = height, width, overlays
        self._rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        dy, dx = y - 0.08 * height, x - 0.5 * width
        radius, angle = np.hypot(dx, dy), np.arctan2(dx, dy)
        self.sector = (radius < 0.72 * height) & (radius > 0.03 * height) & (np.abs(angle) < np.radians(40))
        wall = np.abs(np.hypot(dx / 0.6, y - 0.5 * height) - 0.2 * height) < 0.05 * height
        self._tissue = np.where(wall, 120.0, np.where(radius < 0.2 * height, 70.0, 35.0))
        self.overlay = np.zeros((height, width), dtype=bool)
        self.overlay[: height // 12] = True
        self.overlay[:, : width // 24] = self.overlay[:, -width // 24 :] = True
        self.overlay[int(0.88 * height) :] = True

    def frames(self, count: int) -> Iterator[np.ndarray]:
        for number in range(count):
            speckle = self._rng.rayleigh(0.8, (self.height, self.width))
            speckle = cv2.GaussianBlur(speckle, (3, 3), 0)
            grey = np.where(self.sector, np.clip(self._tissue * speckle, 0, 255), 0).astype(np.uint8)
            frame = np.repeat(grey[..., None], 3, axis=-1)
            if self.overlays:
                self._draw_overlays(frame, number)
            yield frame

    def _draw_overlays(self, frame: np.ndarray, number: int) -> None:
        height, width = self.height, self.width
        scale = height / 480

        def text(what: str, x: float, y: float) -> None:
            cv2.putText(
                frame, what, (int(x * width), int(y * height)), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1
            )

        text("DOE JANE 4711", 0.01, 0.06)
        text(f"12:34:{number // 30 % 60:02d} HR {72 + number // 20 % 9}", 0.6, 0.06)
        for tick in range(10):
            y = int((0.1 + 0.07 * tick) * height)
            frame[y : y + 2, -width // 40 :] = 255
        columns = np.arange(width)
        trace = 0.94 * height - 0.05 * height * (columns % (width // 4) < width // 40)
        sweep = number * width // 90 % width
        shown = (columns < sweep) | (columns > sweep + width // 20)
        frame[trace.astype(int)[shown], columns[shown]] = (0, 255, 0)
