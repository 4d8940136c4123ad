"""What runs the clip encoder: PyTorch operator by operator, or oneDNN's fused operators where they give the same."""

from __future__ import annotations

import torch
from torch import Tensor

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.clips import PADDING
from panecho_embed.core.errors import NoMemoryError
from panecho_embed.core.progress import Announce, silent
from panecho_embed.core.provenance import Precision
from panecho_embed.core.records import EngineBackend
from panecho_embed.core.workers import GoOn
from panecho_embed.extraction.choose import agreement
from panecho_embed.extraction.image_engine import WEIGHTS_DTYPES, is_out_of_memory
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.fused import FusedClipEncoder, can_fuse, fused_clip_encoder

FUSED = "fused clips"
"""What an embedding file says of clips that oneDNN's operators have encoded."""


class ClipEngine:
    """Encodes clips of picture vectors, as many at once as memory allows; says so where it allows fewer.

    backend: "eager" for that; else the fused encoder is taken on a CPU that has it, for a model that it knows, if it
    gives what eager gives in fp32: checked on the first clips, within the bounds of `choose_engine`. clip_batch: clips
    in one run. go_on: see `GoOn`; called before every run. names: [] for eager, else what an embedding file should say.
    """

    def __init__(
        self,
        backbone: Backbone,
        precision: Precision,
        backend: EngineBackend = "auto",
        announce: Announce = silent,
        clip_batch: int = 64,
        go_on: GoOn = lambda: None,
    ) -> None:
        self.names: list[str] = []
        self._backbone = backbone
        self._precision: Precision = precision
        self._announce = announce
        self._clip_batch = clip_batch
        self._go_on = go_on
        self._fused: FusedClipEncoder | None = None
        self._is_chosen = backend == "eager"

    @property
    def device(self) -> torch.device:
        """Where the features should be."""
        return self._backbone.device

    def __call__(self, features: Tensor, clips: Ints) -> Tensor:
        """Vectors of pictures (P, ...) and clips (N, L) of positions in them to clip embeddings (N, dim) float32.

        `PADDING` in a clip is a picture of zeros, of a model that sees clips as a whole.
        Raises NoMemoryError if memory does not suffice for one clip.
        """
        index = torch.from_numpy(clips).to(features.device)
        while True:
            try:
                return torch.cat([self._encoded(_gathered(features, some)) for some in index.split(self._clip_batch)])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self._clip_batch == 1:
                    raise NoMemoryError(
                        f"memory does not suffice to encode a single clip on {self._backbone.device}; a smaller "
                        "--image-size or --frames-per-clip, or another --device may do"
                    ) from error
            self._clip_batch = max(1, min(self._clip_batch, len(clips)) // 2)
            self._announce(f"memory does not suffice for the clips at once: {self._clip_batch} from now on")

    @torch.inference_mode()
    def _encoded(self, frames: Tensor) -> Tensor:
        self._go_on()
        # Frames that are not finite say nothing of an engine: the next clips may.
        if not self._is_chosen and frames.isfinite().all():
            self._fused = self._chosen(frames)
            self._is_chosen = True
        if self._fused is not None:
            encoded: Tensor = self._fused(frames.to(torch.float32))
            return encoded
        return self._eager(frames, self._precision)

    def _eager(self, frames: Tensor, precision: Precision) -> Tensor:
        with self._backbone.autocast(precision):
            return self._backbone.encode_clips(frames)

    def _chosen(self, frames: Tensor) -> FusedClipEncoder | None:
        dtype = WEIGHTS_DTYPES[self._precision]
        if self._backbone.device.type != "cpu" or not can_fuse(dtype):
            return None
        fused = fused_clip_encoder(self._backbone.clip_encoder, dtype)
        if fused is None:
            return None
        found = agreement(fused(frames.to(torch.float32)), self._eager(frames, "fp32"))
        if not found.within(self._precision):
            self._announce(f"clips by eager: the fused operators of this CPU give others in {self._precision}: {found}")
            return None
        self._announce(f"clips by fused operators: {found} from eager fp32")
        self.names.append(FUSED)
        return fused


def _gathered(features: Tensor, clips: Tensor) -> Tensor:
    """The pictures of clips (N, L), (N, L, ...), zeros where a clip is padded."""
    padded = clips == PADDING
    if not padded.any():
        return features[clips]
    gathered = features[clips.clamp(min=0)]
    return gathered.masked_fill(padded.reshape(*padded.shape, *[1] * (gathered.ndim - 2)), 0)
