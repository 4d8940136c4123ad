"""faiss indexes on clustered vectors: recall@10 against exact search, time per query, time to build, size.

    python benchmarks/probe_faiss.py                                    100,000 vectors of 768
    python benchmarks/probe_faiss.py --rows 1000000 --folder big/       8 GB of memory, 13 GB of disk, half an hour
    python benchmarks/probe_faiss.py --indexes flat,ivf

With --folder the vectors and the indexes stay there, and what is there already is not built again: build them at any
time, and ask again when nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from probes.knn import FaissNeighbours, index_recipe

CLUSTERS = 1000
NOISE = 0.7  # of each coordinate around a centre, whose coordinates have a standard deviation of 1
SMALL = np.zeros((256, 8), dtype=np.float32)


def clustered(path: Path, rows: int, dim: int) -> np.ndarray:
    """Vectors (rows, dim) float32 around random centres, mapped from a file, made in blocks to stay in memory."""
    if path.exists():
        return np.load(path, mmap_mode="r")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, dim)).astype(np.float32)
    x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    for start in range(0, rows, 50_000):
        part = x[start : start + 50_000]
        part[:] = centres[rng.integers(0, CLUSTERS, len(part))]
        part += NOISE * rng.standard_normal(part.shape, dtype=np.float32)
    x.flush()
    return x


def neighbours(folder: Path, rows: np.ndarray, name: str) -> tuple[FaissNeighbours, float, int]:
    """The index, the seconds that building it took, and its bytes."""
    path, note = folder / f"{name}.faiss", folder / f"{name}.json"
    if note.exists():
        found = FaissNeighbours(SMALL, "cosine")
        found.index = faiss.read_index(str(path))
        return found, json.loads(note.read_text())["seconds"], path.stat().st_size
    start = time.perf_counter()
    found = FaissNeighbours(rows, "cosine", name)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    faiss.write_index(found.index, str(path))
    note.write_text(json.dumps({"seconds": seconds, "recipe": index_recipe(name, *rows.shape)}))  # type: ignore[arg-type]
    return found, seconds, path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--indexes", default="flat,ivf,hnsw,sq8,pq")
    parser.add_argument("--folder", type=Path, help="keep vectors and indexes here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        x = clustered(folder / "vectors.npy", arguments.rows + arguments.queries, arguments.dim)
        compare(folder, x[: arguments.rows], np.asarray(x[arguments.rows :]), arguments.indexes.split(","))


def compare(folder: Path, rows: np.ndarray, queries: np.ndarray, names: list[str]) -> None:
    """Print a line an index; "faster" and "size" are ratios to exact search in the same run."""
    print(f"{len(rows):,} x {rows.shape[1]}, {len(queries)} queries at once, {faiss.omp_get_max_threads()} threads")
    print(f"{'index':6s}{'recipe':>16s}{'recall@10':>11s}{'ms/query':>10s}{'faster':>8s}{'size':>7s}{'build s':>10s}")
    exact, exact_seconds, exact_bytes = np.empty(0), 0.0, 0
    for name in ["flat", *(name for name in names if name != "flat")]:
        index, built, size = neighbours(folder, rows, name)
        index.search(queries[:8], 10)
        start = time.perf_counter()
        _, found = index.search(queries, 10)
        seconds = time.perf_counter() - start
        if name == "flat":
            exact, exact_seconds, exact_bytes = found, seconds, size
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
        print(
            f"{name:6s}{index_recipe(name, *rows.shape):>16s}{recall:11.3f}{1000 * seconds / len(queries):10.3f}"  # type: ignore[arg-type]
            f"{exact_seconds / seconds:8.1f}{size / exact_bytes:7.2f}{built:10.1f}",
            flush=True,
        )
        del index  # before the next one takes its place in memory


if __name__ == "__main__":
    main()
