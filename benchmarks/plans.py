"""Several clip plans in one pass of `panecho-embed extract` against one run per plan: whole processes, same videos.

The rows of both are compared. The counts are of distinct pictures, which is what the image encoder encodes.

    python benchmarks/plans.py --videos 20
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PLANS = {
    "samplings": ["--clips 4", "--clips 4 --frame-step 2", "--clips 1", "--clips 2", "--clips 8"],
    "windows": ["--stride 3", "--stride 6", "--stride 12"],
}


def command(*words: object) -> float:
    """Seconds that a command of panecho-embed takes from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "panecho_embed", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def pictures(plans: list[str], frames: int) -> tuple[int, int]:
    """Distinct pictures of a video: of every plan by itself, added up; of all plans together."""
    from panecho_embed.cli.options import Plan
    from panecho_embed.core.clips import ClipPlan, resolve_plan
    from panecho_embed.core.planes import pictures_of

    chosen = [resolve_plan(Plan().convert(plan, None, None)[1], ClipPlan()).indices(frames) for plan in plans]
    apart = sum(len(pictures_of([clips], frames, "published").planes) for clips in chosen)
    return apart, len(pictures_of(chosen, frames, "published").planes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments = parser.parse_args()
    from panecho_embed.phantoms import write_studies
    from panecho_embed.store import EmbeddingFile

    model = ("--backbone", "random", "--image-size", arguments.image_size, "--precision", arguments.precision)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_studies(folder / "all", layout="echonet-dynamic", patients=arguments.videos, num_frames=arguments.frames)
        videos = folder / "all" / "Videos"
        # Once for the caches of the disk: the first start of all takes several times as long.
        command("extract", videos, "-o", folder / "warm.h5", "--backbone", "random", "--image-size", 32)
        for which, plans in PLANS.items():
            out = folder / which
            together = command("extract", videos, "-o", out, *model, *(word for p in plans for word in ("--plan", p)))
            files = sorted(out.glob("*.h5"))
            apart = 0.0
            worst = 0.0
            for plan in plans:
                apart += command("extract", videos, "-o", folder / "one.h5", *model, *plan.split(), "--overwrite")
                one = EmbeddingFile(folder / "one.h5")
                (same,) = [file for file in map(EmbeddingFile, files) if file.settings_id == one.settings_id]
                worst = max(worst, float(np.abs(same.embeddings - one.embeddings).max()))
            alone, shared = pictures(plans, arguments.frames)
            named = ", ".join(f"`{plan}`" for plan in plans)
            seconds = f"{apart:.1f} s | {together:.1f} s | {apart / together:.2f}"
            lines.append(f"| {named} | {alone} | {shared} | {seconds} | {worst:.1e} |")
    print("| plans | pictures a video, apart | together | runs apart | one pass | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
