"""Whose a query from elsewhere is: what the file has itself must not be found as a neighbour."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from panecho_embed.core.arraytypes import Bools, Texts
from panecho_embed.core.content import content_sha256
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import VideoRef
from panecho_embed.core.wording import nearest
from panecho_embed.retrieval.collection import Collection
from panecho_embed.retrieval.find import Query

_SHOWN = 3


def recognised(
    collection: Collection,
    query: Query,
    *,
    video_ids: Iterable[str],
    patient_ids: Iterable[str],
    sha256s: Iterable[str],
) -> Query:
    """The query as that of patients of the file where it shows any of them; its note says for whose it is taken.

    video_ids, patient_ids: those of its videos. sha256s: of the bytes of their files, which may be called otherwise
    here; "" where not known.
    """
    columns = collection.file.video_columns
    same = _among(columns["video_id"], video_ids) | _among(columns["sha256"], sha256s)
    known = same | _among(columns["patient_id"], patient_ids)
    if not known.any():
        return query
    found = same & (columns["status"] == "done")
    videos, studies = _distinct(columns["video_id"][found]), _distinct(columns["study_id"][found])
    patients = _distinct(columns["patient_id"][known])
    what = f"{_listed(videos)} of {collection.path.name}" if videos else f"a patient of {collection.path.name}"
    note = (
        f"{query.label} shows {what}, and counts as patient {_listed(patients)}, left out unless --include-same-patient"
    )
    note = "; ".join(filter(None, (query.note, note)))
    return dataclasses.replace(query, patients=patients, studies=studies, videos=videos, note=note)


def one_study(label: str, studies: Sequence[str], wanted: str | None) -> Bools:
    """Which of a query's videos, (V,), are of the study that is wanted; None: of the only one there is.

    studies: (V,) their ids, "" where not known. Raises ArgumentError for several studies, or none of that name.
    """
    known = _distinct(np.array([name for name in studies if name], dtype=object))
    if wanted is not None and wanted not in known:
        raise ArgumentError(f"no study of {label} is called {wanted!r}{nearest(wanted, known)} (--query-study)")
    if wanted is None and len(known) > 1:
        raise ArgumentError(
            f"{label} holds {len(known)} studies ({_listed(known)}), and one can be asked with; "
            "name it (--query-study), or give what shows it alone"
        )
    return np.array([wanted is None or name == wanted for name in studies], dtype=np.bool_)


def recognised_files(collection: Collection, query: Query, videos: Sequence[VideoRef]) -> Query:
    """The query as that of patients of the file, by the ids and the bytes of the videos that it was made from."""
    return recognised(
        collection,
        query,
        video_ids=[video.video_id for video in videos],
        patient_ids=[video.patient_id for video in videos],
        sha256s=[content_sha256(video.location) for video in videos],
    )


def _among(ids: Texts, names: Iterable[str]) -> Bools:
    known = set(names) - {""}
    return np.fromiter((name in known for name in ids), dtype=np.bool_, count=len(ids))


def _distinct(ids: Texts) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for name in ids))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
