"""Manifest -> embedding file: what is done stays done, and what failed is reported."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from panecho_embed.core.clips import ClipPlan, resolve_plan
from panecho_embed.core.cores import check_timeout
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.feeding import MaskChoice
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.progress import Announce, progress_bar, silent
from panecho_embed.core.provenance import Level, Precision, Provenance, StoredType, package_versions
from panecho_embed.core.records import Engine, EngineBackend, Ids, Manifest
from panecho_embed.core.remote import check_url, forget_listings, is_url
from panecho_embed.core.shards import Shard
from panecho_embed.core.wording import counted
from panecho_embed.datasets import is_opaque, local_path, read_manifest
from panecho_embed.extraction.profile import Profile
from panecho_embed.extraction.summary import ExtractSummary, notes_on_beats, notes_on_padding, summary_of_several
from panecho_embed.media import notes_on_videos
from panecho_embed.models.backbones import check_backbone_name, load_backbone
from panecho_embed.store import EmbeddingFile, Mirror, Parts, finish_together

if TYPE_CHECKING:
    from panecho_embed.extraction.job import Output
    from panecho_embed.models.backbones import Backbone

_DICOM_MASK = "sector mask: DICOM files only, as the model was trained (--mask-sector on or off changes it)"

_MOST_PATIENTS = 1_000_000  # 24 MB; each part of an extraction carries them too

_PLAN_NAME = r"[A-Za-z0-9][A-Za-z0-9._=-]{0,99}"


def extract(
    source: str | Path,
    out: str | Path,
    *,
    backbone: str | Backbone = "panecho",
    weights: str | Path | None = None,
    seed: int = 0,
    level: Level = "clip",
    clips: ClipPlan | Mapping[str, Any] | None = None,
    plans: Mapping[str, ClipPlan | Mapping[str, Any]] | None = None,
    image_size: int | None = None,
    precision: Precision = "fp32",
    dtype: StoredType = "float32",
    engine_backend: EngineBackend = "auto",
    engine: Engine = "local",
    ray_address: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    batch_pictures: int | None = None,
    feed: Mapping[str, Any] | None = None,
    mask_sector: MaskChoice = "auto",
    crop_region: bool = False,
    include_stills: bool = False,
    layout: str = "auto",
    ids: Ids = "auto",
    id_salt: str | None = None,
    id_table: Path | None = None,
    timeout_seconds: float = 600.0,
    shard: Shard | None = None,
    overwrite: bool = False,
    progress: bool | None = False,
    profile: Profile | None = None,
    announce: Announce = silent,
) -> ExtractSummary:
    """Embed every video of a data set into one HDF5 file, or into one file per clip plan.

    Resumable: called again after an interruption, it continues; called again on a finished file, it embeds only what is
    new or failed before.

    Parameters
    ----------
    source : str or Path
        A folder, a table or a public data set, see `read_manifest`; a path or a URL (s3://bucket/name).
    out : str or Path
        The embedding file; with `plans`, a folder. A path or a URL, see `Mirror`.
    backbone : str or Backbone
        A name, see `load_backbone`, or a loaded backbone.
    weights : str or Path, optional
        Weights file; None looks where `panecho_embed.models.weights` says, and fetches.
    seed : int
        Seed for the weights of the backbone "random".
    level : {"clip", "frame"}
        What a row is. At frame level every frame is a picture, encoded only by the image encoder.
    clips : ClipPlan or mapping, optional
        Which clips, as a plan or as changes to the backbone's own, such as {"stride": 4}; see `Feeding.clips`.
    plans : mapping of str to (ClipPlan or mapping), optional
        Several plans by name, from one pass over the videos: each video is decoded once, and a picture that several
        plans share is encoded once. The plan NAME becomes the file `out`/NAME.h5.
    image_size : int, optional
        Side of the model's input in pixels; None for the size that the backbone was trained with.
    precision : {"fp32", "bf16", "fp16"}
        Arithmetic of the encoders.
    dtype : {"float32", "float16"}
        Data type of the stored embeddings.
    engine_backend : str
        What runs the image encoder, see `choose_engine`.
    engine : {"local", "ray"}
        This machine, or the machines of a Ray cluster, see `embed_on_ray`.
    ray_address : str, optional
        HOST:PORT of the cluster's head, see `ray_cluster`.
    device : str
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    workers : int, optional
        Decoding processes; 0 decodes in this process. Default: one per four cores, beside an accelerator one per core.
    batch_pictures : int, optional
        Pictures per run of the image encoder; default: see `default_batch_pictures`.
    feed : mapping, optional
        Changes to how the backbone is fed, such as {"geometry": "squash"}; see `Feeding.overridden`. What differs from
        the backbone's own is announced, and recorded in the file.
    mask_sector : {"auto", "on", "off"}
        Black out everything outside the ultrasound sector; "auto": in the files that the backbone's own feeding masks.
    crop_region : bool
        Cut frames to the 2-D region that the file names.
    include_stills : bool
        Also embed DICOM stills.
    layout : str
        How the input is laid out, see `read_manifest`.
    ids : {"auto", "opaque", "plain"}
        Whether ids and paths are hashed, see `read_manifest`; "auto" hashes them where there is DICOM.
    id_salt : str, optional
        Key of the hashes, 16 characters or more, for the same ids in several outputs. Default: see `read_manifest`.
    id_table : Path, optional
        The local table that maps hashed ids back. Default: `out` with ".ids.csv" added.
    timeout_seconds : float
        Time limit for decoding one video in a worker.
    shard : Shard, optional
        Embed this share of the videos only; its parts stay beside `out` until `merge` combines all shards.
    overwrite : bool
        Replace existing output.
    progress : bool or None
        Show a progress bar; None: on a terminal only.
    profile : Profile, optional
        Counts where the local engine's time goes.
    announce : callable
        Is told which weights run where, which engine was chosen, and other messages for people.

    Returns
    -------
    ExtractSummary
        Counts and failures; with `plans`, its `files` has the summary of each file.

    Raises
    ------
    SettingsMismatchError
        If `out` was begun with other settings, unless `overwrite`.
    EarlierReleaseError
        If `out` was made by a release with another order of planes, unless `overwrite`.
    ManifestError, WeightsError, StoreError
        For an unusable input, for weights, and if the output can't be written.
    """
    started = time.monotonic()
    _check_level(level, clips, plans)
    wanted = {"": clips} if plans is None else dict(plans)
    where = {name: _place(out, name) for name in wanted}
    forget_listings()
    if (source if is_url(source) else Path(source).absolute()) in where.values():
        raise ArgumentError(f"{out} is both the input and the output (-o)")
    _check_engine(engine, ray_address)
    check_timeout(timeout_seconds)
    if isinstance(backbone, str):
        check_backbone_name(backbone)
    if is_url(out) and shard:
        raise ArgumentError(f"{out} is a URL; the shards of a job array need a file system that they share (-o)")
    with ExitStack() as stack:
        if plans is not None and not is_url(out):
            stack.enter_context(_folder(Path(out)))
        parts = {name: stack.enter_context(_parts(place, shard)) for name, place in where.items()}
        local = id_table or local_path(out)
        if id_salt is None and not overwrite and not local_path(source).is_file():
            _check_table(local, parts.values())
        manifest = read_manifest(source, layout, ids=ids, salt=id_salt, local=local)
        # Before hours of work; the summary has all notes once more.
        for note in manifest.notes:
            if note.startswith("WARNING"):
                announce(note)
        if isinstance(backbone, str):
            announce(f"{counted(len(manifest.videos), 'video')} found; loading {backbone}")
        # What follows needs torch and the decoders; what is wrong with the arguments is known by now.
        from panecho_embed.extraction.decode import DecodeSettings
        from panecho_embed.extraction.encode import EncodeSettings
        from panecho_embed.extraction.job import Job, Output
        from panecho_embed.extraction.local import embed_locally
        from panecho_embed.extraction.ray_engine import embed_on_ray

        if isinstance(backbone, str):
            backbone = load_backbone(backbone, weights, seed, image_size=image_size)
        provenance = replace(
            _provenance(backbone, level),
            precision=precision,
            dtype=dtype,
            include_stills=include_stills,
            feeding=backbone.feeding.overridden(feed, mask_sector=mask_sector, crop_region=crop_region),
        )
        outputs = {name: Output(parts[name], _of_plan(provenance, backbone, plan)) for name, plan in wanted.items()}
        if any(output.provenance.clips and output.provenance.clips.ed_es for output in outputs.values()):
            manifest = manifest.with_phases()
        todo = _begin(outputs, manifest, overwrite, announce)
        jobs = [
            Job(
                some,
                manifest,
                videos,
                backbone,
                DecodeSettings(provenance.feeding, _plans(some), include_stills),
                EncodeSettings(precision, dtype, engine_backend, batch_pictures),
                device,
                workers,
                timeout_seconds,
                announce,
            )
            for some, videos in _groups(outputs, todo)
        ]
        at_work = (
            embed_locally(job, profile or Profile()) if engine == "local" else embed_on_ray(job, ray_address)
            for job in jobs
        )
        if jobs:
            total, left = len(next(iter(parts.values())).share(manifest)), sum(len(job.todo) for job in jobs)
            with progress_bar("video", progress, total=total, initial=total - left, smoothing=0.1) as bar:
                for videos in chain.from_iterable(at_work):
                    bar.update(videos)
        if shard is None:
            finish_together(list(parts.values()), manifest, [output.provenance for output in outputs.values()])
        notes = (_DICOM_MASK,) if provenance.feeding.mask == "dicom" else ()
        summaries = {}
        for name, output in outputs.items():
            taken: tuple[str, ...] = ()
            if shard is None:
                file, plan = parts[name].finished, output.provenance.clips
                taken = (*notes_on_beats(file, plan), *notes_on_padding(file, plan))
            summaries[name] = _summary(where[name], parts[name], manifest, len(todo[name]), shard, (*taken, *notes))
    seconds = time.monotonic() - started
    if plans is None:
        return replace(summaries[""], seconds=seconds)
    return summary_of_several(Path(out) if not is_url(out) else str(out), summaries, seconds)


def _begin(
    outputs: Mapping[str, Output], manifest: Manifest, overwrite: bool, announce: Announce
) -> dict[str, list[int]]:
    """Begin the outputs or go on with them; returns the positions of the videos that each lacks."""
    for name, output in outputs.items():
        for override in output.provenance.overrides:
            announce(f"override{f' in {name}' if name else ''}: {override}")
    for output in outputs.values():
        output.parts.begin(manifest, output.provenance, overwrite)
    todo = {name: output.parts.todo(manifest) for name, output in outputs.items()}
    for name in filter(todo.get, outputs):
        outputs[name].parts.check_finished()
    return todo


def _check_table(local: Path, several: Iterable[Parts]) -> None:
    """Raise StoreError if files are finished whose opaque ids no run can give again, as their local table is gone."""
    for parts in several:
        if local.is_file() or not parts.out.exists():
            continue
        try:
            ids = EmbeddingFile(parts.out).read_videos(["video_id"])["video_id"]
        except StoreError:
            # What is not an embedding file is refused in its turn.
            continue
        if any(map(is_opaque, ids[:1])):
            raise StoreError(
                f"{parts.out} has opaque ids, and their local table {local} is not there, so that no run can give them "
                "again: put it back, give their salt (--salt-file), or begin anew with --overwrite"
            )


def _place(out: str | Path, name: str) -> Path | str:
    """The file that is written: `out`, or for a plan's name a file in the folder `out`."""
    if is_url(out):
        url = check_url(str(out))
        return f"{url.rstrip('/')}/{name}.h5" if name else url
    path = Path(out).absolute()
    return path / f"{name}.h5" if name else path


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """The folder of several files, made if it is not there, and taken away again if nothing comes into it."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: no folder for the files of several plans ({error.strerror or error}) (-o)"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.rmdir()


def _parts(where: Path | str, shard: Shard | None) -> Parts:
    mirror = Mirror(where) if isinstance(where, str) else None
    return Parts(mirror.local if mirror else Path(where), shard, mirror)


def _groups(outputs: Mapping[str, Output], todo: Mapping[str, list[int]]) -> Iterator[tuple[list[Output], list[int]]]:
    """Videos that the same outputs lack, with these outputs: all at first, fewer where a run was stopped."""
    lacking: dict[int, list[str]] = {}
    for name, videos in todo.items():
        for video in videos:
            lacking.setdefault(video, []).append(name)
    groups: dict[tuple[str, ...], list[int]] = {}
    for video in sorted(lacking):
        groups.setdefault(tuple(lacking[video]), []).append(video)
    for names, videos in groups.items():
        yield [outputs[name] for name in names], videos


def _plans(outputs: list[Output]) -> tuple[ClipPlan, ...] | None:
    plans = tuple(output.provenance.clips for output in outputs if output.provenance.clips is not None)
    return plans or None


def _summary(
    where: Path | str, parts: Parts, manifest: Manifest, embedded: int, shard: Shard | None, notes: Sequence[str]
) -> ExtractSummary:
    videos = len(parts.share(manifest))
    rows, failures = parts.tally(manifest)
    return ExtractSummary(
        where,
        rows=rows,
        videos=videos,
        done=videos - len(failures),
        reused=videos - embedded,
        skipped=tuple(f for f in failures if f.stage == "skipped"),
        failed=tuple(f for f in failures if f.stage != "skipped"),
        seconds=0.0,
        notes=(*manifest.notes, *parts.notes, *notes_on_videos(video.location for video in manifest.videos), *notes),
        shard=shard,
    )


def _check_level(
    level: Level,
    clips: ClipPlan | Mapping[str, Any] | None,
    plans: Mapping[str, ClipPlan | Mapping[str, Any]] | None,
) -> None:
    if level not in ("clip", "frame"):
        raise ArgumentError(f"level is {level!r}; extract writes clip or frame rows, `panecho-embed pool` the others")
    if level == "frame" and (clips is not None or plans is not None):
        raise ArgumentError(
            "a frame-level file holds every frame and no clips; leave out the clip options, or --level frame"
        )
    if plans is None:
        return
    if not plans:
        raise ArgumentError("plans is empty; name one plan or more (--plan)")
    if clips is not None:
        raise ArgumentError("clips and plans exclude each other: put the clip options into each plan (--plan)")
    if bad := [name for name in plans if not re.fullmatch(_PLAN_NAME, name)]:
        raise ArgumentError(
            f"a plan can't be called {bad[0]!r}; its name becomes a file's: letters, digits, and . _ - = behind the "
            "first (--plan)"
        )


def _provenance(model: Backbone, level: Level) -> Provenance:
    if level == "frame" and model.image_dim is None:
        raise ArgumentError(f"{model.name} has no frame level: it sees a clip as a whole (--level clip)")
    return Provenance(
        backbone=model.name,
        weights=model.weights,
        feeding=model.feeding,
        clips=None,
        level=level,
        dim=model.image_dim if level == "frame" and model.image_dim else model.dim,
        l2_normalised=model.l2_normalised,
        plane_order=model.plane_order,
        versions=package_versions(),
        patients=_carried(model),
    )


def _carried(model: Backbone) -> TrainingPatients:
    """Who trained the model, to be carried in the file. Raises ArgumentError if they are too many for that."""
    count = model.patients.num_hashes
    if count > _MOST_PATIENTS:
        raise ArgumentError(
            f"{model.weights.source} records {count:,} patients of its training; an embedding file carries "
            f"{_MOST_PATIENTS:,} at most, so that a probe can tell whether it tests any of them"
        )
    return model.patients


def _of_plan(provenance: Provenance, backbone: Backbone, clips: ClipPlan | Mapping[str, Any] | None) -> Provenance:
    """The record of one output: its clips, checked, and what is not the model's own."""
    plan = None
    if provenance.level == "clip":
        plan = resolve_plan(clips, backbone.feeding.clips)
        backbone.check_clips(plan)
    return replace(provenance, clips=plan, overrides=backbone.overrides(provenance.feeding, plan))


def _check_engine(engine: Engine, ray_address: str | None) -> None:
    if engine not in get_args(Engine):
        raise ArgumentError(f"engine is {engine!r}; allowed are {', '.join(get_args(Engine))} (--engine)")
    if ray_address is not None and engine != "ray":
        raise ArgumentError(f"the address {ray_address} is of a Ray cluster, which --engine ray works on")
