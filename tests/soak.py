"""Thousands of videos, some of them broken, through the real command: memory, throughput, and what became of each.

    python -m tests.soak --videos 2000

Compares the peak of the whole process tree's memory on all videos with that on the first hundred; exit code 1 if it
grows by more than a tenth or a video is lost. Prints the processor time that a video takes in each quarter of the run,
of the whole tree too: other work on the machine makes the run longer, not this.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from panecho_embed.core.errors import StoreError
from panecho_embed.phantoms import write_studies
from panecho_embed.store import EmbeddingFile, verify

MOST_GROWTH = 1.10
"""Of the peak of memory, from a hundred videos to all."""

_FEW = 100
_BROKEN_EVERY = 20
_DIFFERENT = 40
_OPTIONS = ["--backbone", "random", "--image-size", "32", "--engine-backend", "eager"]


@dataclass(slots=True)
class Run:
    """One run of the command.

    peak_bytes: resident memory of it and its workers. parts: by name, the seconds of computing when it was there, and
    the videos in it.
    """

    exit_code: int = -1
    output: str = ""
    peak_bytes: int = 0
    seconds: float = 0.0
    parts: dict[str, tuple[float, int]] = field(default_factory=dict)

    def quarters(self) -> list[float]:
        """Seconds of computing that a video took, in each quarter of the run, from the first part on."""
        marks = sorted(self.parts.values())
        seconds, videos = [0.0] * 4, [0] * 4
        whole, seen = sum(count for _, count in marks[1:]), 0
        for before, after in itertools.pairwise(marks):
            quarter = min(4 * seen // whole, 3)
            seconds[quarter] += after[0] - before[0]
            videos[quarter] += after[1]
            seen += after[1]
        return [second / count if count else float("nan") for second, count in zip(seconds, videos, strict=True)]


def make_videos(folder: Path, count: int) -> set[str]:
    """So many small videos in `folder`, every twentieth broken in one of five ways; the ids of the broken ones."""
    whole = write_studies(folder.with_name("whole"), patients=_DIFFERENT, num_frames=16, size=64)
    cut = folder.with_name("cut.avi")
    cut.write_bytes(whole[0].read_bytes()[:-3000])
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 512, 512, 3), }"
    broken = {
        ".avi": [cut.read_bytes(), b"", b"no video", np.random.default_rng(0).bytes(5000)],
        ".npy": [header.ljust(128) + b"\n"],
    }
    ways = [(suffix, data) for suffix, contents in broken.items() for data in contents]
    folder.mkdir()
    ids = set()
    for i in range(count):
        if i % _BROKEN_EVERY == 7:
            suffix, data = ways[i // _BROKEN_EVERY % len(ways)]
            (folder / f"v{i:06d}{suffix}").write_bytes(data)
            ids.add(f"v{i:06d}{suffix}")
        else:
            os.link(whole[i % _DIFFERENT], folder / f"v{i:06d}.avi")
    return ids


def run_extract(source: Path, out: Path, workers: int = 1) -> Run:
    """Run the command and watch its memory and its parts."""
    command = [sys.executable, "-m", "panecho_embed", "extract", str(source), "-o", str(out), *_OPTIONS]
    run, began = Run(), time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        # Threads that wait for each other would count as computing the more, the busier the machine is.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        command += ["--workers", str(workers)]
        child = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        while child.poll() is None:
            tree_bytes, computed = _tree(child)
            run.peak_bytes = max(run.peak_bytes, tree_bytes)
            _see_parts(out.with_name(f"{out.name}.parts"), run, computed)
            time.sleep(0.05)
        run.exit_code, run.seconds = child.returncode, time.monotonic() - began
        log.seek(0)
        run.output = log.read()
    return run


def _tree(process: psutil.Process) -> tuple[int, float]:
    """Resident bytes of a process and its children, and seconds of computing so far, of those that ended too."""
    held, computed = 0, 0.0
    for one in (process, *_children(process)):
        try:
            held += one.memory_info().rss
            computed += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return held, computed


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _see_parts(folder: Path, run: Run, computed: float) -> None:
    for path in folder.glob("part-*.h5"):
        if path.name not in run.parts:
            try:
                run.parts[path.name] = computed, len(EmbeddingFile(path).manifest())
            except (StoreError, OSError):
                # Merged and removed meanwhile.
                continue


def losses(out: Path, ids: set[str], broken: set[str]) -> list[str]:
    """What is wrong with a file that should hold these videos, and these of them as failures."""
    file = EmbeddingFile(out)
    problems = list(verify(out))
    there = {video.video_id for video in file.manifest().videos}
    failed = {failure.video_id for failure in file.failure_records()}
    rows = set(file.rows["video_id"])
    problems += [f"{len(ids ^ there)} videos are lost or new"] if ids != there else []
    problems += [f"other failures than made: {sorted(failed ^ broken)[:5]}"] if failed != broken else []
    problems += [f"{len(rows ^ (ids - broken))} videos without rows"] if rows != ids - broken else []
    return problems


def soak(folder: Path, videos: int, workers: int = 1) -> tuple[Run, Run, list[str]]:
    """Extract a hundred and then all of `videos` videos; both runs, and what is wrong."""
    problems, runs = [], []
    for count in (_FEW, videos):
        here = folder / str(count)
        here.mkdir()
        broken = make_videos(here / "videos", count)
        run = run_extract(here / "videos", here / "out.h5", workers)
        runs.append(run)
        if run.exit_code != 3 or f"{len(broken)} failed" not in run.output:
            problems.append(f"exit code {run.exit_code}: {run.output[-2000:]}")
            continue
        ids = {path.name for path in (here / "videos").iterdir()}
        problems += losses(here / "out.h5", ids, broken)
    few, many = runs
    if many.peak_bytes > MOST_GROWTH * few.peak_bytes:
        problems.append(f"memory grows from {few.peak_bytes >> 20} to {many.peak_bytes >> 20} MiB")
    return few, many, problems


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few, many, problems = soak(Path(folder), arguments.videos, arguments.workers)
    print(f"peak of memory: {few.peak_bytes >> 20} MiB on {_FEW} videos, {many.peak_bytes >> 20} MiB on ", end="")
    print(f"{arguments.videos} ({many.peak_bytes / few.peak_bytes:.3f} times)")
    quarters = many.quarters()
    each = ", ".join(f"{1000 * seconds:.2f}" for seconds in quarters)
    print(f"ms of computing a video, by quarters of the run: {each} (last to first {quarters[3] / quarters[0]:.3f})")
    print(f"{arguments.videos} videos in {many.seconds:.0f} s, exit code {many.exit_code}")
    print("\n".join(problems) or "nothing lost")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
