"""Other programs for PanEcho's image encoder on this CPU, and int8: is any faster than `rearranged`, and how near?

Each makes what eager makes of the same phantom pictures. All take turns in one process by one thread, and the least
processor time counts, so that other work on the machine hits all alike. The peak is the fastest matrix product in
fp32. The layer scale, 1e-6 in untrained weights, is drawn from 0.05 to 0.5, about what training makes of it: else
hardly anything that the blocks compute would reach the features, and every engine would agree.

    pip install onnxruntime onnx onnxscript openvino nncf
    python benchmarks/encoder_engines.py --image-sizes 112 224

int8: weights a channel, activations a tensor. Static scales are from `--calibrate` pictures of other patients;
"dynamic" finds those of every product's input when it is there, and does not touch convolutions: one scale for all
pictures of a batch, so that a picture's features depend on its neighbours, except for "a scale a row".
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Run = Callable[[Tensor], Tensor]
PEAK_SIZES = (1024, 2048)


def phantom_pictures(count: int, side: int, first: int) -> Tensor:
    """(count, 3, side, side) uint8 of phantom loops, one loop for 8 pictures; first: number of the first patient."""
    from panecho_embed.phantoms import make_patients, render

    pictures = []
    for patient in make_patients(first + -(-count // 8))[first:]:
        pictures += list(render(patient, num_frames=32, size=side).pixels[::4])
    return torch.from_numpy(np.stack(pictures[:count])).permute(0, 3, 1, 2)


def with_layer_scale(encoder: nn.Module) -> None:
    """Set the layer scale of every block, see above."""
    chance = torch.Generator().manual_seed(0)
    for name, parameter in encoder.named_parameters():
        if name.endswith("gamma"):
            parameter.data = 0.05 + 0.45 * torch.rand(parameter.shape, generator=chance)


def rearranged_run(encoder: nn.Module, _calibration: Tensor, _folder: Path) -> Run:
    from panecho_embed.models.fused import fuse
    from panecho_embed.models.rearranged import rearranged

    made, _ = rearranged(encoder)
    fuse(made)
    return lambda pictures: made(pictures.contiguous(memory_format=torch.channels_last))


class Int8Linear:
    """A 1x1 convolution as oneDNN's int8 product; its input, 7 bits a value, has a scale a row, applied afterwards."""

    # 7 bits: AVX2 adds pairs of products in 16 bits, which 8 bits would overflow without a word.
    def __init__(self, convolution: nn.Module, shift: float = 0.0) -> None:
        weight = convolution.weight.flatten(1)
        self._scales = weight.abs().amax(1) / 127
        rounded = (weight / self._scales[:, None]).round().to(torch.int8)
        self.bias = convolution.bias - shift * self._scales * rounded.float().sum(1)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded.contiguous(), None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int)

    def __call__(self, rows: Tensor, zero: int) -> Tensor:
        made: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, zero, self._weight, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return made


class Int8Block(nn.Module):
    """A rearranged block whose two products are in int8; what a picture becomes does not depend on its batch."""

    _LOWEST = 0.17  # of GELU, the other way round
    _CHUNK = 1 << 18  # numbers: what follows a product finds it in the cache

    def __init__(self, block: Any) -> None:
        from panecho_embed.models.fused import _Convolution

        super().__init__()
        self.norm = block.norm
        self._conv_dw = _Convolution(block.conv_dw)
        self._fc1, self._fc2 = Int8Linear(block.fc1), Int8Linear(block.fc2, self._LOWEST)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self._conv_dw(x).permute(0, 2, 3, 1))
        shape, channels = inner.shape, inner.shape[-1]
        inner, before = inner.reshape(-1, channels), x.permute(0, 2, 3, 1).reshape(-1, channels)
        out = torch.empty_like(before)
        step = max(self._CHUNK // channels, 64)
        for parts in zip(*(rows.split(step) for rows in (inner, before, out)), strict=True):
            self._feed_forward(*parts)
        return out.view(shape).permute(0, 3, 1, 2)

    def _feed_forward(self, inner: Tensor, before: Tensor, out: Tensor) -> None:
        largest = torch.maximum(inner.amax(1, keepdim=True), -inner.amin(1, keepdim=True))
        scale = largest.clamp_min_(1e-12) / 63
        rows = torch.addcmul(torch.tensor(64.5), inner, 1 / scale).to(torch.uint8)
        hidden = nn.functional.gelu(torch.addcmul(self._fc1.bias, self._fc1(rows, 64), scale))
        scale = (hidden.amax(1, keepdim=True) + self._LOWEST).clamp_min_(1e-12) / 127
        rows = torch.addcmul(self._LOWEST / scale + 0.5, hidden, 1 / scale).to(torch.uint8)
        torch.addcmul(before + self._fc2.bias, self._fc2(rows, 0), scale, out=out)


def onednn_int8_run(encoder: nn.Module, _calibration: Tensor, _folder: Path) -> Run:
    """PyTorch's oneDNN products in int8, activations with one scale per row."""
    from panecho_embed.models.rearranged import Block, rearranged

    made, _ = rearranged(encoder)
    for module in list(made.modules()):
        for name, child in module.named_children():
            if isinstance(child, Block):
                setattr(module, name, Int8Block(child))
    return lambda pictures: made(pictures.contiguous(memory_format=torch.channels_last))


def torch_dynamic_run(encoder: nn.Module, _calibration: Tensor, _folder: Path) -> Run:
    """PyTorch's own quantised linear layers (FBGEMM)."""
    made: Run = torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear})
    return made


def exported(encoder: nn.Module, calibration: Tensor, folder: Path) -> Path:
    """The encoder as ONNX, for any number of pictures."""
    path = folder / f"encoder-{calibration.shape[-1]}.onnx"
    if not path.exists():
        dynamic = ({0: torch.export.Dim("pictures", min=1, max=256)},)
        torch.onnx.export(encoder, (calibration[:2],), path, dynamic_shapes=dynamic, dynamo=True, verbose=False)
    return path


def onnxruntime_of(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pictures: torch.from_numpy(session.run(None, {name: pictures.numpy()})[0])


def onnxruntime_run(encoder: nn.Module, calibration: Tensor, folder: Path) -> Run:
    return onnxruntime_of(exported(encoder, calibration, folder))


def onnxruntime_dynamic_run(encoder: nn.Module, calibration: Tensor, folder: Path) -> Run:
    from onnxruntime.quantization import quantize_dynamic

    path = folder / "dynamic.onnx"
    operators = ["MatMul", "Gemm"]
    quantize_dynamic(exported(encoder, calibration, folder), path, per_channel=True, op_types_to_quantize=operators)
    return onnxruntime_of(path)


def onnxruntime_static_run(encoder: nn.Module, calibration: Tensor, folder: Path) -> Run:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self._batches = iter([{name: batch.numpy()} for batch in calibration.split(4)])

        def get_next(self) -> Any:
            return next(self._batches, None)

    import onnx

    path, prepared = folder / "static.onnx", folder / "prepared.onnx"
    quant_pre_process(exported(encoder, calibration, folder), prepared)
    name = onnx.load(prepared).graph.input[0].name
    quantize_static(
        prepared, path, Pictures(name), per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
    )
    return onnxruntime_of(path)


def openvino_of(model: Any, precision: str) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda pictures: torch.from_numpy(compiled(pictures.numpy())[0].copy())


def openvino_run(encoder: nn.Module, calibration: Tensor, _folder: Path) -> Run:
    import openvino

    return openvino_of(openvino.convert_model(encoder, example_input=calibration[:2]), "f32")


def openvino_int8_run(encoder: nn.Module, calibration: Tensor, _folder: Path) -> Run:
    import nncf
    import openvino

    model = openvino.convert_model(encoder, example_input=calibration[:2])
    pictures = nncf.Dataset([batch.numpy() for batch in calibration.split(1)])
    return openvino_of(nncf.quantize(model, pictures, subset_size=len(calibration)), "f32")


ENGINES: dict[str, Callable[[nn.Module, Tensor, Path], Run]] = {
    "eager": lambda encoder, *_: encoder,
    "rearranged": rearranged_run,
    "onnxruntime": onnxruntime_run,
    "openvino": openvino_run,
    "oneDNN int8, a scale a row": onednn_int8_run,
    "torch int8 dynamic": torch_dynamic_run,
    "onnxruntime int8 dynamic": onnxruntime_dynamic_run,
    "onnxruntime int8 static": onnxruntime_static_run,
    "openvino int8 static": openvino_int8_run,
}


def seconds_in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least processor time of each, over rounds in which all take turns."""
    least = dict.fromkeys(runs, float("inf"))
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            if number:  # the first one prepares
                least[name] = min(least[name], time.process_time() - started)
    return least


def flops_per_picture(encoder: nn.Module, picture: Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        encoder(picture)
    return float(counter.get_total_flops())


def main() -> None:
    from panecho_embed.extraction.choose import agreement
    from panecho_embed.models.backbones import load_backbone

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[112, 224])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--calibrate", type=int, default=64, help="pictures")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {torch.backends.cpu.get_cpu_capability()}")
    print("| pixels | engine | ms a picture | of the peak | cosine to eager | largest difference / largest value |")
    print("| --- | --- | --- | --- | --- | --- |")
    for side in arguments.image_sizes:
        backbone = load_backbone("random", image_size=side)
        encoder = backbone.image_encoder.eval().requires_grad_(False)
        with_layer_scale(encoder)
        batch = 16 if side < 200 else 4

        def normalised(pictures: Tensor, b: Any = backbone) -> Tensor:
            return b.normalise(pictures, torch.arange(3).expand(len(pictures), -1)).contiguous()

        calibration = normalised(phantom_pictures(arguments.calibrate, side, 100))
        pictures = normalised(phantom_pictures(batch, side, 0))
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            made = {name: ENGINES[name](encoder, calibration, Path(folder)) for name in arguments.engines}
            exact = encoder(pictures)
            found = {name: agreement(run(pictures), exact) for name, run in made.items()}
            turns: dict[str, Callable[[], object]] = {
                name: lambda r=run, p=pictures: r(p) for name, run in made.items()
            }
            matrices = {size: torch.randn(size, size) for size in PEAK_SIZES}
            turns |= {str(size): lambda m=matrix: m @ m for size, matrix in matrices.items()}
            taken = seconds_in_turn(turns, arguments.rounds)
            peak = max(2 * size**3 / taken[str(size)] for size in PEAK_SIZES)
            work = flops_per_picture(encoder, pictures[:1])
        for name, agreed in found.items():
            seconds = taken[name] / batch
            share = f"{work / seconds / peak:.0%}"
            values = f"{agreed.cosine:.6f} | {agreed.difference / agreed.scale:.1e}"
            print(f"| {side} | {name} | {1000 * seconds:.1f} | {share} | {values} |", flush=True)


if __name__ == "__main__":
    main()
