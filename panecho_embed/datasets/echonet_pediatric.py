"""EchoNet-Pediatric as downloaded: A4C/ and PSAX/, each with FileList.csv, VolumeTracings.csv and Videos/*.avi."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import label_columns
from panecho_embed.datasets.layouts import Card, Layout, by_name, filled, locate, manifest_of
from panecho_embed.datasets.phases import phases_of
from panecho_embed.datasets.reading import collect, raise_problems, require_columns
from panecho_embed.datasets.views import PEDIATRIC_FOLDERS
from panecho_embed.datasets.walk import Tree


def _listings(tree: Tree) -> list[Path]:
    return [table for table in tree.named("FileList.csv") if table.parent.name.upper() in PEDIATRIC_FOLDERS]


def _roots(tree: Tree) -> Iterable[Path]:
    return {table.parent.parent for table in _listings(tree)}


def _read(root: Path, tree: Tree) -> Manifest:
    import pandas as pd

    frames, videos, problems, files = [], [], [], []
    of_phases: list[str] = []
    for listing in _listings(tree):
        view, table = listing.parent.name.upper(), tree.table(listing)
        require_columns(table, ["FileName", "Split"])
        here = tree.files(listing.parent, (".avi",))
        found, wrong = collect(table, partial(_reference, view=view, folder=listing.parent, named=by_name(here)))
        problems += [f"{view}/{listing.name}, {problem}" for problem in wrong]
        if not wrong:
            stems = [video.video_id.removeprefix(f"{view}/") for video in found]
            lines = [f"{line} of {view}/{listing.name}" for line in table.frame.index]
            phases, more = phases_of(tree, listing.with_name("VolumeTracings.csv"), stems)
            of_phases += [f"{view}: {note}" for note in more]
            text = {name: [str(value) for value in column] for name, column in phases.items()}
            frames.append(table.frame.set_axis(lines).assign(**text))
        videos += found
        files += here
    raise_problems(root, problems)
    frame = pd.concat(frames).fillna("")
    labels, notes = label_columns(frame, ("FileName", "Split"), root)
    return manifest_of(root, videos, labels, files, [*notes, *of_phases])


def _reference(row: Mapping[str, str], view: str, folder: Path, named: Mapping[str, list[Path]]) -> VideoRef:
    name = filled(row, "FileName")
    stem = Path(name).stem
    parts = stem.split("-")
    path = locate(f"{stem}.avi", folder / "Videos" / f"{stem}.avi", named)
    return VideoRef(f"{view}/{stem}", "-".join(parts[:2]), parts[0], str(path), view, row["Split"])


LAYOUT = Layout(
    name="echonet-pediatric",
    title="EchoNet-Pediatric",
    looks_like="A4C/FileList.csv or PSAX/FileList.csv",
    tables=("FileList.csv", "VolumeTracings.csv"),
    roots=_roots,
    read=_read,
    identity="FileName is patient-study-number.avi; the video is view/FileName without .avi",
    units={
        "EF": "%",
        "Age": "years",
        "Weight": "kg",
        "Height": "cm",
        "ed_frame": "frame from 0",
        "es_frame": "frame from 0",
    },
    reads="A4C/Videos and PSAX/Videos, the view by the folder; FileList.csv of each: EF, Sex, Age, Weight, Height, "
    "and the fold, 0 to 9, as split; VolumeTracings.csv: ed_frame and es_frame, as in EchoNet-Dynamic.",
    card=Card(
        citation="Reddy et al., Video-based deep learning for automated assessment of left ventricular ejection "
        "fraction in pediatric patients, JASE 2023",
        licence="Stanford University research use agreement: personal, non-commercial research",
        passing_on="Neither the data nor the download link may be passed on.",
        flaws=(
            "The split is ten folds, and papers differ in how they use them: PanEcho tests fold f and validates on "
            "f + 1; others test fold 0 and validate on fold 1. Say which.",
            "Some videos have no row in the tables, and no label.",
        ),
    ),
)
