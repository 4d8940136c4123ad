"""Manifest -> embedding file: what is done stays done, and what failed is told."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from panecho_embed.clips import ClipPlan, resolve_plan
from panecho_embed.engines.decode import DecodeSettings
from panecho_embed.engines.encode import Encoder
from panecho_embed.engines.pool import decoded
from panecho_embed.engines.profile import Profile
from panecho_embed.engines.writing import PartWriter, Result
from panecho_embed.errors import ArgumentError, StoreError
from panecho_embed.manifest import read_manifest
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.models.devices import resolve_device
from panecho_embed.records import (
    EngineBackend,
    Failure,
    Layout,
    Level,
    Manifest,
    Precision,
    Provenance,
    StoredType,
)
from panecho_embed.shards import Shard
from panecho_embed.store import Parts
from panecho_embed.summary import ExtractSummary


def extract(
    source: str | Path,
    out: str | Path,
    *,
    backbone: str | Backbone = "panecho",
    weights: str | Path | None = None,
    seed: int = 0,
    level: Level = "clip",
    clips: ClipPlan | Mapping[str, Any] | None = None,
    image_size: int | None = None,
    precision: Precision = "fp32",
    dtype: StoredType = "float32",
    compile: bool = False,
    engine_backend: EngineBackend = "auto",
    device: str = "auto",
    workers: int | None = None,
    batch_frames: int | None = None,
    mask_sector: bool = False,
    crop_region: bool = False,
    include_stills: bool = False,
    layout: Layout = "auto",
    id_salt: str | None = None,
    timeout_seconds: float = 600.0,
    shard: Shard | None = None,
    overwrite: bool = False,
    progress: bool | None = False,
    profile: Profile | None = None,
    announce: Callable[[str], object] = lambda message: None,
) -> ExtractSummary:
    """Embed every video of a data set into one HDF5 file.

    source: a folder, a table or a public data set, see `read_manifest`. out: the embedding file. backbone: a name or a
    loaded backbone. level: "clip" or "frame". clips: which clips, as a plan or as changes to the default one (that
    which the weights record, else 4 evenly spaced clips of as many consecutive frames as the backbone takes):
    {"stride": 4}. image_size: side of the model's
    input, in pixels. workers: decoding processes (0: none; default: one for four cores, beside an accelerator one per
    core). engine_backend: what runs the frame encoder, see `choose_engine`; compile: short for "compiled".
    batch_frames: frames per run of the encoder (default: see `default_batch_frames`). mask_sector, crop_region: see
    `Preprocess`. include_stills: DICOM stills too. id_salt: makes hashed ids of DICOM headers repeatable.
    timeout_seconds: that a worker may take for one video. shard: do this share of the videos alone, and leave its parts
    beside `out`, for `merge` to put together with those of the other shards. overwrite: begin anew. progress: True or
    False; None shows a bar on a terminal alone. profile: counts where the time goes. announce: told which weights under
    which licence run where, which engine was chosen, and what else a person should know while it runs.

    Stopped at any moment and called again, it goes on where it was; called again on a finished file, it embeds only
    what is new or failed before. Raises SettingsMismatchError if `out` was begun with other settings (unless
    `overwrite`), ManifestError for an unusable input, WeightsError, and StoreError if the output can't be written.
    """
    started = time.monotonic()
    _check_level(level, clips)
    if Path(source).absolute() == Path(out).absolute():
        raise ArgumentError(f"{out} is both the input and the output (-o)")
    with Parts(Path(out).absolute(), id_salt, shard) as parts:
        manifest = read_manifest(source, layout, salt=parts.salt)
        if not isinstance(backbone, Backbone):
            backbone = load_backbone(backbone, weights, seed, image_size=image_size)
        provenance = replace(
            _provenance(backbone, level, clips),
            precision=precision,
            dtype=dtype,
            include_stills=include_stills,
            # Weights that were trained on masked or cut frames are given such frames unasked.
            preprocess=replace(
                backbone.preprocess,
                mask_sector=mask_sector or backbone.preprocess.mask_sector,
                crop_region=crop_region or backbone.preprocess.crop_region,
            ),
        )
        parts.begin(manifest, provenance, overwrite)
        videos, todo = len(parts.share(manifest)), parts.todo(manifest)
        if todo:
            settings = DecodeSettings(provenance.preprocess, provenance.clips, include_stills)
            model = backbone.to(resolve_device(device))
            announce(_introduction(model, len(todo), precision))
            profile = profile or Profile()
            profile.begin()
            encoder = Encoder(
                model,
                batch_frames=batch_frames or default_batch_frames(model, precision),
                precision=precision,
                dtype=dtype,
                engine=_backend(engine_backend, compile),
                expected_videos=len(todo),
                profile=profile,
                announce=announce,
            )
            results = _results(
                manifest, todo, settings, encoder, _default_workers(workers, model), timeout_seconds, profile
            )
            writer = PartWriter(parts, manifest, provenance, encoder, profile)
            _write(results, writer, videos, len(todo), progress)
        if shard is None:
            parts.finish(manifest, provenance)
        rows, failures = parts.tally(manifest)
    return ExtractSummary(
        Path(out).absolute(),
        rows=rows,
        videos=videos,
        done=videos - len(failures),
        reused=videos - len(todo),
        skipped=tuple(f for f in failures if f.stage == "skipped"),
        failed=tuple(f for f in failures if f.stage != "skipped"),
        seconds=time.monotonic() - started,
        notes=(*manifest.notes, *parts.notes),
        shard=shard,
    )


def _introduction(model: Backbone, todo: int, precision: Precision) -> str:
    weights = model.weights
    source = f"{weights.source}, licence {weights.licence}"
    if not weights.pretrained:
        source = f"RANDOM WEIGHTS, NOT PRETRAINED ({weights.source})"
    return f"{todo} videos, {model.name} on {model.device} in {precision}; {source}"


def _check_level(level: Level, clips: ClipPlan | Mapping[str, Any] | None) -> None:
    if level not in ("clip", "frame"):
        raise ArgumentError(f"level is {level!r}; extract writes clip or frame rows, `panecho-embed pool` the others")
    if level == "frame" and clips is not None:
        raise ArgumentError("a frame-level file holds every frame; clips are chosen later, by `panecho-embed reclip`")


def _provenance(model: Backbone, level: Level, clips: ClipPlan | Mapping[str, Any] | None) -> Provenance:
    if level == "frame" and model.frame_dim is None:
        raise ArgumentError(f"{model.name} has no frame level: it sees a clip as a whole (--level clip)")
    return Provenance(
        backbone=model.name,
        weights=model.weights,
        preprocess=model.preprocess,
        clips=None if level == "frame" else resolve_plan(clips, model.clip_plan),
        level=level,
        dim=model.frame_dim if level == "frame" and model.frame_dim else model.dim,
        versions=package_versions(),
    )


def _write(results: Iterator[Result], writer: PartWriter, total: int, todo: int, progress: bool | None) -> None:
    disable = None if progress is None else not progress
    with tqdm(total=total, initial=total - todo, unit="video", disable=disable, smoothing=0.1) as bar:
        try:
            for result in results:
                writer.add(result)
                bar.update()
        except BaseException as error:
            # What is encoded is worth keeping; the next run goes on from there.
            if not isinstance(error, StoreError):
                writer.write()
            raise
        writer.write()


def default_batch_frames(model: Backbone, precision: Precision) -> int:
    """Frames per run of the encoder that are fast on most machines: 256, and on a CPU what its caches hold.

    There it is 16 frames of 112 pixels, or as many pixels in frames of another size, and twice that in half precision
    (benchmarks/encoder_peak.py measures them).
    """
    if model.device.type != "cpu":
        return 256
    frames = 16 * (112 / model.preprocess.crop) ** 2 * (1 if precision == "fp32" else 2)
    return min(max(round(frames), 4), 64)


def _backend(engine_backend: EngineBackend, compile: bool) -> EngineBackend:
    if compile and engine_backend not in ("auto", "compiled"):
        raise ArgumentError(f"compile and the engine {engine_backend} exclude each other (--compile, --engine-backend)")
    return "compiled" if compile else engine_backend


def _default_workers(workers: int | None, model: Backbone) -> int:
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # On a CPU nearly all of the time is the encoder's; more workers would only take its cores.
        return cores if model.device.type != "cpu" else max(1, cores // 4)
    if workers < 0:
        raise ArgumentError(f"workers is {workers}; it must be 0 (decode in this process) or more (--workers)")
    return workers


def package_versions() -> dict[str, str]:
    """Versions of what takes part in turning files into embeddings."""
    packages = ("panecho-embed", "torch", "timm", "torchvision", "numpy", "opencv-python-headless", "pydicom", "h5py")
    found = {name: metadata.version(name) for name in packages if _installed(name)}
    return {"python": platform.python_version(), **found}


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _results(
    manifest: Manifest,
    todo: Sequence[int],
    settings: DecodeSettings,
    encoder: Encoder,
    workers: int,
    timeout_seconds: float,
    profile: Profile,
) -> Iterator[Result]:
    """What became of every video in `todo`, in that order but for failures, which come as soon as they are known."""
    with decoded(((i, manifest.videos[i]) for i in todo), settings, workers, timeout_seconds) as outcomes:
        waiting = iter(outcomes)
        while True:
            with profile.measure("wait"):
                position, outcome = next(waiting, (-1, None))
            if outcome is None:
                break
            if isinstance(outcome, Failure):
                yield position, outcome
                continue
            if outcome.times is not None:
                profile.decoded(outcome.times)
            yield from encoder.add(position, outcome)
    yield from encoder.flush()
