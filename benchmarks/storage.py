"""What rows a chunk and which compression do to the embeddings of an HDF5 file: size, writing, reading.

Rows lie close to each other as those of one video do. Reading is from the page cache, so that the format is measured
and not the disk; "memory map" is the same data in one piece, without chunks and checksums.

    python benchmarks/storage.py --rows 100000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

DIM = 768
PACKED: dict[str, dict[str, Any]] = {
    "none": {},
    "fletcher32": {"fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "gzip 1": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
}


def seconds(run: Callable[[], object]) -> float:
    """The faster of two runs."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def write(path: Path, values: np.ndarray, **options: Any) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("embeddings", values.shape, values.dtype, **options)
        for start in range(0, len(values), 1365):
            dataset[start : start + 1365] = values[start : start + 1365]


def read_some(path: Path, rows: np.ndarray) -> None:
    with h5py.File(path) as file:
        for row in rows:
            file["embeddings"][row]


def read_all(path: Path) -> None:
    with h5py.File(path) as file:
        file["embeddings"][...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--chunk-rows", type=int, nargs="+", default=[1, 16, 85, 341])
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    centres = np.repeat(generator.standard_normal((arguments.rows // 4 + 1, DIM)), 4, axis=0)[: arguments.rows]
    some = generator.integers(0, arguments.rows, 500)
    print("| dtype | rows a chunk | packed | MB | write MB/s | read all MB/s | one row, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.h5"
        for dtype in (np.float32, np.float16):
            values = (centres + 0.1 * generator.standard_normal(centres.shape)).astype(dtype)
            megabytes = values.nbytes / 1e6
            layouts: list[tuple[str, str, dict[str, Any]]] = [("all", "none (memory map)", {})]
            layouts += [("85" if dtype is np.float32 else "170", name, options) for name, options in PACKED.items()]
            layouts += [(str(rows), "fletcher32", PACKED["fletcher32"]) for rows in arguments.chunk_rows]
            for rows, name, options in layouts:
                chunks = {} if rows == "all" else {"chunks": (int(rows), DIM)}
                wrote = seconds(lambda v=values, o={**options, **chunks}: write(path, v, **o))
                if rows == "all":
                    with h5py.File(path) as file:
                        offset = file["embeddings"].id.get_offset()
                    mapped = np.memmap(path, values.dtype, "r", offset, values.shape)
                    everything, one = seconds(lambda m=mapped: m.copy()), seconds(lambda m=mapped: m[some].sum())
                else:
                    everything, one = seconds(lambda: read_all(path)), seconds(lambda: read_some(path, some))
                print(
                    f"| {values.dtype} | {rows} | {name} | {path.stat().st_size / 1e6:.0f} | {megabytes / wrote:.0f} | "
                    f"{megabytes / everything:.0f} | {1000 * one / len(some):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
