"""A folder of echo studies -> Manifest: walked, every video by name or content, DICOM by content alone."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

from panecho_embed.manifest.identity import HeaderIds, header_ids, warning_of_ids_in_paths
from panecho_embed.manifest.text import shown
from panecho_embed.manifest.walk import Walk, natural_key
from panecho_embed.media import ARRAY_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_dicom
from panecho_embed.records import Manifest, VideoRef

_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
_NEVER_DICOM = VIDEO_SUFFIXES | ARRAY_SUFFIXES | IMAGE_SUFFIXES
_NEVER_VIDEO = frozenset(
    {".csv", ".tsv", ".json", ".xml", ".txt", ".md", ".html", ".pdf", ".h5", ".hdf5", ".pt", ".zip"}
)
_NO_FILE = "pipes, sockets or devices"


def read_folder(root: Path, salt: str) -> Manifest:
    """Every video below `root` (or `root` itself, if it is a file), in natural order of its path.

    video_id is the path relative to `root`. A DICOM file's study_id and patient_id are salted hashes of its header's
    StudyInstanceUID (0020,000D) and PatientID (0010,0020); where the header has none, and for all other files, the
    study is the folder that the video lies in and the patient the first folder below `root` (a video straight in
    `root` is its own study and patient). What can't be entered or read stands in the list, and fails when its turn
    comes.
    """
    ignored: Counter[str] = Counter()
    paths = [root] if root.is_file() else sorted(_videos(Walk(root), ignored), key=natural_key)
    base = root.parent if root.is_file() else root
    notes = []
    if ignored:
        kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common())
        notes.append(f"{ignored.total()} files are no videos and were left out: {shown(kinds)}")
    headers = [_header(path, base, salt) for path in paths]
    if telling := sum(header.in_path for header in headers):
        notes.insert(0, warning_of_ids_in_paths(telling))
    videos = (reference(path.relative_to(base), str(path), header) for path, header in zip(paths, headers, strict=True))
    return Manifest(tuple(videos), notes=tuple(notes))


def read_images(root: Path) -> Manifest:
    """Every image file below `root` as a still of its own, in natural order of its path."""
    walk = Walk(root)
    images = [path for _, files in walk.files() for path in files if _is_image(path)]
    paths = sorted(images + walk.denied, key=natural_key)
    return Manifest(tuple(reference(path.relative_to(root), str(path), HeaderIds()) for path in paths))


def _videos(walk: Walk, ignored: Counter[str]) -> Iterator[Path]:
    for here, files in walk.files():
        if any(_is_image(path) for path in files):
            yield here
        for path in files:
            if not _may_be_file(path):
                ignored[_NO_FILE] += 1
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                continue
            elif _is_video(path):
                yield path
            else:
                ignored[path.suffix.lower()] += 1
    yield from walk.denied


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and _may_be_file(path)


def _may_be_file(path: Path) -> bool:
    """Whether it is a regular file; a pipe is not, and whoever opens it waits. True as well for what can't be asked."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def may_be_video(path: PurePath) -> bool | None:
    """Whether a file is a video, by its name alone; None if its first bytes must tell."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in ARRAY_SUFFIXES or suffix in _DICOM_SUFFIXES:
        return True
    # DICOMDIR is DICOM, but a table of contents.
    return False if suffix in _NEVER_VIDEO or path.name.upper() == "DICOMDIR" else None


def _is_video(path: Path) -> bool:
    if (by_name := may_be_video(path)) is not None:
        return by_name
    try:
        return is_dicom(path)
    except OSError:
        # A dangling link, or no permission: it may be one, and is told of when its turn comes.
        return True


def _header(path: Path, base: Path, salt: str) -> HeaderIds:
    if path.suffix.lower() in _NEVER_DICOM:
        return HeaderIds()
    return header_ids(path, path.relative_to(base).as_posix(), salt)


def reference(relative: PurePath, path: str, header: HeaderIds) -> VideoRef:
    """The video at `path`, with the ids that its place below the input and its header give it."""
    video_id = relative.as_posix() if relative.parts else path.rpartition("/")[2]
    parents = relative.parts[:-1]
    study_id = header.study_id or "/".join(parents) or video_id
    patient_id = header.patient_id or (parents[0] if parents else video_id)
    return VideoRef(video_id, study_id, patient_id, path)
