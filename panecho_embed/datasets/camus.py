"""CAMUS as downloaded: a folder for each patient, with NIfTI half cycles and Info_2CH.cfg; lists of splits."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.wording import counted
from panecho_embed.datasets.labels import parse_label, parse_number
from panecho_embed.datasets.layouts import Card, Layout, manifest_of
from panecho_embed.datasets.reading import raise_problems
from panecho_embed.datasets.walk import Tree

_VIEWS = {"Info_2CH.cfg": ("2CH", "A2C"), "Info_4CH.cfg": ("4CH", "A4C")}
_SPLITS = {"subgroup_training.txt": "train", "subgroup_validation.txt": "val", "subgroup_testing.txt": "test"}
_NUMBERS = ("EF", "Age", "ED", "ES", "NbFrame", "FrameRate")
_USED_UP = ("ED", "ES", "FrameRate", "NbFrame")


def _roots(tree: Tree) -> Iterable[Path]:
    return {file.parent.parent for file in tree.named(*_VIEWS)}


def _read(root: Path, tree: Tree) -> Manifest:
    splits, notes = _splits(root, tree)
    videos, rows, problems = [], [], []
    for file in tree.named(*_VIEWS):
        if file.parent.parent != root:
            continue
        code, view = next(names for cfg, names in _VIEWS.items() if cfg.lower() == file.name.lower())
        patient = file.parent.name
        try:
            info = _info(file)
            fps = parse_number("FrameRate", info.get("FrameRate", ""))
            stem = f"{patient}_{code}_half_sequence"
            path = next(
                (p for p in tree.folders[file.parent] if p.name == f"{stem}.nii"), file.parent / f"{stem}.nii.gz"
            )
            videos.append(VideoRef(stem, patient, patient, str(path), view, splits.get(patient, ""), fps))
            rows.append(info)
        except ArgumentError as error:
            problems.append(f"{patient}/{file.name}: {error}")
    raise_problems(root, problems)
    if gone := sorted(set(splits) - {video.patient_id for video in videos}):
        notes.append(f"{counted(len(gone), 'patient')} of the splits without a folder: {', '.join(gone[:5])}")
    import pandas as pd

    frame = pd.DataFrame(rows, dtype=object).fillna("")
    labels = {str(name): parse_label(frame[name]) for name in frame.columns if name not in _USED_UP}
    # Counted from 1 in the files.
    labels |= {f"{phase.lower()}_frame": parse_label(frame[phase]) - 1 for phase in ("ED", "ES") if phase in frame}
    files = [file for file in tree.files(root, (".nii", ".nii.gz")) if "_half_sequence.nii" in file.name]
    files = [file for file in files if "_gt" not in file.name]
    return manifest_of(root, videos, labels, files, notes)


def _info(file: Path) -> dict[str, str]:
    """What an Info_*.cfg says. Raises ArgumentError for a line that is none, and numbers that are none."""
    info = {}
    for line in filter(str.strip, file.read_text(encoding="utf-8", errors="replace").splitlines()):
        name, colon, value = line.partition(":")
        if not colon:
            raise ArgumentError(f"{line.strip()!r} is no line such as 'EF: 56'")
        info[name.strip()] = value.strip()
    numbers = {name: parse_number(name, info.get(name, "")) for name in _NUMBERS}
    last = numbers["NbFrame"] or np.inf
    for phase in ("ED", "ES"):
        if (frame := numbers[phase]) is not None and not 1 <= frame <= last:
            raise ArgumentError(f"{phase} is {frame:g}; it must be a frame from 1 to NbFrame, {last:g}")
    return info


def _splits(root: Path, tree: Tree) -> tuple[dict[str, str], list[str]]:
    """The split of each patient, from the three lists, which are beside the patients' folder or below it."""
    beside = [root.parent / "database_split" / name for name in _SPLITS]
    files = tree.named(*_SPLITS) or [path for path in beside if path.is_file()]
    splits: dict[str, str] = {}
    problems = []
    for file in files:
        tree.used.add(file)
        for patient in file.read_text(encoding="utf-8", errors="replace").split():
            part = _SPLITS[file.name.lower()]
            if splits.setdefault(patient, part) != part:
                problems.append(f"{patient} is in the lists of {splits[patient]} and {part}")
    raise_problems(root, problems)
    return splits, [] if files else [f"no split: none of {', '.join(_SPLITS)} was found"]


LAYOUT = Layout(
    name="camus",
    title="CAMUS",
    looks_like="Info_2CH.cfg or Info_4CH.cfg in a folder for each patient",
    tables=tuple(_VIEWS),
    roots=_roots,
    read=_read,
    identity="patient and study are the patient's folder, patient0001; the video is patient0001_2CH_half_sequence",
    units={"EF": "%", "Age": "years", "ed_frame": "frame from 0", "es_frame": "frame from 0"},
    reads="patientNNNN_2CH_half_sequence.nii.gz as A2C, _4CH_ as A4C; Info_*.cfg: EF, Age, Sex, ImageQuality as "
    "labels, FrameRate, ED and ES as ed_frame and es_frame; subgroup_training.txt, _validation.txt, "
    "_testing.txt as split.",
    card=Card(
        citation="Leclerc et al., Deep learning for segmentation using an open large-scale dataset in 2D "
        "echocardiography, IEEE TMI 2019",
        licence="See the download page; research use with citation",
        passing_on="Link to the download page.",
        flaws=(
            "A video is half a cycle, from ED to ES or the other way round: no heart rate can be taken from it.",
            "EF is the patient's, the same in both views.",
            "Only the half cycles are read; the single ED and ES images and the masks (_gt) are not.",
        ),
    ),
)
