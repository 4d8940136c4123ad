"""Whose a DICOM file is, as its header says, and whether its path tells the same."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from panecho_embed.core.errors import MediaError
from panecho_embed.core.records import Manifest

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_SHORTEST = 4
"""Characters of an identifier that is looked for in paths: a shorter one, 12 say, is in many by chance."""

# A person's name as DICOM writes it, a date of this century or the last, a DICOM UID.
_TELLING = re.compile(r"\^|(?<!\d)(19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?!\d)|(?<!\d)[0-2](\.\d+){5,}")


@dataclass(frozen=True, slots=True, repr=False)
class HeaderIds:
    """Plain ids, "" where the header has none. dicom: whether it is a DICOM file. in_path: whether its path tells them.

    A patient_id has its issuer in front of it, where there is one, with a backslash between, which no value can hold.
    """

    study_id: str = ""
    patient_id: str = ""
    dicom: bool = False
    in_path: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class PlainManifest:
    """A manifest with ids and paths as they are.

    dicom: whether a file of it is DICOM, whose ids are hashed. telling: see `is_telling`. guessed: whether the patient
    of any video is known only by its folder.
    """

    manifest: Manifest
    dicom: bool = False
    telling: int = 0
    guessed: bool = False


def header_ids(path: Path | BinaryIO, relative: str) -> HeaderIds:
    """The ids of a DICOM file; none where its header can't be read, which is met again when it is decoded.

    relative: the path in which identifiers are looked for. A header with only a study makes it a separate patient.
    """
    from panecho_embed.media import read_identity

    try:
        identity = read_identity(path)
    except MediaError:
        # What can't be opened, a dangling link, is DICOM only if its name says so.
        dicom = relative.lower().endswith(DICOM_SUFFIXES) or not isinstance(path, Path) or os.access(path, os.R_OK)
        return HeaderIds(dicom=dicom, in_path=is_telling(relative))
    patient_id = identity.study_uid
    if identity.patient_id:
        patient_id = "\\".join(filter(None, (identity.issuer, identity.patient_id)))
    names = (
        identity.patient_id,
        identity.study_uid,
        identity.series_uid,
        identity.sop_uid,
        identity.accession_number,
    )
    where = relative.casefold()
    told = any(len(name) >= _SHORTEST and name.casefold() in where for name in names)
    return HeaderIds(identity.study_uid, patient_id, True, told or is_telling(relative))


def is_telling(relative: str) -> bool:
    """Whether a path looks as if it held a person's name in DICOM's form, a date, or a DICOM UID."""
    return _TELLING.search(relative) is not None


def warning_of_ids_in_paths(files: int) -> str:
    """What to say of this many files whose paths tell who they show, where paths stay plain."""
    return (
        f"WARNING: the paths of {files} files look as if they told whose they are (a header's identifier, a name, a "
        "date or a UID), and stand in every output; --ids opaque hashes them"
    )
