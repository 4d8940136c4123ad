"""Any echo file to frames: each frame once, in the right colours, at the right rate, or a clear error."""

from panecho_embed.media.arrays import ARRAY_SUFFIXES
from panecho_embed.media.cine import Cine, MediaInfo
from panecho_embed.media.dicom import DicomIdentity, read_identity
from panecho_embed.media.dicom_header import begins_as_dicom, is_dicom
from panecho_embed.media.images import IMAGE_SUFFIXES
from panecho_embed.media.nifti import NIFTI_SUFFIXES
from panecho_embed.media.opening import describe, open_cine, read_frames
from panecho_embed.media.sector import apply_mask, sector_mask
from panecho_embed.media.video import VIDEO_SUFFIXES, notes_on_videos

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
