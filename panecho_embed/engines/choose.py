"""Which engine runs the frame encoder: as asked, or the fastest of a short trial; checked against eager either way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from panecho_embed.engines.compiled import CompiledEngine, compiled_path, has_compiler
from panecho_embed.engines.frame_engine import AcceleratorEngine, EagerEngine, FrameEngine, RearrangedEngine
from panecho_embed.errors import ArgumentError, EngineError
from panecho_embed.models.backbone import Backbone
from panecho_embed.records import EngineBackend, Precision

Announce = Callable[[str], object]

# Cosine at least, and largest difference at most as a share of the largest value, on the first batch.
BOUNDS: dict[Precision, tuple[float, float]] = {"fp32": (0.999999, 1e-4), "bf16": (0.999, 0.1), "fp16": (0.999, 0.1)}

# A trial takes about a second and a compilation half a minute: each must be worth it.
_TRIAL_SECONDS = 20.0
_COMPILE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine's features of a batch compare with eager's in fp32.

    cosine: the smallest over the frames. difference: the largest; scale: the largest absolute value.
    """

    cosine: float
    difference: float
    scale: float

    def within(self, precision: Precision) -> bool:
        """Is that what rounding in this precision does?"""
        cosine, difference = BOUNDS[precision]
        return self.cosine >= cosine and self.difference <= difference * self.scale

    def __str__(self) -> str:
        return f"cosine {self.cosine:.7f}, largest difference {self.difference:.1e}"


def check_backend(backbone: Backbone, backend: EngineBackend) -> None:
    """Raise ArgumentError for an engine that is unknown, or one for frames of a model that sees clips as a whole."""
    if backend not in get_args(EngineBackend):
        raise ArgumentError(
            f"engine is {backend!r}; allowed are {', '.join(get_args(EngineBackend))} (--engine-backend)"
        )
    if backbone.frame_dim is None and backend not in ("auto", "eager"):
        raise ArgumentError(
            f"{backbone.name} has no frame encoder that could be {backend}: it sees a clip as a whole "
            "(leave out --compile and --engine-backend)"
        )


def agreement(features: Tensor, exact: Tensor) -> Agreement:
    """Compare features (T, D) with those of eager fp32, frame by frame; where those are not finite, nothing is."""
    features, exact = features.double().cpu(), exact.double().cpu()
    finite = exact.isfinite().all(dim=1)
    features, exact = features[finite], exact[finite]
    if not len(exact):
        return Agreement(1.0, 0.0, 1.0)
    difference = (features - exact).abs().max().item()
    lengths = exact.norm(dim=1) * features.norm(dim=1)
    cosines = torch.where(lengths > 0, (features * exact).sum(dim=1) / lengths, 1.0)
    return Agreement(cosines.min().item(), difference, max(exact.abs().max().item(), 1e-6))


def choose_engine(
    backbone: Backbone,
    backend: EngineBackend,
    precision: Precision,
    batch_frames: int,
    pixels: Tensor,
    expected_frames: float,
    announce: Announce,
) -> FrameEngine:
    """The engine to run the frame encoder with, checked on `pixels`, the first batch.

    backend: a name, or "auto": the fastest of those that can run here, with the same precision. What needs a trial or
    a compilation is left out where `expected_frames` are too few to pay for it. announce: told what was chosen and why.
    Raises EngineError if a named engine can't run here or gives other values than eager, ArgumentError for a 3-D model
    and a named engine other than eager.
    """
    check_backend(backbone, backend)
    eager = EagerEngine(backbone, precision)
    if backend == "eager" or backbone.frame_dim is None:
        return eager
    exact = EagerEngine(backbone, "fp32")(pixels)
    trial = _Trial(backbone, precision, batch_frames, pixels, exact)
    if backend != "auto":
        engine = trial.make(backend)
        found = trial.check(engine)
        announce(f"engine {engine.name}: {found} from eager fp32")
        return engine
    return _fastest(trial, eager, expected_frames, announce)


class _Trial:
    """Makes engines, compares their values with eager's, and times them, all on one batch."""

    def __init__(
        self, backbone: Backbone, precision: Precision, batch_frames: int, pixels: Tensor, exact: Tensor
    ) -> None:
        self.backbone = backbone
        self.precision: Precision = precision
        self.batch_frames = batch_frames
        self.pixels = pixels
        self._exact = exact

    def make(self, backend: EngineBackend) -> FrameEngine:
        """The engine of that name, which is not "auto"."""
        if backend == "eager":
            return EagerEngine(self.backbone, self.precision)
        if backend == "rearranged":
            return RearrangedEngine(self.backbone, self.precision)
        if self.backbone.device.type == "cpu":
            return CompiledEngine(self.backbone, self.precision, self.batch_frames)
        return AcceleratorEngine(self.backbone, self.precision, self.batch_frames)

    def check(self, engine: FrameEngine) -> Agreement:
        """Compare with eager fp32; raises EngineError beyond the bound."""
        found = agreement(engine(self.pixels), self._exact)
        if not found.within(self.precision):
            cosine, difference = BOUNDS[self.precision]
            raise EngineError(
                f"the engine {engine.name} gives other frame embeddings than eager: {found} at values up to "
                f"{found.scale:.3g}; in {self.precision} allowed are a cosine of {cosine} and a difference of "
                f"{difference * found.scale:.1e}. Take another one (--engine-backend eager)"
            )
        return found

    def seconds_per_frame(self, engine: FrameEngine) -> float:
        """The better of two runs; the first run of an engine is `check`'s."""
        times = []
        for _ in range(2):
            started = time.perf_counter()
            engine(self.pixels)
            if self.backbone.device.type == "cuda":
                torch.cuda.synchronize(self.backbone.device)
            times.append(time.perf_counter() - started)
        return min(times) / len(self.pixels)


def _fastest(trial: _Trial, eager: FrameEngine, expected_frames: float, announce: Announce) -> FrameEngine:
    trial.check(eager)
    eager_seconds = trial.seconds_per_frame(eager)
    left = eager_seconds * expected_frames
    if left < _TRIAL_SECONDS:
        announce(f"engine eager: {left:.0f} s of work, too little for a trial of others (--engine-backend)")
        return eager
    best, best_seconds, best_found, remarks = eager, eager_seconds, "", []
    for backend, obstacle in _candidates(trial, left):
        if obstacle:
            remarks.append(f"{backend} not tried: {obstacle}")
            continue
        try:
            engine = trial.make(backend)
            found = trial.check(engine)
        except EngineError as error:
            remarks.append(f"{backend} left out: {error}")
            continue
        seconds = trial.seconds_per_frame(engine)
        remarks.append(f"{backend} {1000 * seconds:.1f} ms a frame")
        if seconds < best_seconds:
            best, best_seconds, best_found = engine, seconds, f"; {found} from eager fp32"
    tried = "; ".join([f"eager {1000 * eager_seconds:.1f} ms a frame", *remarks])
    announce(f"engine {best.name}, the fastest in {trial.precision}: {tried}{best_found}")
    return best


def _candidates(trial: _Trial, left: float) -> list[tuple[EngineBackend, str]]:
    """What else could run here, each with the reason why it is not worth trying ("" if it is)."""
    cpu = trial.backbone.device.type == "cpu"
    compiled = ""
    if cpu and not compiled_path(trial.backbone, trial.precision, trial.batch_frames).exists():
        if not has_compiler():
            compiled = "no C++ compiler"
        elif left < _COMPILE_SECONDS:
            compiled = f"{left:.0f} s of work are too little to compile for"
    elif not cpu and left < _COMPILE_SECONDS:
        compiled = f"{left:.0f} s of work are too little to compile for"
    return [("rearranged", ""), ("compiled", compiled)] if cpu else [("compiled", compiled)]
