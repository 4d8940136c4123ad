"""Indexes over the videos of an embedding file: faster, smaller, and bound to exactly that file.

EMB.h5.index/
  index.json   kind, settings, and what it is bound to
  units.npy    the videos' unit vectors; a faiss index reads its candidates, kind "exact" all of them, once
  studies.npy  the studies' means, unit vectors, read when studies are first searched
  index.faiss  the faiss index (none for kind "exact")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats32, Ints
from panecho_embed.core.digests import SUMS, block_sums, read_checked
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import READY, TEMPORARY, make_room, settle, written_run
from panecho_embed.retrieval.approximate import (
    LEAST_VIDEOS,
    Effort,
    IndexKind,
    nearest,
    read,
    recipe,
    trained,
    tune,
    write,
)
from panecho_embed.retrieval.collection import Collection, Kept
from panecho_embed.retrieval.similarity import Vectors, across, top
from panecho_embed.store import EmbeddingFile, RowsOnDisk, npy_rows

SUFFIX = ".index"
SCHEMA_VERSION = 3

EXACT_BELOW = 100_000
"""Videos up to which comparing with every one takes a few tens of milliseconds, so that no index is worth its error."""

RECALL = 0.99
"""Share of the ten nearest that a query is to find, if nothing else is asked for."""

# sketch.npy and directions.npy are what an earlier version kept.
_FILES = {"index.json", "units.npy", "studies.npy", "sketch.npy", "directions.npy", "index.faiss", SUMS}
_SAMPLES = 64
# So many rows stay in the cache while they are compared.
_BLOCK = 1024

_FEW = 20
"""The part of the videos up to which comparing what a filter leaves is quicker than looking for it in every list."""

_MANY = 50
"""The part of the videos from which a filter that excludes this many is looked for in every list."""

_LEFT_OUT = 256
"""Videos up to which more candidates and leaving some out is quicker than telling faiss which are allowed."""

_GATHERING = 3
"""How many times as long a row takes that is picked from among others as one of all that are read in a row."""


class VideoIndex(Protocol):
    """Finds candidates among videos."""

    @property
    def kind(self) -> str:
        """What it is called."""
        ...

    def nearest(self, queries: Floats32, k: int, allowed: Bools) -> tuple[Ints, Floats32]:
        """Videos near any of the unit vectors (Q, D), among those allowed (N,); k or more if there are.

        Returns positions (n,), ascending, and the cosine (n,) of each with the nearest of the queries.
        """
        ...


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index is.

    bound_to: identifies the embedding file's settings and content. factory: faiss's text, "" for "exact". lists,
    candidates: see `Effort`. recall_asked, recall: of the ten nearest; what was found with queries that did not choose
    the effort. query_ms: processor time of one of them. worthwhile: see `Tuned`. What "auto" built and left out, as
    it was not worth it, is described all the same. seed: of the training.
    """

    kind: IndexKind
    videos: int
    dim: int
    bound_to: str
    factory: str = ""
    lists: int = 0
    candidates: int = 0
    recall_asked: float = 1.0
    recall: float = 1.0
    query_ms: float = 0.0
    worthwhile: bool = True
    seed: int = 0
    schema_version: int = SCHEMA_VERSION


def index_path(emb: str | Path) -> Path:
    """The folder beside an embedding file that holds its index."""
    path = Path(emb)
    return path.with_name(path.name + SUFFIX)


def binding(file: EmbeddingFile) -> str:
    """SHA-256 of what makes an embedding file this one: settings id, time, size, ids and a sample of its values."""
    digest = hashlib.sha256()
    for fact in (file.settings_id, file.created_utc, len(file), file.dim, file.level):
        digest.update(f"{fact}\0".encode())
    for name in ("video_id", "study_id"):
        digest.update("\0".join(file.video_columns[name]).encode("utf-8", "surrogateescape"))
    digest.update(file.row_columns["video"].tobytes())
    for row in np.unique(np.linspace(0, max(len(file) - 1, 0), _SAMPLES).astype(int)):
        digest.update(file.read(int(row), int(row) + 1).tobytes())
    return digest.hexdigest()


def build_index(
    emb: str | Path | Collection,
    kind: IndexKind | Literal["auto"] = "auto",
    *,
    recall: float = RECALL,
    seed: int = 0,
    overwrite: bool = False,
) -> IndexInfo:
    """Build an index over the videos of an embedding file and save it beside the file, whole or not at all.

    Parameters
    ----------
    emb : str, Path or Collection
        Embedding file.
    kind : {"auto", "exact", "ivf"}
        "auto" takes "ivf" for more than 100,000 videos, unless that misses `recall`, or saves less than half of the
        time of comparing with every video.
    recall : float
        Share of the ten nearest videos that a query finds, in the mean, above 0 to 1. What "ivf" has to look at for it
        is found by asking with videos of the collection, and checked with others.
    seed : int
        Seed for the sample that the index is trained on, and for the queries that tune it.
    overwrite : bool
        Replace an index that fits.

    Returns
    -------
    IndexInfo
        What was built, with the recall that was found.

    Raises
    ------
    ArgumentError
        For an unknown kind, a recall that is none, and too few videos for "ivf".
    StoreError
        If there is an index already that fits or can't be read (unless `overwrite`), something else, or
        it can't be written.
    """
    if kind != "auto" and kind not in get_args(IndexKind):
        raise ArgumentError(f"kind is {kind!r}; allowed are auto, {', '.join(get_args(IndexKind))} (--kind)")
    if not 0 < recall <= 1:
        raise ArgumentError(f"recall is {recall}; it must be above 0 and at most 1 (--recall)")
    collection = emb if isinstance(emb, Collection) else Collection(emb)
    target = index_path(collection.path)
    _refuse_to_replace(target, collection, overwrite)
    units = np.asarray(collection.videos.units)
    info = IndexInfo("exact", len(units), collection.dim, binding(collection.file), seed=seed)
    index = None
    if kind == "ivf" or (kind == "auto" and len(units) > EXACT_BELOW):
        index, info = _tuned_index(collection, units, info, recall)
        if kind == "auto" and not info.worthwhile:
            index, info = None, replace(info, kind="exact")
    arrays = {"units": units, "studies": np.asarray(collection.studies.units)}
    _save(target, info, arrays, index)
    return info


def _tuned_index(collection: Collection, units: Floats32, info: IndexInfo, recall: float) -> tuple[Any, IndexInfo]:
    if len(units) < LEAST_VIDEOS:
        raise ArgumentError(f"an ivf index takes {LEAST_VIDEOS} videos or more; there are {len(units)} (--kind exact)")
    factory = recipe(len(units), info.dim)
    index = trained(factory, units, info.seed)
    patients = collection.videos.patients

    def own(position: int) -> Ints:
        rows = collection.members("video", "patient_id", (str(patients[position]),))
        # Where all videos are one patient's, a search leaves out the query itself only on request.
        return rows if len(rows) < len(units) else np.array([position])

    found = tune(index, units, own, recall, info.seed)
    return index, replace(
        info,
        kind="ivf",
        factory=factory,
        lists=found.effort.lists,
        candidates=found.effort.candidates,
        recall_asked=recall,
        recall=found.recall,
        query_ms=round(found.query_ms, 4),
        worthwhile=found.worthwhile,
    )


class SavedIndex:
    """An index read from beside its embedding file.

    Raises StoreError where there is none, or one that does not belong to the file as it is now, with the command that
    renews it.
    """

    def __init__(self, file: EmbeddingFile) -> None:
        self._emb = file.path
        self.path = index_path(file.path)
        _is_there(self.path)
        self.info, self._sums = _read_info(self.path, file.path)
        if self.info.bound_to != binding(file):
            raise StoreError(f"{self.path} belongs to another state of {file.path}; {_renewal(file.path)}")
        # Opened first: what takes the place of a file meanwhile is not what was checked.
        units, studies = self._vectors("units", self.info.videos), self._vectors("studies")
        # All at once: what is read later is not looked at again.
        for name, sums in self._sums.items():
            self._check(name, sums)
        self.units: Vectors = np.asarray(units) if self.info.kind == "exact" else units
        self.kept = Kept(self.units, studies)
        """What a collection need not make again."""

    @property
    def kind(self) -> IndexKind:
        """Of index."""
        return self.info.kind

    def _check(self, name: str, sums: list[int]) -> None:
        try:
            found = block_sums(self.path / name)
        except OSError as error:
            raise _damaged(self.path, self._emb, error) from error
        if found != sums:
            raise _damaged(self.path, self._emb, f"{name} is not what was written")

    def _vectors(self, name: str, count: int | None = None) -> RowsOnDisk:
        """The vectors of a file, which are read when they are asked for. count: how many there must be."""
        vectors = npy_rows(self.path / f"{name}.npy", _renewal(self._emb))
        if vectors.shape != (len(vectors) if count is None else count, self.info.dim):
            raise _damaged(self.path, self._emb, f"{name}.npy has shape {vectors.shape}")
        return vectors

    @cached_property
    def _index(self) -> Any:
        try:
            index = read(self.path / "index.faiss")
        except RuntimeError as error:
            raise _damaged(self.path, self._emb, error) from error
        # It is read when it is first needed, and may have been renewed since it was checked.
        self._check("index.faiss", self._sums["index.faiss"])
        if index.ntotal != self.info.videos:
            raise _damaged(self.path, self._emb, f"index.faiss holds {index.ntotal} videos")
        return index

    def nearest(self, queries: Floats32, k: int, allowed: Bools) -> tuple[Ints, Floats32]:
        """Videos near any of the unit vectors (Q, D), among those allowed (N,); k or more if there are.

        Returns positions (n,), ascending, and the cosine (n,) of each with the nearest of the queries. The candidates
        of a faiss index are compared exactly. All that the filter leaves are compared where they are few, and where the
        index finds too few.
        """
        number = int(np.count_nonzero(allowed))
        effort = Effort(self.info.lists, self.info.candidates).for_neighbours(k)
        if self.info.kind == "exact" or number <= max(effort.candidates, self.info.videos // _FEW):
            return self._compared(np.flatnonzero(allowed), queries, k)
        positions = self._candidates(queries, effort, allowed, number)
        return self._compared(positions if len(positions) >= k else np.flatnonzero(allowed), queries, k)

    def _candidates(self, queries: Floats32, effort: Effort, allowed: Bools, number: int) -> Ints:
        """Positions of vectors near any of the queries, among those allowed, ascending."""
        left_out = self.info.videos - number
        if left_out > self.info.videos // _MANY:
            # What a filter leaves may be in none of the lists nearest to a query.
            found = nearest(self._index, queries, Effort(self.info.videos, effort.candidates), allowed)
            return np.unique(found[found >= 0])
        some = left_out > _LEFT_OUT
        more = effort if some else Effort(effort.lists, effort.candidates + left_out)
        found = nearest(self._index, queries, more, allowed if some else None)
        positions = np.unique(found[found >= 0])
        return positions[allowed[positions]]

    def _compared(self, positions: Ints, queries: Floats32, k: int) -> tuple[Ints, Floats32]:
        """The k nearest to each of the queries among some positions, as `nearest`; the positions are ascending."""
        if not len(positions):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        if _GATHERING * len(positions) > len(self.units):
            columns = across(self.units, queries)[:, positions]
        else:
            blocks = [positions[start : start + _BLOCK] for start in range(0, len(positions), _BLOCK)]
            columns = np.concatenate([across(self.units[block], queries) for block in blocks], axis=1)
        best = np.unique(np.concatenate([top(column, k) for column in columns]))
        return np.asarray(positions[best], dtype=np.int64), np.asarray(columns[:, best].max(axis=0), dtype=np.float32)


def open_collection(path: str | Path, use_index: bool | None = None) -> tuple[Collection, SavedIndex | None]:
    """A file to search, and the index to do it with; None, to compare with everything, without one or with "exact".

    use_index: True refuses to go without, False never uses one, None uses one that is there. With an index the
    embeddings themselves are not read. A stale index is an error in any case but False.
    """
    if use_index is False or (use_index is None and not _is_there(index_path(path))):
        return Collection(path), None
    index = SavedIndex(EmbeddingFile(path))
    collection = Collection(path, kept=index.kept)
    return collection, None if index.info.kind == "exact" else index


def _save(target: Path, info: IndexInfo, arrays: Mapping[str, Floats32], index: Any) -> None:
    with written_run(target, "") as folder:
        for name, array in arrays.items():
            make_room(folder / f"{name}.npy", array.nbytes)
            np.save(folder / f"{name}.npy", np.asarray(array, dtype=np.float32), allow_pickle=False)
        if index is not None:
            write(index, folder / "index.faiss")
        sums = {path.name: block_sums(path) for path in folder.iterdir()}
        (folder / "index.json").write_text(json.dumps(asdict(info) | {"crc32": sums}, indent=2) + "\n")


def _read_info(path: Path, emb: Path) -> tuple[IndexInfo, dict[str, list[int]]]:
    """What an index is, and the checksums of its files."""
    file = path / "index.json"
    if not file.exists():
        if path.exists():
            raise _damaged(path, emb, "there is no index.json in it")
        raise StoreError(f"{emb} has no index; build one: {_command(emb)}")
    try:
        raw = json.loads(read_checked(file, needed=True))
        version = raw["schema_version"]
        if version == SCHEMA_VERSION:
            sums = raw.pop("crc32")
            return IndexInfo(**raw), sums
    except (StoreError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, emb, error) from error
    raise StoreError(
        f"{path} is of another version of panecho-embed (schema {version}, read is {SCHEMA_VERSION}); {_renewal(emb)}"
    )


def _refuse_to_replace(there: Path, collection: Collection, overwrite: bool) -> None:
    """One of another state of the file is replaced unasked, one that can't be read with --overwrite, else nothing."""
    if not _is_there(there):
        return
    others: list[str] = []
    if there.is_dir():
        names = {path.name for path in there.iterdir()} - _FILES - {READY}
        others = sorted(name for name in names if not TEMPORARY.fullmatch(name))
    if others or not there.is_dir():
        what = f"it holds {', '.join(others[:3])}" if others else "it is a file"
        raise StoreError(f"{there} is no index: {what}; move it away, and build the index then")
    if not overwrite and _read_info(there, collection.path)[0].bound_to == binding(collection.file):
        raise StoreError(f"{there} is there already, and fits; replace it with --overwrite")


def _is_there(folder: Path) -> bool:
    """Whether there is an index, or something else in its place; what a kill left is none."""
    if not folder.is_dir():
        return folder.exists()
    with contextlib.suppress(OSError):
        settle(folder)
    return any(not TEMPORARY.fullmatch(path.name) for path in folder.iterdir())


def _damaged(path: Path, emb: Path, why: object) -> StoreError:
    return StoreError(f"{path} is damaged ({why}); {_renewal(emb)}")


def _renewal(emb: Path) -> str:
    return f"renew it: {_command(emb)} --overwrite (or search with --exact)"


def _command(emb: Path) -> str:
    return f"panecho-embed index {shlex.quote(str(emb))}"
