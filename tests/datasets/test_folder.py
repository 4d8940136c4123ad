from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from panecho_embed.core.errors import ArgumentError, ManifestError
from panecho_embed.datasets import describe_manifest, is_opaque, read_manifest
from panecho_embed.media import describe

SECRETS = ("Doe^Jane", "MRN-0815", "1.2.3.999", "19700101", "SECRET HOSPITAL")


def write_dicom(path, patient="MRN-0815", study="1.2.3.999.1", series="1.2.3.999.2", frames=3, accession=""):
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
    dataset.AccessionNumber = accession
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


SALT = "a salt of the tests"


def test_dicom_is_known_by_content_and_its_ids_are_hashed(tmp_path):
    write_dicom(tmp_path / "a" / "IM0001")
    write_dicom(tmp_path / "b" / "IM0002.dcm")
    write_dicom(tmp_path / "b" / "other", patient="MRN-4711", study="1.2.3.999.7")
    manifest = read_manifest(tmp_path, salt=SALT)
    one, two, other = manifest.videos
    assert [video.origin.video_id for video in manifest.videos] == ["a/IM0001", "b/IM0002.dcm", "b/other"]
    assert [video.location for video in manifest.videos] == [str(tmp_path / v.origin.video_id) for v in manifest.videos]
    assert all(is_opaque(video.video_id, "video") and video.path == video.video_id for video in manifest.videos)
    assert len({video.video_id for video in manifest.videos}) == 3
    assert (one.study_id, one.patient_id) == (two.study_id, two.patient_id)
    assert is_opaque(one.study_id, "study")
    assert is_opaque(one.patient_id, "patient")
    assert one.study_id != other.study_id
    assert one.patient_id != other.patient_id


def test_plain_ids_are_those_of_the_header_and_the_path(tmp_path):
    write_dicom(tmp_path / "a" / "IM0001")
    (video,) = read_manifest(tmp_path, ids="plain").videos
    assert (video.video_id, video.study_id, video.patient_id) == ("a/IM0001", "1.2.3.999.1", "MRN-0815")
    assert video.path == str(tmp_path / "a" / "IM0001")


def test_a_video_beside_dicom_is_opaque_too_and_alone_only_if_asked(tmp_path):
    np.save(tmp_path / "DOE^JANE.npy", np.zeros((2, 32, 32), np.uint8))
    (alone,) = read_manifest(tmp_path).videos
    assert alone.video_id == "DOE^JANE.npy"
    (asked,) = read_manifest(tmp_path, ids="opaque").videos
    assert is_opaque(asked.video_id)
    write_dicom(tmp_path / "a")
    assert all(is_opaque(video.video_id) for video in read_manifest(tmp_path).videos)


def test_the_salt_decides_the_ids(tmp_path):
    write_dicom(tmp_path / "a")
    ids = [read_manifest(tmp_path, salt=salt).videos[0].patient_id for salt in (SALT, SALT, SALT[::-1])]
    assert ids[0] == ids[1] != ids[2]
    assert read_manifest(tmp_path).videos[0].patient_id != read_manifest(tmp_path).videos[0].patient_id


def test_no_identifier_of_a_header_reaches_the_table(tmp_path):
    write_dicom(tmp_path / "a")
    manifest = read_manifest(tmp_path)
    text = describe_manifest(manifest).to_csv() + repr(manifest)
    assert not [secret for secret in SECRETS if secret in text]


def test_a_header_without_ids_falls_back_to_the_folders(tmp_path):
    write_dicom(tmp_path / "p1" / "s1" / "a", patient="", study="")
    (video,) = read_manifest(tmp_path, ids="plain").videos
    assert (video.patient_id, video.study_id) == ("p1", "p1/s1")


def test_a_patient_without_a_study_is_kept_and_the_study_is_the_folder(tmp_path):
    write_dicom(tmp_path / "p1" / "s1" / "a", study="")
    write_dicom(tmp_path / "p1" / "s2" / "b")
    one, two = read_manifest(tmp_path, salt=SALT).videos
    assert one.origin.study_id == "p1/s1"
    assert one.patient_id == two.patient_id
    assert one.patient_id.startswith("patient-")


def test_a_study_without_a_patient_is_a_patient_of_its_own(tmp_path):
    write_dicom(tmp_path / "a", patient="")
    write_dicom(tmp_path / "b", patient="", study="1.2.3.999.7")
    ids = [video.patient_id for video in read_manifest(tmp_path, salt=SALT).videos]
    assert len(set(ids)) == 2
    assert all(name.startswith("patient-") for name in ids)


@pytest.mark.parametrize("salt", ["", "  ", "x", "x" * 40, "fifteen letters"])
def test_a_salt_that_can_be_guessed_is_refused_and_not_quoted(tmp_path, salt):
    write_dicom(tmp_path / "a")
    with pytest.raises(ArgumentError, match="needs 16 characters or more") as error:
        read_manifest(tmp_path, salt=salt)
    assert not salt.strip() or f"{salt} " not in str(error.value)


@pytest.mark.parametrize(
    "folder", ["MRN-0815", "x_mrn-0815_y", "1.2.3.999.1", "ACC4711", "DOE^JANE", "19700131", "1.2.840.113619.2.1"]
)
def test_an_identifier_in_a_plain_path_is_told_of_but_not_told(tmp_path, folder):
    write_dicom(tmp_path / folder / "a", accession="ACC4711")
    write_dicom(tmp_path / "neutral" / "b", accession="ACC4711")
    warning = read_manifest(tmp_path, ids="plain").notes[0]
    assert warning.startswith("WARNING: the paths of 1 files look as if they told whose they are")
    assert folder not in warning
    assert read_manifest(tmp_path).notes == ()


def test_a_name_or_a_date_in_the_path_of_other_files_is_told_of(tmp_path):
    for name in ("DOE^JANE.npy", "born_19700131.npy", "0X1A2B3C4D5E6F.npy", "20231.npy"):
        np.save(tmp_path / name, np.zeros((2, 32, 32), np.uint8))
    assert read_manifest(tmp_path).notes[0].startswith("WARNING: the paths of 2 files")


def test_identifiers_above_the_input_and_short_ones_are_no_warning(tmp_path):
    write_dicom(tmp_path / "MRN-0815" / "a")
    write_dicom(tmp_path / "MRN-0815" / "123", patient="123")
    assert read_manifest(tmp_path / "MRN-0815", ids="plain").notes == ()


def test_the_suffix_of_a_file_that_is_no_video_may_be_a_name(tmp_path):
    write_dicom(tmp_path / "a")
    for name in ("DOE.JANE", "1.2.840.19700131", "report.pdf"):
        (tmp_path / name).write_text("nothing")
    assert read_manifest(tmp_path).notes == ("3 files skipped, not a video: 2 others, 1 .pdf",)


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
    assert "3 files skipped, not a video" in manifest.notes[0]


def test_links_that_lead_in_a_circle_end(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read_manifest(tmp_path)) == 1


def test_a_folder_counts_where_it_lies_and_not_as_a_link_to_it(tmp_path):
    (tmp_path / "real").mkdir()
    np.save(tmp_path / "real" / "v.npy", np.zeros((2, 32, 32), np.uint8))
    for name in ("a-link", "z-link"):
        (tmp_path / name).symlink_to(tmp_path / "real")
    assert [video.video_id for video in read_manifest(tmp_path).videos] == ["real/v.npy"]


class Scan:
    """os.scandir, in the order of another file system."""

    def __init__(self, scandir, path, reverse):
        with scandir(path) as entries:
            self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=reverse))

    def __enter__(self):
        return self.entries

    def __exit__(self, *_):
        pass

    def __next__(self):
        return next(self.entries)


@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_links_to_a_folder_the_first_by_name_counts(tmp_path, monkeypatch, reverse):
    (tmp_path / "elsewhere").mkdir()
    np.save(tmp_path / "elsewhere" / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "in").mkdir()
    for name in ("link10", "link9"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(os, "scandir", partial(Scan, os.scandir, reverse=reverse))
    assert [video.video_id for video in read_manifest(tmp_path / "in").videos] == ["link9/v.npy"]


def test_a_pipe_is_left_out_and_nobody_waits_for_it(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "film.avi")
    # In a process of its own: whoever opens a pipe waits for ever.
    code = "import sys; from panecho_embed.datasets import read_manifest; print(read_manifest(sys.argv[1]))"
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "video_id='v.npy'" in result.stdout
    assert "film.avi" not in result.stdout
    assert "2 files skipped, not a video: 2 pipes" in result.stdout


def test_a_pipe_is_no_input(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="neither a file nor a folder"):
        read_manifest(tmp_path / "pipe")


def test_a_dangling_link_is_listed_and_fails_in_its_turn(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    videos = read_manifest(tmp_path).videos
    assert [video.video_id for video in videos] == ["gone", "loop", "v.npy"]
    assert describe(videos[0].path).cine == "unreadable: it can't be read: there is no such file"


def test_one_file_is_a_manifest_of_one(tmp_path):
    write_dicom(tmp_path / "IM1")
    (video,) = read_manifest(tmp_path / "IM1").videos
    assert video.origin.video_id == "IM1"


def test_what_can_not_be_entered_or_read_is_listed(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "locked").mkdir()
    np.save(tmp_path / "locked" / "w.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "locked").chmod(0)
    write_dicom(tmp_path / "sealed")
    (tmp_path / "sealed").chmod(0)

    def without_roots_privilege():
        # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH let root read everything; dropped, root is a user like any other.
        if os.geteuid() == 0:
            for capability in (1, 2):
                assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0

    code = (
        "import sys; from panecho_embed.datasets import read_manifest; from panecho_embed.media import open_cine\n"
        "from panecho_embed.core.errors import MediaError\n"
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
    assert lines[2] == "v.npy opens"
    assert lines[0].startswith("locked ")
    assert lines[1].startswith("sealed ")
    assert all("permission" in line.lower() for line in lines[:2])


@pytest.mark.parametrize("layout", ["csv", "echonet-dynamic", "echonet-pediatric", "echonet-lvh"])
def test_a_layout_that_is_not_there_is_said(tmp_path, layout):
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_manifest(tmp_path, layout)
