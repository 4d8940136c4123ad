"""How fast an embedding file is written and read, beside a plain write and a plain read of the same bytes.

The ways are taken in turn, several times, and the fastest run of each counts. Reads are warm, from the page cache.
Where others use the machine, `--clock cpu` counts this process's own time: nothing here waits except for the disk.

    python benchmarks/storage.py --rows 60000 --videos 100000 --folder storage/
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingFile, EmbeddingWriter
from panecho_embed.store.write import place_of_rows

DIM = 768
SOME, STEP = 2000, 8 << 20


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(ways: dict[str, Callable[[], object]], times: int, clock: Callable[[], float]) -> dict[str, float]:
    """The fastest run of each way, taken in turn."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(times):
        for name, run in ways.items():
            started = clock()
            run()
            best[name] = min(best[name], clock() - started)
    return best


def provenance() -> Provenance:
    info = WeightsInfo("random", "0" * 64, "none", pretrained=False)
    return Provenance("random", info, Feeding(), ClipPlan(), "clip", dim=DIM)


def videos(count: int) -> tuple[VideoRef, ...]:
    return tuple(
        VideoRef(f"0X{i:016X}", f"study-{i // 4}", f"patient-{i // 8}", f"/data/Videos/0X{i:016X}.avi")
        for i in range(count)
    )


def write(path: Path, values: np.ndarray) -> None:
    """Write rows as `extract` does, a video's at a time."""
    refs = videos(len(values) // 4)
    with EmbeddingWriter(path, provenance()) as writer:
        for i in range(len(refs)):
            writer.add(i, values[4 * i : 4 * i + 4], np.arange(4), 1.0, 16)
        writer.finish(Manifest(refs), [VideoFacts("done", "ab" * 32, num_frames=64)] * len(refs), [])


def write_in_blocks(path: Path, values: np.ndarray) -> None:
    """Write rows as `merge` does."""
    refs = videos(1)
    with EmbeddingWriter(path, provenance()) as writer:
        for start in range(0, len(values), 16_384):
            some = values[start : start + 16_384]
            writer.add(0, some, np.arange(start, start + len(some)), 1.0, 16)
        writer.finish(Manifest(refs), [VideoFacts("done", num_frames=len(values))], [])


def write_plainly(path: Path, values: np.ndarray) -> None:
    with path.open("wb", buffering=0) as stream:
        view = memoryview(values.reshape(-1).view(np.uint8))
        for start in range(0, len(view), STEP):
            stream.write(view[start : start + STEP])
        os.fsync(stream.fileno())


def read_plainly(path: Path, start: int, size: int) -> np.ndarray:
    """The same bytes: where they lie decides too how fast they are copied."""
    values = np.empty(size, np.uint8)
    view, place = memoryview(values), 0
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while count := stream.readinto(view[place : place + STEP]):
            place += count
    return values


def read_by_hdf5(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        values: np.ndarray = file["embeddings"][:]
    return values


def rows(folder: Path, count: int, times: int, clock: Callable[[], float]) -> None:
    """Lines for writing and reading rows."""
    values = np.random.default_rng(0).standard_normal((count, DIM), np.float32)
    path, plain = folder / "rows.h5", folder / "rows.bin"
    write(path, values)
    file = EmbeddingFile(path)
    file.rows_on_disk[:]
    some = np.random.default_rng(1).integers(0, count, SOME).tolist()
    taken = seconds(
        {
            "plain write": lambda: write_plainly(plain, values),
            "write as `merge` does": lambda: write_in_blocks(folder / "blocks.h5", values),
        },
        times,
        clock,
    )
    taken |= seconds(
        {
            "plain read": lambda: read_plainly(path, place_of_rows(), values.nbytes),
            "everything, opened and checked": lambda: EmbeddingFile(path).embeddings,
            "everything, checked before": lambda: file.embeddings,
            "everything by h5py, not checked": lambda: read_by_hdf5(path),
            f"{SOME} rows one by one, checked before": lambda: [file.rows_on_disk[row] for row in some],
            f"{SOME} rows at once, checked before": lambda: file.rows_on_disk[some],
        },
        times,
        clock,
    )
    gigabytes = values.nbytes / 1e9
    print(f"{count} rows of {DIM} float32, {gigabytes:.2f} GB\n")
    print("| what | time | speed | as fast as plain |\n| --- | --- | --- | --- |")
    for name, took in taken.items():
        if name.startswith(str(SOME)):
            print(f"| {name} | {1e6 * took / SOME:.1f} µs a row | | |")
            continue
        beside = taken["plain write" if "write" in name else "plain read"]
        print(f"| {name} | {1e3 * took:.0f} ms | {gigabytes / took:.2f} GB/s | {beside / took:.2f} |")


def ids(folder: Path, count: int, times: int, clock: Callable[[], float]) -> None:
    """Lines for a file of many videos."""
    path, refs = folder / "ids.h5", videos(count)
    with EmbeddingWriter(path, provenance()) as writer:
        writer.add(np.arange(count), np.zeros((count, DIM), np.float32), np.zeros(count, int), 1.0, 16)
        writer.finish(Manifest(refs), [VideoFacts("done", "ab" * 32, 64, 30.0, "container", 1, 2)] * count, [])
    file = EmbeddingFile(path)
    taken = seconds(
        {
            "open, and check every column": lambda: EmbeddingFile(path),
            "ids of all videos": lambda: file.read_videos(["video_id"]),
        },
        times,
        clock,
    )
    print(f"\n{count} videos\n\n| what | time |\n| --- | --- |")
    for name, took in taken.items():
        print(f"| {name} | {1e3 * took:.1f} ms |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000, help="rows of the file that is written and read")
    parser.add_argument("--videos", type=int, default=100_000, help="videos of the file whose ids are read")
    parser.add_argument("--times", type=int, default=7, help="runs of each, of which the fastest counts")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="the clock, or this process's own time")
    parser.add_argument("--folder", type=Path, default=Path("storage"), help="where the files are written")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}\n")
    clock = CLOCKS[arguments.clock]
    rows(arguments.folder, arguments.rows, arguments.times, clock)
    ids(arguments.folder, arguments.videos, arguments.times, clock)


if __name__ == "__main__":
    main()
