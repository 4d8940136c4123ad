"""Manifest -> embedding file: what is done stays done, and what failed is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from panecho_embed.clips import ClipPlan, resolve_plan
from panecho_embed.engines.decode import DecodeSettings
from panecho_embed.engines.encode import EncodeSettings
from panecho_embed.engines.job import Job
from panecho_embed.engines.local import embed_locally
from panecho_embed.engines.pool import check_timeout
from panecho_embed.engines.profile import Profile
from panecho_embed.engines.ray_engine import embed_on_ray
from panecho_embed.errors import ArgumentError
from panecho_embed.manifest import read_manifest
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.provenance import Level, Precision, Provenance, StoredType
from panecho_embed.records import Engine, EngineBackend, Layout
from panecho_embed.remote import check_url, forget_listings, is_url
from panecho_embed.shards import Shard
from panecho_embed.store import Mirror, Parts
from panecho_embed.summary import ExtractSummary
from panecho_embed.versions import package_versions


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
    engine: Engine = "local",
    ray_address: str | None = None,
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

    source: a folder, a table or a public data set, see `read_manifest`. out: the embedding file. Both are paths or
    URLs (s3://bucket/name); what is at a URL is copied to this machine and from it, see `Mirror`. backbone: a name or a
    loaded backbone. level: "clip" or "frame". clips: which clips, as a plan or as changes to the default one (that
    which the weights record, else 4 evenly spaced clips of as many consecutive frames as the backbone takes):
    {"stride": 4}. image_size: side of the model's
    input, in pixels. workers: decoding processes (0: none; default: one for four cores, beside an accelerator one per
    core). engine_backend: what runs the frame encoder, see `choose_engine`; compile: short for "compiled".
    engine: "local", or "ray" for the machines of a Ray cluster, see `embed_on_ray`; ray_address: HOST:PORT of its head,
    see `ray_cluster`.
    batch_frames: frames per run of the encoder (default: see `default_batch_frames`). mask_sector, crop_region: see
    `Preprocess`. include_stills: DICOM stills too. id_salt: makes hashed ids of DICOM headers repeatable.
    timeout_seconds: that a worker may take for one video. shard: do this share of the videos alone, and leave its parts
    beside `out`, for `merge` to put together with those of the other shards. overwrite: begin anew. progress: True or
    False; None shows a bar on a terminal alone. profile: counts where the local engine's time goes. announce: told
    which weights under which licence run where, which engine was chosen, and what else a person should know meanwhile.

    Stopped at any moment and called again, it goes on where it was; called again on a finished file, it embeds only
    what is new or failed before. Raises SettingsMismatchError if `out` was begun with other settings (unless
    `overwrite`), ManifestError for an unusable input, WeightsError, and StoreError if the output can't be written.
    """
    started = time.monotonic()
    _check_level(level, clips)
    where = check_url(str(out)) if is_url(out) else Path(out).absolute()
    forget_listings()
    if (source if is_url(source) else Path(source).absolute()) == where:
        raise ArgumentError(f"{out} is both the input and the output (-o)")
    _check_engine(engine, ray_address)
    check_timeout(timeout_seconds)
    mirror = Mirror(where) if isinstance(where, str) else None
    if mirror and shard:
        raise ArgumentError(f"{out} is a URL; the shards of a job array need a file system that they share (-o)")
    with Parts(mirror.local if mirror else Path(out).absolute(), id_salt, shard, mirror) as parts:
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
            job = Job(
                parts,
                manifest,
                todo,
                provenance,
                backbone,
                DecodeSettings(provenance.preprocess, provenance.clips, include_stills),
                EncodeSettings(precision, dtype, _backend(engine_backend, compile), batch_frames),
                device,
                workers,
                timeout_seconds,
                announce,
            )
            at_work = embed_locally(job, profile or Profile()) if engine == "local" else embed_on_ray(job, ray_address)
            _follow(at_work, videos, len(todo), progress)
        if shard is None:
            parts.finish(manifest, provenance)
        rows, failures = parts.tally(manifest)
    return ExtractSummary(
        where,
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


def _follow(at_work: Iterator[int], total: int, todo: int, progress: bool | None) -> None:
    """Let an engine work, and show how far it is."""
    disable = None if progress is None else not progress
    with tqdm(total=total, initial=total - todo, unit="video", disable=disable, smoothing=0.1) as bar:
        for videos in at_work:
            bar.update(videos)


def _check_engine(engine: Engine, ray_address: str | None) -> None:
    if engine not in get_args(Engine):
        raise ArgumentError(f"engine is {engine!r}; allowed are {', '.join(get_args(Engine))} (--engine)")
    if ray_address is not None and engine != "ray":
        raise ArgumentError(f"the address {ray_address} is of a Ray cluster, which --engine ray works on")


def _backend(engine_backend: EngineBackend, compile: bool) -> EngineBackend:
    if compile and engine_backend not in ("auto", "compiled"):
        raise ArgumentError(f"compile and the engine {engine_backend} exclude each other (--compile, --engine-backend)")
    return "compiled" if compile else engine_backend
