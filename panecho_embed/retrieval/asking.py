"""Ask an embedding file for what is similar: by a study, a video, a new file or vectors."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.errors import ArgumentError
from panecho_embed.datasets import LocalIds, is_opaque, local_path
from panecho_embed.retrieval.collection import Collection, SearchLevel, UnknownIdError
from panecho_embed.retrieval.find import Found, Query, study_query, vector_query, video_query
from panecho_embed.retrieval.find import search as nearest
from panecho_embed.retrieval.index import open_collection
from panecho_embed.retrieval.similarity import Measure

if TYPE_CHECKING:
    import pandas as pd

    from panecho_embed.retrieval.index import VideoIndex


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """What a search found; a notebook shows it as a sheet of moving pictures.

    Parameters
    ----------
    collection : Collection
        What was searched.
    found : Found
        The hits, best first.
    notes : tuple of str
        What a person should know of the query and of the result.
    """

    collection: Collection
    found: Found
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.found)

    def table(self) -> pd.DataFrame:
        """One row per hit: rank, similarity (-1 to 1), ids and labels."""
        return self.found.table()

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write the query and its hits, with their videos moving, as one HTML file that opens offline.

        Parameters
        ----------
        out : str or Path
            File to write.
        overwrite : bool
            Replace `out`.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        StoreError
            If `out` exists (unless `overwrite`), or can't be written.
        """
        from panecho_embed.retrieval.sheet import write_sheet

        return write_sheet(self.collection, self.found, out, overwrite=overwrite)

    def _repr_html_(self) -> str:
        from panecho_embed.retrieval.sheet import sheet_html

        # A separate frame keeps the sheet's style out of the notebook.
        page = escape(sheet_html(self.collection, self.found), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:32rem;border:0" title="similar studies"></iframe>'


def search(
    emb: str | Path,
    *,
    study: str | None = None,
    video: str | None = None,
    file: str | Path | None = None,
    vector: str | Path | None = None,
    query_study: str | None = None,
    k: int = 10,
    level: SearchLevel | None = None,
    similarity: Measure | None = None,
    where: str | None = None,
    include_same_patient: bool = False,
    use_index: bool | None = None,
    weights: str | Path | None = None,
) -> Neighbours:
    """Find the studies or videos of an embedding file that are most similar to a given one.

    Give exactly one of `study`, `video`, `file` and `vector`.

    Parameters
    ----------
    emb : str or Path
        Embedding file.
    study, video : str, optional
        Id of a study or a video of the file. Where ids are hashed, the hospital's own id is taken too, as long as the
        local table of ids is there.
    file : str or Path, optional
        A new DICOM, AVI or MP4 file, or a folder of them; it is embedded as the file's own videos were.
    vector : str or Path, optional
        Vectors of shape (D,) or (Q, D) in a .npy file, or an embedding file made in the same way.
    query_study : str, optional
        Which of several studies in `file` or `vector` is the query.
    k : int
        Number of hits, at least 1.
    level : {"clip", "video", "study"}, optional
        What to find. Default: studies for a study, videos for a video.
    similarity : {"mean", "best", "view"}, optional
        How studies are compared, see `Measure`. Default: "mean".
    where : str, optional
        Only items that match, such as "view == 'A4C' and EF < 40".
    include_same_patient : bool
        Keep the other videos and studies of the query's patient among the candidates.
    use_index : bool, optional
        True requires an index beside the file, False ignores it. Default: it is used if it exists.
    weights : str or Path, optional
        Weights file for `file`. Default: where `extract` looks.

    Returns
    -------
    Neighbours
        The hits; `.table()` is a DataFrame.

    Raises
    ------
    ArgumentError
        For no query or several, an unknown id (with the nearest ones), or a filter that can't be read.
    StoreError
        If the embedding file or its index is missing, damaged or outdated.
    """
    asked = {"study": study, "video": video, "file": file, "vector": vector}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        raise ArgumentError(f"{' and '.join(given) or 'nothing'} is given; give one of {', '.join(asked)}")
    collection, index = open_collection(emb, use_index)
    query, notes = query_of(
        collection, study=study, video=video, file=file, vector=vector, query_study=query_study, weights=weights
    )
    return neighbours(collection, query, notes, k, level, similarity, where, include_same_patient, index)


def neighbours(
    collection: Collection,
    query: Query,
    notes: tuple[str, ...],
    k: int,
    level: SearchLevel | None,
    similarity: Measure | None,
    where: str | None,
    include_same_patient: bool,
    index: VideoIndex | None,
) -> Neighbours:
    """The hits of a query, with the notes on it; arguments as in `search`."""
    options = {"level": level, "similarity": similarity, "where": where, "include_same_patient": include_same_patient}
    found = nearest(collection, query, k, index=index, **options)  # type: ignore[arg-type]
    return Neighbours(collection, found, tuple(filter(None, (*notes, found.note))))


def query_of(
    collection: Collection,
    *,
    study: str | None,
    video: str | None,
    file: str | Path | None,
    vector: str | Path | None,
    query_study: str | None,
    weights: str | Path | None,
) -> tuple[Query, tuple[str, ...]]:
    """The query, and notes on it; arguments as in `search`, one of the first four given."""
    for asked, kind, name in ((study_query, "study", study), (video_query, "video", video)):
        if name is None:
            continue
        try:
            return asked(collection, _as_here(collection, kind, name)), ()
        except UnknownIdError as error:
            if Path(name).exists():
                raise UnknownIdError(f"{error}; it is a path: a file is searched with by --file") from error
            raise
    if vector is not None:
        from panecho_embed.retrieval.vectors import read_query

        return read_query(collection, vector, query_study), ()
    assert file is not None
    from panecho_embed.retrieval.embed_new import Embedder
    from panecho_embed.retrieval.recognition import recognised_files

    known = LocalIds.beside(collection.path)
    new = Embedder(collection.provenance, weights, known=known).embed(Path(file), study=query_study)
    # A path of DICOM may tell whose it is, and the label is in what is written.
    label = "the query" if new.videos[0].origin else str(file)
    query = vector_query(collection, new.vectors, label, new.views)
    return recognised_files(collection, query, new.videos), new.notes


def _as_here(collection: Collection, kind: str, name: str) -> str:
    """The id of a study or video in the file, where those are opaque and it is asked for as the hospital calls it."""
    if not any(map(is_opaque, collection.file.video_columns[f"{kind}_id"][:1])) or is_opaque(name):
        return name
    known = LocalIds.beside(collection.path)
    if known is None:
        raise ArgumentError(
            f"{collection.path} has opaque ids, and {name!r} is none; the local table that knows the hospital's own, "
            f"{local_path(collection.path)}, is not there (--{kind})"
        )
    return known.translated(kind, [name])[0]
