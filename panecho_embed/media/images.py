"""Folders of images, and single images, to frames.

The frames of a folder are its PNG, JPEG, BMP and TIFF files in natural order (frame2 before frame10); hidden files
and other kinds are passed over. 16-bit images give their upper 8 bits, transparency is dropped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from panecho_embed.core.arraytypes import UInt8Array
from panecho_embed.core.errors import MediaError
from panecho_embed.core.records import Recording
from panecho_embed.core.wording import brief
from panecho_embed.media.cine import MAX_PIXELS, Cine, check_size
from panecho_embed.media.kinds import IMAGE_SUFFIXES

_KINDS: dict[bytes, type[PngImageFile | JpegImageFile | BmpImageFile | TiffImageFile]] = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8": JpegImageFile,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
}
"""Readers of headers, by what a file begins with. `Image.open` would refuse a large size first, in its own words."""

_MOST_BYTES = 16 * MAX_PIXELS
"""Of a file; even uncompressed, the largest image that is read has fewer."""


def open_folder(path: str) -> Cine:
    """Open a folder of images as one video; the first image's header is read. Raises MediaError."""
    files = _image_files(Path(path))
    recording = Recording(*_header_size(files[0]))
    return Cine(path, "folder", None, "", None, len(files), partial(_read_images, files), recording)


def open_image(path: str) -> Cine:
    """Open one image as a video of one frame. Raises MediaError."""
    recording = Recording(*_header_size(Path(path)))
    return Cine(path, "image", None, "", None, 1, partial(_read_images, [Path(path)]), recording)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Key that sorts names as people count: "frame2" before "frame10"; whole names decide between equals."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _image_files(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    except OSError as error:
        raise MediaError(f"the folder can't be read: {error.strerror}", stage="open") from error
    files = sorted(
        (entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES), key=lambda file: natural_key(file.name)
    )
    if not files:
        raise MediaError(
            f"the folder holds no images among its {len(entries)} files; read are {', '.join(sorted(IMAGE_SUFFIXES))}",
            stage="open",
        )
    stems: dict[str, Path] = {}
    for file in files:
        other = stems.setdefault(file.stem, file)
        if other is not file:
            raise MediaError(
                f"the folder holds {other.name} and {file.name}, the same frame twice; keep one of them", stage="open"
            )
    return files


def _header_size(file: Path) -> tuple[int, int]:
    """Height and width by the image's header, checked to be those of an ultrasound image."""
    return _check_header(_read_bytes(file), file.name)


def _read_bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise MediaError(f"{file.name} has more than {_MOST_BYTES} bytes, and can be no frame", stage="open")
        return file.read_bytes()
    except OSError as error:
        raise MediaError(f"{file.name} can't be read: {error.strerror}", stage="open") from error


def _check_header(data: bytes, name: str) -> tuple[int, int]:
    """Height and width, as Pillow reads them without decoding; a decoder allocates what a header claims."""
    kind = next((kind for begin, kind in _KINDS.items() if data.startswith(begin)), None)
    if kind is None:
        what = "has 0 bytes" if not data else "is no image, or is damaged; read are PNG, JPEG, BMP and TIFF"
        raise MediaError(f"{name} {what}", stage="open")
    try:
        with kind(io.BytesIO(data)) as image:
            width, height = image.size
            pages = image.n_frames if isinstance(image, TiffImageFile) else 1
            if isinstance(image, PngImageFile):
                image.verify()
    except Exception as error:
        # Pillow raises whatever its parsers trip over.
        raise MediaError(f"{name} is cut or damaged: {brief(error)}", stage="open") from error
    if isinstance(image, JpegImageFile) and not is_whole_jpeg(data):
        raise MediaError(f"{name} is cut: its JPEG data does not end", stage="open")
    if pages > 1:
        raise MediaError(f"{name} is a TIFF of {pages} pages; save each page as a file of its own", stage="open")
    check_size(height, width, what=name)
    return height, width


def _read_images(files: list[Path]) -> Iterator[UInt8Array]:
    first: tuple[int, int] | None = None
    for file in files:
        data = _read_bytes(file)
        height, width = _check_header(data, file.name)
        first = first or (height, width)
        if (height, width) != first:
            raise MediaError(
                f"{file.name} is {width} x {height} pixels, {files[0].name} is {first[1]} x {first[0]}; "
                "the frames of a video must have one size",
                stage="decode",
            )
        try:
            yield decode_image(data)
        except MediaError as error:
            raise MediaError(f"{file.name}: {error}", stage="decode") from error


def is_whole_jpeg(data: bytes) -> bool:
    """Say whether the image's data ends with an end-of-image marker; decoders fill up what is missing with grey."""
    start = data.rfind(b"\xff\xda")
    return start >= 0 and data.find(b"\xff\xd9", start) >= 0


def decode_image(data: bytes, *, grey: bool = False) -> UInt8Array:
    """Decode a compressed image: (H, W, 3) RGB, or (H, W) where `grey`. Raises MediaError(stage "decode")."""
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MediaError(f"the image can't be decoded: {error.err}", stage="decode") from error
    if image is None:
        raise MediaError("the image can't be decoded; it is damaged", stage="decode")
    return np.asarray(image if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log for the calls inside: what goes wrong is raised, and need not stand on the terminal twice.

    Changes state of the process: not for several threads at once.
    """
    level = cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2_logging.setLogLevel(level)
