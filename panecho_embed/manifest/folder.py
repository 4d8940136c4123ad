"""A folder of echo studies -> Manifest: walked, every video by name or content, DICOM by content alone."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from panecho_embed.errors import MediaError
from panecho_embed.manifest.ids import hashed_id
from panecho_embed.media import ARRAY_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_dicom, read_identity
from panecho_embed.records import Manifest, VideoRef

_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
_NEVER_VIDEO = frozenset(
    {".csv", ".tsv", ".json", ".xml", ".txt", ".md", ".html", ".pdf", ".h5", ".hdf5", ".pt", ".zip"}
)


def read_folder(root: Path, salt: str) -> Manifest:
    """Every video below `root` (or `root` itself, if it is a file), in natural order of its path.

    video_id is the path relative to `root`. A DICOM file's study_id and patient_id are salted hashes of its header's
    StudyInstanceUID (0020,000D) and PatientID (0010,0020); where the header has none, and for all other files, the
    study is the folder that the video lies in and the patient the first folder below `root` (a video straight in
    `root` is its own study and patient). A folder that can't be entered stands in the list, and fails when its turn
    comes.
    """
    ignored: Counter[str] = Counter()
    paths = [root] if root.is_file() else sorted(_walk(root, ignored), key=natural_key)
    base = root.parent if root.is_file() else root
    notes = []
    if ignored:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common())
        notes.append(f"{ignored.total()} files are no videos and were left out: {kinds}")
    return Manifest(tuple(_reference(path, base, salt) for path in paths), notes=tuple(notes))


def read_images(root: Path) -> Manifest:
    """Every image file below `root` as a still of its own, in natural order of its path."""
    images = [path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    return Manifest(tuple(_reference(path, root, "") for path in sorted(images, key=natural_key)))


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which frame2 comes before frame10."""
    pieces = re.split(r"(\d+)", path.as_posix())
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _walk(root: Path, ignored: Counter[str]) -> Iterator[Path]:
    seen: set[str] = set()
    denied: list[Path] = []

    def on_error(error: OSError) -> None:
        denied.append(Path(error.filename))

    for name, folders, files in os.walk(root, followlinks=True, onerror=on_error):
        here = Path(name)
        # Links may lead in a circle.
        if (real := os.path.realpath(name)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not _hidden(f)]
        visible = [here / f for f in files if not _hidden(f)]
        if any(path.suffix.lower() in IMAGE_SUFFIXES for path in visible):
            yield here
        for path in visible:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                continue
            if _is_video(path):
                yield path
            else:
                ignored[path.suffix.lower()] += 1
    yield from denied


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in ARRAY_SUFFIXES or suffix in _DICOM_SUFFIXES:
        return True
    # DICOMDIR is DICOM, but a table of contents.
    return suffix not in _NEVER_VIDEO and path.name.upper() != "DICOMDIR" and is_dicom(path)


def _reference(path: Path, base: Path, salt: str) -> VideoRef:
    relative = path.relative_to(base)
    video_id = relative.as_posix() if relative.parts else path.name
    parents = relative.parts[:-1]
    study_id = "/".join(parents) or video_id
    patient_id = parents[0] if parents else video_id
    if path.is_file() and path.suffix.lower() not in VIDEO_SUFFIXES | ARRAY_SUFFIXES | IMAGE_SUFFIXES:
        study_id, patient_id = _dicom_ids(path, salt) or (study_id, patient_id)
    return VideoRef(video_id, study_id, patient_id, str(path))


def _dicom_ids(path: Path, salt: str) -> tuple[str, str] | None:
    """Hashed study and patient of a DICOM file, None where its header names no study or can't be read.

    A file that can't be read is met again, and reported, when it is decoded.
    """
    try:
        identity = read_identity(path)
    except MediaError:
        return None
    if not identity.study_uid:
        return None
    study_id = hashed_id("study", identity.study_uid, salt)
    if not identity.patient_id:
        return study_id, hashed_id("patient", f"study {identity.study_uid}", salt)
    return study_id, hashed_id("patient", f"{identity.issuer}\0{identity.patient_id}", salt)
