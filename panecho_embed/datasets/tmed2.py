"""TMED-2 as downloaded, or one of its tables: an image is named by its query_key, and is in its SourceFolder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.layouts import Card, Layout, manifest_of
from panecho_embed.datasets.reading import Table, raise_problems, require_columns
from panecho_embed.datasets.walk import Tree
from panecho_embed.media import IMAGE_SUFFIXES

# Patient 12, study 1, image 3 is 12s1_3.png.
_KEY = re.compile(r"^(?P<study>(?P<patient>\d+)s\d+)_\d+\.\w+$")
_FOLD = re.compile(r"TMED2_fold(\d)_labeledpart\.csv", re.IGNORECASE)
_ALL = "labels_per_image.csv"
_SPLIT = "DEV479 fold 0 diagnosis"
_ABOUT_IMAGE = ("SourceFolder", "view_label", "diagnosis_label")
_LISTED = 3


def _roots(tree: Tree) -> Iterable[Path]:
    folds = (path.parent.parent for path in tree.files(suffixes=(".csv",)) if _FOLD.fullmatch(path.name))
    return {*folds, *(path.parent for path in tree.named(_ALL))}


def _read(root: Path, tree: Tree) -> Manifest:
    images, splits, problems = _tables(root, tree)
    files = tree.files(root, tuple(IMAGE_SUFFIXES))
    places = _places([file.relative_to(root) for file in files])
    sources = {about["SourceFolder"] for about in images.values()}
    there = {source for source in sources if any(_leads_through(folder, source) for folder in _folders(places))}
    videos = []
    for key, about in images.items():
        match, source = _KEY.match(key), about["SourceFolder"]
        try:
            if match is None:
                raise ArgumentError("it is no query_key such as 12s1_3.png")
            found = _locate(key, source if source in there else "", places.get(key, []), required=False)
        except ArgumentError as error:
            problems.append(f"{key}: {error}")
            continue
        path = root / (found or f"{source}/{key}")
        split = splits.get(_SPLIT, {}).get(key, "")
        videos.append(VideoRef(key, match["study"], match["patient"], str(path), about["view_label"], split))
    raise_problems(root, problems)
    diagnoses = [about["diagnosis_label"] for about in images.values()]
    labels: dict[str, Sequence[float | str | None]] = {"view_label": [about["view_label"] for about in images.values()]}
    labels |= {"diagnosis_label": diagnoses, "AS": [_stenosis(diagnosis) for diagnosis in diagnoses]}
    labels |= {name: [of_key.get(key, "") for key in images] for name, of_key in sorted(splits.items())}
    # A set of images without labels is no part of its tables.
    labelled = [file for file in files if file.relative_to(root).parts[0].lower() != "unlabeled_set"]
    note = f"split is that of {_SPLIT}; for another, give that fold's table in place of the folder"
    return manifest_of(root, videos, labels, labelled, [note] if _SPLIT in splits else ())


def _tables(root: Path, tree: Tree) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]], list[str]]:
    """What is said of each image, each fold's splits by query_key, and contradictions."""
    images: dict[str, dict[str, str]] = {}
    splits: dict[str, dict[str, str]] = {}
    problems = []
    for path in tree.files(root, (".csv",)):
        fold = _FOLD.fullmatch(path.name)
        if fold is None and path.name.lower() != _ALL:
            continue
        table = tree.table(path)
        require_columns(table, ["query_key", "view_label", "diagnosis_label"])
        problems += [f"{path.name}, line {line}: {problem}" for line, problem in table.problems.items()]
        for line, row in zip(table.frame.index, table.frame.to_dict("records"), strict=True):
            # A table may lack a column that another one has.
            key, about = row["query_key"], {name: row[name] for name in _ABOUT_IMAGE if name in row}
            known = images.setdefault(key, {})
            if any(known.setdefault(name, cell) != cell for name, cell in about.items()):
                problems.append(f"{path.name}, line {line}: {key} is described otherwise in another table")
            if fold is None:
                continue
            for purpose in ("diagnosis", "view"):
                if part := row.get(f"{purpose}_classifier_split", ""):
                    splits.setdefault(f"{path.parent.name} fold {fold[1]} {purpose}", {})[key] = part
    return {key: dict.fromkeys(_ABOUT_IMAGE, "") | about for key, about in images.items()}, splits, problems


def _stenosis(diagnosis: str) -> float | None:
    return None if diagnosis.lower() in ("", "not_provided") else float(diagnosis.lower() != "no_as")


def with_paths(table: Table) -> Table:
    """The table with the columns path, video_id, study_id, patient_id, view and split, where it has none.

    The split is that for the diagnosis. An image is looked for anywhere below the table's folder, of a fold's table
    below the folder above (DEV479/TMED2_fold0_labeledpart.csv), in its SourceFolder where that is there. One that lies
    in several places is a problem of its row.
    """
    import pandas as pd

    base, frame, problems = table.path.parent, table.frame, dict(table.problems)
    if _FOLD.fullmatch(table.path.name) and not any(map(_is_image, base.rglob("*"))):
        base = base.parent
    where = _places([file.relative_to(base) for file in sorted(base.rglob("*")) if file.is_file()])
    sources = list(frame["SourceFolder"]) if "SourceFolder" in frame.columns else [""] * len(frame)
    # Who copied all images into one folder has no source folders, and needs none if the names are unique.
    there = {source for source in set(sources) if any(_leads_through(folder, source) for folder in _folders(where))}
    paths = []
    for line, key, source in zip(frame.index, frame["query_key"], sources, strict=True):
        path = ""
        try:
            found = _locate(key, source if source in there else "", where.get(key, [])) or key
            path = found if base == table.path.parent else str(base / found)
        except ArgumentError as error:
            problems.setdefault(line, str(error))
        paths.append(path)
    added: dict[str, list[str]] = {"path": paths, "video_id": list(frame["query_key"])}
    matches = [_KEY.match(key) for key in frame["query_key"]]
    if all(matches):
        added |= {f"{kind}_id": [m[kind] for m in matches if m] for kind in ("study", "patient")}
    for mine, theirs in (("view", "view_label"), ("split", "diagnosis_classifier_split")):
        if theirs in frame.columns:
            added[mine] = list(frame[theirs])
    # As objects: pandas's own text column takes no names that are not UTF-8.
    new = {
        name: pd.Series(column, frame.index, dtype=object)
        for name, column in added.items()
        if name not in frame.columns
    }
    return Table(table.path, frame.assign(**new), problems)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _places(files: Iterable[Path]) -> dict[str, list[Path]]:
    where: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        where[file.name].append(file)
    return where


def _folders(places: Mapping[str, Sequence[Path]]) -> set[Path]:
    return {file.parent for files in places.values() for file in files}


def _locate(key: str, source: str, found: Sequence[Path], *, required: bool = True) -> str:
    """The one place of an image, "" if there is none; ArgumentError if it is in several, or `required` and gone."""
    if source:
        found = [file for file in found if _leads_through(file.parent, source)]
        if not found and required:
            raise ArgumentError(f"no image {key} in the folder {source}")
    if len(found) > 1:
        places = ", ".join(str(file) for file in found[:_LISTED]) + (", ..." if len(found) > _LISTED else "")
        raise ArgumentError(f"{len(found)} images are called {key}: {places}; add a column SourceFolder, or path")
    return str(found[0]) if found else ""


def _leads_through(folder: Path, source: str) -> bool:
    parts = PurePosixPath(source.strip("/")).parts
    return bool(parts) and any(folder.parts[i : i + len(parts)] == parts for i in range(len(folder.parts)))


LAYOUT = Layout(
    name="tmed-2",
    title="TMED-2",
    looks_like="labels_per_image.csv, or TMED2_fold0_labeledpart.csv in a folder such as DEV479",
    tables=(_ALL, *(f"TMED2_fold{number}_labeledpart.csv" for number in range(3))),
    roots=_roots,
    read=_read,
    identity="an image is its query_key, 12s1_3.png: patient 12, study 12s1",
    reads="Every image of the tables as a still; view_label as view and as label, diagnosis_label, AS (0 for no_AS, "
    "1 for any other grade, missing for Not_Provided); the split is that of DEV479 fold 0 for the diagnosis, "
    "and the splits of all folds are labels, 'DEV479 fold 0 view' say.",
    card=Card(
        citation="Huang et al., TMED 2: A Dataset for Semi-Supervised Classification of Echocardiograms, 2022",
        licence="Tufts Medical Center data use agreement, for approved users",
        passing_on="Approved users only.",
        flaws=(
            "Still images of 112 x 112 pixels, no videos.",
            "A few patients have several studies, which may be in different parts of a split by study.",
        ),
    ),
)
