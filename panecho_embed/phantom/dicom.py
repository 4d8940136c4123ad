"""Ultrasound cine loops and stills as DICOM."""

from __future__ import annotations

import cv2
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

from panecho_embed.core.records import Frames
from panecho_embed.phantom.video import Video


def dicom(video: Video, frames: Frames, still: bool) -> FileDataset:
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
    ds.SeriesNumber, ds.InstanceNumber, ds.PatientOrientation = 1, 0 if still else int(video.name[3:]), ""
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
