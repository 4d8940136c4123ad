"""What a DICOM header says about whose a file is: hashed for the ids, and looked for in the file's path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from panecho_embed.errors import MediaError
from panecho_embed.manifest.ids import hashed_id
from panecho_embed.media import read_identity

_SHORTEST = 4
"""Characters of an identifier that is looked for in paths: a shorter one, 12 say, stands in many by chance."""


@dataclass(frozen=True, slots=True)
class HeaderIds:
    """Hashed ids, "" where the header has none; in_path: whether an identifier of the header stands in the path."""

    study_id: str = ""
    patient_id: str = ""
    in_path: bool = False


def header_ids(path: Path | BinaryIO, relative: str, salt: str) -> HeaderIds:
    """The ids of a DICOM file; none where its header can't be read, which is met again when it is decoded.

    relative: the path in which identifiers are looked for: PatientID (0010,0020), StudyInstanceUID (0020,000D) and
    AccessionNumber (0008,0050). A header with a study alone makes it a patient of its own.
    """
    try:
        identity = read_identity(path)
    except MediaError:
        return HeaderIds()
    study_id = patient_id = ""
    if identity.study_uid:
        study_id = hashed_id("study", identity.study_uid, salt)
        patient_id = hashed_id("patient", f"study {identity.study_uid}", salt)
    if identity.patient_id:
        patient_id = hashed_id("patient", f"{identity.issuer}\0{identity.patient_id}", salt)
    names = (identity.patient_id, identity.study_uid, identity.accession_number)
    where = relative.casefold()
    return HeaderIds(study_id, patient_id, any(len(n) >= _SHORTEST and n.casefold() in where for n in names))


def warning_of_ids_in_paths(files: int) -> str:
    """What to say where `in_path` holds for so many files."""
    return (
        f"WARNING: {files} files have the PatientID, StudyInstanceUID or AccessionNumber of their header in "
        "their path, and so in every output, unhashed. Rename those folders and files, or take a table (made by "
        "`panecho-embed manifest`) with video_ids of your own and, as paths are kept too, links of neutral names"
    )
