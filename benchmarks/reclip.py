"""`panecho-embed reclip` from a frame-level file against extracting the same clips again: whole processes.

The model has PanEcho's shape and takes frames as pictures, as some of `finetune` do: PanEcho's own can't be made so.

Frames of a few videos are extracted; their rows are then repeated to a file of many videos, on which `reclip` runs.
What extracting this many again would take follows from two measured extractions, of a half and of all of the few.

    python benchmarks/reclip.py --videos 20 --times 100 --image-size 224
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np


def command(*words: object) -> float:
    """Seconds that a command of panecho-embed takes from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "panecho_embed", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def write_weights_on_frames(path: Path) -> None:
    """Random weights whose pictures are frames."""
    from panecho_embed.models.panecho import PanEcho, save_checkpoint

    model = PanEcho(pretrained=False, backbone_only=True)
    model.plane_order = "frames"
    save_checkpoint(model, path)


def repeat(source: Path, out: Path, times: int) -> None:
    """The same file with all of its videos this many times, under new ids."""
    from panecho_embed.core.records import Manifest
    from panecho_embed.store import EmbeddingFile, EmbeddingWriter

    file = EmbeddingFile(source)
    table, videos, facts = file.embeddings, file.manifest().videos, file.facts()
    rows = file.row_columns
    copies = [replace(video, video_id=f"{i}/{video.video_id}") for i in range(times) for video in videos]
    with EmbeddingWriter(out, file.provenance) as writer:
        for i in range(times):
            writer.add(rows["video"] + i * len(videos), table, rows["first_frame"], rows["frame_step"], 1)
        writer.finish(Manifest(tuple(copies)), facts * times, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--times", type=int, default=100, help="how often they are repeated for reclip")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--stride", type=int, help="a clip every so many frames, in place of 4 a video")
    arguments = parser.parse_args()
    from panecho_embed.phantoms import write_studies
    from panecho_embed.store import EmbeddingFile

    few, many = arguments.videos, arguments.videos * arguments.times
    clips = ("--stride", arguments.stride) if arguments.stride else ()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_studies(folder / "all", layout="echonet-dynamic", patients=few, num_frames=arguments.frames)
        videos = folder / "all" / "Videos"
        (folder / "half").mkdir()
        for path in sorted(videos.iterdir())[: few // 2]:
            (folder / "half" / path.name).symlink_to(path)
        weights = folder / "on-frames.pt"
        write_weights_on_frames(weights)
        model = ("--weights", weights, "--image-size", arguments.image_size, "--precision", arguments.precision)
        # Once for the caches of the disk: the first start of all takes several times as long.
        command("extract", folder / "half", "-o", folder / "warm.h5", "--backbone", "random", "--image-size", 32)
        half = command("extract", folder / "half", "-o", folder / "half.h5", *model, *clips)
        whole = command("extract", videos, "-o", folder / "clips.h5", *model, *clips)
        command("extract", videos, "-o", folder / "frames.h5", "--level", "frame", *model)
        again = (whole - half) / (few - few // 2) * (many - few) + whole
        repeat(folder / "frames.h5", folder / "many.h5", arguments.times)
        fast = command("reclip", folder / "many.h5", "-o", folder / "reclipped.h5", "--weights", weights, *clips)
        extracted, reclipped = EmbeddingFile(folder / "clips.h5"), EmbeddingFile(folder / "reclipped.h5")
        one, other = extracted.embeddings, reclipped.read(0, len(extracted))
        cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        rows = len(reclipped)
    print(f"{few} videos of {arguments.frames} frames extracted in {whole:.1f} s, half of them in {half:.1f} s\n")
    print(
        "| precision | pixels | videos | clips | extract again | reclip | ratio | least cosine | largest difference |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| {arguments.precision} | {arguments.image_size} | {many:,} | {rows:,} | {again:,.0f} s | {fast:.1f} s | "
        f"{again / fast:.0f} | {cosines.min():.6f} | {np.abs(one - other).max():.1e} |"
    )


if __name__ == "__main__":
    main()
