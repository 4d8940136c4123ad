from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.datasets import read_manifest
from panecho_embed.phantoms import LAYOUTS, extract_input, make_patients, render, write_studies

VIEWS = ("A4C", "A2C", "PLAX", "PSAX")
SHORT = {"num_frames": 3, "size": 64}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_avi(path: Path) -> np.ndarray:
    video = cv2.VideoCapture(str(path))
    frames = []
    while (got := video.read())[0]:
        frames.append(got[1])
    video.release()
    return np.stack(frames)


def test_a_patient_depends_on_seed_and_number_alone():
    assert make_patients(3) == make_patients(9)[:3]
    assert make_patients(3, seed=1) != make_patients(3)


@pytest.mark.parametrize("pediatric", [False, True])
def test_patients_span_the_range_of_ejection_fractions(pediatric):
    patients = make_patients(60, pediatric=pediatric)
    fractions = np.array([p.ef_percent for p in patients])
    assert 15 <= fractions.min() < 20
    assert 70 < fractions.max() <= 75
    assert np.allclose(fractions, [100 * (p.edv_ml - p.esv_ml) / p.edv_ml for p in patients])
    assert (max(p.age_years for p in patients) < 18) == pediatric


def test_a_video_is_the_same_every_time_and_another_take_is_not():
    patient = make_patients(2)[1]
    first = render(patient, "PLAX", 4)
    assert np.array_equal(first.pixels, render(patient, "PLAX", 4).pixels)
    assert not np.array_equal(first.pixels, render(patient, "PLAX", 4, take=1).pixels)


def test_takes_of_one_day_are_more_alike_than_those_of_two_days_or_two_patients():
    def picture(patient, take, study):
        grey = render(patient, "A4C", 4, take=take, study=study).pixels[..., 0].mean(axis=0)
        return cv2.GaussianBlur(grey, (0, 0), 2).ravel()

    takes = ((0, 1), (1, 1), (0, 2))
    alike = np.corrcoef([picture(p, *take) for p in make_patients(4) for take in takes]).reshape(4, 3, 4, 3)
    one_day = min(alike[p, 0, p, 1] for p in range(4))
    assert one_day > max(alike[p, 0, p, 2] for p in range(4))
    assert one_day > max(alike[p, 0, q, 0] for p in range(4) for q in range(4) if p != q)


def test_a_longer_video_begins_like_a_shorter_one():
    patient = make_patients(1)[0]
    assert np.array_equal(render(patient, "A4C", 3).pixels, render(patient, "A4C", 6).pixels[:3])


@pytest.mark.parametrize("view", VIEWS)
def test_a_fan_on_black(view):
    frames = render(make_patients(1)[0], view, 2, fps=25, size=(120, 160))
    assert frames.pixels.shape == (2, 120, 160, 3)
    assert (frames.fps, frames.fps_source) == (25, "phantom")
    assert frames.region is not None
    assert frames.region.x1 <= 160
    assert frames.region.y1 <= 120
    outside = frames.pixels.copy()
    outside[:, frames.region.y0 : frames.region.y1, frames.region.x0 : frames.region.x1] = 0
    assert not outside.any()
    assert not frames.pixels[:, :20, :40].any()
    assert frames.pixels[:, 40:80, 60:100].std() > 15


def test_the_overlay_lies_around_the_fan_and_the_electrocardiogram_moves():
    patient = make_patients(1)[0]
    plain, written = (render(patient, "A4C", 3, size=(300, 400), overlay=overlay).pixels for overlay in (False, True))
    assert not plain[:, :20, :80].any()
    assert written[:, :20, :80].max() > 150
    trace = written[:, 270:]
    assert (trace[..., 1] > trace[..., 0]).any()
    assert (trace[0] != trace[2]).any()


def test_views_look_different():
    """Mean pictures of the same view are more alike than those of different views."""
    patients = make_patients(3)
    means = [render(p, view, 4).pixels[..., 0].mean(axis=0) for view in VIEWS for p in patients]
    alike = np.corrcoef([cv2.GaussianBlur(mean, (0, 0), 3).ravel() for mean in means])
    same = np.kron(np.eye(4), np.ones((3, 3))).astype(bool)
    assert np.mean(alike[same]) > np.mean(alike[~same]) + 0.1


def half_way(profile: np.ndarray) -> float:
    """Where, going outwards from the cavity, brightness is half-way to the wall's."""
    middle = (profile[:4].mean() + profile.max()) / 2
    i = int(np.argmax(profile > middle))
    return i - 1 + float((middle - profile[i - 1]) / (profile[i] - profile[i - 1]))


def short_axis_radii(grey: np.ndarray) -> np.ndarray:
    """The cavity's radius in every PSAX frame, pixels, around the darkest spot of the mean picture."""
    side = grey.shape[1]
    low, high, left, right = (int(share * side) for share in (0.38, 0.62, 0.42, 0.64))
    dark = cv2.GaussianBlur(grey.mean(axis=0), (0, 0), 7)[low:high, left:right]
    y, x = np.unravel_index(dark.argmin(), dark.shape)
    polar = [cv2.warpPolar(f, (80, 128), (float(x + left), float(y + low)), 0.36 * side, 0) for f in grey]
    return np.array([half_way(cv2.GaussianBlur(p, (0, 0), 1).mean(axis=0)) for p in polar]) * 0.36 * side / 80


def four_chamber_widths(grey: np.ndarray) -> np.ndarray:
    """The cavity's width half-way down in every A4C frame, pixels."""
    side = grey.shape[1]
    across = grey[:, int(0.28 * side) : int(0.44 * side)].mean(axis=1)
    across = cv2.GaussianBlur(across, (0, 0), sigmaX=1.5, sigmaY=0.6)
    low, high, reach = (int(share * side) for share in (0.42, 0.66, 0.22))
    middle = low + int(cv2.GaussianBlur(across.mean(axis=0)[None], (0, 0), 4)[0, low:high].argmin())
    return np.array(
        [half_way(p[middle : middle + reach]) + half_way(p[middle - reach : middle + 1][::-1]) for p in across]
    )


@pytest.fixture(scope="module")
def twelve():
    return make_patients(12)


@pytest.fixture(scope="module")
def short_axes(twelve):
    return [render(p, "PSAX", 32, fps=25) for p in twelve]


def narrowing(sizes: np.ndarray) -> float:
    return 1 - (sizes.min() / sizes.max()) ** 2


def test_the_ejection_fraction_can_be_measured_in_the_short_axis(twelve, short_axes):
    measured = [narrowing(short_axis_radii(f.pixels[..., 0].astype(np.float32))) for f in short_axes]
    assert np.corrcoef(measured, [p.ef_percent for p in twelve])[0, 1] > 0.95
    drawn = np.array([1 - (p.lvids_cm / p.lvidd_cm) ** 2 for p in twelve])
    assert np.abs(measured - drawn).mean() < 0.06


def test_the_short_axis_is_drawn_to_scale(twelve, short_axes):
    for patient, frames in zip(twelve, short_axes, strict=True):
        radius = short_axis_radii(frames.pixels[..., 0].astype(np.float32)).max() * frames.region.physical_delta_x
        assert radius == pytest.approx(patient.lvidd_cm / 2, rel=0.15)


@pytest.mark.slow
def test_the_ejection_fraction_can_be_measured_in_the_four_chamber_view(twelve):
    videos = [render(p, "A4C", 32, fps=25).pixels[..., 0].astype(np.float32) for p in twelve]
    measured = [narrowing(four_chamber_widths(video)) for video in videos]
    assert np.corrcoef(measured, [p.ef_percent for p in twelve])[0, 1] > 0.9


def test_brightness_does_not_tell_the_ejection_fraction():
    patients = make_patients(24)
    brightness = [render(p, "A4C", 1).pixels.mean() for p in patients]
    assert abs(np.corrcoef(brightness, [p.ef_percent for p in patients])[0, 1]) < 0.5


def test_echonet_dynamic(tmp_path):
    videos = write_studies(tmp_path, "echonet-dynamic", 4, num_frames=5)
    table = rows(tmp_path / "FileList.csv")
    assert list(table[0]) == [
        "FileName",
        "EF",
        "ESV",
        "EDV",
        "FrameHeight",
        "FrameWidth",
        "FPS",
        "NumberOfFrames",
        "Split",
    ]
    assert [tmp_path / "Videos" / f"{row['FileName']}.avi" for row in table] == videos
    assert {row["Split"] for row in table} == {"TRAIN", "VAL", "TEST"}
    for row, patient, path in zip(table, make_patients(4), videos, strict=True):
        assert float(row["EF"]) == pytest.approx(patient.ef_percent, abs=1e-3)
        assert (row["FrameHeight"], row["FrameWidth"], row["NumberOfFrames"]) == ("112", "112", "5")
        frames = read_avi(path)
        assert frames.shape == (5, 112, 112, 3)
        assert np.abs(frames - render(patient, "A4C", 5).pixels.astype(float)).mean() < 3


def test_echonet_pediatric(tmp_path):
    videos = write_studies(tmp_path, "echonet-pediatric", 11, **SHORT)
    assert len(videos) == 22
    for view in ("A4C", "PSAX"):
        table = rows(tmp_path / view / "FileList.csv")
        assert list(table[0]) == ["FileName", "EF", "Sex", "Age", "Weight", "Height", "Split"]
        assert {int(row["Split"]) for row in table} == set(range(10))
        assert all((tmp_path / view / "Videos" / row["FileName"]).is_file() for row in table)
        assert all(row["FileName"].count("-") == 2 for row in table)
        assert all(int(row["Age"]) < 18 for row in table)


def test_echonet_lvh(tmp_path):
    write_studies(tmp_path, "echonet-lvh", 8, **SHORT)
    table = rows(tmp_path / "MeasurementsList.csv")
    assert list(table[0]) == ["HashedFileName", "Calc", "CalcValue", "Frames", "FPS", "split"]
    assert {row["HashedFileName"] for row in table} == {path.stem for path in tmp_path.glob("Batch[1-4]/*.avi")}
    assert {row["Calc"] for row in table} == {"IVSd", "LVIDd", "LVPWd", "LVIDs"}
    assert len(table) == 8 * 4 - 1, "one measurement is missing, as in the real set"
    patient = make_patients(1)[0]
    first = {row["Calc"]: float(row["CalcValue"]) for row in table[:4]}
    assert first["LVIDd"] == pytest.approx(patient.lvidd_cm, abs=1e-3)
    assert first["LVIDs"] < first["LVIDd"]


def test_image_folders(tmp_path):
    videos = write_studies(tmp_path, "folders", 3, 5, **SHORT)
    table = rows(tmp_path / "manifest.csv")
    assert [tmp_path / row["path"] for row in table] == videos
    assert len({row["video_id"] for row in table}) == 15
    assert [row["view"] for row in table[:5]] == [*VIEWS, "A4C"]
    assert {row["split"] for row in table} == {"train", "val", "test"}
    assert sorted(path.name for path in videos[0].iterdir()) == [f"frame_{i:04d}.png" for i in range(3)]
    picture = cv2.imread(str(videos[0] / "frame_0002.png"))
    assert np.array_equal(picture, render(make_patients(1)[0], "A4C", 3, size=64).pixels[2])
    assert extract_input(tmp_path, "folders") == tmp_path / "manifest.csv"


@pytest.fixture(scope="module")
def dicom(tmp_path_factory):
    root = tmp_path_factory.mktemp("dicom")
    write_studies(root, "dicom", 2, num_frames=4, fps=30, size=(300, 400))
    return root


def test_dicom_cine_loops_and_labels(dicom):
    table = rows(dicom / "labels.csv")
    assert list(table[0]) == ["video_id", "patient_id", "study_id", "view", "EF", "ESV", "EDV", "split"]
    assert [row["view"] for row in table] == [*VIEWS, *VIEWS]
    assert {Path(row["video_id"]).suffix for row in table} == {"", ".dcm"}
    for row in table:
        ds = pydicom.dcmread(dicom / row["video_id"])
        assert (ds.SOPClassUID.name, ds.NumberOfFrames) == ("Ultrasound Multi-frame Image Storage", 4)
        assert float(ds.FrameTime) == pytest.approx(1000 / 30)
        assert ds.PhotometricInterpretation == "YBR_FULL_422"
        assert ds.pixel_array.shape == (4, 300, 400, 3)


def test_dicom_folders_tell_no_identifier(dicom):
    assert sorted({path.parent.name for path in dicom.rglob("IM_*")}) == ["study-0001", "study-0002"]
    assert rows(dicom / "labels.csv")[0]["video_id"] == "study-0001/IM_0001"
    assert not [note for note in read_manifest(dicom).notes if "PatientID" in note]


def test_dicom_shows_what_was_rendered(dicom):
    shown = pydicom.dcmread(dicom / rows(dicom / "labels.csv")[0]["video_id"]).pixel_array
    drawn = render(make_patients(1)[0], "A4C", 4, 30, (300, 400), overlay=True).pixels
    assert np.abs(shown.astype(float) - drawn).mean() < 4


def test_dicom_regions_are_the_fan_and_the_electrocardiogram(dicom):
    ds = pydicom.dcmread(dicom / rows(dicom / "labels.csv")[0]["video_id"])
    fan, trace = ds.SequenceOfUltrasoundRegions
    assert (fan.RegionSpatialFormat, fan.RegionDataType, fan.PhysicalUnitsXDirection) == (1, 1, 3)
    assert trace.RegionSpatialFormat == 4
    assert fan.RegionLocationMaxY1 < trace.RegionLocationMinY0 < trace.RegionLocationMaxY1 < 300


def test_dicom_has_one_still_a_study_and_nobody_real(dicom):
    datasets = [pydicom.dcmread(path) for path in sorted(dicom.rglob("IM_*"))]
    assert len({ds.SOPInstanceUID for ds in datasets}) == len(datasets) == 10
    assert [ds.pixel_array.shape for ds in datasets if "NumberOfFrames" not in ds] == [(300, 400, 3)] * 2
    assert len({ds.StudyInstanceUID for ds in datasets}) == 2
    assert {str(ds.PatientName) for ds in datasets} == {"Phantom^Synthetic 0001", "Phantom^Synthetic 0002"}
    assert {ds.PatientBirthDate for ds in datasets} == {"19000101"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_call_gives_the_same_bytes(tmp_path, layout):
    write_studies(tmp_path / "a", layout, 1, **SHORT)
    write_studies(tmp_path / "b", layout, 1, **SHORT)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    write_studies(tmp_path / "a", layout, 1, **SHORT)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.parametrize(("count", "sizes"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (16, [12, 2, 2])])
def test_split_sizes(tmp_path, count, sizes):
    write_studies(tmp_path, "echonet-dynamic", count, num_frames=1, size=32)
    splits = [row["Split"] for row in rows(tmp_path / "FileList.csv")]
    assert [splits.count(name) for name in ("TRAIN", "VAL", "TEST")] == sizes


def test_progress_is_told(tmp_path):
    told: list[tuple[int, int]] = []
    write_studies(tmp_path, patients=2, progress=lambda done, total: told.append((done, total)), **SHORT)
    assert told == [(1, 2), (2, 2)]


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="not empty and was not written by this command"):
        write_studies(tmp_path, patients=1, **SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_other_phantoms_is_refused(tmp_path):
    write_studies(tmp_path, patients=1, **SHORT)
    with pytest.raises(ArgumentError, match="patients 1, not 2"):
        write_studies(tmp_path, patients=2, **SHORT)


def test_a_damaged_mark_is_refused(tmp_path):
    (tmp_path / ".phantom.json").write_text('{"layout": ')
    with pytest.raises(ArgumentError, match="is damaged"):
        write_studies(tmp_path, patients=1, **SHORT)


def test_an_output_that_can_not_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't write"):
        write_studies(tmp_path / "file", patients=1, **SHORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "mp4"}, "echonet-dynamic, echonet-pediatric"),
        ({"patients": 0}, "patients is 0"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"size": 16}, "size is 16x16"),
        ({"videos_per_study": 2}, "for echonet-dynamic it must be 1"),
        ({"layout": "dicom", "videos_per_study": 0}, "for dicom it must be 1 or more"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        write_studies(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_an_unknown_view():
    with pytest.raises(ArgumentError, match="allowed are A4C, A2C, PLAX, PSAX"):
        render(make_patients(1)[0], "A3C", 1)
