"""HMC-QU as downloaded: A2C.xlsx and A4C.xlsx, and a folder of AVI files for each view."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.labels import label_columns
from panecho_embed.datasets.layouts import Card, Layout, filled, locate, manifest_of
from panecho_embed.datasets.reading import collect, raise_problems, require_columns
from panecho_embed.datasets.walk import Tree

_TABLES = ("A2C.xlsx", "A4C.xlsx", "HMC_QU.xlsx")
_PATIENT = re.compile(r"ES\d+", re.IGNORECASE)
_VIEW = re.compile(r"CH([24])|([24])CH", re.IGNORECASE)
_INFARCTED = {"mi": 1.0, "non-mi": 0.0, "non mi": 0.0, "": None}


def _roots(tree: Tree) -> Iterable[Path]:
    return {table.parent for table in tree.named(*_TABLES)}


def _read(root: Path, tree: Tree) -> Manifest:
    import pandas as pd

    files = tree.files(root, (".avi",))
    by_stem: dict[str, list[Path]] = {}
    for file in files:
        by_stem.setdefault(_squeezed(file.stem), []).append(file)
    frames, videos, problems = [], [], []
    for path in tree.named(*_TABLES):
        if path.parent != root:
            continue
        table = tree.table(path, first_column="ECHO")
        require_columns(table, ["ECHO"])

        def reference(row: Mapping[str, str], folder: str = path.stem) -> VideoRef:
            echo = filled(row, "ECHO").removesuffix(".avi")
            patient, view = _PATIENT.match(echo), _VIEW.search(echo)
            if patient is None or view is None:
                raise ArgumentError(f"ECHO is {echo!r}, no name such as ES0001_4CH_1")
            _any_infarcted(row)
            place = root / "HMC-QU" / folder / f"{echo}.avi"
            usual = (path for path in by_stem.get(_squeezed(echo), []) if path.parent == place.parent)
            where = locate(_squeezed(echo), next(usual, place), by_stem)
            return VideoRef(echo, patient[0], patient[0], str(where), f"A{view[1] or view[2]}C")

        found, wrong = collect(table, reference)
        problems += [f"{path.name}, {problem}" for problem in wrong]
        frames.append(table.frame.set_axis([f"{line} of {path.name}" for line in table.frame.index]))
        videos += found
    raise_problems(root, problems)
    frame = pd.concat(frames).fillna("")
    frame = frame[sorted(frame.columns)]
    labels, notes = label_columns(frame, ("ECHO",), root)
    infarcted = [_any_infarcted(row) for row in frame.to_dict("records")]
    return manifest_of(root, videos, {"MI": infarcted, **labels}, files, notes)


def _squeezed(stem: str) -> str:
    # The same video is written with and without a blank.
    return re.sub(r"\s", "", stem).lower()


def _any_infarcted(row: Mapping[Any, str]) -> float | None:
    """Whether any segment is infarcted; None where no segment is judged. Raises ArgumentError for another word."""
    segments = {name: cell.strip().lower() for name, cell in row.items() if re.fullmatch(r"SEG\s*\d+", str(name))}
    if unknown := [f"{name} is {cell!r}" for name, cell in segments.items() if cell not in _INFARCTED]:
        raise ArgumentError(f"{', '.join(unknown)}; it must be MI or non-MI")
    judged = [value for cell in segments.values() if (value := _INFARCTED[cell]) is not None]
    return max(judged, default=None)


LAYOUT = Layout(
    name="hmc-qu",
    title="HMC-QU",
    looks_like="A2C.xlsx or A4C.xlsx (older: HMC_QU.xlsx)",
    tables=_TABLES,
    roots=_roots,
    read=_read,
    identity="the video is ECHO, ES0001_4CH_1; patient and study are its leading ES and digits",
    units={"Reference Frame": "frame from 1", "End of Cycle": "frame from 1"},
    reads="HMC-QU/A2C and A4C/*.avi; A2C.xlsx and A4C.xlsx: each SEG column and MI (1 if any segment of the view is "
    "MI, 0 if none), Reference Frame and End of Cycle as written.",
    card=Card(
        citation="Degerli et al., Early detection of myocardial infarction in low-quality echocardiography, IEEE "
        "Access 2021",
        licence="See the download page",
        passing_on="Link to the download page.",
        flaws=(
            "MI is of the view: any of its segments. For 35 patients the two views differ.",
            "There is no published split: split by patient.",
            "The masks (Mask_*.mat) are not read.",
        ),
    ),
)
