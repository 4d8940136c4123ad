"""CardiacUDA (CardiacUDC) as downloaded: NIfTI loops in a folder for each site, patientN-V_image.nii.gz."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.datasets.layouts import Card, Layout, manifest_of
from panecho_embed.datasets.walk import Tree
from panecho_embed.media import NIFTI_SUFFIXES

_SITE = re.compile(r"Site_[GR]_\d+|label_all_frame", re.IGNORECASE)
_NAME = re.compile(r"((?:patient|normal)-?\d+)-(\d+)_image\.nii(\.gz)?", re.IGNORECASE)
_FOUR_CHAMBER = "4"


def _images(tree: Tree, root: Path | None = None) -> list[tuple[Path, re.Match[str]]]:
    files = tree.files(root, NIFTI_SUFFIXES)
    named = [(file, _NAME.fullmatch(file.name)) for file in files if _SITE.fullmatch(file.parent.name)]
    return [(file, match) for file, match in named if match]


def _roots(tree: Tree) -> Iterable[Path]:
    return {file.parent.parent for file, _ in _images(tree)}


def _read(root: Path, tree: Tree) -> Manifest:
    found = _images(tree, root)
    videos = []
    for file, match in found:
        patient = f"{file.parent.name}/{match[1]}"
        # Which of the other numbers is which view is not written down.
        view = "A4C" if match[2] == _FOUR_CHAMBER else f"view {match[2]}"
        videos.append(VideoRef(f"{patient}-{match[2]}", patient, patient, str(file), view))
    site = [file.parent.name for file, _ in found]
    return manifest_of(root, videos, {"site": site}, [file for file, _ in found])


LAYOUT = Layout(
    name="cardiacuda",
    title="CardiacUDA",
    looks_like="files named patient1-4_image.nii.gz in folders such as Site_G_100",
    tables=(),
    roots=_roots,
    read=_read,
    identity="the patient is the site's folder and the file's first part, Site_G_100/patient1; the video adds the view",
    reads="Every *_image.nii.gz; `site` is the folder.",
    card=Card(
        citation="GraphEcho, ICCV 2023; Kaggle (cardiacudc-dataset)",
        licence="See the download page",
        passing_on="Link to the download page.",
        flaws=(
            "No disease is labelled: the set is for segmentation and the shift between sites. Masks are not read.",
            "Views are LVLA, PALA, LVSA and A4C; only 4 is known to be A4C, the others are called by their numbers.",
            "The loops of label_all_frame may show patients of the site folders again.",
            "There is no published split.",
        ),
    ),
)
