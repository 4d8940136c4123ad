"""CardiacNet as downloaded: NIfTI loops in folders that say the disease, ASD/ and Non-ASD/, PAH/ and Non-PAH/."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.wording import counted
from panecho_embed.datasets.layouts import Card, Layout, manifest_of
from panecho_embed.datasets.walk import Tree
from panecho_embed.media import NIFTI_SUFFIXES

_CLASSES = {"asd": ("ASD", 1.0), "non-asd": ("ASD", 0.0), "pah": ("PAH", 1.0), "non-pah": ("PAH", 0.0)}
_STEM = re.compile(r"(?P<patient>patient-?\d+|PHI\d+|P\d+)(?:-(?P<view>\d+))?", re.IGNORECASE)
_SUFFIX = re.compile(r"(_image)?\.nii(\.gz)?$", re.IGNORECASE)


def _class_folder(file: Path) -> Path | None:
    """The folder ASD, Non-ASD, PAH or Non-PAH of a loop: its own, or the one above a folder called 001_image.nii."""
    return next((folder for folder in (file.parent, file.parent.parent) if folder.name.lower() in _CLASSES), None)


def _images(tree: Tree, root: Path | None = None) -> dict[Path, Path]:
    """The loops with their class folders; masks (_label) are none."""
    files = [file for file in tree.files(root, NIFTI_SUFFIXES) if "_label" not in f"{file.parent.name}/{file.name}"]
    return {file: folder for file in files if (folder := _class_folder(file))}


def _roots(tree: Tree) -> Iterable[Path]:
    return {_root(folder, tree.root) for folder in _images(tree).values()}


def _root(folder: Path, top: Path) -> Path:
    """CardiacNet/ of CardiacNet/CardiacNet-ASD/Non-ASD; whatever is in between may be called otherwise."""
    return folder.parent.parent if folder.parent != top and folder.parent.is_relative_to(top) else folder.parent


def _read(root: Path, tree: Tree) -> Manifest:
    videos, diseases, sources, odd = [], [], [], []
    files = _images(tree, root)
    for file, folder in files.items():
        disease, value = _CLASSES[folder.name.lower()]
        inside = file.relative_to(folder)
        place = "/".join(_SUFFIX.sub("", part) for part in inside.parts)
        name = _SUFFIX.sub("", file.name)
        match = _STEM.fullmatch(name)
        if match is None:
            odd.append(name)
        # By disease only: whether patient-2 of ASD and of Non-ASD are one person is not known, and a split must not
        # have one person on both sides.
        patient = f"{disease}/{match['patient'] if match else name}"
        view = "A4C" if match and match["view"] == "4" else ""
        videos.append(VideoRef(f"{disease}/{folder.name}/{place}", patient, patient, str(file), view))
        diseases.append((disease, value))
        sources.append("PHI" if name.upper().startswith("PHI") else "own")
    labels: dict[str, list[float | str | None]] = {
        name: [value if disease == name else None for disease, value in diseases]
        for name in ("ASD", "PAH")
        if any(disease == name for disease, _ in diseases)
    }
    notes = []
    if odd:
        notes.append(
            f"{counted(len(odd), 'unknown file name')}, each taken for a patient: {', '.join(sorted(odd)[:5])}"
        )
    if phi := sources.count("PHI"):
        notes.append(
            f"WARNING: {counted(phi, 'file')} called PHI..., of another source, in colour, and all without the "
            "disease: a model can tell them by that; report them apart (label `source`)"
        )
    return manifest_of(root, videos, {**labels, "source": sources}, files, notes)


LAYOUT = Layout(
    name="cardiacnet",
    title="CardiacNet",
    looks_like="NIfTI files in folders ASD and Non-ASD, or PAH and Non-PAH",
    tables=(),
    roots=_roots,
    read=_read,
    identity="the patient is the disease and the file's name without its view, ASD/patient-2; the video is its path",
    reads="Every *_image.nii; the labels ASD and PAH by the folder (1 in ASD/ and PAH/, 0 in Non-ASD/ and Non-PAH/, "
    "missing in the other disease's), and `source`, PHI or own.",
    card=Card(
        citation="CardiacNet, ECCV 2024; Kaggle (abnormcardiacechovideos)",
        licence="See the download page",
        passing_on="Link to the download page.",
        flaws=(
            "The files PHI... (21 of each disease) are from another source, in colour, and all negative: a shortcut. "
            "The label `source` says which; report them apart.",
            "One patient may hide under several names (patient-2, patient2, P2).",
            "Views are inferred from file names: -4 is taken for A4C, all others have no view.",
            "There is no published split.",
        ),
    ),
)
