"""TMED-2's tables: an image is named by its query_key, and lies in its SourceFolder.

Source: Huang et al., TMED 2: A Dataset for Semi-Supervised Classification of Echocardiograms, 2022.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from panecho_embed.core.errors import ArgumentError
from panecho_embed.datasets.reading import Table

# Patient 12, study 1, image 3 is 12s1_3.png.
_KEY = re.compile(r"^(?P<study>(?P<patient>\d+)s\d+)_\d+\.\w+$")
_LISTED = 3


def with_paths(table: Table) -> Table:
    """The table with the columns path, video_id, study_id, patient_id and view, where it has none of its own.

    An image is looked for anywhere below the table's folder, in its SourceFolder where that is there. One that lies
    in several places is a problem of its row.
    """
    import pandas as pd

    base, frame, problems = table.path.parent, table.frame, dict(table.problems)
    where: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(base.rglob("*")):
        if file.is_file():
            where[file.name].append(file.relative_to(base))
    sources = list(frame["SourceFolder"]) if "SourceFolder" in frame.columns else [""] * len(frame)
    # Who copied all images into one folder has no source folders, and needs none if the names are unique.
    folders = {file.parent for files in where.values() for file in files}
    there = {source for source in set(sources) if any(_leads_through(folder, source) for folder in folders)}
    paths = []
    for line, key, source in zip(frame.index, frame["query_key"], sources, strict=True):
        path = ""
        try:
            path = _locate(key, source if source in there else "", where.get(key, []))
        except ArgumentError as error:
            problems.setdefault(line, str(error))
        paths.append(path)
    added: dict[str, list[str]] = {"path": paths, "video_id": list(frame["query_key"])}
    matches = [_KEY.match(key) for key in frame["query_key"]]
    if all(matches):
        added |= {f"{kind}_id": [m[kind] for m in matches if m] for kind in ("study", "patient")}
    if "view_label" in frame.columns:
        added["view"] = list(frame["view_label"])
    # As objects: pandas's own text column takes no names that are not UTF-8.
    mine = {
        name: pd.Series(column, frame.index, dtype=object)
        for name, column in added.items()
        if name not in frame.columns
    }
    return Table(table.path, frame.assign(**mine), problems)


def _locate(key: str, source: str, found: Sequence[Path]) -> str:
    """The one place of an image, relative to the table; ArgumentError if it is in several, or not in its folder."""
    if source:
        found = [file for file in found if _leads_through(file.parent, source)]
        if not found:
            raise ArgumentError(f"no image {key} in the folder {source}")
    if len(found) > 1:
        places = ", ".join(str(file) for file in found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
        raise ArgumentError(f"{len(found)} images are called {key}: {places}; add a column SourceFolder, or path")
    return str(found[0]) if found else key


def _leads_through(folder: Path, source: str) -> bool:
    parts = PurePosixPath(source.strip("/")).parts
    return bool(parts) and any(folder.parts[i : i + len(parts)] == parts for i in range(len(folder.parts)))
