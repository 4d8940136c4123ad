"""One door for every kind of file: `open_cine`, `read_frames`, `describe`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from panecho_embed.core.errors import MediaError
from panecho_embed.core.records import Frames
from panecho_embed.media.arrays import open_array
from panecho_embed.media.cine import Cine, Kind, MediaInfo
from panecho_embed.media.dicom import describe_dicom, open_dicom
from panecho_embed.media.images import open_folder, open_image
from panecho_embed.media.kinds import ARRAY_SUFFIXES, IMAGE_SUFFIXES, NIFTI_SUFFIXES, is_dicom
from panecho_embed.media.nifti import open_nifti
from panecho_embed.media.video import open_video

_OPENERS = {
    "video": open_video,
    "folder": open_folder,
    "image": open_image,
    "array": open_array,
    "nifti": open_nifti,
}


def open_cine(path: str | os.PathLike[str], *, include_stills: bool = False) -> Cine:
    """Open a video, a DICOM file, a folder of images, an image, an array or a NIfTI volume; nothing is decoded
    yet, except a volume's first frames.

    include_stills: take DICOM files of one frame as loops of one frame. Images and one-frame videos that are named
    here are always taken. Raises NotACineError for DICOM stills, spectral Doppler and M-mode; MediaError, without
    the path, for what can't be read.
    """
    name = os.fspath(path)
    kind = _kind(name)
    if kind == "dicom":
        return open_dicom(name, include_stills=include_stills)
    return _OPENERS[kind](name)


def read_frames(path: str | os.PathLike[str], *, include_stills: bool = False) -> Frames:
    """Read all frames of what `open_cine` opens into memory: (T, H, W, 3) uint8 RGB. Raises as it does."""
    cine = open_cine(path, include_stills=include_stills)
    return Frames(np.stack(list(cine.frames())), cine.fps, cine.fps_source, cine.region)


def describe(path: str | os.PathLike[str]) -> MediaInfo:
    """Say what a file is by its header. Never raises MediaError: what is wrong is in `cine`, "unreadable: ..."."""
    name = os.fspath(path)
    kind: Kind | None = None
    try:
        kind = _kind(name)
        if kind == "dicom":
            return describe_dicom(name)
        cine = _OPENERS[kind](name)
    except MediaError as error:
        return MediaInfo(kind or "", f"unreadable: {error}")
    size = cine.recording.frame_height, cine.recording.frame_width
    what = "still" if cine.num_frames == 1 else "cine"
    return MediaInfo(cine.kind, what, cine.num_frames, cine.fps, cine.fps_source, *size)


def _kind(name: str) -> Kind:
    try:
        status = Path(name).stat()
        if stat.S_ISDIR(status.st_mode):
            return "folder"
        if not stat.S_ISREG(status.st_mode):
            raise MediaError("it is neither a file nor a folder", stage="open")
        if status.st_size == 0:
            raise MediaError("the file has 0 bytes", stage="open")
        if is_dicom(name):
            return "dicom"
    except MediaError:
        raise
    except (OSError, ValueError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", error)
        raise MediaError(f"it can't be read: {reason}", stage="open") from error
    if name.lower().endswith(NIFTI_SUFFIXES):
        return "nifti"
    suffix = Path(name).suffix.lower()
    return "array" if suffix in ARRAY_SUFFIXES else "image" if suffix in IMAGE_SUFFIXES else "video"
