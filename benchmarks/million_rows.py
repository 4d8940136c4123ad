"""The commands that look at a file of a million rows: seconds and peak of memory, whole processes.

The file is fabricated with the settings of a real extraction: four rows a video, ids, and one label.

    python benchmarks/million_rows.py --rows 1000000 --folder million/
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MODEL = ("--backbone", "random", "--image-size", "112")


def command(name: str, *words: object) -> None:
    """Run a command of panecho-embed, and print its name, its seconds and its peak of memory."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "panecho_embed", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{name} ended with {status}"
    print(f"| {name} | {time.perf_counter() - started:.1f} s | {usage.ru_maxrss / 2**20:.2f} GiB |", flush=True)


def fabricate(folder: Path, rows: int, like: Path) -> None:
    """A table of videos that all name one file, and the embedding file that extracting it would give."""
    from panecho_embed.core.content import stamp
    from panecho_embed.core.records import VideoFacts
    from panecho_embed.datasets import read_manifest
    from panecho_embed.store import EmbeddingFile, EmbeddingWriter

    file = EmbeddingFile(like)
    video, fact = file.manifest().videos[0], file.facts()[0]
    with (folder / "videos.csv").open("w") as table:
        table.write("path,video_id,study_id,patient_id,view,split,EF\n")
        for i in range(rows // 4):
            table.write(f"{video.path},v{i:07}.avi,study-{i // 10:016x},patient-{i // 20:016x},A4C,,{40 + i % 30}\n")
    manifest = read_manifest(folder / "videos.csv")
    seen = stamp(video.path)
    values = np.random.default_rng(0).standard_normal((4 * 256, file.dim)).astype(np.float32)
    done = VideoFacts("done", fact.sha256, fact.num_frames, fact.fps, fact.fps_source, seen.size_bytes, seen.mtime_ns)
    with EmbeddingWriter(folder / "rows.h5", file.provenance) as writer:
        for start in range(0, len(manifest), 256):
            count = min(256, len(manifest) - start)
            video_of_row = np.repeat(np.arange(start, start + count), 4)
            writer.add(video_of_row, values[: 4 * count], np.tile(np.arange(4) * 16, count), 1.0, 16)
        writer.finish(manifest, [done] * len(manifest), [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("million"), help="kept, so that it is made once")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "studies").exists():
        from panecho_embed.phantoms import write_studies

        write_studies(folder / "studies", layout="echonet-dynamic", patients=1, num_frames=64)
    print(f"| {arguments.rows} rows | time | peak |\n| --- | --- | --- |", flush=True)
    one = folder / "one.h5"
    one.unlink(missing_ok=True)
    command("start: extract of one video", "extract", folder / "studies" / "Videos", "-o", one, *MODEL)
    kept = folder / "made.json"
    if not kept.exists() or json.loads(kept.read_text()) != arguments.rows:
        fabricate(folder, arguments.rows, one)
        kept.write_text(json.dumps(arguments.rows))
    command("info", "info", folder / "rows.h5")
    command("verify", "verify", folder / "rows.h5")
    command("extract, all done", "extract", folder / "videos.csv", "-o", folder / "rows.h5", *MODEL)


if __name__ == "__main__":
    main()
