"""A map: every video as a point in a plane, by PCA or UMAP, computed once and kept beside the file."""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
import warnings
import zipfile
import zlib
from multiprocessing.connection import Connection
from typing import Any, Literal, get_args

import numpy as np

from panecho_embed.core.arraytypes import DAMAGED_HEADER, Floats32
from panecho_embed.core.errors import ArgumentError, NotInstalledError, StoreError
from panecho_embed.core.outputs import written_whole
from panecho_embed.core.workers import WORKERS, end_with_parent
from panecho_embed.retrieval.collection import Collection, Items
from panecho_embed.retrieval.index import binding

Method = Literal["pca", "umap"]
State = Literal["ready", "computing", "failed"]

SUFFIX = ".map.npz"
_SAMPLE = 20_000
_SEED = 0


def map_items(collection: Collection) -> Items:
    """What a map shows: the videos, or the studies of a file that has no videos."""
    return collection.videos if collection.has_videos else collection.studies


def pca(units: Floats32) -> Floats32:
    """The two directions of largest variance, (N, 2), each with its largest loading positive."""
    if len(units) < 2:
        return np.zeros((len(units), 2), dtype=np.float32)
    rows = np.random.default_rng(_SEED).permutation(len(units))[:_SAMPLE]
    sample = np.asarray(units[np.sort(rows)])
    middle = sample.mean(axis=0)
    covariance = (sample - middle).T @ (sample - middle)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    points = (units - middle) @ axes
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))).astype(np.float32)


def umap(units: Floats32) -> Floats32:
    """UMAP of the cosines, (N, 2) (McInnes, Healy and Melville, arXiv:1802.03426, 2018); PCA of three points or fewer.

    Raises ArgumentError where umap-learn is not installed.
    """
    if len(units) < 4:
        return pca(units)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            umap_learn = importlib.import_module("umap")
    except ImportError as error:
        raise NotInstalledError("umap-learn", "serve") from error
    with warnings.catch_warnings():
        # It warns that a seed means one thread, which is what a repeatable map costs.
        warnings.simplefilter("ignore")
        reducer: Any = umap_learn.UMAP(n_neighbors=min(15, len(units) - 1), metric="cosine", random_state=_SEED,
                                       init="pca")  # fmt: skip
        return np.asarray(reducer.fit_transform(np.asarray(units)), dtype=np.float32)


def _umap_process(answer: Connection, units: Floats32) -> None:
    end_with_parent()
    try:
        answer.send(umap(units))
    except ArgumentError as error:
        answer.send(str(error))


class Maps:
    """The maps of a collection. PCA is made at once; UMAP takes minutes for many videos, and is made beside.

    Both are kept in EMB.h5.map.npz, bound to the state of the file; where that can't be written they are recomputed.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.path = collection.path.with_name(collection.path.name + SUFFIX)
        self._points: dict[str, Floats32] = {}
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._bound_to = binding(collection.file)
        self._load()

    def state(self, method: Method) -> tuple[State, Floats32 | str]:
        """The points (N, 2) of a map, or why there are none (yet); asking for UMAP begins it."""
        if method not in get_args(Method):
            raise ArgumentError(f"method is {method!r}; allowed are {', '.join(get_args(Method))}")
        with self._lock:
            if method in self._points:
                return "ready", self._points[method]
            if method in self._failed:
                return "failed", self._failed[method]
            if method == "umap":
                if self._worker is None:
                    self._worker = threading.Thread(target=self._wait_for_umap, daemon=True)
                    self._worker.start()
                return "computing", "UMAP is being computed; PCA is there already"
        self._compute(method)
        return self.state(method)

    def points(self, method: Method) -> Floats32:
        """The points (N, 2) of a map, computed here and now if need be."""
        if method not in self._points:
            self._compute(method)
        if method in self._failed:
            raise ArgumentError(self._failed[method])
        return self._points[method]

    def _wait_for_umap(self) -> None:
        """UMAP in a separate process, which ends with this one: it would hold up every request."""
        mine, theirs = WORKERS.Pipe(duplex=False)
        units = np.asarray(map_items(self._collection).units)
        WORKERS.Process(target=_umap_process, args=(theirs, units), daemon=True).start()
        theirs.close()
        try:
            self._keep("umap", mine.recv())
        except EOFError:
            self._keep("umap", "the computation of UMAP ended before its time (out of memory?)")

    def _compute(self, method: Method) -> None:
        try:
            self._keep(method, {"pca": pca, "umap": umap}[method](np.asarray(map_items(self._collection).units)))
        except ArgumentError as error:
            self._keep(method, str(error))

    def _keep(self, method: Method, made: Floats32 | str) -> None:
        with self._lock:
            if isinstance(made, str):
                self._failed[method] = made
                return
            self._points[method] = made
            self._save()

    def _load(self) -> None:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                if str(saved["bound_to"]) == self._bound_to:
                    points = {name: saved[name] for name in get_args(Method) if name in saved}
                    shape = (len(map_items(self._collection)), 2)
                    self._points = {name: made for name, made in points.items() if made.shape == shape}
        except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, *DAMAGED_HEADER):
            # It is only a cache: a damaged one is computed again.
            self._points = {}

    def _save(self) -> None:
        stream = io.BytesIO()
        np.savez(stream, bound_to=np.array(self._bound_to), **self._points)  # type: ignore[arg-type]  # (N, 2) arrays
        # In a read-only folder the map lives as long as the server.
        with contextlib.suppress(StoreError), written_whole(self.path, "") as temporary:
            temporary.write_bytes(stream.getvalue())
