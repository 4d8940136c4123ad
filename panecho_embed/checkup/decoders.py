"""The libraries that turn files into frames, and what each is needed for."""

from __future__ import annotations

from importlib import metadata

import cv2
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from panecho_embed.checkup.findings import Check

_PLUG_INS = "python-gdcm pyjpegls pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle"

_COMPRESSIONS = {
    "JPEG": (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
    "JPEG-LS": (JPEGLSLossless, JPEGLSNearLossless),
    "JPEG 2000": (JPEG2000Lossless, JPEG2000),
    "RLE": (RLELossless,),
}


def check_decoders() -> list[Check]:
    """Video files by OpenCV's FFmpeg, DICOM by pydicom and its plug-ins."""
    return [_video(), *_dicom()]


def _video() -> Check:
    name = f"OpenCV {cv2.__version__}"
    if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        return Check("decoder", "ok", f"video files: {name} with FFmpeg")
    return Check(
        "decoder",
        "warning",
        f"{name} has no FFmpeg: no AVI, MP4 or other video file can be read",
        "pip uninstall opencv-python; pip install --force-reinstall --no-deps opencv-python-headless",
    )


def _dicom() -> list[Check]:
    versions = f"pydicom {metadata.version('pydicom')}"
    checks = []
    for name, syntaxes in _COMPRESSIONS.items():
        decoders = [get_decoder(syntax) for syntax in syntaxes]
        if missing := [decoder.UID.name for decoder in decoders if not decoder.is_available]:
            text = f"{versions} can't decode {name}: {', '.join(missing)}"
            checks.append(Check("decoder", "warning", text, f"pip install {_PLUG_INS}"))
            continue
        plugins = sorted({plugin for decoder in decoders for plugin in decoder.available_plugins} - {"pydicom"})
        by = ", ".join(_with_version(plugin) for plugin in plugins) or "itself"
        checks.append(Check("decoder", "ok", f"DICOM, {name}: {versions} with {by}"))
    return checks


def _with_version(plugin: str) -> str:
    try:
        return f"{plugin} {metadata.version('python-gdcm' if plugin == 'gdcm' else plugin)}"
    except metadata.PackageNotFoundError:
        return plugin
