"""faiss indexes on clustered vectors: build time, recall@10 against exact search, time per query, size.

python benchmarks/probe_faiss.py                         100,000 vectors of 768
python benchmarks/probe_faiss.py --rows 1000000          needs about 12 GB of memory and an hour on 2 cores
python benchmarks/probe_faiss.py --indexes flat,ivf
"""

from __future__ import annotations

import argparse
import time

import faiss
import numpy as np

from probes.faiss_knn import FaissNeighbours


def clustered(rows: int, dim: int, clusters: int = 1000) -> np.ndarray:
    """Vectors around random centres, made in blocks to stay in memory."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(clusters, dim)).astype(np.float32)
    x = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, rows, 50_000):
        part = x[start : start + 50_000]
        part[:] = centres[rng.integers(0, clusters, len(part))]
        part += rng.standard_normal(part.shape, dtype=np.float32) * 0.7
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--indexes", default="flat,ivf,hnsw,sq8,pq")
    arguments = parser.parse_args()
    x = clustered(arguments.rows + arguments.queries, arguments.dim)
    rows, queries = x[: arguments.rows], x[arguments.rows :]
    exact: np.ndarray | None = None
    print(f"{arguments.rows:,} x {arguments.dim}, {arguments.queries} queries, {faiss.omp_get_max_threads()} threads")
    print(f"{'index':6s}{'build s':>10s}{'recall@10':>11s}{'ms/query':>10s}{'MB':>8s}")
    for name in arguments.indexes.split(","):
        start = time.perf_counter()
        neighbours = FaissNeighbours(rows, "cosine", name)  # type: ignore[arg-type]
        built = time.perf_counter() - start
        start = time.perf_counter()
        _, found = neighbours.search(queries, 10)
        per_query = 1000 * (time.perf_counter() - start) / len(queries)
        if exact is None:
            exact = found if name == "flat" else FaissNeighbours(rows, "cosine", "flat").search(queries, 10)[1]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
        size = faiss.serialize_index(neighbours.index).nbytes / 1e6
        print(f"{name:6s}{built:10.1f}{recall:11.3f}{per_query:10.3f}{size:8.0f}", flush=True)


if __name__ == "__main__":
    main()
