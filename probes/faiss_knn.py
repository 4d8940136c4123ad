"""The nearest-neighbour probe on a faiss index: the same answers when flat, faster ones when approximate."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, get_args

import faiss
import numpy as np

from panecho_embed.core.arraytypes import FloatArray, Floats32, Ints
from panecho_embed.core.errors import ArgumentError
from probes.knn import KNNProbe
from probes.neighbours import Metric, Neighbours, check_metric, unit_length

IndexType = Literal["flat", "ivf", "hnsw", "sq8", "pq"]
Device = Literal["cpu", "gpu"]

_PQ_MIN_ROWS = 256  # centroids of an 8-bit code
_ROWS_PER_CELL = 39  # faiss trains its cells on at least as many
TRAINED_ON = 20_000  # rows that are enough for what is not a cell; all of them where there are fewer
ADDED_AT_ONCE = 65_536  # so that no second copy of a large table is made


class FaissNeighbours:
    """Search among `rows` (N, D) in float32 with a faiss index.

    index: "flat", exact; "ivf", inverted lists of about 4 sqrt(N) cells of which `nprobe` are searched; "hnsw", a graph
    of 32 links a node, searched with a list of `ef_search`; "sq8", exact order of 8-bit codes; "pq", product codes of
    one byte for 8 dimensions. device: "cpu", or "gpu" where faiss has one (not for hnsw).
    """

    def __init__(
        self,
        rows: FloatArray,
        metric: Metric,
        index: IndexType = "flat",
        *,
        nprobe: int = 16,
        ef_search: int = 128,
        device: Device = "cpu",
    ) -> None:
        self._metric = check_metric(metric)
        self.index = _new_index(index, rows.shape, self._metric)
        if index == "ivf":
            self.index.nprobe = min(nprobe, self.index.nlist)
        if index == "hnsw":
            self.index.hnsw.efSearch = ef_search
        if device == "gpu":
            self.index = _on_gpu(self.index, index)
        self.index.train(self._prepare(_training_rows(rows, getattr(self.index, "nlist", 0))))
        for start in range(0, len(rows), ADDED_AT_ONCE):
            self.index.add(self._prepare(rows[start : start + ADDED_AT_ONCE]))

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Distances (Q, k) float32, ascending, and row numbers (Q, k), -1 where fewer were found."""
        distance, found = self.index.search(self._prepare(queries), k)
        distance = 1 - distance if self._metric == "cosine" else np.sqrt(np.maximum(distance, 0))
        return np.where(found >= 0, np.maximum(distance, 0), np.inf).astype(np.float32), found

    def _prepare(self, rows: FloatArray) -> Floats32:
        scaled = unit_length(rows) if self._metric == "cosine" else rows
        return np.ascontiguousarray(scaled, dtype=np.float32)


@dataclass(eq=False, repr=False)
class FaissKNNProbe(KNNProbe):
    """`KNNProbe` on a faiss index; with index="flat" the two agree to float32.

    index, nprobe, ef_search, device: as in `FaissNeighbours`. The rest as in `KNNProbe`.
    """

    name = "Nearest-neighbour probe (faiss)"

    _: KW_ONLY
    index: IndexType = "flat"
    nprobe: int = 16
    ef_search: int = 128
    device: Device = "cpu"

    def _search_in_words(self) -> str:
        return f" (faiss, {self.index} index)"

    def _index(self, x: FloatArray) -> Neighbours:
        return FaissNeighbours(
            x, self.metric, self.index, nprobe=self.nprobe, ef_search=self.ef_search, device=self.device
        )

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.index not in get_args(IndexType):
            raise ArgumentError(f"index is {self.index!r}; allowed are {', '.join(get_args(IndexType))} (--index)")
        if self.device not in get_args(Device):
            raise ArgumentError(f"device is {self.device!r}; allowed are {', '.join(get_args(Device))} (--device)")


def index_recipe(index: IndexType, n: int, d: int) -> str:
    """What faiss's index factory is asked for, given the size of the table."""
    if index == "ivf":
        return f"IVF{max(1, min(int(4 * n**0.5), n // _ROWS_PER_CELL))},Flat"
    if index == "pq":
        if n < _PQ_MIN_ROWS:
            raise ArgumentError(f"a product-quantised index needs {_PQ_MIN_ROWS} rows, there are {n}: use --index flat")
        pieces = max(1, d // 8)
        # "np": no polysemous training, which takes nearly all of the time and serves a search that is not used.
        return f"PQ{next(m for m in range(pieces, 0, -1) if d % m == 0)}np"
    return {"flat": "Flat", "hnsw": "HNSW32", "sq8": "SQ8"}[index]


def _new_index(index: IndexType, shape: tuple[int, ...], metric: Metric) -> Any:
    measure = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    return faiss.index_factory(shape[1], index_recipe(index, shape[0], shape[1]), measure)


def _training_rows(rows: FloatArray, cells: int) -> FloatArray:
    """Rows that cells and codes are learned from: more of them make it slower, not better."""
    enough = max(TRAINED_ON, (_ROWS_PER_CELL + 1) * cells)
    if len(rows) <= enough:
        return rows
    return rows[np.sort(np.random.default_rng(0).choice(len(rows), enough, replace=False))]


def _on_gpu(built: Any, index: IndexType) -> Any:
    if index == "hnsw":
        raise ArgumentError("faiss has no HNSW on the GPU; use --index flat or ivf, or --device cpu")
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise ArgumentError(
            "this faiss sees no GPU (--device gpu): install faiss-gpu-cu12 in place of faiss-cpu, or use --device cpu"
        )
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, built)
