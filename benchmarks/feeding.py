"""What sector masks and bicubic interpolation cost: decoding a DICOM cine for PanEcho and EchoPrime, with and without.

Processor time of one thread, the variants in turn in one process, so that other work on the machine hits all alike. For
scale: what encoding the pictures of the same clips takes, by the engine `rearranged`.

    python benchmarks/feeding.py --rounds 5
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=64, help="frames of the cine")
    arguments = parser.parse_args()

    import cv2
    import torch

    from panecho_embed.core.records import Failure, VideoRef
    from panecho_embed.extraction.decode import DecodeSettings, decode_video
    from panecho_embed.extraction.image_engine import PictureBatch, RearrangedEngine
    from panecho_embed.models.backbones import load_backbone
    from panecho_embed.models.panecho import PANECHO_FEEDING
    from panecho_embed.models.zoo import ECHOPRIME_FEEDING
    from panecho_embed.phantoms import write_studies

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    variants = {
        "area, no mask (before)": replace(PANECHO_FEEDING, mask="never"),
        "PanEcho's own: area, mask": PANECHO_FEEDING,
        "square, bicubic, no mask": replace(ECHOPRIME_FEEDING, mask="never", channel_order="bgr"),
        "EchoPrime's own: square, bicubic, mask, colours": ECHOPRIME_FEEDING,
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    clips = PANECHO_FEEDING.clips
    with tempfile.TemporaryDirectory() as folder:
        path = write_studies(Path(folder) / "d", "dicom", patients=1, videos_per_study=1, num_frames=arguments.frames)[
            0
        ]
        for _ in range(arguments.rounds):
            for name, feeding in variants.items():
                started = time.process_time()
                decoded = decode_video(VideoRef("v", "s", "p", str(path)), DecodeSettings(feeding, (clips,)))
                taken[name].append(time.process_time() - started)
                if isinstance(decoded, Failure):
                    raise SystemExit(decoded.message)
                pictures = len(decoded.pixels)
    base = float(np.median(taken["area, no mask (before)"]))
    for name, seconds in taken.items():
        median = float(np.median(seconds))
        print(f"{name:<48} {1000 * median:8.1f} ms a video, {median / base:.2f} times the first")
    engine = RearrangedEngine(load_backbone("random"), "fp32")
    batch = PictureBatch.of_frames(torch.from_numpy(decoded.pixels[:4]))
    engine(batch)
    started = time.process_time()
    engine(batch)
    each = (time.process_time() - started) / len(batch)
    slowest = max(float(np.median(seconds)) for seconds in taken.values())
    print(
        f"encoding its {pictures} pictures in fp32: {each * pictures:.2f} s ({1000 * each:.0f} ms a picture), "
        f"{each * pictures / slowest:.1f} times the slowest decoding"
    )


if __name__ == "__main__":
    main()
