"""The nearest-neighbour probes: an exact search in blocks that stay in memory, and a faiss index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from panecho_embed.core.arraytypes import Bools, FloatArray, Floats, Floats32, Ints
from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.targets import Kind
from probes.base import BaseProbe, is_classifier

_Metric = Literal["cosine", "euclidean"]
_Weights = Literal["softmax", "distance", "uniform"]
_Centre = bool | Literal["auto"]
_Found = tuple[FloatArray, npt.NDArray[np.integer[Any]]]  # distances and row numbers of neighbours, (Q, k) each

_K_GRID = (1, 2, 3, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200)
_TEMPERATURES = (0.01, 0.02, 0.04, 0.07, 0.15, 0.3)
_QUERY_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class _Setting:
    """One combination of settings. temperature: NaN where the weights have none."""

    centre: bool
    temperature: float
    k: int


@dataclass(eq=False, repr=False)
class KNNProbe(BaseProbe):
    """Reads a target from the nearest embeddings, exactly.

    Parameters
    ----------
    task : "regression", "binary", "multiclass" or "ordinal"
        "ordinal": classes whose sorted order is their order; the prediction is the median class.
    metric : "cosine" or "euclidean"
    k : sequence of int, optional
        Numbers of neighbours to choose from, 1 to 200 by default; those above the number of rows are skipped.
    weights : "softmax", "distance" or "uniform"
        "softmax": exp(similarity / temperature) as in Wu et al. (CVPR 2018), cosine only; "distance": 1 / distance.
    temperature : float or sequence of float, optional
        Of the softmax: a fixed value, or values to choose from, 0.01 to 0.3 by default.
    centre : bool or "auto", default "auto"
        Whether the training mean is subtracted before cosines are taken; "auto" chooses. Embeddings of one kind of
        image often share a large mean, next to which all cosines are close to 1.
    folds : int, default 5
        Grouped folds inside `fit` that choose k, temperature and centring together, by the mean squared error of the
        value or of the class probabilities (Brier score).
    random_state : int
        Seed of the folds.

    Attributes
    ----------
    k_, temperature_, centred_ : int, float, bool
        What was chosen; temperature_ is NaN for other weights than "softmax".
    centre_ : (D,)
        What is subtracted: the training mean or zeros.
    settings_, grid_, chosen_ : list of S settings, (S,), int
        Every combination tried, its held-out loss, and the position of the chosen one.
    holdout_prediction_ : (N,) or (N, K)
        Predictions of rows while held out.
    """

    name = "Nearest-neighbour probe"
    saved = ("k_", "temperature_", "centre_", "rows_", "targets_")

    task: Kind = "regression"
    _: KW_ONLY
    metric: _Metric = "cosine"
    k: Sequence[int] | None = None
    weights: _Weights = "softmax"
    temperature: float | Sequence[float] | None = None
    centre: _Centre = "auto"
    folds: int = 5
    random_state: int = 0

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        holdout: npt.ArrayLike | None = None,
    ) -> Self:
        """Choose k, temperature and centring on held-out rows, then keep all rows.

        X: (N, D). y: (N,), NaN in a regression where a label is missing. groups, holdout: as `LinearProbe.fit`.
        """
        self._check_settings()
        there, x, given, (owner, out_in) = self._labelled(X, y, groups, holdout)
        targets: Floats = given[:, None] if self.task == "regression" else np.eye(len(self.classes_))[given]
        part = self._parts(given, owner, out_in, needed=self.chooses())
        parts = [part == k for k in range(part.max() + 1)]
        ks = self._ks()
        ks = ks[ks <= min((int((~out).sum()) for out in parts), default=len(x))]
        if not len(ks):
            raise ArgumentError(f"k is {self._ks().tolist()}, but there are {len(x)} rows (n_samples={len(x)}) (--k)")
        self.settings_ = [_Setting(c, t, int(k)) for c in self._centrings() for t in self._temperatures() for k in ks]
        searches = {c: [self._held_out(x, out, c, int(ks[-1])) for out in parts] for c in self._centrings()}
        self.chosen_ = self._choose(searches, targets, parts, ks)
        chosen = self.settings_[self.chosen_]
        self.k_, self.temperature_, self.centred_ = chosen.k, chosen.temperature, chosen.centre
        held_out = np.full(targets.shape, np.nan)
        for found, out in zip(searches[chosen.centre], parts, strict=True):
            held_out[out] = self._averages(found, targets[~out], np.array([chosen.k]), [chosen.temperature])[0][0]
        self._hold_out(there, held_out)
        self.rows_, self.targets_ = x, targets
        self.neighbours_, self.centre_ = self._index_of(x, chosen.centre)
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Value or class (N,) of each row of X (N, D)."""
        if self.task == "regression":
            return self._weighted(X)[:, 0]
        return self._classes_of(self.predict_proba(X))

    @available_if(is_classifier)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Probability of each class, (N, K), in the order of `classes_`."""
        return self._weighted(X)

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """As in `BaseProbe`; the index is built again."""
        super().restore(arrays)
        self.centred_ = bool(self.centre_.any())
        self.neighbours_ = self._index(self.rows_ - self.centre_)
        return self

    def chooses(self) -> bool:
        """Whether there is more than one combination of k, temperature and centring."""
        return len(self._ks()) * len(self._temperatures()) * len(self._centrings()) > 1

    def grid_rows(self) -> list[dict[str, Any]]:
        """Every combination tried, its held-out loss, and whether it was chosen."""
        rows = []
        for i, (setting, loss) in enumerate(zip(self.settings_, self.grid_, strict=True)):
            row: dict[str, Any] = {"k": setting.k}
            if self.weights == "softmax":
                row["temperature"] = setting.temperature
            if self.metric == "cosine":
                row["centre"] = setting.centre
            rows.append(row | {"loss": float(loss), "chosen": i == self.chosen_})
        return rows

    def methods_sentence(self) -> str:
        """As in `BaseProbe`."""
        weights = "a softmax of the similarity" if self.weights == "softmax" else f"{self.weights} weights"
        centred = ", the training mean subtracted," if self.metric == "cosine" and self.centre is True else ""
        fixed = [text for text, many in self._settings_in_words() if not many]
        return (
            f"A nearest-neighbour probe{self._search_in_words()} averaged the labels of the k nearest embeddings by "
            f"{self.metric} distance{centred} with {weights}{'; ' if fixed else ''}{' and '.join(fixed)}"
        )

    def selection(self) -> str:
        """As in `BaseProbe`."""
        *most, last = [text for text, many in self._settings_in_words() if many] or [""]
        what = f"{', '.join(most)} and {last}" if most else last
        return f"{what} minimised the squared error" if what else ""

    def _settings_in_words(self) -> list[tuple[str, bool]]:
        """Each setting, and whether it was one of many: "k" if so, else "k was fixed (k = 4)"."""
        ks, temperatures = self._ks(), self._temperatures()
        words = [("k", True) if len(ks) > 1 else (f"k was fixed (k = {ks[0]})", False)]
        if self.weights == "softmax":
            fixed = f"the temperature was fixed ({temperatures[0]:g})"
            words.append(("the temperature", True) if len(temperatures) > 1 else (fixed, False))
        if len(self._centrings()) > 1:
            words.append(("whether the training mean was subtracted", True))
        return words

    def _search_in_words(self) -> str:
        return ""

    def _temperatures(self) -> list[float]:
        if self.weights != "softmax":
            return [float("nan")]
        given = _TEMPERATURES if self.temperature is None else self.temperature
        return sorted(set(np.atleast_1d(np.asarray(given, dtype=np.float64)).tolist()))

    def _centrings(self) -> list[bool]:
        """In the order in which, of equals, the last one is taken."""
        if self.metric != "cosine":
            return [False]  # a shift changes no Euclidean distance
        return [True, False] if self.centre == "auto" else [bool(self.centre)]

    def _ks(self) -> Ints:
        return np.array(sorted(set(_K_GRID if self.k is None else self.k)), dtype=np.int64)

    def _index(self, x: FloatArray) -> ExactNeighbours | FaissNeighbours:
        return ExactNeighbours(x, self.metric)

    def _index_of(self, x: FloatArray, centre: bool) -> tuple[ExactNeighbours | FaissNeighbours, FloatArray]:
        """The index of rows, and what was subtracted from them (D,)."""
        mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype) if centre else np.zeros(x.shape[1], dtype=x.dtype)
        return self._index(x - mean), mean

    def _held_out(self, x: FloatArray, out: Bools, centre: bool, k: int) -> _Found:
        """The k nearest of the other rows for each row that is out."""
        neighbours, mean = self._index_of(x[~out], centre)
        distance, index = neighbours.search(x[out] - mean, k)
        return distance, index.astype(np.int32)

    def _weighted(self, X: npt.ArrayLike) -> Floats:
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        x = x.astype(self.rows_.dtype, copy=False)
        ks, blocks = np.array([self.k_]), []
        for start in range(0, len(x), _QUERY_BLOCK):
            found = self.neighbours_.search(x[start : start + _QUERY_BLOCK] - self.centre_, self.k_)
            blocks.append(self._averages(found, self.targets_, ks, [self.temperature_])[0][0])
        return np.concatenate(blocks)

    def _averages(self, found: _Found, targets: Floats, ks: Ints, temperatures: Sequence[float]) -> list[Floats]:
        """Weighted means (A, Q, T) of the targets of the nearest k neighbours for each of `ks`, by temperature."""
        blocks: list[list[Floats]] = [[] for _ in temperatures]
        for start in range(0, len(found[0]), _QUERY_BLOCK):
            distance, index = (part[start : start + _QUERY_BLOCK, : ks[-1]] for part in found)
            near = targets[index]
            for made, temperature in zip(blocks, temperatures, strict=True):
                weight = np.where(index >= 0, self._weight(distance.astype(np.float64), temperature), 0.0)
                total = np.cumsum(weight, axis=1)[:, ks - 1]
                sums = np.cumsum(weight[:, :, None] * near, axis=1)[:, ks - 1]
                made.append((sums / total[:, :, None]).swapaxes(0, 1))
        return [np.concatenate(made, axis=1) for made in blocks]

    def _weight(self, distance: Floats, temperature: float) -> Floats:
        if self.weights == "uniform":
            return np.ones_like(distance)
        if self.weights == "softmax":
            return np.asarray(np.exp((distance[:, :1] - distance) / temperature))
        # Where a neighbour is the very same point, only such neighbours count.
        same = distance == 0
        return np.where(same.any(axis=1, keepdims=True), same, 1 / np.where(same, 1, distance))

    def _choose(
        self, searches: Mapping[bool, Sequence[_Found]], targets: Floats, parts: Sequence[Bools], ks: Ints
    ) -> int:
        """Position of the setting with the smallest held-out loss; the last of equals, or if nothing was held out."""
        self.grid_ = np.full(len(self.settings_), np.nan)
        if not parts:
            return len(self.settings_) - 1
        losses = np.zeros((len(searches), len(self._temperatures()), len(ks)))
        for i, centred in enumerate(searches.values()):
            for found, out in zip(centred, parts, strict=True):
                for t, averages in enumerate(self._averages(found, targets[~out], ks, self._temperatures())):
                    losses[i, t] += np.square(averages - targets[out]).sum(axis=(1, 2))
        self.grid_ = losses.ravel() / sum(int(out.sum()) for out in parts)
        return len(self.grid_) - 1 - int(self.grid_[::-1].argmin())

    def _check_settings(self) -> None:
        if self.metric not in get_args(_Metric):
            raise ArgumentError(f"metric is {self.metric!r}; allowed are {', '.join(get_args(_Metric))} (--metric)")
        if self.weights not in get_args(_Weights):
            raise ArgumentError(f"weights is {self.weights!r}; allowed are {', '.join(get_args(_Weights))} (--weights)")
        if self.weights == "softmax" and self.metric != "cosine":
            raise ArgumentError("weights='softmax' needs metric='cosine'; with 'euclidean' use 'distance' (--weights)")
        temperatures = self._temperatures()
        if not temperatures or (self.weights == "softmax" and not min(temperatures) > 0):
            raise ArgumentError(f"temperature is {self.temperature}; it must be above 0 (--temperature)")
        if self.centre not in (True, False, "auto"):
            raise ArgumentError(f"centre is {self.centre!r}; allowed are True, False and 'auto' (--centre)")
        if self.k is not None and (not len(self.k) or min(self.k) < 1):
            raise ArgumentError(f"k is {self.k}; one or more whole numbers from 1 are needed (--k)")


_BLOCK_ELEMENTS = 8_000_000


class ExactNeighbours:
    """Exact search among `rows` (N, D), in their own precision.

    Cosine distance is 1 - cosine similarity; a row of zeros is at distance 1 from everything.
    """

    def __init__(self, rows: FloatArray, metric: _Metric) -> None:
        self._metric = metric
        self._rows = _unit_length(rows) if metric == "cosine" else rows
        self._squares = np.einsum("nd,nd->n", self._rows, self._rows)

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Distances (Q, k), ascending, and row numbers (Q, k)."""
        if self._metric == "cosine":
            queries = _unit_length(queries)
        block = max(1, _BLOCK_ELEMENTS // len(self._rows))
        found = [self._search_block(queries[i : i + block], k) for i in range(0, len(queries), block)]
        return np.concatenate([d for d, _ in found]), np.concatenate([i for _, i in found])

    def _search_block(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        products = queries @ self._rows.T
        distance = 1 - products if self._metric == "cosine" else self._squares - 2 * products
        nearest = _smallest(distance, k)
        distance = np.take_along_axis(distance, nearest, axis=1)
        if self._metric == "euclidean":
            distance = self._from_differences(queries, nearest)
        # Of equally near rows the first one comes first, whatever the block.
        order = np.lexsort([nearest, np.maximum(distance, 0)], axis=1)
        sorted_distance = np.take_along_axis(np.maximum(distance, 0), order, axis=1)
        return sorted_distance, np.take_along_axis(nearest, order, axis=1).astype(np.int64)

    def _from_differences(self, queries: FloatArray, nearest: npt.NDArray[np.intp]) -> FloatArray:
        """Exact distances of the few that were found: a difference of squares loses digits where they are near."""
        distance = np.empty(nearest.shape, dtype=queries.dtype)
        for i, (query, rows) in enumerate(zip(queries, nearest, strict=True)):
            distance[i] = np.linalg.norm(self._rows[rows] - query, axis=1)
        return distance


def _smallest(distance: FloatArray, k: int) -> npt.NDArray[np.intp]:
    """Columns (Q, k) of the smallest values of each row, in no order; of equals at the edge those that come first."""
    if k >= distance.shape[1]:
        return np.arange(distance.shape[1])[None].repeat(len(distance), axis=0)
    nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
    edge = np.take_along_axis(distance, nearest, axis=1).max(axis=1)
    for i in np.flatnonzero(np.count_nonzero(distance <= edge[:, None], axis=1) > k):
        near = np.flatnonzero(distance[i] <= edge[i])
        nearest[i] = near[np.argsort(distance[i, near], kind="stable")[:k]]
    return nearest


def _unit_length(rows: FloatArray) -> FloatArray:
    """Rows scaled to length 1; rows of zeros stay zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1).astype(rows.dtype))


_IndexType = Literal["flat", "ivf", "hnsw", "sq8", "pq"]
_Device = Literal["cpu", "gpu"]

_PQ_MIN_ROWS = 256  # centroids of an 8-bit code
_ROWS_PER_CELL = 39  # faiss trains its cells on at least as many
_TRAINED_ON = 20_000  # rows that are enough for what is not a cell; all of them where there are fewer
_ADDED_AT_ONCE = 65_536  # so that no second copy of a large table is made


class FaissNeighbours:
    """Search among `rows` (N, D) in float32 with a faiss index.

    index: "flat", exact; "ivf", inverted lists of about 4 sqrt(N) cells of which `nprobe` are searched; "hnsw", a graph
    of 32 links a node, searched with a list of `ef_search`; "sq8", exact order of 8-bit codes; "pq", product codes of
    one byte for 8 dimensions. device: "cpu", or "gpu" where faiss has one (not for hnsw).
    """

    def __init__(
        self,
        rows: FloatArray,
        metric: _Metric,
        index: _IndexType = "flat",
        *,
        nprobe: int = 16,
        ef_search: int = 128,
        device: _Device = "cpu",
    ) -> None:
        self._metric = metric
        self.index = _new_index(index, rows.shape, self._metric)
        if index == "ivf":
            self.index.nprobe = min(nprobe, self.index.nlist)
        if index == "hnsw":
            self.index.hnsw.efSearch = ef_search
        if device == "gpu":
            self.index = _on_gpu(self.index, index)
        self.index.train(self._prepare(_training_rows(rows, getattr(self.index, "nlist", 0))))
        for start in range(0, len(rows), _ADDED_AT_ONCE):
            self.index.add(self._prepare(rows[start : start + _ADDED_AT_ONCE]))

    def search(self, queries: FloatArray, k: int) -> tuple[FloatArray, Ints]:
        """Distances (Q, k) float32, ascending, and row numbers (Q, k), -1 where fewer were found."""
        distance, found = self.index.search(self._prepare(queries), k)
        distance = 1 - distance if self._metric == "cosine" else np.sqrt(np.maximum(distance, 0))
        return np.where(found >= 0, np.maximum(distance, 0), np.inf).astype(np.float32), found

    def _prepare(self, rows: FloatArray) -> Floats32:
        scaled = _unit_length(rows) if self._metric == "cosine" else rows
        return np.ascontiguousarray(scaled, dtype=np.float32)


@dataclass(eq=False, repr=False)
class FaissKNNProbe(KNNProbe):
    """`KNNProbe` on a faiss index; with index="flat" the two agree to float32.

    index, nprobe, ef_search, device: as in `FaissNeighbours`. The rest as in `KNNProbe`.
    """

    name = "Nearest-neighbour probe (faiss)"

    _: KW_ONLY
    index: _IndexType = "flat"
    nprobe: int = 16
    ef_search: int = 128
    device: _Device = "cpu"

    def _search_in_words(self) -> str:
        return f" (faiss, {self.index} index)"

    def _index(self, x: FloatArray) -> ExactNeighbours | FaissNeighbours:
        return FaissNeighbours(
            x, self.metric, self.index, nprobe=self.nprobe, ef_search=self.ef_search, device=self.device
        )

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.index not in get_args(_IndexType):
            raise ArgumentError(f"index is {self.index!r}; allowed are {', '.join(get_args(_IndexType))} (--index)")
        if self.device not in get_args(_Device):
            raise ArgumentError(f"device is {self.device!r}; allowed are {', '.join(get_args(_Device))} (--device)")


def index_recipe(index: _IndexType, n: int, d: int) -> str:
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


def _new_index(index: _IndexType, shape: tuple[int, ...], metric: _Metric) -> Any:
    import faiss

    measure = faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2
    return faiss.index_factory(shape[1], index_recipe(index, shape[0], shape[1]), measure)


def _training_rows(rows: FloatArray, cells: int) -> FloatArray:
    """Rows that cells and codes are learned from: more of them make it slower, not better."""
    enough = max(_TRAINED_ON, (_ROWS_PER_CELL + 1) * cells)
    if len(rows) <= enough:
        return rows
    return rows[np.sort(np.random.default_rng(0).choice(len(rows), enough, replace=False))]


def _on_gpu(built: Any, index: _IndexType) -> Any:
    if index == "hnsw":
        raise ArgumentError("faiss has no HNSW on the GPU; use --index flat or ivf, or --device cpu")
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise ArgumentError(
            "this faiss sees no GPU (--device gpu): install faiss-gpu-cu12 in place of faiss-cpu, or use --device cpu"
        )
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, built)
