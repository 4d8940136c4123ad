"""torchvision's video models as backbones, fed as torchvision's own presets feed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor, nn

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.digests import checked_sha256
from panecho_embed.core.errors import ArgumentError, WeightsNotFoundError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.wording import nearest
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.checkpoint import matching_tensors, read_checkpoint, tensors_sha256
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.models.weights import NOT_STATED

ensure_torchvision()
from torchvision.models import get_model, get_model_weights, list_models  # noqa: E402
from torchvision.models import video as torchvision_video  # noqa: E402

UNTRAINED_COUNTER = r".+\.num_batches_tracked"

_LICENCE = "BSD-3-Clause (torchvision); trained on Kinetics-400"


def _plan(frames: int, fps: float, clips: int) -> ClipPlan:
    return ClipPlan(frames, None, fps, clips)


# Frames, frames per second and clips per video with which torchvision states the accuracy of its weights.
_CLIPS = {
    "mvit_v1_b": _plan(16, 7.5, 5),
    "mvit_v2_s": _plan(16, 7.5, 5),
    "swin3d_t": _plan(32, 15.0, 12),
    "swin3d_s": _plan(32, 15.0, 12),
    "swin3d_b": _plan(32, 15.0, 12),
    "s3d": _plan(128, 15.0, 1),
    "r3d_18": _plan(16, 15.0, 5),
    "mc3_18": _plan(16, 15.0, 5),
    "r2plus1d_18": _plan(16, 15.0, 5),
}


class WholeClips(nn.Module):
    """Clips as the frames come, (N, L, 3, S, S), for a torchvision model that takes (N, 3, L, S, S)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        """(N, L, 3, S, S) to (N, dim)."""
        encoded: Tensor = self.model(frames.transpose(1, 2))
        return encoded


def torchvision_backbone(name: str, weights: str | Path | None) -> Backbone:
    """The video model `name` of torchvision, without its classifier; it sees clips as a whole, in RGB.

    Parameters
    ----------
    name : str
        mvit_v2_s, swin3d_t, s3d, r2plus1d_18 and the others of `torchvision.models.video`.
    weights : str or Path, optional
        A state dict by torchvision's names, with or without its classifier; None fetches torchvision's own.

    Returns
    -------
    Backbone
        Fed as torchvision's preset for the weights, with the clips for which it states their accuracy.

    Raises
    ------
    ArgumentError
        For a name that there is not.
    WeightsError, WeightsNotFoundError
        For a file of another model, and if there are no weights.
    """
    names = [known for known in list_models(module=torchvision_video) if known in _CLIPS]
    if name not in names:
        raise ArgumentError(
            f"torchvision has no video model {name!r}{nearest(name, names)}; allowed: {', '.join(names)} (--backbone)"
        )
    model: Any = get_model(name, weights=None)
    state, source, sha256, licence, where = _weights(name, weights)
    classifier, dim = _without_classifier(model)
    taken = matching_tensors(
        model.state_dict(),
        state,
        model=f"torchvision's {name}",
        path=where,
        spare=rf"{classifier}\.(weight|bias)",
        optional=UNTRAINED_COUNTER,
    )
    model.load_state_dict({**model.state_dict(), **taken})
    meta = get_model_weights(name)["DEFAULT"].meta
    return Backbone(
        f"torchvision:{name}",
        nn.Identity(),
        WholeClips(model),
        dim,
        None,
        torchvision_feeding(name),
        WeightsInfo(source, sha256, licence, pretrained=True),
        pooling="3d",
        min_frames=meta.get("min_temporal_size") or 1,
        fixed_clip_length=name.startswith("mvit"),
        fixed_image_size=meta["min_size"] != (1, 1),
    )


def torchvision_feeding(name: str) -> Feeding:
    """How torchvision's preset feeds a video model: bilinear without antialias, centre crop, mean and deviation."""
    preset: Any = get_model_weights(name)["DEFAULT"].transforms()
    (crop, _), sides = preset.crop_size, preset.resize_size
    return Feeding(
        geometry="shortest" if len(sides) == 1 else "squash",
        resize=sides[0],
        resize_width=sides[1] if len(sides) == 2 and sides[1] != sides[0] else None,
        crop=crop,
        interpolation="bilinear",
        channel_order="rgb",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        clips=_CLIPS[name],
    )


def _weights(name: str, weights: str | Path | None) -> tuple[dict[str, Tensor], str, str, str, Path]:
    """State dict, source, SHA-256 and licence of the weights, and the file that an error names."""
    if weights is not None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsNotFoundError(f"{path}, given as weights (--weights), is not there")
        file = read_checkpoint(path)
        return dict(file.tensors), path.name, checked_sha256(path), file.recorded.licence or NOT_STATED, path
    published: Any = get_model_weights(name)["DEFAULT"]
    file_name = published.url.rpartition("/")[2]
    try:
        state = published.get_state_dict(progress=False, check_hash=True)
    except (OSError, URLError) as error:
        raise WeightsNotFoundError(
            f"torchvision's weights of {name} could not be fetched: {error}. On another computer, download "
            f"{published.url}, copy the file here, and give it with --weights FILE"
        ) from error
    return state, file_name, tensors_sha256(state), _LICENCE, Path(file_name)


def _without_classifier(model: Any) -> tuple[str, int]:
    """Put the identity in the place of the last layer; returns its name as a pattern, and the width before it."""
    if hasattr(model, "fc"):
        path = "fc"
    elif hasattr(model, "classifier"):
        path = "classifier.1"
    else:
        path = "head.1" if isinstance(model.head, nn.Sequential) else "head"
    layer: Any = model.get_submodule(path)
    model.set_submodule(path, nn.Identity())
    return path.replace(".", r"\."), int(layer.in_channels if isinstance(layer, nn.Conv3d) else layer.in_features)
