"""Folders of images, and single images, to frames.

The frames of a folder are its PNG, JPEG, BMP and TIFF files in natural order (frame2 before frame10); hidden files
and other kinds are passed over. 16-bit images give their upper 8 bits, transparency is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from panecho_embed.errors import MediaError
from panecho_embed.media.cine import MAX_PIXELS, Cine, MediaInfo, check_size
from panecho_embed.media.codestream import image_size, is_whole_jpeg, is_whole_png, tiff_directories
from panecho_embed.media.opencv import decode_image
from panecho_embed.records import UInt8Array

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""Suffixes of the images that make up a folder, in small letters."""

_MOST_BYTES = 16 * MAX_PIXELS
"""Of a file; even uncompressed, the largest image that is read has fewer."""


def open_folder(path: str) -> Cine:
    """Open a folder of images as one video; the first image's header is read. Raises MediaError."""
    files = _image_files(Path(path))
    _header_size(files[0])
    return Cine(path, "folder", None, "", None, len(files), partial(_read_images, files))


def open_image(path: str) -> Cine:
    """Open one image as a video of one frame. Raises MediaError."""
    _header_size(Path(path))
    return Cine(path, "image", None, "", None, 1, partial(_read_images, [Path(path)]))


def describe_folder(path: str) -> MediaInfo:
    """Say how many images a folder holds, and the size of the first. Raises MediaError."""
    files = _image_files(Path(path))
    height, width = _header_size(files[0])
    return MediaInfo("folder", "still" if len(files) == 1 else "cine", len(files), height=height, width=width)


def describe_image(path: str) -> MediaInfo:
    """Say how large an image is. Raises MediaError."""
    height, width = _header_size(Path(path))
    return MediaInfo("image", "still", 1, height=height, width=width)


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
    size = image_size(data)
    if size is None:
        kinds = "PNG, JPEG, BMP and TIFF"
        what = "has 0 bytes" if not data else f"is no image, or is damaged; read are {kinds}"
        raise MediaError(f"{name} {what}", stage="open")
    check_size(size[1], size[0], what=name)
    return size[1], size[0]


def _read_images(files: list[Path]) -> Iterator[UInt8Array]:
    first: tuple[int, int] | None = None
    for file in files:
        frame = _decode(_read_bytes(file), file.name)
        height, width = frame.shape[:2]
        first = first or (height, width)
        if (height, width) != first:
            raise MediaError(
                f"{file.name} is {width} x {height} pixels, {files[0].name} is {first[1]} x {first[0]}; "
                "the frames of a video must have one size",
                stage="decode",
            )
        yield frame


def _decode(data: bytes, name: str) -> UInt8Array:
    _check_header(data, name)
    if data[:2] == b"\xff\xd8" and not is_whole_jpeg(data):
        raise MediaError(f"{name} is cut: its JPEG data does not end", stage="decode")
    if data[:4] == b"\x89PNG" and not is_whole_png(data):
        raise MediaError(f"{name} is cut or damaged: its chunks do not fit into its {len(data)} bytes", stage="decode")
    pages = len(tiff_directories(data)) if data[:4] in (b"II*\0", b"MM\0*") else 1
    if pages > 1:
        raise MediaError(f"{name} is a TIFF of {pages} pages; save each page as a file of its own", stage="decode")
    try:
        return decode_image(data)
    except MediaError as error:
        raise MediaError(f"{name}: {error}", stage="decode") from error
