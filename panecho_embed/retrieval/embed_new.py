"""A file that is not in the collection -> its embedding, by the same weights and feeding, or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from panecho_embed.core.arraytypes import FloatArray, Texts
from panecho_embed.core.errors import ArgumentError, MediaError, WeightsError
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import EmbeddingTable, Failure, Manifest, VideoRef
from panecho_embed.core.workers import GoOn
from panecho_embed.datasets import LocalIds, local_path, read_manifest
from panecho_embed.datasets.table import TABLE_SUFFIXES
from panecho_embed.extraction.decode import DecodedVideo, DecodeSettings
from panecho_embed.extraction.encode import EncodedVideo, Encoder
from panecho_embed.extraction.pool import decoded
from panecho_embed.extraction.pooling import pool_table, pooling_steps
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.retrieval.recognition import one_study

_SEED = re.compile(r"seed (\d+)")


@dataclass(frozen=True, slots=True, eq=False)
class NewVideos:
    """Embeddings of a file or a folder: vectors (V, D), one a video; views (V,), "" where not known.

    notes: what could not be used, and why. videos: (V,) what they were made from.
    """

    vectors: FloatArray
    views: tuple[str, ...]
    notes: tuple[str, ...]
    videos: tuple[VideoRef, ...]


class Embedder:
    """Embeds new videos exactly as those of an embedding file were.

    provenance: of that file. weights: a file, None to look where `extract` looks. backbone: the model itself, where it
    is loaded already. known: the file's local table of ids, so that its patients are recognised. Raises
    WeightsNotFoundError if the weights can't be found, WeightsError if they are others than the
    file's, and ArgumentError if the backbone prepares its frames in another way.
    """

    def __init__(
        self,
        provenance: Provenance,
        weights: str | Path | None = None,
        *,
        backbone: Backbone | None = None,
        device: str = "auto",
        known: LocalIds | None = None,
    ) -> None:
        self._provenance = provenance
        self._known = known
        if backbone is None:
            seed = _SEED.search(provenance.weights.source)
            size = provenance.feeding.crop
            backbone = load_backbone(provenance.backbone, weights, int(seed[1]) if seed else 0, image_size=size)
        if backbone.weights.sha256 != provenance.weights.sha256:
            raise WeightsError(
                f"the embedding file was made by {provenance.backbone} with weights {provenance.weights.sha256[:16]} "
                f"({provenance.weights.source}); those at hand are {backbone.weights.sha256[:16]} "
                f"({backbone.weights.source}). Vectors of the two can't be compared (--weights)"
            )
        if backbone.plane_order != provenance.plane_order:
            raise ArgumentError(
                f"the embedding file was made with the order of planes {provenance.plane_order!r}, and "
                f"{backbone.name} takes {backbone.plane_order!r}: vectors of the two can't be compared"
            )
        if backbone.l2_normalised != provenance.l2_normalised:
            raise ArgumentError(
                f"the embedding file was made with l2_normalised {provenance.l2_normalised}, and {backbone.name} has "
                f"{backbone.l2_normalised} in this release: vectors of the two can't be compared; extract anew"
            )
        # Frames are prepared as the file records; the model normalises them.
        mine, made_with = ((f.crop, f.scale, f.mean, f.std) for f in (backbone.feeding, provenance.feeding))
        if mine != made_with:
            raise ArgumentError(
                f"{provenance.backbone} takes pixels of the size, scale, mean and deviation {mine} in this release; "
                f"the embedding file was made with {made_with}, so that vectors can't be compared; extract anew"
            )
        self._backbone = backbone.to(resolve_device(device))

    def _manifest(self, path: str | Path) -> Manifest:
        """What is to be embedded, its ids hashed as those of the collection are."""
        known, table = self._known, local_path(path)
        hashed = known is not None and Path(path).suffix.lower() in TABLE_SUFFIXES and table.is_file()
        if known and hashed and LocalIds.read(table).salt != known.salt:
            raise ArgumentError(
                f"{path}: its ids are hashed with another salt than those of the collection ({known.path}), so its "
                "patients would not be recognised; name the video file or folder itself (--file)"
            )
        return read_manifest(path, salt=known.salt if known else None)

    def embed(
        self,
        path: str | Path,
        *,
        study: str | None = None,
        workers: int = 1,
        timeout_seconds: float = 600.0,
        most_frames: int | None = None,
        go_on: GoOn = lambda: None,
    ) -> NewVideos:
        """Embed a video file, or every video of a folder, which show one study.

        study: the one to embed, where the headers or the table tell of several; folders by themselves do not.
        workers: decoding processes; 0 decodes in this one, without a time limit. most_frames: frames of a video that
        its clips may need, and pictures of it that may have to be encoded. go_on: see `GoOn`; called every quarter of a
        second while a worker decodes, and before every run of an encoder. Raises MediaError, with the reasons, when no
        video of it can be used, and ArgumentError for several studies.
        """
        manifest = self._manifest(path)
        of_it = one_study(
            str(path), [_told(video, Path(path)) for video in manifest.videos], study and self._named(study)
        )
        videos = tuple(video for video, kept in zip(manifest.videos, of_it, strict=True) if kept)
        plans = None if self._provenance.clips is None else (self._provenance.clips,)
        settings = DecodeSettings(self._provenance.feeding, plans, digest=False, most_frames=most_frames)
        pictures, clips = (32, 8) if self._backbone.device.type == "cpu" else (256, 64)
        encoder = Encoder(
            self._backbone,
            batch_pictures=pictures,
            clip_batch=clips,
            precision=self._provenance.precision,
            go_on=go_on,
        )
        done: list[tuple[int, FloatArray]] = []
        failures: list[Failure] = []

        def sort(position: int, encoded: EncodedVideo) -> None:
            (values,) = encoded.values
            if isinstance(values, Failure):
                failures.append(values)
            else:
                done.append((position, values))

        with decoded(enumerate(videos), settings, workers, timeout_seconds, go_on) as outcomes:
            for position, outcome in outcomes:
                if isinstance(outcome, Failure):
                    failures.append(outcome)
                    continue
                if too_many := self._too_many(outcome, most_frames):
                    failures.append(too_many)
                    continue
                for encoded in encoder.add(position, outcome):
                    sort(*encoded)
        for encoded in encoder.flush():
            sort(*encoded)
        notes = tuple(f"{Path(f.path).name}: {f.message} [{f.stage}]" for f in failures)
        if not done:
            raise MediaError("; ".join(notes), stage=failures[0].stage)
        return self._pooled(sorted(done, key=lambda one: one[0]), videos, (*manifest.notes, *notes))

    def _named(self, study: str) -> str:
        """The id here of a study that may be asked for by its id in the hospital."""
        return study if self._known is None else self._known.translated("study", [study])[0]

    def _too_many(self, video: DecodedVideo, most: int | None) -> Failure | None:
        """A Failure if more pictures of a video would have to be encoded; overlapping clips need several a frame."""
        pictures = len(self._backbone.pictures(video.clips, len(video.pixels)).planes)
        if most is None or pictures <= most:
            return None
        message = f"{pictures} pictures of it would have to be encoded, more than {most}"
        return Failure(video.video_id, video.path, "frames", message)

    def _pooled(
        self, done: Sequence[tuple[int, FloatArray]], videos: Sequence[VideoRef], notes: tuple[str, ...]
    ) -> NewVideos:
        """One vector a video, pooled as the file's own rows were."""
        counts = [len(values) for _, values in done]
        refs = [videos[position] for position, _ in done]

        def column(values: Sequence[str]) -> Texts:
            return np.repeat(np.array(values, dtype=object), counts)

        rows = sum(counts)
        table = EmbeddingTable(
            values=np.concatenate([values for _, values in done]),
            video_id=column([ref.video_id for ref in refs]),
            # Whatever a folder is made of, it is asked for as one study.
            study_id=column(["query"] * len(refs)),
            patient_id=column(["query"] * len(refs)),
            view=column([ref.view for ref in refs]),
            split=column([""] * len(refs)),
            first_frame=np.zeros(rows, dtype=np.int64),
            frame_step=np.zeros(rows),
            frames_per_clip=np.zeros(rows, dtype=np.int64),
            labels={},
            level="frame" if self._provenance.clips is None else "clip",
            provenance=self._provenance,
        )
        for how, by in pooling_steps(self._provenance):
            table = pool_table(table, by, how)
        if table.level in ("frame", "clip"):
            table = pool_table(table, "video")
        return NewVideos(table.values, tuple(str(view) for view in table.view), notes, tuple(refs))


def _told(video: VideoRef, source: Path) -> str:
    """The study that a header or a table names; "" where the id was made from the place of the file."""
    plain = video.origin or video
    if plain.study_id == plain.video_id or (
        source.is_dir() and plain.study_id == str(PurePosixPath(plain.video_id).parent)
    ):
        return ""
    return video.study_id
