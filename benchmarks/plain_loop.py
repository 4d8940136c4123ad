"""`extract` against the loop that one would write first, on the same videos, in one run.

The plain loop: PanEcho's architecture in eager mode, one clip at a time, an OpenCV reader of its own, every clip's
frames encoded anew. Both use the same random weights and must give the same embeddings.

    python benchmarks/plain_loop.py --videos 40 --image-size 112
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# Heavy imports stand inside the functions: a decoding worker imports this file anew.
if TYPE_CHECKING:
    from panecho_embed.clips import ClipPlan
    from panecho_embed.models.backbones import Backbone


def plain_loop(paths: list[Path], plan: ClipPlan, model: Backbone) -> np.ndarray:
    """Every clip of every video, (N, 768): read, resize, crop, scale, encode, one clip at a time."""
    import cv2
    import torch

    size, crop = model.preprocess.resize, model.preprocess.crop
    low = (size - crop) // 2
    rows = []
    for path in paths:
        capture = cv2.VideoCapture(str(path))
        frames = []
        while True:
            good, frame = capture.read()
            if not good:
                break
            frame = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
            # The random backbone takes RGB or BGR as its preprocess says; OpenCV reads BGR.
            if model.preprocess.channel_order == "rgb":
                frame = frame[..., ::-1]
            frames.append(frame[low : low + crop, low : low + crop].transpose(2, 0, 1))
        video = np.stack(frames)
        for indices in plan.indices(len(video)):
            clip = torch.from_numpy(video[indices]).float() / 255
            clip = (clip - torch.tensor(model.preprocess.mean)[:, None, None]) / torch.tensor(model.preprocess.std)[
                :, None, None
            ]
            with torch.inference_mode():
                rows.append(model.clip_encoder(model.frame_encoder(clip)[None])[0].numpy())
    return np.stack(rows)


def main() -> None:
    import torch

    from panecho_embed.clips import ClipPlan
    from panecho_embed.extraction import extract
    from panecho_embed.manifest import read_manifest
    from panecho_embed.models.backbones import load_backbone
    from panecho_embed.phantom import write_studies
    from panecho_embed.store import EmbeddingFile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=64, help="frames a video")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()

    plans = {"4 clips a video": ClipPlan(), "a window every 4 frames": ClipPlan(num_clips=None, stride=4)}
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        write_studies(studies, layout="echonet-dynamic", patients=arguments.videos, num_frames=arguments.frames)
        paths = [Path(video.path) for video in read_manifest(studies / "Videos").videos]
        print(
            f"{len(paths)} videos of {arguments.frames} frames, {arguments.image_size} px, fp32, "
            f"{torch.get_num_threads()} threads"
        )
        print("| clips | rows | plain loop | extract | ratio | largest difference |")
        print("| --- | --- | --- | --- | --- | --- |")
        for repeat in range(arguments.repeats):
            for name, plan in plans.items():
                out = Path(folder) / f"{repeat} {name}.h5"
                model = load_backbone("random", image_size=arguments.image_size)
                started = time.perf_counter()
                plain = plain_loop(paths, plan, model)
                plain_seconds = time.perf_counter() - started
                started = time.perf_counter()
                extract(studies / "Videos", out, backbone=model, clips=plan)
                extract_seconds = time.perf_counter() - started
                difference = np.abs(EmbeddingFile(out).embeddings - plain).max()
                assert difference < 1e-4, f"the two disagree by {difference}"
                print(
                    f"| {name} | {len(plain)} | {plain_seconds:.1f} s | {extract_seconds:.1f} s "
                    f"| {plain_seconds / extract_seconds:.2f} | {difference:.1e} |"
                )


if __name__ == "__main__":
    main()
