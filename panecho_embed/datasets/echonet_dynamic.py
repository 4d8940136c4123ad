"""EchoNet-Dynamic as downloaded: FileList.csv, VolumeTracings.csv and Videos/*.avi."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import label_columns, parse_number
from panecho_embed.datasets.layouts import Card, Layout, by_name, filled, locate, manifest_of
from panecho_embed.datasets.phases import phases_of
from panecho_embed.datasets.reading import collect, raise_problems, require_columns
from panecho_embed.datasets.views import PEDIATRIC_FOLDERS
from panecho_embed.datasets.walk import Tree


def _roots(tree: Tree) -> Iterable[Path]:
    tables = tree.named("FileList.csv")
    return {table.parent for table in tables if table.parent.name.upper() not in PEDIATRIC_FOLDERS}


def _read(root: Path, tree: Tree) -> Manifest:
    table = tree.table(root / "FileList.csv")
    require_columns(table, ["FileName", "Split"])
    files = tree.files(root, (".avi",))
    named = by_name(files)

    def reference(row: Mapping[str, str]) -> VideoRef:
        name = filled(row, "FileName").removesuffix(".avi")
        path = locate(f"{name}.avi", root / "Videos" / f"{name}.avi", named)
        fps = parse_number("FPS", row.get("FPS", ""))
        return VideoRef(name, name, name, str(path), "A4C", row["Split"].lower(), fps)

    videos, problems = collect(table, reference)
    raise_problems(table.path, problems)
    labels, notes = label_columns(table.frame, ("FileName", "Split", "FPS"), table.path)
    phases, of_phases = phases_of(tree, root / "VolumeTracings.csv", [video.video_id for video in videos])
    return manifest_of(root, videos, labels | phases, files, [*notes, *of_phases])


LAYOUT = Layout(
    name="echonet-dynamic",
    title="EchoNet-Dynamic",
    looks_like="FileList.csv and Videos/",
    tables=("FileList.csv", "VolumeTracings.csv"),
    roots=_roots,
    read=_read,
    identity="video, study and patient are FileName without .avi: one video a patient",
    units={"EF": "%", "ESV": "mL", "EDV": "mL", "ed_frame": "frame from 0", "es_frame": "frame from 0"},
    reads="Videos/*.avi, all A4C; FileList.csv: EF, ESV, EDV and every further column as labels, Split, FPS; "
    "VolumeTracings.csv: ed_frame and es_frame, the traced frames with the larger and the smaller contour.",
    card=Card(
        citation="Ouyang et al., Video-based AI for beat-to-beat assessment of cardiac function, Nature 2020",
        licence="Stanford University research use agreement: personal, non-commercial research",
        passing_on="Neither the data nor the download link may be passed on.",
        flaws=("Some videos have tracings of fewer than two frames; ed_frame or es_frame is then missing.",),
    ),
)
