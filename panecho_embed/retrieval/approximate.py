"""faiss's index over unit vectors: inverted lists of 4-bit codes, and how far a query has to look in it.

Vectors are cut into lists around the centres of a k-means; in its list a vector is a code of four bits for every two
numbers (product quantisation of the difference to the centre). A query scans the codes of the lists nearest to it with
SIMD look-ups, and the best of them are compared exactly. How many lists, and how many of the best, is found by asking
the collection for neighbours that are known.

Source: André et al., "Quicker ADC", IEEE TPAMI 2021 (4-bit codes); faiss's IndexIVFPQFastScan.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from panecho_embed.core.arraytypes import Bools, Floats, Floats32, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.retrieval.similarity import top

IndexKind = Literal["exact", "ivf"]

NEIGHBOURS = 10
"""The neighbours that recall is of, and that an effort is for."""

LEAST_VIDEOS = 16
"""Centres of a 4-bit code: it can't distinguish fewer vectors."""

_POINTS_PER_LIST = 39
"""Vectors that faiss wants for every centre that it trains."""

_QUERIES = 200
"""Videos that tune the effort, and as many others that check it."""

_FEWEST, _MOST = 32, 4096
"""Candidates that are compared exactly, from and to which efforts are tried."""

_CODES_PER_CANDIDATE = 200
"""Codes that are scanned in the time in which one vector is read from the disk's cache and compared."""

_CODES_PER_VECTOR = 5
"""Codes that are scanned in the time in which exact search compares one vector."""

_ROUNDING = 1e-6
"""By how much the cosine of a neighbour may be below that of the tenth nearest: equal vectors differ by less."""

_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class Effort:
    """How far a query looks for ten neighbours. lists: that are scanned. candidates: that are compared exactly."""

    lists: int
    candidates: int

    def for_neighbours(self, k: int) -> Effort:
        """In proportion, for more than ten."""
        more = max(1.0, k / NEIGHBOURS)
        return Effort(int(np.ceil(self.lists * more)), int(np.ceil(self.candidates * more)))


@dataclass(frozen=True, slots=True)
class Tuned:
    """An effort, and what it is worth.

    recall: share of the ten nearest that it finds, the mean over queries that did not choose it. query_ms: processor
    time of one of them. worthwhile: whether it finds what was asked for (up to the standard error of that mean), and
    costs less than half of comparing with every vector, by count.
    """

    effort: Effort
    recall: float
    query_ms: float
    worthwhile: bool


def recipe(videos: int, dim: int) -> str:
    """faiss's factory text."""
    lists = max(1, min(int(2 ** round(np.log2(2 * np.sqrt(videos)))), videos // _POINTS_PER_LIST))
    return f"IVF{lists},PQ{dim // 2 if dim % 2 == 0 else dim}x4fsr"


def trained(factory: str, units: Floats32, seed: int) -> Any:
    """A faiss index over unit vectors (N, D), trained on a sample that `seed` draws."""
    faiss = _faiss()
    index = faiss.index_factory(units.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    # More points than these make training slower, not better.
    enough = min(len(units), max((_POINTS_PER_LIST + 1) * index.nlist, 20_000))
    rows = np.sort(np.random.default_rng(seed).choice(len(units), enough, replace=False))
    index.train(np.ascontiguousarray(units[rows]))
    for start in range(0, len(units), _BLOCK):
        index.add(np.ascontiguousarray(units[start : start + _BLOCK]))
    return index


def write(index: Any, path: Path) -> None:
    """Write a faiss index as a file. Raises OSError."""
    # By Python: where faiss itself closes a file, a full disk goes unnoticed.
    with path.open("wb") as stream:
        _faiss().write_index(index, _faiss().PyCallbackIOWriter(stream.write))


def read(path: Path) -> Any:
    """Read a faiss index. Raises RuntimeError for a file that faiss can't read."""
    return _faiss().read_index(str(path))


def nearest(index: Any, queries: Floats32, effort: Effort, allowed: Bools | None = None) -> Ints:
    """Positions of vectors near each of the queries (Q, D), best first, (Q, candidates); -1 where there are no more.

    allowed: (N,) the vectors that may be found; None for all.
    """
    faiss = _faiss()
    selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    settings = faiss.SearchParametersIVF(sel=selector, nprobe=min(effort.lists, index.nlist))
    found: Ints = index.search(np.ascontiguousarray(queries), effort.candidates, params=settings)[1]
    return found


def tune(index: Any, units: Floats32, own: Callable[[int], Ints], recall: float, seed: int) -> Tuned:
    """The cheapest effort that finds a share `recall` of the ten nearest of queries drawn from the collection.

    index: of all the unit vectors (N, D). own: positions of what is left out for the query at a position: itself, and
    its patient's other videos, as in a search. An effort counts as enough where the mean over the queries, less its
    standard error, is `recall` or more; where none is, the one that finds most is taken. A vector as near as the tenth
    nearest, up to a rounding of 1e-6, counts as found like the tenth itself. Raises ArgumentError if all are zeros.
    """
    # A search refuses a query of zeros.
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(units.any(axis=1)))[: 2 * _QUERIES]
    if not len(drawn):
        raise ArgumentError("all embeddings are zeros; an ivf index can't be tuned on them (--kind exact)")
    left_out = [own(int(row)) for row in drawn]
    truth = _nearest_cosines(units, drawn, left_out)
    half = max(1, len(drawn) // 2)
    # Of very few, the same queries choose and check.
    choosing, checking = slice(0, half), slice(half if len(drawn) > 1 else 0, None)
    most = min(_MOST, len(units))
    candidates = [c for c in (_FEWEST << i for i in range(16)) if c < most] + [most]
    tried: list[tuple[bool, float, float, Effort]] = []
    for lists in [*(1 << i for i in range(16) if 1 << i < index.nlist), index.nlist]:
        places = _places(index, units, drawn[choosing], left_out[choosing], truth[choosing], Effort(lists, most))
        for count in candidates:
            found = _recalls(places, count)
            enough = bool(found.mean() - found.std() / np.sqrt(len(found)) >= recall)
            effort = Effort(lists, count)
            tried.append((enough, float(found.mean()), _codes(index, len(units), effort), effort))
    best = min(tried, key=lambda one: (not one[0], one[2] if one[0] else -one[1], one[2]))[3]
    rows, outs = drawn[checking], left_out[checking]
    places = _places(index, units, rows, outs, truth[checking], best)
    found = _recalls(places, best.candidates)
    enough = bool(found.mean() + found.std() / np.sqrt(len(found)) >= recall)
    cheap = 2 * _codes(index, len(units), best) < _CODES_PER_VECTOR * len(units)
    return Tuned(best, float(found.mean()), _milliseconds(index, units, rows, best), worthwhile=enough and cheap)


def _nearest_cosines(units: Floats32, rows: Ints, left_out: Sequence[Ints]) -> list[Floats32]:
    """The ten highest cosines of each of some rows, descending, without what is excluded; fewer if there are no ten."""
    best = [np.zeros(0, dtype=np.float32) for _ in rows]
    queries = units[rows]
    for start in range(0, len(units), _BLOCK):
        near = queries @ units[start : start + _BLOCK].T
        for i, cosines in enumerate(near):
            inside = left_out[i][(left_out[i] >= start) & (left_out[i] < start + len(cosines))]
            cosines[inside - start] = np.nan
            values = np.concatenate([best[i], cosines[top(cosines, NEIGHBOURS)]])
            best[i] = values[top(values, NEIGHBOURS)]
    return best


def _places(
    index: Any, units: Floats32, rows: Ints, left_out: Sequence[Ints], truth: Sequence[Floats32], effort: Effort
) -> list[Ints]:
    """Ranks among the candidates of the ten nearest of each query, ascending; beyond all for what is missing.

    truth: the ten highest cosines of each query. What ties with the tenth is as good as it.
    """
    more = Effort(effort.lists, min(len(units), effort.candidates + max(map(len, left_out))))
    found = nearest(index, units[rows], more)
    places = []
    for row, one, out, true in zip(rows, found, left_out, truth, strict=True):
        kept = one[(one >= 0) & ~np.isin(one, out)]
        near = np.flatnonzero(units[kept] @ units[row] >= true.min(initial=1) - _ROUNDING)[: len(true)]
        places.append(np.pad(near, (0, len(true) - len(near)), constant_values=len(units)))
    return places


def _recalls(places: Sequence[Ints], candidates: int) -> Floats:
    """Share of the true neighbours of each query among the first candidates; 1 for a query that has none."""
    return np.array([(one < candidates).mean() if len(one) else 1.0 for one in places])


def _codes(index: Any, videos: int, effort: Effort) -> float:
    """What an effort costs, in codes scanned."""
    scanned = videos * effort.lists / index.nlist + _CODES_PER_VECTOR * index.nlist
    return float(scanned + _CODES_PER_CANDIDATE * min(effort.candidates, videos))


def _milliseconds(index: Any, units: Floats32, rows: Ints, effort: Effort) -> float:
    """Processor time of a query, the vectors of its candidates in memory; the median."""
    took = []
    for row in rows:
        query = units[row : row + 1]
        started = time.process_time()
        found = nearest(index, query, effort)[0]
        top((units[found[found >= 0]] @ query[0]), NEIGHBOURS)
        took.append(time.process_time() - started)
    return 1000 * float(np.median(took))


def _faiss() -> Any:
    """The module, imported when it is needed; its own annotations lack half of what it has."""
    return importlib.import_module("faiss")
