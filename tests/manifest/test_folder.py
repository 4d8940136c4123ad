from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from panecho_embed.manifest import describe_manifest, read_manifest

SECRETS = ("Doe^Jane", "MRN-0815", "1.2.3.999", "19700101", "SECRET HOSPITAL")


def write_dicom(path, patient="MRN-0815", study="1.2.3.999.1", series="1.2.3.999.2", frames=3):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.999.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.SOPInstanceUID = "1.2.3.999.3"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientID = patient
    dataset.PatientBirthDate = "19700101"
    dataset.InstitutionName = "SECRET HOSPITAL"
    if study:
        dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.Modality = "US"
    dataset.Rows, dataset.Columns = 40, 48
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.NumberOfFrames = frames
    dataset.FrameTime = "25.0"
    dataset.PixelData = np.random.default_rng(0).integers(0, 255, (frames, 40, 48, 3), dtype=np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_is_known_by_content_and_its_ids_are_hashed(tmp_path):
    write_dicom(tmp_path / "a" / "IM0001")
    write_dicom(tmp_path / "b" / "IM0002.dcm")
    write_dicom(tmp_path / "b" / "other", patient="MRN-4711", study="1.2.3.999.7")
    manifest = read_manifest(tmp_path, salt="pepper")
    one, two, other = manifest.videos
    assert [video.video_id for video in manifest.videos] == ["a/IM0001", "b/IM0002.dcm", "b/other"]
    assert (one.study_id, one.patient_id) == (two.study_id, two.patient_id)
    assert one.study_id.startswith("study-")
    assert one.patient_id.startswith("patient-")
    assert one.study_id != other.study_id
    assert one.patient_id != other.patient_id


def test_the_salt_decides_the_ids(tmp_path):
    write_dicom(tmp_path / "a")
    ids = [read_manifest(tmp_path, salt=salt).videos[0].patient_id for salt in ("x", "x", "y")]
    assert ids[0] == ids[1] != ids[2]
    assert read_manifest(tmp_path).videos[0].patient_id != read_manifest(tmp_path).videos[0].patient_id


def test_no_identifier_of_a_header_reaches_the_table(tmp_path):
    write_dicom(tmp_path / "a")
    manifest = read_manifest(tmp_path)
    text = describe_manifest(manifest).to_csv() + repr(manifest)
    assert not [secret for secret in SECRETS if secret in text]


def test_a_header_without_ids_falls_back_to_the_folders(tmp_path):
    write_dicom(tmp_path / "p1" / "s1" / "a", study="")
    (video,) = read_manifest(tmp_path).videos
    assert (video.patient_id, video.study_id) == ("p1", "p1/s1")


def test_ids_of_other_files_come_from_their_folders(tmp_path):
    for name in ("flat.npy", "p1/x.npy", "p1/s2/y.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / name, np.zeros((2, 32, 32), np.uint8))
    ids = {video.video_id: (video.patient_id, video.study_id) for video in read_manifest(tmp_path).videos}
    assert ids == {"flat.npy": ("flat.npy", "flat.npy"), "p1/x.npy": ("p1", "p1"), "p1/s2/y.npy": ("p1", "p1/s2")}


def test_natural_order(tmp_path):
    for name in ("v10.npy", "v9.npy", "V1.npy"):
        np.save(tmp_path / name, np.zeros((2, 32, 32), np.uint8))
    assert [video.video_id for video in read_manifest(tmp_path).videos] == ["V1.npy", "v9.npy", "v10.npy"]


def test_a_folder_of_images_is_one_video_unless_asked_otherwise(tmp_path):
    (tmp_path / "loop").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "loop" / f"f{i}.png"), np.zeros((32, 32, 3), np.uint8))
    assert [video.video_id for video in read_manifest(tmp_path).videos] == ["loop"]
    images = read_manifest(tmp_path, "images").videos
    assert [video.video_id for video in images] == ["loop/f0.png", "loop/f1.png", "loop/f2.png"]


def test_what_is_no_video_is_counted(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "report.pdf").write_bytes(b"x")
    (tmp_path / "notes").write_text("nothing")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / ".hidden.avi").write_bytes(b"x")
    manifest = read_manifest(tmp_path)
    assert [video.video_id for video in manifest.videos] == ["v.npy"]
    assert "3 files are no videos" in manifest.notes[0]


def test_links_that_lead_in_a_circle_end(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read_manifest(tmp_path)) == 1


def test_one_file_is_a_manifest_of_one(tmp_path):
    write_dicom(tmp_path / "IM1")
    (video,) = read_manifest(tmp_path / "IM1").videos
    assert video.video_id == "IM1"


def test_a_folder_that_can_not_be_entered_is_listed(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "locked").mkdir()
    np.save(tmp_path / "locked" / "w.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "locked").chmod(0)

    def without_roots_privilege():
        # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH let root read everything; dropped, root is a user like any other.
        if os.geteuid() == 0:
            for capability in (1, 2):
                assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0

    code = (
        "import sys; from panecho_embed.manifest import read_manifest; from panecho_embed.media import open_cine\n"
        "from panecho_embed.errors import MediaError\n"
        "for video in read_manifest(sys.argv[1]).videos:\n"
        "    try: open_cine(video.path); print(video.video_id, 'opens')\n"
        "    except MediaError as error: print(video.video_id, error)\n"
    )
    try:
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            preexec_fn=without_roots_privilege,
        )
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1] == "v.npy opens"
    assert lines[0].startswith("locked ")
    assert "permission" in lines[0].lower()


@pytest.mark.parametrize("layout", ["csv", "echonet-dynamic", "echonet-pediatric", "echonet-lvh"])
def test_a_layout_that_is_not_there_is_said(tmp_path, layout):
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_manifest(tmp_path, layout)
