"""Any echo file to frames: each frame once, in the right colours, at the right rate, or a clear error.

What needs a decoder loads on first use, so that a folder is listed without any.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from panecho_embed.media.kinds import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    NIFTI_SUFFIXES,
    VIDEO_SUFFIXES,
    begins_as_dicom,
    is_dicom,
    notes_on_videos,
)

if TYPE_CHECKING:
    from panecho_embed.media.cine import Cine, MediaInfo
    from panecho_embed.media.dicom import DicomIdentity, read_identity
    from panecho_embed.media.opening import describe, open_cine, read_frames
    from panecho_embed.media.sector import apply_mask, sector_mask

_HOME = {
    "Cine": "cine",
    "DicomIdentity": "dicom",
    "MediaInfo": "cine",
    "apply_mask": "sector",
    "describe": "opening",
    "open_cine": "opening",
    "read_frames": "opening",
    "read_identity": "dicom",
    "sector_mask": "sector",
}

__all__ = [
    "ARRAY_SUFFIXES",
    "IMAGE_SUFFIXES",
    "NIFTI_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Cine",
    "DicomIdentity",
    "MediaInfo",
    "apply_mask",
    "begins_as_dicom",
    "describe",
    "is_dicom",
    "notes_on_videos",
    "open_cine",
    "read_frames",
    "read_identity",
    "sector_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
