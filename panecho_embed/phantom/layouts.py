"""How each data set lies on disk: files, tables, formats."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from panecho_embed.phantom.dicom import dicom
from panecho_embed.phantom.patients import PhantomPatient, View
from panecho_embed.phantom.video import Video

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a data set lies on disk.

    views: of each study. place: path of a video. rows: the table lines of a video, each with its table's path. save:
    films and writes. input: what `panecho-embed extract` takes, relative to the folder written.
    """

    views: tuple[View, ...]
    size: tuple[int, int]
    place: Callable[[PhantomPatient, View, int], str]
    rows: Callable[[Video], list[tuple[str, Row]]]
    save: Callable[[Path, Video], None]
    input: str = ""
    pediatric: bool = False
    many_takes: bool = False


def _digest(patient: PhantomPatient, *more: object) -> str:
    return hashlib.sha256(repr((patient.seed, patient.number, *more)).encode()).hexdigest()


def _volumes(patient: PhantomPatient) -> dict[str, object]:
    return {"EF": round(patient.ef_percent, 4), "ESV": round(patient.esv_ml, 4), "EDV": round(patient.edv_ml, 4)}


def _dynamic_rows(video: Video) -> list[tuple[str, Row]]:
    row = {"FileName": video.name, **_volumes(video.patient), "FrameHeight": video.size[0], "FrameWidth": video.size[1]}
    return [
        ("FileList.csv", row | {"FPS": video.fps, "NumberOfFrames": video.num_frames, "Split": video.split.upper()})
    ]


def _pediatric_place(patient: PhantomPatient, view: View, take: int) -> str:
    who, study = _digest(patient)[:7], _digest(patient, "study")[:7]
    return f"{view}/Videos/CR{who}-CR{study}-{take:06d}.avi"


def _pediatric_rows(video: Video) -> list[tuple[str, Row]]:
    p = video.patient
    row = {"FileName": Path(video.path).name, "EF": round(p.ef_percent, 4), "Sex": p.sex, "Age": int(p.age_years)}
    row |= {"Weight": p.weight_kg, "Height": p.height_cm, "Split": p.number % 10}
    return [(f"{video.view}/FileList.csv", row)]


def _lvh_rows(video: Video) -> list[tuple[str, Row]]:
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


def _save_avi(path: Path, video: Video) -> None:
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


def _folder_rows(video: Video) -> list[tuple[str, Row]]:
    p = video.patient
    ids = {"path": video.path, "video_id": video.path, "study_id": _study(p), "patient_id": p.patient_id}
    return [("manifest.csv", {**ids, "view": video.view, "split": video.split, "fps": video.fps, **_volumes(p)})]


def _save_images(path: Path, video: Video) -> None:
    path.mkdir(exist_ok=True)
    for i, picture in enumerate(video.film(overlay=False).pixels):
        png = cv2.imencode(".png", picture[..., ::-1])[1]
        (path / f"frame_{i:04d}.png").write_bytes(png.tobytes())


def _dicom_place(patient: PhantomPatient, view: View, take: int) -> str:
    # Half of the files go without a suffix, as they come from a scanner.
    index = 1 + get_args(View).index(view) + len(get_args(View)) * take
    # Paths are no place for the header's identifiers, and reading a folder warns of them.
    return f"study-{patient.number:04d}/IM_{index:04d}" + ("" if index % 2 else ".dcm")


def _dicom_rows(video: Video) -> list[tuple[str, Row]]:
    p = video.patient
    ids = {"video_id": video.path, "patient_id": p.patient_id, "study_id": _study(p), "view": video.view}
    return [("labels.csv", {**ids, **_volumes(p), "split": video.split})]


def _save_dicom(path: Path, video: Video) -> None:
    """The cine loop, and beside a study's first one a still of it."""
    frames = video.film(overlay=True)
    dicom(video, frames, still=False).save_as(path, enforce_file_format=True)
    if video.view == "A4C" and video.take == 0:
        still = dataclasses.replace(frames, pixels=frames.pixels[len(frames.pixels) // 2 :][:1])
        dicom(video, still, still=True).save_as(path.with_name("IM_0000.dcm"), enforce_file_format=True)


_ALL: tuple[View, ...] = get_args(View)

_SMALL = (112, 112)

PLANS: dict[str, _Plan] = {
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
    "dicom": _Plan(_ALL, (600, 800), _dicom_place, _dicom_rows, _save_dicom, many_takes=True),
    "folders": _Plan(_ALL, _SMALL, _folder_place, _folder_rows, _save_images, "manifest.csv", many_takes=True),
}

LAYOUTS = tuple(PLANS)
