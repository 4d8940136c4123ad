"""DICOM files to frames: what a file shows, how fast, in which region, and the frames themselves."""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import BinaryIO

import pydicom
from pydicom.tag import BaseTag

from panecho_embed.core.errors import MediaError, NotACineError
from panecho_embed.core.records import Recording, Region
from panecho_embed.media.cine import MAX_FPS, MIN_SIDE, Cine, MediaInfo
from panecho_embed.media.dicom_header import DicomHeader, numbers, quiet, read_header
from panecho_embed.media.dicom_pixels import PixelFormat, locate_pixels, num_frames, read_format, render_frames
from panecho_embed.media.kinds import is_dicom

__all__ = ["DicomIdentity", "describe_dicom", "is_dicom", "open_dicom", "read_identity"]

_M_MODE, _SPECTRAL = "M-mode", "spectral Doppler"

_SPATIAL_FORMATS = {2: _M_MODE, 3: _SPECTRAL}
"""Region Spatial Format (0018,6012), PS3.3 C.8.5.5.1.1; 1 is 2-D, 4 a wave form (ECG), 5 graphics."""

_IMAGE_TYPE_BITS = {0x0002: _M_MODE, 0x0004: _SPECTRAL, 0x0008: _SPECTRAL, 0x0020: _M_MODE}
"""Value 4 of Image Type (0008,0008), PS3.3 C.8.5.6.1.1: M-mode, CW Doppler, PW Doppler, colour M-mode."""

_CENTIMETRES = 3
_MIN_REGION_SHARE = 0.5

_MAX_HEART_RATE = 600
"""Beats per minute; above it, a number is not a heart rate, not even a newborn's."""

_FRAME_TIMES = ("FrameTime", "FrameTimeVector", "ActualFrameDuration")
_FRAME_RATES = ("CineRate", "RecommendedDisplayFrameRate")


@dataclass(frozen=True, slots=True, repr=False)
class DicomIdentity:
    """Who and what a DICOM file is about, raw: to be hashed with a salt, never written or logged. "" where missing."""

    patient_id: str
    issuer: str
    study_uid: str
    series_uid: str
    sop_uid: str
    accession_number: str

    def __repr__(self) -> str:
        return "DicomIdentity(hidden)"


def open_dicom(path: str, *, include_stills: bool = False) -> Cine:
    """Open a cine loop. Raises NotACineError for spectral Doppler, M-mode and (unless included) stills; MediaError."""
    header = read_header(path)
    if header.pixels is None:
        raise MediaError("it has no pixel data (7FE0,0010), or is cut before it", stage="pixels")
    if mode := _mode(header):
        raise NotACineError(f"{mode}, not a 2-D loop")
    if num_frames(header) == 1 and not include_stills:
        raise NotACineError("still image (1 frame)")
    pixels = locate_pixels(path, header)
    fps, source = frame_rate(header)
    region = tissue_region(header, pixels.format.rows, pixels.format.columns)
    return Cine(
        path=path,
        kind="dicom",
        fps=fps,
        fps_source=source,
        region=region,
        num_frames=pixels.format.num_frames,
        reader=partial(render_frames, pixels, header),
        recording=_recording(header, pixels.format, region),
    )


def describe_dicom(path: str, *, header_only: bool = False) -> MediaInfo:
    """Say what the header says, without decoding pixels. Raises MediaError where it is unreadable.

    header_only: do not look whether the pixels of all frames are there, which reads the file to its end.
    """
    header = read_header(path)
    if header.pixels is None:
        return MediaInfo("dicom", "no pixels")
    form = read_format(header)
    if mode := _mode(header):
        kind = mode
    else:
        if not header_only:
            locate_pixels(path, header)
        kind = "still" if form.num_frames == 1 else "cine"
    fps, source = frame_rate(header)
    colour = _colour_flow(header)
    return MediaInfo("dicom", kind, form.num_frames, fps, source, form.rows, form.columns, colour, *_heart_rate(header))


def read_identity(path: str | os.PathLike[str] | BinaryIO) -> DicomIdentity:
    """Read the identifiers of a DICOM file, by path or open, only for hashing.

    Raises MediaError(stage "open"), which quotes none.
    """
    keywords = (
        "PatientID",
        "IssuerOfPatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "AccessionNumber",
    )
    try:
        with quiet():
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(keywords))
            return DicomIdentity(*(str(dataset.get(keyword) or "").strip() for keyword in keywords))
    except OSError as error:
        raise MediaError(f"the file can't be read: {error.strerror or type(error).__name__}", stage="open") from None
    except Exception as error:
        # pydicom raises whatever its parser trips over, and its words may quote the header: name only the kind.
        raise MediaError(f"the DICOM header can't be read ({type(error).__name__})", stage="open") from None


def frame_rate(header: DicomHeader) -> tuple[float | None, str]:
    """Frames per second and the tag they come from, (None, "") where no tag gives a plausible rate.

    The tag that Frame Increment Pointer (0028,0009) names comes first; then the times at which the frames were taken:
    Frame Time, Frame Time Vector (its median), Actual Frame Duration; last the rates at which they were to be shown:
    Cine Rate, Recommended Display Frame Rate (PS3.3 C.7.6.5, C.7.6.6). Rounded to 0.001, as "33.333" ms means 30.
    """
    pointed = header.dataset.get("FrameIncrementPointer")
    named = [pydicom.datadict.keyword_for_tag(pointed)] if isinstance(pointed, BaseTag) else []
    for keyword in [*(name for name in named if name in _FRAME_TIMES), *_FRAME_TIMES, *_FRAME_RATES]:
        values = [value for value in header.numbers(keyword) if 0 < value < float("inf")]
        if not values:
            continue
        fps = statistics.median(values) if keyword in _FRAME_RATES else 1000 / statistics.median(values)
        if 0 < fps < MAX_FPS:
            return round(fps, 3), f"{header.dataset[keyword].tag} {keyword}"
    return None, ""


def _recording(header: DicomHeader, form: PixelFormat, region: Region | None) -> Recording:
    """What the header says of the equipment, the image and the ECG; colour by (0028,0014) or by region."""
    rate, source = _heart_rate(header)
    return Recording(
        form.rows,
        form.columns,
        cm_per_pixel_x=(region and region.physical_delta_x) or math.nan,
        cm_per_pixel_y=(region and region.physical_delta_y) or math.nan,
        colour_flow=_colour_flow(header),
        manufacturer=header.text("Manufacturer"),
        scanner_model=header.text("ManufacturerModelName"),
        heart_rate_bpm=rate,
        heart_rate_source=source,
        r_wave_times_ms=_r_waves(header),
    )


def _colour_flow(header: DicomHeader) -> float:
    """1 with colour Doppler, 0 without, by the regions' data types (1 tissue, 2 colour flow); NaN if not known.

    Ultrasound Color Data Present decides only where no region says either: scanners set it for loops in grey, too.
    """
    items = header.dataset.get("SequenceOfUltrasoundRegions") or ()
    types = {value for item in items for value in numbers(item, "RegionDataType")}
    if types & {1, 2}:
        return float(2 in types)
    present = header.number("UltrasoundColorDataPresent")
    return math.nan if present is None else float(present == 1)


def _r_waves(header: DicomHeader) -> tuple[float, ...]:
    """R Wave Time Vector (0018,6060), milliseconds from the first frame, ascending."""
    return tuple(sorted({time for time in header.numbers("RWaveTimeVector") if 0 <= time < math.inf}))


def _heart_rate(header: DicomHeader) -> tuple[float, str]:
    """Beats per minute and where they come from: the R waves (the median), else Heart Rate (0018,1088); NaN and ""."""
    times = _r_waves(header)
    told = header.number("HeartRate")
    rates = {"(0018,1088) HeartRate": math.nan if told is None else told}
    if len(times) > 1:
        rate = 60_000 / statistics.median(later - time for time, later in pairwise(times))
        rates = {"(0018,6060) RWaveTimeVector": rate} | rates
    return next(((rate, source) for source, rate in rates.items() if 0 < rate < _MAX_HEART_RATE), (math.nan, ""))


def tissue_region(header: DicomHeader, height: int, width: int) -> Region | None:
    """The largest 2-D region (tissue before colour flow), cut to an image of `height` x `width` pixels.

    Real files carry rectangles of another resolution than their pixels. One that loses more than half of its area
    when cut to the image, or ends up below 16 pixels a side, says nothing about this image and is skipped.
    """
    items = header.dataset.get("SequenceOfUltrasoundRegions") or ()
    found = [region for item in items if (region := _read_region(item, height, width)) is not None]
    return max(found, key=lambda r: (r.data_type == 1, (r.x1 - r.x0) * (r.y1 - r.y0)), default=None)


def _read_region(item: pydicom.Dataset, height: int, width: int) -> Region | None:
    def number(keyword: str) -> float | None:
        return next(iter(numbers(item, keyword)), None)

    corners = [number(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    data_type = number("RegionDataType")
    if number("RegionSpatialFormat") != 1 or data_type not in (1, 2) or None in corners:
        return None
    left, top, right, bottom = (int(corner or 0) for corner in corners)
    # The lower right corner is the last pixel inside (C.8.5.5.1.12).
    right, bottom = right + 1, bottom + 1
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if min(x1 - x0, y1 - y0) < MIN_SIDE:
        return None
    if (x1 - x0) * (y1 - y0) < _MIN_REGION_SHARE * (right - left) * (bottom - top):
        return None
    deltas = [
        delta
        if number(f"PhysicalUnits{axis}Direction") == _CENTIMETRES
        and (delta := number(f"PhysicalDelta{axis}") or 0) > 0
        else None
        for axis in "XY"
    ]
    return Region(x0, y0, x1, y1, 1, int(data_type), *deltas)


def _mode(header: DicomHeader) -> str:
    """ "spectral Doppler" or "M-mode"; "" for 2-D images, wherever their rectangles lie."""
    formats = set()
    for item in header.dataset.get("SequenceOfUltrasoundRegions") or ():
        formats |= {int(value) for value in numbers(item, "RegionSpatialFormat")[:1]}
    if formats & {1, 2, 3}:
        return next((name for code, name in sorted(_SPATIAL_FORMATS.items(), reverse=True) if code in formats), "")
    image_type = header.dataset.get("ImageType")
    values = [] if image_type is None or isinstance(image_type, str) else list(image_type)
    try:
        bits = int(str(values[3]), 16) if len(values) > 3 else 0
    except ValueError:
        return ""
    return next((name for bit, name in _IMAGE_TYPE_BITS.items() if bits & bit), "")
