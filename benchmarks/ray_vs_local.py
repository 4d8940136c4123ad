"""The Ray engine against the local one, on the same cores, the same videos and the same engine of the image encoder.

The cluster is only of this machine and runs before the clock does. Each engine embeds a few videos and then more: what
the larger run takes longer is the price of only the videos, without the start of processes; both are printed, each the
best of the repeats. The rows must be equal.

    python benchmarks/ray_vs_local.py --videos 20 --more 80 --repeats 2
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    import torch

    from panecho_embed.extraction.ray_cluster import ray_cluster
    from panecho_embed.extraction.run import extract
    from panecho_embed.models.backbones import load_backbone
    from panecho_embed.phantoms import write_studies
    from panecho_embed.store import EmbeddingFile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--more", type=int, default=80)
    parser.add_argument("--frames", type=int, default=64, help="frames a video")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--engine-backend", default="rearranged")
    arguments = parser.parse_args()
    counts = (arguments.videos, arguments.more)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count in counts:
            write_studies(folder / str(count), layout="echonet-dynamic", patients=count, num_frames=arguments.frames)
        print(
            f"{arguments.frames} frames a video, {arguments.image_size} px, fp32, {arguments.engine_backend}, "
            f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of the local engine"
        )
        print(f"| engine | {counts[0]} videos | {counts[1]} videos | videos/s without the start |")
        print("| --- | --- | --- | --- |", flush=True)
        runs = [(engine, count) for engine in ("local", "ray") for count in counts]
        seconds = dict.fromkeys(runs, math.inf)
        with ray_cluster(None):
            for engine, count in runs * arguments.repeats:
                started = time.perf_counter()
                extract(
                    folder / str(count) / "Videos",
                    folder / f"{engine}-{count}.h5",
                    backbone=load_backbone("random", image_size=arguments.image_size),
                    engine_backend=arguments.engine_backend,
                    engine=engine,
                    overwrite=True,
                )
                seconds[engine, count] = min(seconds[engine, count], time.perf_counter() - started)
        rates = {}
        for engine in ("local", "ray"):
            few, many = (seconds[engine, count] for count in counts)
            rates[engine] = (counts[1] - counts[0]) / (many - few)
            print(f"| {engine} | {few:.1f} s | {many:.1f} s | {rates[engine]:.2f} |", flush=True)
        one, other = (EmbeddingFile(folder / f"{engine}-{counts[1]}.h5") for engine in ("local", "ray"))
        assert one.rows.equals(other.rows), "the rows are not the same"
        difference = np.abs(one.embeddings - other.embeddings).max()
        assert difference < 1e-4, f"the two disagree by {difference}"
        print(
            f"ray / local: {rates['ray'] / rates['local']:.2f}; largest difference of {len(one)} rows {difference:.1e}"
        )


if __name__ == "__main__":
    main()
