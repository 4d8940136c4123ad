"""A folder of echo studies -> Manifest: walked, every video by name or content, DICOM only by content."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from panecho_embed.core.records import Manifest, VideoRef
from panecho_embed.core.wording import counted
from panecho_embed.datasets.identity import DICOM_SUFFIXES, HeaderIds, PlainManifest, header_ids, is_telling
from panecho_embed.datasets.text import shown
from panecho_embed.datasets.views import is_view, split_of_folder
from panecho_embed.datasets.walk import Tree, natural_key
from panecho_embed.media import ARRAY_SUFFIXES, IMAGE_SUFFIXES, NIFTI_SUFFIXES, VIDEO_SUFFIXES, is_dicom

_NEVER_DICOM = VIDEO_SUFFIXES | ARRAY_SUFFIXES | IMAGE_SUFFIXES
_NEVER_VIDEO = frozenset(
    {".csv", ".tsv", ".json", ".xml", ".txt", ".md", ".html", ".pdf", ".h5", ".hdf5", ".pt", ".zip"}
)
# Segmentations, as CAMUS, CardiacNet and nnU-Net call theirs.
_MASK = re.compile(r"_(gt|label|labels|mask|seg)\.nii(\.gz)?$")
NO_FILE = "pipes, sockets or devices"


def read_folder(root: Path, tree: Tree | None = None) -> PlainManifest:
    """Every video below `root` (or `root` itself, if it is a file), in natural order of its path.

    video_id is the path relative to `root`. A DICOM file's study_id and patient_id are its header's StudyInstanceUID
    (0020,000D) and PatientID (0010,0020); where the header has none, and for all other files, the study is the folder
    that contains the video and the patient the first folder below `root` (a video straight in `root` is its own study
    and patient). Folders called like a view (A4C) or a part of a split (train) say that, and do not count here. What
    can't be entered or read is in the list, and fails when its turn comes.
    """
    ignored: Counter[str] = Counter()
    paths = [root] if root.is_file() else sorted(_videos(tree or Tree.of(root), ignored), key=natural_key)
    base = root.parent if root.is_file() else root
    headers = [_header(path, base) for path in paths]
    videos = (reference(path.relative_to(base), str(path), header) for path, header in zip(paths, headers, strict=True))
    return plain(tuple(videos), headers, ignored)


def plain(videos: tuple[VideoRef, ...], headers: Sequence[HeaderIds], ignored: Counter[str]) -> PlainManifest:
    """The videos of a folder with what their headers say, and a note of the files that are none."""
    dicom = any(header.dicom for header in headers)
    notes = []
    if ignored:
        # Behind the last dot of DOE.JANE stands a name.
        kinds = Counter[str]()
        for suffix, count in ignored.items():
            kinds[suffix if not dicom or suffix in _NEVER_VIDEO or suffix == NO_FILE else "others"] += count
        told = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in kinds.most_common())
        notes.append(f"{counted(ignored.total(), 'file')} skipped, not a video: {shown(told)}")
    guessed = not all(header.patient_id for header in headers)
    return PlainManifest(
        Manifest(videos, notes=tuple(notes)), dicom, sum(header.in_path for header in headers), guessed
    )


def read_images(root: Path, tree: Tree | None = None) -> PlainManifest:
    """Every image file below `root` as a separate still, in natural order of its path."""
    tree = tree or Tree.of(root)
    images = [path for files in tree.folders.values() for path in files if _is_image(path)]
    paths = sorted(images + tree.denied, key=natural_key)
    relative = [path.relative_to(root) for path in paths]
    videos = (reference(short, str(path), HeaderIds()) for short, path in zip(relative, paths, strict=True))
    telling = sum(is_telling(short.as_posix()) for short in relative)
    return PlainManifest(Manifest(tuple(videos)), telling=telling, guessed=True)


def _videos(tree: Tree, ignored: Counter[str]) -> Iterator[Path]:
    for here, files in tree.folders.items():
        if any(_is_image(path) for path in files):
            yield here
        for path in files:
            if not _may_be_file(path):
                ignored[NO_FILE] += 1
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                continue
            elif _is_video(path):
                yield path
            else:
                ignored[path.suffix.lower()] += 1
    yield from tree.denied


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and _may_be_file(path)


def _may_be_file(path: Path) -> bool:
    """Whether it is a regular file; a pipe is not, and whoever opens it waits. True as well for what can't be asked."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def may_be_video(path: PurePath) -> bool | None:
    """Whether a file is a video, only by its name; None if its first bytes must tell."""
    suffix, name = path.suffix.lower(), path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return not _MASK.search(name)
    if suffix in VIDEO_SUFFIXES or suffix in ARRAY_SUFFIXES or suffix in DICOM_SUFFIXES:
        return True
    # DICOMDIR is DICOM, but a table of contents.
    return False if suffix in _NEVER_VIDEO or path.name.upper() == "DICOMDIR" else None


def _is_video(path: Path) -> bool:
    if (by_name := may_be_video(path)) is not None:
        return by_name
    try:
        return is_dicom(path)
    except OSError:
        # A dangling link, or no permission: it may be one, and is reported when its turn comes.
        return True


def _header(path: Path, base: Path) -> HeaderIds:
    relative = path.relative_to(base).as_posix()
    if never_dicom(path) or path.is_dir():
        return HeaderIds(in_path=is_telling(relative))
    return header_ids(path, relative)


def never_dicom(path: PurePath) -> bool:
    """Whether the name says that a video is of another kind than DICOM."""
    return path.suffix.lower() in _NEVER_DICOM or path.name.lower().endswith(NIFTI_SUFFIXES)


def reference(relative: PurePath, path: str, header: HeaderIds) -> VideoRef:
    """The video at `path`, with the ids that its place below the input and its header give it.

    A folder called like a view (A4C) or a part of a split (train) says that, and is no study and no patient.
    """
    video_id = relative.as_posix() if relative.parts else path.rpartition("/")[2]
    # A folder of images may be called like its view itself.
    views = [part for part in (*relative.parts[:-1], relative.name) if is_view(part)]
    splits = [split for part in relative.parts[:-1] if (split := split_of_folder(part))]
    parents = [part for part in relative.parts[:-1] if not is_view(part) and not split_of_folder(part)]
    study_id = header.study_id or "/".join(parents) or video_id
    patient_id = header.patient_id or (parents[0] if parents else video_id)
    return VideoRef(video_id, study_id, patient_id, path, "".join(views[-1:]), "".join(splits[-1:]))
