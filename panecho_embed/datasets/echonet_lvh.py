"""EchoNet-LVH as downloaded: MeasurementsList.csv, one row a measurement, and Batch1/ to Batch4/*.avi."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import parse_number
from panecho_embed.datasets.layouts import Card, Layout, by_name, filled, locate, manifest_of
from panecho_embed.datasets.reading import collect, raise_problems, require_columns
from panecho_embed.datasets.walk import Tree


def _roots(tree: Tree) -> Iterable[Path]:
    return {table.parent for table in tree.named("MeasurementsList.csv")}


def _read(root: Path, tree: Tree) -> Manifest:
    table = tree.table(root / "MeasurementsList.csv")
    require_columns(table, ["HashedFileName", "Calc", "CalcValue", "split"])
    files = tree.files(root, (".avi",))
    named = by_name(files)
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def reference(row: Mapping[str, str]) -> VideoRef:
        name, calc = filled(row, "HashedFileName"), filled(row, "Calc")
        if (value := parse_number("CalcValue", row["CalcValue"])) is not None:
            measured[calc][name].append(value)
        usual = (path for path in named.get(f"{name}.avi", []) if path.parent.parent == root)
        path = locate(f"{name}.avi", next(usual, root / "Batch1" / f"{name}.avi"), named)
        fps = parse_number("FPS", row.get("FPS", ""))
        return VideoRef(name, name, name, str(path), "PLAX", row["split"].lower(), fps)

    rows, problems = collect(table, reference, unique=False)
    raise_problems(table.path, problems)
    by_id: dict[str, list[VideoRef]] = defaultdict(list)
    for video in rows:
        by_id[video.video_id].append(video)
    torn = sorted(name for name, same in by_id.items() if len({video.split for video in same}) > 1)
    raise_problems(table.path, [f"{name}: its rows have several splits" for name in torn])
    videos = [replace(same[0], fps=_agreed([video.fps for video in same])) for same in by_id.values()]
    labels = {calc: [_mean(measured[calc][name]) for name in by_id] for calc in sorted(measured)}
    return manifest_of(root, videos, labels, files)


def _agreed(rates: list[float | None]) -> float | None:
    return rates[0] if len(set(rates)) == 1 else None


def _mean(values: list[float]) -> float:
    # fsum, so that the order of the table's rows makes no difference in the last digit.
    return math.fsum(values) / len(values) if values else math.nan


LAYOUT = Layout(
    name="echonet-lvh",
    title="EchoNet-LVH",
    looks_like="MeasurementsList.csv and Batch1/ to Batch4/",
    tables=("MeasurementsList.csv",),
    roots=_roots,
    read=_read,
    identity="video, study and patient are HashedFileName: one video a patient",
    units=dict.fromkeys(("IVSd", "IVSs", "LVIDd", "LVIDs", "LVPWd", "LVPWs"), "cm"),
    reads="Batch1 to Batch4/*.avi, all PLAX; MeasurementsList.csv: a label for each Calc (IVSd, LVIDd, LVPWd, LVIDs, "
    "...), split, FPS. The points of a measurement and its Frame are not read.",
    card=Card(
        citation="Duffy et al., High-throughput precision phenotyping of left ventricular hypertrophy with "
        "cardiovascular deep learning, JAMA Cardiology 2022",
        licence="Stanford University research use agreement: personal, non-commercial research",
        passing_on="Neither the data nor the download link may be passed on.",
        flaws=(
            "The table has one row a measurement; a measurement that was made several times becomes its mean, and one "
            "that was not made is missing.",
            "An older file of splits exists; the column split of MeasurementsList.csv is the one that is read.",
        ),
    ),
)
