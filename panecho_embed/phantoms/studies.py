"""Write synthetic studies as a public data set, DICOM or image folders: files, tables, formats."""

from __future__ import annotations

import csv
import dataclasses
import errno
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    PYDICOM_IMPLEMENTATION_UID,
    JPEGBaseline8Bit,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.progress import Progress, silent
from panecho_embed.core.records import Frames
from panecho_embed.phantoms.filming import check_format, render
from panecho_embed.phantoms.mimic import BLANK, mimic_place, mimic_rows, still_place
from panecho_embed.phantoms.patients import PhantomPatient, View, make_patients

_Row = Mapping[str, object]


_MARK = ".phantom.json"


def write_studies(
    out: str | Path,
    layout: str = "echonet-dynamic",
    patients: int = 60,
    videos_per_study: int | None = None,
    seed: int = 0,
    *,
    num_frames: int = 64,
    fps: float | None = None,
    size: int | tuple[int, int] | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write synthetic echo studies with a known ejection fraction, one per patient.

    The same arguments give the same files, byte for byte.

    Parameters
    ----------
    out : str or Path
        Folder to write; empty, new, or with phantoms of the same settings.
    layout : str
        "echonet-dynamic" (A4C), "echonet-pediatric" (A4C and PSAX, children), "echonet-lvh" (PLAX), "mimic-iv-echo" and
        "dicom" (four views and a still), or "folders" (four views, as images).
    patients : int
        Number of patients.
    videos_per_study : int, optional
        Number of videos per study, for "mimic-iv-echo", "dicom" and "folders". Default: one per view. Above four,
        further takes of the same views.
    seed : int
        Seed for the patients.
    num_frames : int
        Frames per video.
    fps : float, optional
        Frames per second. Default: 30, 40 or 50, by patient.
    size : int or (int, int), optional
        Side, or height and width, in pixels. Default: 600 x 800 for DICOM, else 112 x 112.
    progress : callable
        Called with the number of videos written and the number of all videos.

    Returns
    -------
    list of Path
        The videos.

    Raises
    ------
    ArgumentError
        For a folder that holds anything else, or phantoms of other settings.
    StoreError
        If the folder can't be written.
    """
    if layout not in _PLANS:
        raise ArgumentError(f"layout is {layout!r}; allowed are {', '.join(LAYOUTS)} (--layout)")
    plan = _PLANS[layout]
    pixels = plan.size if size is None else (size, size) if isinstance(size, int) else size
    check_format(num_frames, fps, pixels)
    count = len(plan.views) if videos_per_study is None else videos_per_study
    if count < 1 or (count != len(plan.views) and not plan.many_takes):
        allowed = "1 or more" if plan.many_takes else f"{len(plan.views)}, which the data set sets"
        raise ArgumentError(f"videos_per_study is {count}; for {layout} it must be {allowed}")
    splits = _splits(patients, seed)
    videos = [
        _Video(
            plan.place(p, view, take), p, view, take, splits[p.number - 1], num_frames, fps or p.frame_rate_hz, pixels
        )
        for p in make_patients(patients, seed, pediatric=plan.pediatric)
        for take, view in ((i // len(plan.views), plan.views[i % len(plan.views)]) for i in range(count))
    ]
    settings = [layout, patients, count, seed, num_frames, fps, list(pixels)]
    root = Path(out)
    try:
        _claim(root, settings)
        for done, video in enumerate(videos, start=1):
            path = root / video.path
            path.parent.mkdir(parents=True, exist_ok=True)
            plan.save(path, video)
            progress(done, len(videos))
        _write_tables(root, [row for video in videos for row in plan.rows(video)])
    except OSError as error:
        raise StoreError(f"can't write {error.filename or root}: {error.strerror or error}") from error
    return [root / video.path for video in videos]


def _splits(count: int, seed: int) -> list[str]:
    """About 75 / 12.5 / 12.5 %, by chance, at least one patient each (two: train and test; one: train)."""
    eighth = max(1, round(count / 8))
    names = ["test"] * (eighth if count > 1 else 0) + ["val"] * (eighth if count > 2 else 0)
    names += ["train"] * (count - len(names))
    return [names[i] for i in np.random.default_rng([seed, count]).permutation(count)]


def _claim(root: Path, settings: list[Any]) -> None:
    """Make the folder ours, or raise ArgumentError if it is another's."""
    names = ("layout", "patients", "videos_per_study", "seed", "num_frames", "fps", "size")
    mine = dict(zip(names, settings, strict=True))
    mark = root / _MARK
    if mark.is_file():
        theirs = _read_mark(mark)
        differ = [
            f"{name} {theirs.get(name)}, not {value}" for name, value in mine.items() if theirs.get(name) != value
        ]
        if differ:
            raise ArgumentError(f"{root} holds phantoms of other settings: {'; '.join(differ)}; choose another folder")
    elif root.is_dir() and any(root.iterdir()):
        raise ArgumentError(f"{root} is not empty and was not written by this command; choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(mine) + "\n", encoding="utf-8")


def _read_mark(mark: Path) -> dict[str, object]:
    try:
        return dict(json.loads(mark.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ArgumentError(f"{mark} is damaged ({error}); choose another folder, or remove this one") from error


def _write_tables(root: Path, lines: Sequence[tuple[str, _Row]]) -> None:
    for name in dict.fromkeys(name for name, _ in lines):
        rows = [row for table, row in lines if table == name]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = text.getvalue().encode()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        # Without a time, so that the same arguments give the same bytes.
        (root / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)


def extract_input(out: str | Path, layout: str) -> Path:
    """What `panecho-embed extract` takes to read the studies that `write_studies` wrote, ids and splits included."""
    return Path(out) / _PLANS[layout].input


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a data set lies on disk.

    views: of each study. place: path of a video. rows: the table lines of a video, each with its table's path. save:
    films and writes. input: what `panecho-embed extract` takes, relative to the folder written.
    """

    views: tuple[View, ...]
    size: tuple[int, int]
    place: Callable[[PhantomPatient, View, int], str]
    rows: Callable[[_Video], list[tuple[str, _Row]]]
    save: Callable[[Path, _Video], None]
    input: str = ""
    pediatric: bool = False
    many_takes: bool = False


def _digest(patient: PhantomPatient, *more: object) -> str:
    return hashlib.sha256(repr((patient.seed, patient.number, *more)).encode()).hexdigest()


def _volumes(patient: PhantomPatient) -> dict[str, object]:
    return {"EF": round(patient.ef_percent, 4), "ESV": round(patient.esv_ml, 4), "EDV": round(patient.edv_ml, 4)}


def _dynamic_rows(video: _Video) -> list[tuple[str, _Row]]:
    row = {"FileName": video.name, **_volumes(video.patient), "FrameHeight": video.size[0], "FrameWidth": video.size[1]}
    return [
        ("FileList.csv", row | {"FPS": video.fps, "NumberOfFrames": video.num_frames, "Split": video.split.upper()})
    ]


def _pediatric_place(patient: PhantomPatient, view: View, take: int) -> str:
    who, study = _digest(patient)[:7], _digest(patient, "study")[:7]
    return f"{view}/Videos/CR{who}-CR{study}-{take:06d}.avi"


def _pediatric_rows(video: _Video) -> list[tuple[str, _Row]]:
    p = video.patient
    row = {"FileName": Path(video.path).name, "EF": round(p.ef_percent, 4), "Sex": p.sex, "Age": int(p.age_years)}
    row |= {"Weight": p.weight_kg, "Height": p.height_cm, "Split": p.number % 10}
    return [(f"{video.view}/FileList.csv", row)]


def _lvh_rows(video: _Video) -> list[tuple[str, _Row]]:
    p = video.patient
    sizes = {"IVSd": p.septum_cm, "LVIDd": p.lvidd_cm, "LVPWd": p.posterior_wall_cm, "LVIDs": p.lvids_cm}
    # The real table lacks a measurement here and there.
    if p.number % 7 == 0:
        del sizes[("LVIDs", "IVSd")[p.number % 2]]
    rest = {"Frames": video.num_frames, "FPS": video.fps, "split": video.split}
    return [
        ("MeasurementsList.csv", {"HashedFileName": video.name, "Calc": calc, "CalcValue": round(value, 4), **rest})
        for calc, value in sizes.items()
    ]


def _save_avi(path: Path, video: _Video) -> None:
    """Motion-JPEG; OpenCV's own writer, whose bytes do not depend on how FFmpeg was built."""
    height, width = video.size
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, code, video.fps, (width, height))
    for picture in video.film(overlay=False).pixels:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    # It says nothing of a full disk.
    written = cv2.VideoCapture(str(path))
    count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
    written.release()
    if count != video.num_frames:
        raise OSError(errno.EIO, f"{count} of {video.num_frames} frames arrived", str(path))


def _study(patient: PhantomPatient) -> str:
    return f"{patient.patient_id}-S1"


def _folder_place(patient: PhantomPatient, view: View, take: int) -> str:
    return f"{_study(patient)}/{view}" + (f"-{take + 1}" if take else "")


def _folder_rows(video: _Video) -> list[tuple[str, _Row]]:
    p = video.patient
    ids = {"path": video.path, "video_id": video.path, "study_id": _study(p), "patient_id": p.patient_id}
    return [("manifest.csv", {**ids, "view": video.view, "split": video.split, "fps": video.fps, **_volumes(p)})]


def _save_images(path: Path, video: _Video) -> None:
    path.mkdir(exist_ok=True)
    for i, picture in enumerate(video.film(overlay=False).pixels):
        png = cv2.imencode(".png", picture[..., ::-1])[1]
        (path / f"frame_{i:04d}.png").write_bytes(png.tobytes())


def _dicom_place(patient: PhantomPatient, view: View, take: int) -> str:
    # Half of the files go without a suffix, as they come from a scanner.
    index = 1 + get_args(View).index(view) + len(get_args(View)) * take
    # Paths are no place for the header's identifiers, and reading a folder warns of them.
    return f"study-{patient.number:04d}/IM_{index:04d}" + ("" if index % 2 else ".dcm")


def _dicom_rows(video: _Video) -> list[tuple[str, _Row]]:
    p = video.patient
    ids = {"video_id": video.path, "patient_id": p.patient_id, "study_id": _study(p), "view": video.view}
    return [("labels.csv", {**ids, **_volumes(p), "split": video.split})]


def _is_first(video: _Video) -> bool:
    return video.view == "A4C" and video.take == 0


def _save_dicom(path: Path, video: _Video, still: str = "IM_0000.dcm", blank: Sequence[str] = ()) -> None:
    """The cine loop, and beside a study's first one a still of it. blank: elements without a value."""
    frames = video.film(overlay=True)
    middle = dataclasses.replace(frames, pixels=frames.pixels[len(frames.pixels) // 2 :][:1])
    for name, pictures in ((path.name, frames), (still, middle))[: 2 if _is_first(video) else 1]:
        dataset = _dicom(video, pictures, still=name == still)
        for keyword in blank:
            setattr(dataset, keyword, "")
        dataset.save_as(path.with_name(name), enforce_file_format=True)


def _mimic_rows(video: _Video) -> list[tuple[str, _Row]]:
    return mimic_rows(video.path, video.patient, _is_first(video))


def _save_mimic(path: Path, video: _Video) -> None:
    _save_dicom(path, video, Path(still_place(video.patient)).name, BLANK)


_ALL: tuple[View, ...] = get_args(View)

_SMALL = (112, 112)

_PLANS: dict[str, _Plan] = {
    "echonet-dynamic": _Plan(
        ("A4C",), _SMALL, lambda p, _v, _t: f"Videos/0X{_digest(p)[:16].upper()}.avi", _dynamic_rows, _save_avi
    ),
    "echonet-pediatric": _Plan(("A4C", "PSAX"), _SMALL, _pediatric_place, _pediatric_rows, _save_avi, pediatric=True),
    "echonet-lvh": _Plan(
        ("PLAX",),
        _SMALL,
        lambda p, _v, _t: f"Batch{p.number % 4 + 1}/0X{_digest(p)[:16].upper()}.avi",
        _lvh_rows,
        _save_avi,
    ),
    "mimic-iv-echo": _Plan(_ALL, (600, 800), mimic_place, _mimic_rows, _save_mimic, many_takes=True),
    "dicom": _Plan(_ALL, (600, 800), _dicom_place, _dicom_rows, _save_dicom, many_takes=True),
    "folders": _Plan(_ALL, _SMALL, _folder_place, _folder_rows, _save_images, "manifest.csv", many_takes=True),
}

LAYOUTS = tuple(_PLANS)


def _dicom(video: _Video, frames: Frames, still: bool) -> FileDataset:
    """Ultrasound (Multi-frame) Image Storage, JPEG baseline (DICOM PS3.3 A.6, A.7 and C.8.5; PS3.5 A.4)."""
    patient, rate = video.patient, frames.fps or 0.0
    uids = {
        part: generate_uid(entropy_srcs=[repr(patient), part]) for part in ("study", "series", f"{video.path}{still}")
    }
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundImageStorage if still else UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = uids[f"{video.path}{still}"]
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids["study"], uids["series"]
    ds.PatientName, ds.PatientID = f"Phantom^Synthetic {patient.number:04d}", patient.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19000101", patient.sex, f"{int(patient.age_years):03d}Y"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "19000101", "000000", "1", ""
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Synthetic echocardiogram"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "US", "panecho-embed", "phantom"
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = (
        1,
        0 if still else int(video.name.rpartition("_")[2]),
        "",
    )
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.HeartRate, ds.BurnedInAnnotation = round(patient.heart_rate_bpm), "YES"
    ds.Rows, ds.Columns = frames.pixels.shape[1:3]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_10918_1"
    ds.SequenceOfUltrasoundRegions = _regions(frames)
    if not still:
        ds.NumberOfFrames, ds.FrameIncrementPointer = len(frames.pixels), Tag("FrameTime")
        ds.FrameTime, ds.CineRate = f"{1000 / rate:.8g}", round(rate)
        ds.RecommendedDisplayFrameRate = round(rate)
    quality = (cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422)
    pictures = [cv2.imencode(".jpg", p[..., ::-1], quality)[1].tobytes() for p in frames.pixels]
    ds.LossyImageCompressionRatio = f"{frames.pixels.nbytes / sum(map(len, pictures)):.4g}"
    ds.PixelData = encapsulate(pictures)
    ds["PixelData"].VR = "OB"
    return ds


def _regions(frames: Frames) -> list[Dataset]:
    """The fan (2-D tissue, centimetres) and the electrocardiogram below it (a wave form)."""
    fan = frames.region
    assert fan is not None
    height, width = frames.pixels.shape[1:3]
    trace = (round(0.06 * width), round(0.87 * height), round(0.86 * width), round(0.97 * height))
    regions = []
    for box, spatial_format, data_type, unit in (((fan.x0, fan.y0, fan.x1, fan.y1), 1, 1, 3), (trace, 4, 10, 0)):
        item = Dataset()
        item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, data_type, 0
        item.RegionLocationMinX0, item.RegionLocationMinY0 = box[:2]
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box[2] - 1, box[3] - 1
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
        item.PhysicalDeltaX = fan.physical_delta_x if unit else 1.0
        item.PhysicalDeltaY = fan.physical_delta_y if unit else 1.0
        regions.append(item)
    return regions


@dataclass(frozen=True, slots=True)
class _Video:
    """One video to be written. path: relative to the folder written, with forward slashes."""

    path: str
    patient: PhantomPatient
    view: View
    take: int
    split: str
    num_frames: int
    fps: float
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.path).stem

    def film(self, overlay: bool) -> Frames:
        """Its pictures, with or without what a scanner burns in."""
        return render(self.patient, self.view, self.num_frames, self.fps, self.size, take=self.take, overlay=overlay)
