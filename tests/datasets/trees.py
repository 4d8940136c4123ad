"""Tiny trees of each public data set, laid out as downloaded; pictures, patients and numbers are made up."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import openpyxl


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def csv(path: Path, header: str, rows: Sequence[str], mix: random.Random | None = None) -> None:
    """A table; `mix` puts its rows and columns in random order."""
    names = header.split(",")
    cells = [row.split(",") for row in rows]
    if mix:
        columns = mix.sample(range(len(names)), len(names))
        names = [names[i] for i in columns]
        cells = [[row[i] for i in columns] for row in mix.sample(cells, len(cells))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(row) + "\n" for row in [names, *cells]))


def sector(height: int = 60, width: int = 80, frames: int = 4) -> np.ndarray:
    """A fan with its apex at the top, (T, H, W) uint8, brighter at the right."""
    y, x = np.mgrid[:height, :width]
    dx = x - width / 2
    fan = (np.abs(dx) < 0.7 * (y + 1)) & (np.hypot(dx, y) < 0.95 * height)
    return np.stack([(fan * (90 + 60 * (dx > 0) + 10 * t)).astype(np.uint8) for t in range(frames)])


def nifti(path: Path, *, rows_first: bool = False, colour: bool = False, frames: int = 4) -> None:
    """A loop of `sector`, saved as (X, Y, T), or as (rows, columns, T); `colour`: with RGB in a last axis."""
    volume = sector(frames=frames).transpose((1, 2, 0) if rows_first else (2, 1, 0))
    if colour:
        volume = np.stack([volume, volume // 2, volume // 3], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.3, -0.3, 1, 1])), path)


def xlsx(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(list(row))
    book.save(path)


def dynamic(root: Path, mix: random.Random | None = None) -> None:
    header = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
    rows = ["0X1A,78.5,14.9,69.2,112,112,50,174,VAL", "0X2B,59.1,40.4,98.7,112,112,30,215,TRAIN"]
    csv(root / "FileList.csv", header, [*rows, "0X9Z,60,40,100,112,112,30,50,TEST"], mix)
    # The small contour is that of systole, whichever frame comes first.
    traced = [
        *(f"0X1A.avi,{x1},{y},{x2},{y},46" for x1, x2, y in ((40, 60, 20), (35, 65, 40), (30, 70, 60))),
        *(f"0X1A.avi,{x1},{y},{x2},{y},61" for x1, x2, y in ((45, 55, 25), (42, 58, 40), (40, 60, 50))),
        *(f"0X2B.avi,{x1},{y},{x2},{y},20" for x1, x2, y in ((45, 55, 25), (42, 58, 40), (40, 60, 50))),
        *(f"0X2B.avi,{x1},{y},{x2},{y},7" for x1, x2, y in ((45, 55, 25), (42, 58, 40), (41, 59, 50))),
        *(f"0X9Z.avi,{x1},{y},{x2},{y},3" for x1, x2, y in ((45, 55, 25), (42, 58, 40), (41, 59, 50))),
    ]
    csv(root / "VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame", traced, mix)
    for name in ("0X1A", "0X2B", "0X3C"):
        touch(root / "Videos" / f"{name}.avi")


def pediatric(root: Path, mix: random.Random | None = None) -> None:
    header = "FileName,EF,Sex,Age,Weight,Height,Split"
    csv(root / "A4C" / "FileList.csv", header, ["CR1-S7-001.avi,61.2,F,9,30,130,0"], mix)
    rows = ["CR1-S7-002.avi,60.8,F,9,30,130,0", "CR2-S9-001.avi,44.0,M,3,12,90,9"]
    csv(root / "PSAX" / "FileList.csv", header, rows, mix)
    big, small = ((10, 10), (60, 10), (35, 70)), ((20, 20), (50, 20), (35, 50))
    traced = [f"CR1-S7-001.avi,{x},{y},12" for x, y in small] + [f"CR1-S7-001.avi,{x},{y},30" for x, y in big]
    csv(root / "A4C" / "VolumeTracings.csv", "FileName,X,Y,Frame", traced, mix)
    traced = [f"CR1-S7-002.avi,{x},{y},5" for x, y in big] + ["CR1-S7-002.avi,0,0,No Systolic"]
    csv(root / "PSAX" / "VolumeTracings.csv", "FileName,X,Y,Frame", traced, mix)
    touch(root / "A4C" / "Videos" / "CR1-S7-001.avi")
    touch(root / "PSAX" / "Videos" / "CR1-S7-002.avi")
    touch(root / "PSAX" / "Videos" / "CR3-S1-001.avi")


def lvh(root: Path, mix: random.Random | None = None) -> None:
    header = "HashedFileName,Calc,CalcValue,Frame,X1,X2,Y1,Y2,Frames,FPS,Width,Height,split"
    rest = "9,1,2,3,4,100,40,800,600"
    rows = [f"0XA,IVSd,{value},{rest},train" for value in ("1.1", "1.3", "0.3")]
    rows += [f"0XA,LVIDd,4.8,{rest},train", f"0XB,LVIDd,5.5,{rest},test", f"0XC,LVPWd,0.9,{rest},val"]
    csv(root / "MeasurementsList.csv", header, rows, mix)
    touch(root / "Batch1" / "0XA.avi")
    touch(root / "Batch3" / "0XB.avi")
    touch(root / "Batch4" / "0XD.avi")


def tmed2(root: Path, mix: random.Random | None = None) -> None:
    header = "query_key,SourceFolder,view_label,diagnosis_label"
    both, views = "view_and_diagnosis_labeled_set/labeled", "view_labeled_set/labeled"
    rows = [
        f"12s1_0.png,{both},PLAX,severe_AS",
        f"12s1_1.png,{both},PSAX,severe_AS",
        f"7s2_0.png,{both},A4C,no_AS",
        f"30s1_4.png,{views},A4CorA2CorOther,Not_Provided",
    ]
    csv(root / "labels_per_image.csv", header, rows, mix)
    parts = ["train,train", "train,val", "test,test"]
    fold = [f"{row},{part}" for row, part in zip(rows, parts, strict=False)]
    columns = f"{header},diagnosis_classifier_split,view_classifier_split"
    csv(root / "DEV479" / "TMED2_fold0_labeledpart.csv", columns, fold, mix)
    csv(root / "DEV165" / "TMED2_fold1_labeledpart.csv", columns, fold[:1], mix)
    for row in rows[:-1]:
        name, folder, *_ = row.split(",")
        touch(root / folder / name)
    touch(root / "unlabeled_set" / "unlabeled" / "99s1_0.png")
    touch(root / both / "50s1_0.png")


def camus(root: Path, mix: random.Random | None = None) -> None:
    info = "ED: {}\nES: {}\nNbFrame: 4\nSex: {}\nAge: {}\nImageQuality: {}\nEF: {}\nFrameRate: {}\n"
    for patient, ed, es, sex, age, ef in (("patient0001", 1, 4, "F", 56, 53), ("patient0002", 4, 1, "M", 71, 38)):
        for view, quality, rate in (("2CH", "Good", 41.5), ("4CH", "Poor", 50)):
            folder = root / "database_nifti" / patient
            for what in ("ED", "ES", "ED_gt", "half_sequence", "half_sequence_gt"):
                nifti(folder / f"{patient}_{view}_{what}.nii.gz", frames=4 if "half" in what else 1)
            lines = info.format(ed, es, sex, age, quality, ef, rate).splitlines(keepends=True)
            text = "".join(mix.sample(lines, len(lines)) if mix else lines)
            (folder / f"Info_{view}.cfg").write_text(text)
    (root / "database_nifti" / "patient0002" / "patient0002_4CH_half_sequence.nii.gz").unlink()
    (root / "database_split").mkdir()
    (root / "database_split" / "subgroup_training.txt").write_text("patient0002\n")
    (root / "database_split" / "subgroup_validation.txt").write_text("patient0077\n")
    (root / "database_split" / "subgroup_testing.txt").write_text("patient0001\n")


def hmc_qu(root: Path, mix: random.Random | None = None) -> None:
    header = ["ECHO", "SEG1", "SEG2", "SEG3", "SEG5", "SEG6", "SEG7", "Reference\nFrame", "End of Cycle"]
    a4c = [
        ["ES0001 _4CH_1", *["non-MI"] * 5, "MI", 3, 27],
        ["ES0002_4CH_1", *["non-MI"] * 6, 1, 25.0],
        ["ES0009_4CH_1", *["MI"] * 6, 2, 20],
    ]
    a2c = [["ES0001_CH2_1", *["non-MI"] * 6, 5, 30], ["ES0003_2CH_1", *[None] * 6, 4, 33]]
    if mix:
        a4c = mix.sample(a4c, len(a4c))
    xlsx(root / "A4C.xlsx", [["Myocardial infarction, four-chamber"], [None], header, *a4c])
    xlsx(root / "A2C.xlsx", [[*header[:1], "SEG4", "SEG8", *header[3:]], *a2c])
    # With a blank in one of the two names.
    for place in ("A4C/ES0001_4CH_1", "A4C/ES0002_4CH_1", "A2C/ES0001_CH2_1", "A2C/ES0003_2CH_1", "A2C/ES0044_2CH_1"):
        touch(root / "HMC-QU" / f"{place}.avi")
    touch(root / "LV Ground-truth Segmentation Masks" / "Mask_ES0001_4CH_1.mat")


def segrwma(root: Path, mix: random.Random | None = None) -> None:
    for name in ("patient1-2D-A4C", "patient1-MCE-A2C", "patient2-LVO-A3C"):
        nifti(root / "wallMotion" / f"{name}_image.nii.gz")
        nifti(root / "wallMotion" / f"{name}_label.nii.gz")
    header = "video,first_annotated_frame_index,n_frames,apex"
    rows = ["patient1-2D-A4C_image.nii.gz,5,71,1", "patient1-MCE-A2C_image.nii.gz,7,90,0", "patient3-2D-A4C,2,80,0"]
    csv(root / "annotations.csv", header, rows, mix)


def cardiacnet(root: Path, mix: random.Random | None = None) -> None:
    for place in ("ASD/001_image.nii/patient-2-4", "Non-ASD/001_image.nii/patient23-4", "Non-ASD/002_image.nii/P79-2"):
        nifti(root / "CardiacNet-ASD" / f"{place}_image.nii", rows_first=True)
    nifti(root / "CardiacNet-ASD" / "Non-ASD" / "003_image.nii" / "PHI01_image.nii", rows_first=True, colour=True)
    nifti(root / "CardiacNet-ASD" / "ASD" / "001_label.nii" / "patient-2-4_label.nii")
    nifti(root / "CardiacNet-PAH" / "PAH" / "001_image.nii" / "patient-2-4_image.nii")
    nifti(root / "CardiacNet-PAH" / "PAH" / "002_image.nii" / "patient-2_image.nii")
    nifti(root / "CardiacNet-PAH" / "Non-PAH" / "007_image.nii" / "x99_image.nii")


def cardiacuda(root: Path, mix: random.Random | None = None) -> None:
    for place in (
        "Site_G_100/patient1-4",
        "Site_G_100/patient1-2",
        "Site_R_52/patient1-4",
        "label_all_frame/normal-1-4",
    ):
        nifti(root / f"{place}_image.nii.gz")
        nifti(root / f"{place}_label.nii.gz")


def rvenet(root: Path, mix: random.Random | None = None) -> None:
    header = "FileName,RVEF,HR,FPS,Split,VideoQuality"
    rows = ["0001_A_1,52.1,70,50,train,3", "0001_A_2,52.1,71,50,train,4", "0002_B_1,38.4,66,43,validation,2"]
    csv(root / "codebook.csv", header, [*rows, "0003_C_1,60,60,50,train,1"], mix)
    for name in ("0001_A_1", "0001_A_2", "0002_B_1", "0007_X_1"):
        touch(root / f"{name}.dcm")


def mimic(root: Path, mix: random.Random | None = None) -> None:
    ids = [("10000001", "90000004", 1), ("10000001", "90000004", 2), ("10000001", "90000005", 1)]
    rows = []
    for subject, study, number in [*ids, ("19999987", "90000006", 1), ("10000003", "90000007", 1)]:
        file = f"files/p{subject[:2]}/p{subject}/s{study}/{study}_{number:04d}.dcm"
        rows.append(f"{subject},{study},2150-01-02 03:04:05,{file}")
        if subject != "10000003":
            touch(root / file)
    csv(root / "echo-record-list.csv", "subject_id,study_id,acquisition_datetime,dicom_filepath", rows, mix)
    csv(root / "echo-study-list.csv", "subject_id,study_id,study_datetime", ["10000001,90000004,2150-01-02"], mix)
    touch(root / "structured-measurement.csv.gz")
    touch(root / "files/p10/p10000001/s90000009/90000009_0001.dcm")


WRITERS: dict[str, Callable[[Path, random.Random | None], None]] = {
    "echonet-dynamic": dynamic,
    "echonet-pediatric": pediatric,
    "echonet-lvh": lvh,
    "tmed-2": tmed2,
    "camus": camus,
    "hmc-qu": hmc_qu,
    "segrwma": segrwma,
    "cardiacnet": cardiacnet,
    "cardiacuda": cardiacuda,
    "rvenet": rvenet,
    "mimic-iv-echo": mimic,
}
