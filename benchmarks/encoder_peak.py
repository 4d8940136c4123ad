"""How much of this machine's arithmetic the image encoder uses, engine by engine.

The peak: the fastest of square matrix products of 1,024 to 4,096, by torch.mm and, on a CPU, by oneDNN's own product
with its weights in order, measured before and after the engines in the same precision. The work: multiplications and
additions of convolutions and linear layers as PyTorch's FlopCounterMode counts them; the rest of the encoder counts as
no work, and takes its time. On a machine that does other things too, --cpu-time counts the processor's time of a single
thread instead of the clock's.

    python benchmarks/encoder_peak.py --image-sizes 112 224
    python benchmarks/encoder_peak.py --batches 4 8 16 32 64 --engines rearranged        # which batch is fastest
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from panecho_embed.core.provenance import Precision
from panecho_embed.extraction.choose import agreement
from panecho_embed.extraction.encode import default_batch_pictures
from panecho_embed.extraction.image_engine import (
    WEIGHTS_DTYPES,
    AcceleratorEngine,
    EagerEngine,
    ImageEngine,
    PictureBatch,
    RearrangedEngine,
)
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.models.fused import can_fuse

clock = time.perf_counter


def best_seconds(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The median of the faster half of the runs that fit into this many seconds, at least three."""
    run()
    times: list[float] = []
    stop = clock() + seconds
    while len(times) < 3 or clock() < stop:
        started = clock()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - started)
    times.sort()
    return times[len(times) // 4]


def peak_flops(precision: Precision, device: torch.device, seconds: float) -> float:
    """Operations a second of the fastest matrix product."""
    best, dtype = 0.0, WEIGHTS_DTYPES[precision]
    for size in (1024, 2048, 4096):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        runs: list[Callable[[], object]] = [lambda a=a, b=b: a @ b]
        if device.type == "cpu" and can_fuse(dtype):
            ordered = torch.ops.mkldnn._reorder_linear_weight(b, size)
            runs.append(
                lambda a=a, ordered=ordered: torch.ops.mkldnn._linear_pointwise(a, ordered, None, "none", [], None)
            )
        for run in runs:
            best = max(best, 2 * size**3 / best_seconds(run, device, seconds / 6))
    return best


def flops_per_picture(backbone: Backbone) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    side = backbone.feeding.crop
    with FlopCounterMode(display=False) as counter:
        EagerEngine(backbone, "fp32")(PictureBatch.of_frames(torch.zeros(1, 3, side, side, dtype=torch.uint8)))
    return float(counter.get_total_flops())


def made(name: str, backbone: Backbone, precision: Precision, batch: int) -> ImageEngine:
    if name == "eager":
        return EagerEngine(backbone, precision)
    if name == "rearranged":
        return RearrangedEngine(backbone, precision)
    return AcceleratorEngine(backbone, precision, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[112, 224])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--engines", nargs="+", default=["eager", "rearranged"], help="on a GPU: eager compiled")
    parser.add_argument("--batches", type=int, nargs="+", help="pictures in a batch (default: extract's)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, by the processor's time; CPUs alone")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        global clock
        clock = time.process_time
        torch.set_num_threads(1)
    device = resolve_device(arguments.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print("| precision | pixels | batch | engine | ms a picture | GFLOP/s | of the peak | cosine to eager fp32 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for precision in arguments.precisions:
        found: list[tuple[str, float]] = []
        peak = peak_flops(precision, device, arguments.seconds)
        for size in arguments.image_sizes:
            backbone = load_backbone("random", image_size=size)
            work = flops_per_picture(backbone)
            backbone.to(device)
            for batch in arguments.batches or [default_batch_pictures(backbone, precision)]:
                pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
                pictures = PictureBatch.of_frames(pixels)
                exact = EagerEngine(backbone, "fp32")(pictures)
                for name in arguments.engines:
                    engine = made(name, backbone, precision, batch)
                    cosine = agreement(engine(pictures), exact).cosine
                    seconds = best_seconds(lambda e=engine, p=pictures: e(p), device, arguments.seconds) / batch
                    row = (
                        f"| {precision} | {size} | {batch} | {name} | {1000 * seconds:.2f} | {work / seconds / 1e9:.0f}"
                    )
                    found.append((f"{row} | {{:.0%}} | {cosine:.6f} |", work / seconds))
        peak = max(peak, peak_flops(precision, device, arguments.seconds))
        print(*(row.format(rate / peak) for row, rate in found), sep="\n")
        print(f"| {precision} | | | matrix product | | {peak / 1e9:.0f} | 100% | |", flush=True)


if __name__ == "__main__":
    main()
