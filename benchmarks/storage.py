"""How fast embeddings are written and read: layouts of an HDF5 file, and readers of a file as this package writes it.

Rows lie close to each other as those of one video do. Every speed is a share of a plain read of the same bytes, by
`readinto`: "warm" from the page cache, "cold" after the kernel was asked to forget the file (POSIX_FADV_DONTNEED; what
the disk or the host of a virtual machine keeps, it can't be asked to forget). Readers read 65,536 rows at a time, so
that memory for three gigabytes at once is not what is measured.

    python benchmarks/storage.py --rows 100000 --reading-rows 1000000 --folder storage/
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from panecho_embed.store.mapped import Read, rows_on_disk

from panecho_embed.clips import ClipPlan
from panecho_embed.provenance import Preprocess, Provenance, WeightsInfo
from panecho_embed.records import Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingFile, EmbeddingWriter

DIM = 768
SOME, BLOCK_ROWS = 2000, 65_536
LAYOUTS: list[tuple[str, int, dict[str, Any]]] = [
    ("one piece", 0, {}),
    *(("Fletcher-32", kib, {"fletcher32": True}) for kib in (3, 64, 256, 1024)),
    ("none", 256, {}),
    ("LZF", 256, {"compression": "lzf", "shuffle": True}),
    ("gzip 1", 256, {"compression": "gzip", "compression_opts": 1, "shuffle": True}),
]
"""Packed or checked by what, KiB a chunk (0: no chunks), and what h5py is told."""


def seconds(run: Callable[[], object], before: Callable[[], object] = lambda: None, times: int = 3) -> float:
    """The fastest of some runs, each after `before`, which is not counted."""
    best = float("inf")
    for _ in range(times):
        before()
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best


def forget(path: Path) -> None:
    """Ask the kernel to drop what it keeps of a file in memory."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_plainly(path: Path, start: int = 0, stop: int | None = None) -> np.ndarray:
    """The bytes of a file from one to below the other."""
    values = np.empty((path.stat().st_size if stop is None else stop) - start, np.uint8)
    view, place = memoryview(values), 0
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while count := stream.readinto(view[place : place + (8 << 20)]):
            place += count
    return values


def write(path: Path, values: np.ndarray, options: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("embeddings", values.shape, values.dtype, **options)
        for start in range(0, len(values), 1365):
            dataset[start : start + 1365] = values[start : start + 1365]


def read_all(path: Path) -> None:
    with h5py.File(path) as file:
        file["embeddings"][...]


def read_mapped(path: Path, rows: slice = slice(None)) -> bool:
    """Whether that can be done."""
    with h5py.File(path) as file:
        found = rows_on_disk(file["embeddings"], lambda *_: np.empty(0))
    return found.mapped and found[rows] is not None


def read_some(path: Path, rows: np.ndarray) -> None:
    with h5py.File(path) as file:
        dataset = file["embeddings"]
        for row in rows:
            dataset[row]


def similar(rows: int, generator: np.random.Generator) -> np.ndarray:
    """Fours of rows that differ by a tenth, (rows, 768) float32."""
    values = np.repeat(generator.standard_normal((rows // 4 + 1, DIM), np.float32), 4, axis=0)[:rows]
    values += 0.1 * generator.standard_normal((rows, DIM), np.float32)
    return values


def layouts(path: Path, rows: int) -> None:
    """A line for every layout: size, and speeds from the page cache as shares of a plain read's."""
    generator = np.random.default_rng(0)
    values32 = similar(rows, generator)
    some = generator.integers(0, rows, SOME)
    print(f"{rows} rows of {DIM}, warm; speeds as shares of a plain read\n")
    print("| stored | KiB a chunk | packed or checked by | size | write | all by HDF5 | all mapped | a row by HDF5 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for dtype in (np.float32, np.float16):
        values = values32.astype(dtype)
        for name, kib, options in LAYOUTS:
            chunks = {"chunks": (max(kib * 1024 // (DIM * values.itemsize), 1), DIM)} if kib else {}
            wrote = seconds(lambda v=values, o={**options, **chunks}: write(path, v, o), times=1)
            size = path.stat().st_size
            # As many bytes as the values have, whatever the file's size.
            plain = seconds(lambda: read_plainly(path)) * values.nbytes / size
            h5 = seconds(lambda: read_all(path))
            mapped = seconds(lambda: read_mapped(path)) if read_mapped(path, slice(1)) else float("inf")
            one = seconds(lambda: read_some(path, some)) / SOME
            print(
                f"| {values.dtype} | {kib or 'none'} | {name} | {size / values.nbytes:.2f} | {plain / wrote:.2f} | "
                f"{plain / h5:.2f} | {'-' if mapped == float('inf') else f'{plain / mapped:.2f}'} | "
                f"{1e6 * one:.0f} µs |",
                flush=True,
            )
    path.unlink()


def fabricate(path: Path, rows: int) -> None:
    """An embedding file of one video with so many rows, and `path`.npy with the same numbers."""
    info = WeightsInfo("random", "0" * 64, "none", pretrained=False)
    made = Provenance("random", info, Preprocess(), ClipPlan(), "clip", dim=DIM)
    values = similar(4096, np.random.default_rng(0))
    plain = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.float32, (rows, DIM))
    with EmbeddingWriter(path, made) as writer:
        for start in range(0, rows, len(values)):
            count = min(len(values), rows - start)
            plain[start : start + count] = values[:count]
            writer.add(0, values[:count], np.arange(start, start + count), 1.0, 16)
        video = VideoRef("video", "study", "patient", "video.avi")
        writer.finish(Manifest((video,)), [VideoFacts("done", num_frames=rows)], [])
    plain.flush()


def readers(path: Path, rows: int) -> None:
    """A line for every way to read an embedding file."""
    if not path.exists() or len(EmbeddingFile(path)) != rows:
        fabricate(path, rows)
    array = path.with_suffix(".npy")
    some = np.random.default_rng(1).integers(0, rows, SOME)
    file, per_row = EmbeddingFile(path), path.stat().st_size / rows
    ways: list[tuple[str, Path, Callable[[], Read], Callable[[], object] | None]] = [
        (
            "plain read of the embedding file",
            path,
            lambda: lambda start, stop: read_plainly(path, int(start * per_row), int(stop * per_row)),
            None,
        ),
        (
            "`np.load(mmap_mode)` of the array in one piece",
            array,
            lambda: (lambda mapped: lambda start, stop: np.array(mapped[start:stop]))(np.load(array, mmap_mode="r")),
            lambda: np.load(array, mmap_mode="r")[some],
        ),
        ("`EmbeddingFile.read`", path, lambda: file.read, lambda: read_some(path, some)),
        (
            "`EmbeddingFile.mapped`",
            path,
            lambda: (lambda mapped: lambda start, stop: mapped[start:stop])(file.mapped()),
            lambda: file.mapped()[some],
        ),
    ]
    gigabytes = rows * DIM * 4 / 1e9
    print(f"\n{rows} rows of {DIM}, float32, {gigabytes:.2f} GB\n")
    print(f"| reader | cold | as fast as plain | warm | as fast as plain | {SOME} rows anywhere, warm |")
    print("| --- | --- | --- | --- | --- | --- |")
    plain: tuple[float, float] | None = None
    for name, source, opened, a_few in ways:
        # Room in the page cache for the one that is read.
        forget(array if source == path else path)
        cold = seconds(lambda o=opened: in_blocks(o(), rows), lambda source=source: forget(source))
        warm = seconds(lambda o=opened: in_blocks(o(), rows))
        plain = plain or (cold, warm)
        few = f"{1e3 * seconds(a_few):.1f} ms" if a_few else ""
        print(
            f"| {name} | {gigabytes / cold:.2f} GB/s | {plain[0] / cold:.2f} | {gigabytes / warm:.2f} GB/s | "
            f"{plain[1] / warm:.2f} | {few} |",
            flush=True,
        )


def in_blocks(read: Read, rows: int) -> None:
    for start in range(0, rows, BLOCK_ROWS):
        read(start, min(start + BLOCK_ROWS, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="of the layouts that are compared; 0 for none")
    parser.add_argument("--reading-rows", type=int, default=1_000_000, help="of the file that is read; 0 for none")
    parser.add_argument("--folder", type=Path, default=Path("storage"), help="kept, so that the file is made once")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.rows:
        layouts(arguments.folder / "layout.h5", arguments.rows)
    if arguments.reading_rows:
        readers(arguments.folder / f"{arguments.reading_rows}.h5", arguments.reading_rows)


if __name__ == "__main__":
    main()
