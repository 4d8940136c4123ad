"""What a million videos cost a job array beside their decoding and encoding: table, shares, parts, resume, merge.

Each step runs in a separate process on fabricated parts, and prints its seconds by the clock and of the processor,
and its peak of memory; twice as many videos must take about twice as long.

    python benchmarks/million_videos.py --videos 100000 --shards 16
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VIDEOS_A_PART = 256
ROWS_A_VIDEO = 4


def make_table(folder: Path, videos: int) -> None:
    """A table of `videos` rows with ids, a number and a text as labels; all name one file."""
    (folder / "video.avi").write_bytes(b"a video")
    with (folder / "videos.csv").open("w") as table:
        table.write("path,video_id,study_id,patient_id,view,split,EF,device\n")
        for i in range(videos):
            table.write(
                f"video.avi,p{i // 20:06}/s{i // 10:06}/v{i:07}.dcm,study-{i // 10:016x},patient-{i // 20:016x},A4C,,"
                f"{40 + i % 30},scanner {i % 7}\n"
            )


def provenance(dim: int) -> Any:
    from panecho_embed.core.clips import ClipPlan
    from panecho_embed.core.feeding import Feeding
    from panecho_embed.core.provenance import Provenance, WeightsInfo

    weights = WeightsInfo("random (seed 0)", "ab" * 32, "none", pretrained=False)
    return Provenance("random", weights, Feeding(), ClipPlan(), "clip", dim=dim)


def read_table(folder: Path, _: argparse.Namespace) -> None:
    from panecho_embed.datasets import read_manifest

    read_manifest(folder / "videos.csv")


def write_parts(folder: Path, arguments: argparse.Namespace) -> None:
    """The parts that the shards of a job array leave behind, one video in a hundred failed."""
    from panecho_embed.core.content import stamp
    from panecho_embed.core.records import Failure, VideoFacts
    from panecho_embed.core.shards import Shard
    from panecho_embed.datasets import read_manifest
    from panecho_embed.store import EmbeddingWriter, Parts

    manifest = read_manifest(folder / "videos.csv")
    seen = stamp(folder / "video.avi")
    values = np.random.default_rng(0).standard_normal((ROWS_A_VIDEO, arguments.dim)).astype(np.float32)
    for i in range(1, arguments.shards + 1):
        with Parts(folder / "out.h5", shard=Shard(i, arguments.shards)) as parts:
            started = time.perf_counter()
            parts.begin(manifest, provenance(arguments.dim))
            share = parts.share(manifest)
            if i == 1:
                print(f"    of which a shard's begin and share {time.perf_counter() - started:.1f} s", flush=True)
            for start in range(0, len(share), VIDEOS_A_PART):
                positions = share[start : start + VIDEOS_A_PART]
                facts, failures = [], []
                with EmbeddingWriter(parts.new_path(), provenance(arguments.dim)) as writer:
                    for place, position in enumerate(positions):
                        video = manifest.videos[position]
                        if position % 100 == 99:
                            facts.append(VideoFacts("failed", size_bytes=seen.size_bytes, mtime_ns=seen.mtime_ns))
                            failures.append(Failure(video.video_id, video.path, "decode", "broken"))
                            continue
                        sha256 = f"{position:064x}"
                        facts.append(VideoFacts("done", sha256, 64, 30.0, "container", seen.size_bytes, seen.mtime_ns))
                        writer.add(place, values, np.arange(ROWS_A_VIDEO) * 16, 1, 16)
                    writer.finish(manifest.take(positions), facts, failures)


def resume_shard(folder: Path, arguments: argparse.Namespace) -> None:
    """What the first shard does when it is started again and everything is done."""
    from panecho_embed.core.shards import Shard
    from panecho_embed.datasets import read_manifest
    from panecho_embed.store import Parts

    manifest = read_manifest(folder / "videos.csv")
    with Parts(folder / "out.h5", shard=Shard(1, arguments.shards)) as parts:
        started = time.perf_counter()
        parts.begin(manifest, provenance(arguments.dim))
        print(f"    of which begin {time.perf_counter() - started:.1f} s", flush=True)
        started = time.perf_counter()
        todo = parts.todo(manifest)
        print(f"    of which todo {time.perf_counter() - started:.1f} s", flush=True)
        failed = sum(position % 100 == 99 for position in parts.share(manifest))
    assert len(todo) == failed, "what failed, and nothing else, is to be done again"


def merge(folder: Path, _: argparse.Namespace) -> None:
    """`panecho-embed merge`."""
    from panecho_embed.extraction.merging import merge as run

    summary = run(folder / "out.h5")
    assert summary.exit_code == 3, "one video in a hundred has failed"


def verify(folder: Path, _: argparse.Namespace) -> None:
    from panecho_embed.store import verify as run

    assert run(folder / "out.h5") == []


STEPS: tuple[Callable[[Path, argparse.Namespace], None], ...] = (read_table, write_parts, resume_shard, merge, verify)


def measured(step: Callable[[Path, argparse.Namespace], None], folder: Path, arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    step(folder, arguments)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    print(f"| {step.__name__} | {seconds:.1f} s | {processor:.1f} s | {peak:.2f} GiB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--dim", type=int, default=768)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_table(Path(folder), arguments.videos)
        print(
            f"| {arguments.videos} videos, {arguments.shards} shards | time | CPU | peak |\n| --- | --- | --- | --- |",
            flush=True,
        )
        for step in STEPS:
            process = multiprocessing.get_context("spawn").Process(
                target=measured, args=(step, Path(folder), arguments)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{step.__name__} ended with {process.exitcode}")


if __name__ == "__main__":
    main()
