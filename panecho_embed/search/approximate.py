"""faiss's indexes over unit vectors: which recipe, training, and searching, on a GPU where faiss has one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats32, Ints
from panecho_embed.core.errors import StoreError

IndexKind = Literal["exact", "ivf", "hnsw", "sq8", "pq"]

HNSW_LINKS = 32
HNSW_EF_CONSTRUCTION = 80

_HNSW_EF_SEARCH = 128
_GPU_MOST = 2048
"""Neighbours, and lists, that faiss can ask a GPU for."""

_NEARLY_ALL = 0.98
_GPU_CANT = ("hnsw", "exact")


def recipe(kind: IndexKind, videos: int, dim: int) -> tuple[str, int]:
    """faiss's factory text, and how much of the index a query visits; "" and 0 for "exact"."""
    if kind == "exact":
        return "", 0
    if kind == "hnsw":
        return f"HNSW{HNSW_LINKS}", _HNSW_EF_SEARCH
    # faiss wants 39 training points a list.
    lists = max(1, min(int(2 ** round(np.log2(2 * np.sqrt(videos)))), videos // 39))
    subspaces = next(m for m in (dim // 8, dim // 4, dim // 2, dim) if m > 0 and dim % m == 0)
    bits = min(8, int(np.log2(max(videos, 2))))
    # "np": no polysemous training, which takes nearly all of the time and serves a search that is not used.
    codes = {"ivf": "Flat", "sq8": "SQ8", "pq": f"PQ{subspaces}x{bits}np"}[kind]
    return f"IVF{lists},{codes}", max(8, lists // 10)


def trained(kind: IndexKind, factory: str, units: Floats32, seed: int) -> Any:
    """A faiss index over unit vectors (N, D), trained on a sample that `seed` draws; on a GPU where there is one."""
    faiss = _faiss()
    index = faiss.index_factory(units.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    inside = faiss.downcast_index(index)
    if isinstance(inside, faiss.IndexHNSW):
        inside.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
    # More points than these make training slower, not better.
    if isinstance(inside, faiss.IndexIVFPQ):
        inside.pq.cp.max_points_per_centroid = 64
    enough = min(len(units), max(40 * getattr(inside, "nlist", 0), 20_000))
    rows = np.sort(np.random.default_rng(seed).choice(len(units), enough, replace=False))
    builder = on_gpu(kind, index) or index
    builder.train(np.ascontiguousarray(units[rows]))
    for start in range(0, len(units), 65_536):
        builder.add(np.ascontiguousarray(units[start : start + 65_536]))
    return index if builder is index else faiss.index_gpu_to_cpu(builder)


def write(index: Any, path: Path) -> None:
    """Write a faiss index as a file. Raises OSError."""
    # By Python: where faiss itself closes a file, a full disk goes unnoticed.
    with path.open("wb") as stream:
        _faiss().write_index(index, _faiss().PyCallbackIOWriter(stream.write))


class FaissIndex:
    """A faiss index to search: on the CPU, and with a copy on a GPU where faiss has one.

    kind, visits: as `recipe` gave them. Raises RuntimeError for a file that faiss can't read.
    """

    def __init__(self, path: Path, kind: IndexKind, visits: int) -> None:
        self._cpu = _faiss().read_index(str(path))
        self._gpu = on_gpu(kind, self._cpu)
        self._kind = kind
        self._visits = visits

    def __len__(self) -> int:
        return int(self._cpu.ntotal)

    def candidates(self, queries: Floats32, count: int, allowed: Bools) -> Ints:
        """Positions of about `count` vectors near each of the queries (Q, D), among those allowed (N,); ascending."""
        everywhere = selects(allowed)
        if self._gpu is not None and not (everywhere and self._gpu.nlist > _GPU_MOST):
            # The GPU knows no filter. So more are asked for, and if too few of them are allowed, the CPU is. It looks
            # in the same lists: where a filter selects, its nearest may lie in none of those nearest to a query.
            more = int(np.ceil(2 * count / max(float(allowed.mean()), 1 / _GPU_MOST)))
            found = self._asked(self._gpu, queries, min(more, _GPU_MOST), None, everywhere=everywhere)
            kept = (found >= 0) & allowed[found]
            if kept.sum(axis=1).min() >= count:
                return np.unique(found[kept])
        selector = None if allowed.all() else _faiss().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        found = self._asked(self._cpu, queries, count, selector, everywhere=everywhere)
        return np.unique(found[found >= 0])

    def _asked(self, index: Any, queries: Floats32, count: int, selector: Any, *, everywhere: bool = False) -> Ints:
        """(Q, count) positions, -1 where there are no more. everywhere: visit all lists, not the nearest alone."""
        faiss = _faiss()
        if self._kind == "hnsw":
            settings = faiss.SearchParametersHNSW(sel=selector, efSearch=max(2 * count, self._visits))
        else:
            settings = faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist if everywhere else self._visits)
        found: Ints = index.search(np.ascontiguousarray(queries), count, params=settings)[1]
        return found


def selects(allowed: Bools) -> bool:
    """Whether a filter (N,) leaves so little that the nearest allowed may lie far from where an index looks."""
    return bool(allowed.mean() < _NEARLY_ALL)


def on_gpu(kind: IndexKind, index: Any) -> Any:
    """A copy of an index on the first GPU; None where faiss has no GPU, or none for this kind.

    Raises StoreError where it does not fit.
    """
    faiss = _faiss()
    if kind in _GPU_CANT or not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    options = faiss.GpuClonerOptions()
    # The tables of 96 sub-vectors fit the GPU's fast memory in half precision alone; candidates are compared exactly.
    options.useFloat16 = kind == "pq"
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise StoreError(
            f"the {kind} index can't be held on the GPU: {reason} (CUDA_VISIBLE_DEVICES= keeps it on the CPU)"
        ) from error


def _faiss() -> Any:
    """The module, imported when it is needed; its own annotations lack half of what it has."""
    return importlib.import_module("faiss")
