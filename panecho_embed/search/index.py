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
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats32, Ints
from panecho_embed.core.digests import SUMS, block_sums, read_checked
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import READY, TEMPORARY, make_room, settle, written_run
from panecho_embed.search.approximate import HNSW_LINKS, FaissIndex, IndexKind, recipe, selects, trained, write
from panecho_embed.search.collection import Collection, Kept
from panecho_embed.search.similarity import Vectors, across, top
from panecho_embed.store import EmbeddingFile, RowsOnDisk, npy_rows

SUFFIX = ".index"
SCHEMA_VERSION = 2

EXACT_BELOW = 100_000
"""Videos up to which comparing with every one takes a few tens of milliseconds, so that no index is worth its error."""

GRAPH_UP_TO = 200_000
"""Videos up to which "auto" takes a graph (hnsw)."""

# sketch.npy and directions.npy are what an earlier version kept.
_FILES = {"index.json", "units.npy", "studies.npy", "sketch.npy", "directions.npy", "index.faiss", SUMS}
_SAMPLES = 64
# So many rows stay in the cache while they are compared.
_BLOCK = 1024

_FEW = 20
"""The part of the videos up to which comparing what a filter leaves is quicker than looking for it in every list."""

_GATHERING = 3
"""How many times as long a row takes that is picked from among others as one of all that are read in a row."""


class VideoIndex(Protocol):
    """Finds candidates among videos."""

    @property
    def kind(self) -> str:
        """What it is called."""
        ...

    def nearest(self, queries: Floats32, k: int, allowed: Bools) -> Ints:
        """Positions of videos near any of the unit vectors (Q, D), among those allowed (N,); k or more if there are."""
        ...


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index is. bound_to: identifies the embedding file's settings and content. seed: of its training."""

    kind: IndexKind
    videos: int
    dim: int
    bound_to: str
    factory: str
    probes: int
    seed: int = 0
    schema_version: int = SCHEMA_VERSION


def index_path(emb: str | Path) -> Path:
    """The folder beside an embedding file that holds its index."""
    path = Path(emb)
    return path.with_name(path.name + SUFFIX)


def binding(file: EmbeddingFile) -> str:
    """SHA-256 of what makes an embedding file this one: fingerprint, time, size, ids and a sample of its values."""
    digest = hashlib.sha256()
    for fact in (file.fingerprint, file.created_utc, len(file), file.dim, file.level):
        digest.update(f"{fact}\0".encode())
    for name in ("video_id", "study_id"):
        digest.update("\0".join(file.video_columns[name]).encode("utf-8", "surrogateescape"))
    digest.update(file.row_columns["video"].tobytes())
    for row in np.unique(np.linspace(0, max(len(file) - 1, 0), _SAMPLES).astype(int)):
        digest.update(file.read(int(row), int(row) + 1).tobytes())
    return digest.hexdigest()


def choose_kind(videos: int, dim: int, memory_bytes: float) -> IndexKind:
    """The most exact kind of index that is fast at this size and fits the memory."""
    if videos <= EXACT_BELOW and videos * dim * 4 <= memory_bytes:
        return "exact"
    sizes: dict[IndexKind, float] = {
        "hnsw": videos * (dim * 4 + HNSW_LINKS * 2 * 4),
        "ivf": videos * (dim * 4 + 8),
        "sq8": videos * (dim + 8),
    }
    # A graph over more takes too long to build.
    kinds = (kind for kind in sizes if kind != "hnsw" or videos <= GRAPH_UP_TO)
    return next((kind for kind in kinds if sizes[kind] <= memory_bytes), "pq")


def build_index(
    collection: Collection,
    kind: IndexKind | Literal["auto"] = "auto",
    *,
    memory_gb: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> IndexInfo:
    """Build an index over the videos of a collection and save it beside the file, whole or not at all.

    kind: "auto" chooses by size and memory_gb (None: half of what is free). Raises ArgumentError, and StoreError if
    there is an index already that fits or can't be read (unless `overwrite`), something that is no index, or it can't
    be written.
    """
    if kind != "auto" and kind not in get_args(IndexKind):
        raise ArgumentError(f"kind is {kind!r}; allowed are auto, {', '.join(get_args(IndexKind))} (--kind)")
    target = index_path(collection.path)
    _refuse_to_replace(target, collection, overwrite)
    units = np.asarray(collection.videos.units)
    videos, dim = len(units), collection.dim
    memory = (_free_bytes() / 2) if memory_gb is None else memory_gb * 2**30
    chosen = choose_kind(videos, dim, memory) if kind == "auto" else kind
    factory, probes = recipe(chosen, videos, dim)
    index = None if chosen == "exact" else trained(chosen, factory, units, seed)
    info = IndexInfo(chosen, videos, dim, binding(collection.file), factory, probes, seed)
    arrays = {"units": units, "studies": np.asarray(collection.studies.units)}
    _save(target, info, arrays, index)
    return info


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
            raise StoreError(
                f"{self.path} belongs to another state of {file.path}; renew it: {_command(file.path)} --overwrite "
                "(or search with --exact)"
            )
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
        try:
            vectors = npy_rows(self.path / f"{name}.npy")
        except StoreError as error:
            raise _damaged(self.path, self._emb, error) from error
        if vectors.shape != (len(vectors) if count is None else count, self.info.dim):
            raise _damaged(self.path, self._emb, f"{name}.npy has shape {vectors.shape}")
        return vectors

    @cached_property
    def _index(self) -> FaissIndex:
        try:
            index = FaissIndex(self.path / "index.faiss", self.info.kind, self.info.probes)
        except RuntimeError as error:
            raise _damaged(self.path, self._emb, error) from error
        # It is read when it is first needed, and may have been renewed since it was checked.
        self._check("index.faiss", self._sums["index.faiss"])
        if len(index) != self.info.videos:
            raise _damaged(self.path, self._emb, f"index.faiss holds {len(index)} videos")
        return index

    def nearest(self, queries: Floats32, k: int, allowed: Bools) -> Ints:
        """Positions of videos near any of the unit vectors (Q, D), among those allowed (N,); k or more if there are.

        More candidates than k are taken from a compressed index, and compared exactly. All that the filter leaves are
        compared where they are few, where a graph would have to cross what is not allowed, and where the index finds
        too few.
        """
        number = int(allowed.sum())
        wanted = min(number, 4 * k + 32)
        few = self.info.kind == "exact" or number <= max(wanted, self.info.videos // _FEW)
        if few or (self.info.kind == "hnsw" and selects(allowed)):
            return self._compared(np.flatnonzero(allowed), queries, k)
        positions = self._index.candidates(queries, wanted, allowed)
        return self._compared(positions if len(positions) >= min(k, number) else np.flatnonzero(allowed), queries, k)

    def _compared(self, positions: Ints, queries: Floats32, k: int) -> Ints:
        """The k nearest to each of the queries among some positions, ascending; they are ascending, too."""
        if not len(positions):
            return np.zeros(0, dtype=np.int64)
        if _GATHERING * len(positions) > len(self.units):
            columns = across(self.units, queries)[:, positions]
        else:
            blocks = [positions[start : start + _BLOCK] for start in range(0, len(positions), _BLOCK)]
            columns = np.concatenate([across(self.units[block], queries) for block in blocks], axis=1)
        best = np.unique(np.concatenate([top(column, k) for column in columns]))
        return np.asarray(positions[best], dtype=np.int64)


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
        sums = raw.pop("crc32")
        info = IndexInfo(**raw)
    except (StoreError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, emb, error) from error
    if info.schema_version != SCHEMA_VERSION:
        raise _damaged(path, emb, f"schema version {info.schema_version}, this release reads {SCHEMA_VERSION}")
    return info, sums


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
    return StoreError(f"{path} is damaged ({why}); renew it: {_command(emb)} --overwrite (or search with --exact)")


def _command(emb: Path) -> str:
    return f"panecho-embed index {shlex.quote(str(emb))}"


def _free_bytes() -> float:
    """Memory that can be had now, caches that the system would give up included; where it does not say, 8 GiB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass  # Not Linux.
    sysconf: Callable[[str], int] | None = getattr(os, "sysconf", None)
    if sysconf is None or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return 8 * 2**30
    return float(sysconf("SC_AVPHYS_PAGES") * sysconf("SC_PAGE_SIZE"))
