"""Which engine runs the image encoder: as asked, or the fastest of a short trial; checked against eager either way."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from panecho_embed.core.errors import ArgumentError, EngineError
from panecho_embed.core.progress import Announce
from panecho_embed.core.provenance import Precision
from panecho_embed.core.records import EngineBackend
from panecho_embed.extraction.image_engine import (
    AcceleratorEngine,
    EagerEngine,
    ImageEngine,
    PictureBatch,
    RearrangedEngine,
)
from panecho_embed.models.backbone import Backbone

# Cosine at least, and largest difference at most as a share of the largest value, on the first batch.
BOUNDS: dict[Precision, tuple[float, float]] = {"fp32": (0.999999, 1e-4), "bf16": (0.999, 0.1), "fp16": (0.999, 0.1)}

# Less work than that, by eager, is done before a trial of others, of about a second, has paid for itself.
_TRIAL_SECONDS = 4.0
# What compiling for a GPU costs, and the share of eager's time that it may save.
_COMPILE_SECONDS, _SAVED = 60.0, 0.35


@dataclass(frozen=True, slots=True)
class Agreement:
    """How an engine's features of a batch compare with eager's in fp32.

    cosine: the smallest over the rows. difference: the largest; scale: the largest absolute value. All are NaN, and
    within no bound, where eager gives no row that could be compared.
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
    """Raise ArgumentError for an engine that is unknown, that the model has no use for, or that is for GPUs only."""
    if backend not in get_args(EngineBackend):
        raise ArgumentError(
            f"engine is {backend!r}; allowed are {', '.join(get_args(EngineBackend))} (--engine-backend)"
        )
    if backbone.image_dim is None and backend not in ("auto", "eager"):
        raise ArgumentError(
            f"{backbone.name} has no image encoder that could be {backend}: it sees a clip as a whole "
            "(leave out --engine-backend)"
        )
    if backend == "compiled" and backbone.device.type == "cpu":
        raise ArgumentError("the engine compiled is for GPUs; a CPU has eager and rearranged (--engine-backend)")


def agreement(features: Tensor, exact: Tensor) -> Agreement:
    """Compare features (T, D) with those of eager fp32, row by row; where those are not finite, nothing is."""
    features, exact = features.double().cpu(), exact.double().cpu()
    finite = exact.isfinite().all(dim=1)
    features, exact = features[finite], exact[finite]
    if not len(exact):
        return Agreement(math.nan, math.nan, math.nan)
    difference = (features - exact).abs().max().item()
    lengths = exact.norm(dim=1) * features.norm(dim=1)
    cosines = torch.where(lengths > 0, (features * exact).sum(dim=1) / lengths, 1.0)
    return Agreement(cosines.min().item(), difference, max(exact.abs().max().item(), 1e-6))


def choose_engine(
    backbone: Backbone,
    backend: EngineBackend,
    precision: Precision,
    batch_pictures: int,
    batch: PictureBatch,
    expected_pictures: float,
    announce: Announce,
) -> ImageEngine:
    """The engine to run the image encoder with, checked on the first batch.

    backend: a name, or "auto": the fastest of those that can run here, with the same precision. What needs a trial or
    a compilation is skipped where `expected_pictures` are too few to pay for it. announce: told what was chosen and
    why. Raises EngineError if a named engine can't run here, gives other values than eager in fp32 or can't be compared
    with it, eager in half precision too; ArgumentError for a 3-D model and a named engine other than eager.
    """
    check_backend(backbone, backend)
    eager = EagerEngine(backbone, precision)
    if backbone.image_dim is None or (backend == "eager" and precision == "fp32"):
        return eager
    trial = _Trial(backbone, precision, batch_pictures, batch)
    if backend != "auto":
        engine = eager if backend == "eager" else trial.make(backend)
        found = trial.check(engine)
        announce(f"engine {engine.name}: {found} from eager fp32")
        return engine
    return _fastest(trial, eager, expected_pictures, announce)


class _Trial:
    """Makes engines, compares their values with eager's, and times them, all on one batch."""

    def __init__(self, backbone: Backbone, precision: Precision, batch_pictures: int, batch: PictureBatch) -> None:
        self.backbone = backbone
        self.precision: Precision = precision
        self.batch_pictures = batch_pictures
        self.batch = batch
        self._exact = EagerEngine(backbone, "fp32")(batch)

    def make(self, backend: EngineBackend) -> ImageEngine:
        """The engine of that name, which is not "auto"."""
        if backend == "rearranged":
            return RearrangedEngine(self.backbone, self.precision)
        return AcceleratorEngine(self.backbone, self.precision, self.batch_pictures)

    def check(self, engine: ImageEngine) -> Agreement:
        """Compare with eager fp32; raises EngineError beyond the bound."""
        found = agreement(engine(self.batch), self._exact)
        way_on = "--precision fp32" if engine.name == "eager" else "--engine-backend eager"
        if math.isnan(found.scale):
            raise EngineError(
                f"the engine {engine.name} can't be checked: eager in fp32 gives no finite vector of any picture "
                f"of the first batch ({way_on})"
            )
        if not found.within(self.precision):
            cosine, difference = BOUNDS[self.precision]
            raise EngineError(
                f"the engine {engine.name} gives other vectors of pictures than eager in fp32: {found} at values up to "
                f"{found.scale:.3g}; in {self.precision} allowed are a cosine of {cosine} and a difference of "
                f"{difference * found.scale:.1e} ({way_on})"
            )
        return found

    def seconds_per_picture(self, engine: ImageEngine) -> float:
        """Of a run that is not the engine's first."""
        started = time.perf_counter()
        engine(self.batch)
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        return (time.perf_counter() - started) / len(self.batch)


def _fastest(trial: _Trial, eager: ImageEngine, expected_pictures: float, announce: Announce) -> ImageEngine:
    if trial.precision != "fp32":
        trial.check(eager)
    best, seconds, best_found = eager, trial.seconds_per_picture(eager), ""
    left = seconds * expected_pictures
    if left < _TRIAL_SECONDS:
        announce(f"engine eager: {left:.1f} s of work, too little for a trial of others (--engine-backend)")
        return eager
    tried = [f"eager {1000 * seconds:.1f} ms a picture"]
    candidates: tuple[EngineBackend, ...] = ("rearranged",) if trial.backbone.device.type == "cpu" else ("compiled",)
    for backend in candidates:
        if backend == "compiled" and left * _SAVED < _COMPILE_SECONDS:
            saved = f"of {left:.0f} s of work it might save {left * _SAVED:.0f}, and costs {_COMPILE_SECONDS:.0f}"
            tried.append(f"compiled not tried: {saved}")
            continue
        try:
            engine = trial.make(backend)
            found = trial.check(engine)
        except EngineError as error:
            tried.append(f"{backend} left out: {error}")
            continue
        takes = trial.seconds_per_picture(engine)
        tried.append(f"{backend} {1000 * takes:.1f} ms a picture")
        if takes < seconds:
            best, seconds, best_found = engine, takes, f"; {found} from eager fp32"
    announce(f"engine {best.name}, the fastest in {trial.precision}: {'; '.join(tried)}{best_found}")
    return best
