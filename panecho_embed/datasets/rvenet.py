"""RVENet as downloaded: DICOM loops of the apical four-chamber view and codebook.csv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import label_columns, parse_number
from panecho_embed.datasets.layouts import Card, Layout, by_name, filled, locate, manifest_of
from panecho_embed.datasets.reading import collect, raise_problems, require_columns
from panecho_embed.datasets.walk import Tree

_SPLITS = {"train": "train", "training": "train", "validation": "val", "val": "val", "test": "test", "": ""}


def _roots(tree: Tree) -> Iterable[Path]:
    return {table.parent for table in tree.named("codebook.csv")}


def _read(root: Path, tree: Tree) -> Manifest:
    table = tree.table(root / "codebook.csv")
    require_columns(table, ["FileName", "RVEF", "Split"])
    files = tree.files(root, (".dcm",))
    named = by_name(files)

    def reference(row: Mapping[str, str]) -> VideoRef:
        name = filled(row, "FileName").removesuffix(".dcm")
        parts = name.split("_")
        if len(parts) < 3:
            raise ArgumentError(f"FileName is {name!r}, no name of three parts such as 0001_A_1")
        if (split := row["Split"].lower()) not in _SPLITS:
            raise ArgumentError(f"Split is {row['Split']!r}; known are {', '.join(filter(None, _SPLITS))}")
        patient = "_".join(parts[:2])
        path = locate(f"{name}.dcm", root / f"{name}.dcm", named)
        fps = parse_number("FPS", row.get("FPS", ""))
        return VideoRef(name, patient, patient, str(path), "A4C", _SPLITS[split], fps)

    videos, problems = collect(table, reference)
    raise_problems(table.path, problems)
    labels, notes = label_columns(table.frame, ("FileName", "Split", "FPS"), table.path)
    return manifest_of(root, videos, labels, files, notes)


LAYOUT = Layout(
    name="rvenet",
    title="RVENet",
    looks_like="codebook.csv and DICOM files",
    tables=("codebook.csv",),
    roots=_roots,
    read=_read,
    identity="the patient is the first two parts of FileName between underscores, the video FileName; headers are not "
    "asked",
    units={"RVEF": "%", "HR": "1/min"},
    reads="The .dcm files of codebook.csv, all A4C; RVEF, HR and every further column as labels, FPS, Split.",
    card=Card(
        citation="Magyar et al., RVENet: a large echocardiographic dataset for the deep learning-based assessment of "
        "right ventricular function, ECCV Workshops 2022",
        licence="See the download page",
        passing_on="Link to the download page.",
        flaws=(
            "RVEF is from 3-D echocardiography.",
            "The published model leaves out heart rates outside 30 to 150 and loops of under 20 frames or one cycle; "
            "the layout keeps them.",
        ),
    ),
)
