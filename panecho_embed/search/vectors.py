"""Query vectors from a file: an array of numpy, or another embedding file of the same making."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from panecho_embed.errors import ArgumentError, SettingsMismatchError
from panecho_embed.search.collection import Collection
from panecho_embed.search.find import Query, vector_query
from panecho_embed.search.whose import recognised
from panecho_embed.store import EmbeddingFile

# How a vector was pooled or stored does not make it another model's.
_MAY_DIFFER = ("level", "pooling", "dtype", "dim", "precision")


def read_query(collection: Collection, path: str | Path) -> Query:
    """The vectors of a file as a query: .npy with (D,) or (Q, D) numbers, or an embedding file, one vector a video.

    Videos and patients of an embedding file that the collection has, too, are recognised, see `recognised`.
    Raises ArgumentError for anything else, and SettingsMismatchError for an embedding file of another model or other
    preprocessing, naming what differs.
    """
    source = Path(path)
    if source.suffix.lower() != ".npy":
        return _from_embeddings(collection, source)
    try:
        vectors = np.load(source, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArgumentError(f"{source} can't be read as an array of numbers: {error} (--vector)") from error
    return vector_query(collection, vectors, str(source))


def _from_embeddings(collection: Collection, source: Path) -> Query:
    file = EmbeddingFile(source)
    mine = collection.provenance
    differences = [d for d in mine.differences(file.provenance) if d.partition(":")[0] not in _MAY_DIFFER]
    if differences:
        raise SettingsMismatchError(
            f"{source} was made in another way than {collection.path}, so that vectors can't be compared: "
            + "; ".join(differences)
        )
    other = Collection(source)
    items = other.videos if other.has_videos else other.studies
    query = vector_query(collection, items.units, str(source), [str(view) for view in items.columns["view"]])
    columns, with_vectors = file.video_columns, set(items.ids)
    there = [i for i, name in enumerate(columns["video_id"]) if name in with_vectors]
    return recognised(
        collection,
        query,
        video_ids=columns["video_id"][there],
        patient_ids=columns["patient_id"][there],
        sha256s=columns["sha256"][there],
    )
