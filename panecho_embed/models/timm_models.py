"""Any image model of timm as a backbone, with the preprocessing that timm states for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from panecho_embed.digests import checked_sha256
from panecho_embed.errors import ArgumentError, WeightsError, WeightsNotFoundError
from panecho_embed.models.backbone import Backbone, MeanOverFrames
from panecho_embed.models.checkpoint import matching_tensors, read_checkpoint, tensors_sha256
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.models.weights import NOT_STATED
from panecho_embed.nearest import nearest
from panecho_embed.provenance import Interpolation, Preprocess, WeightsInfo

ensure_torchvision()
import timm  # noqa: E402
from timm.data.config import resolve_model_data_config  # noqa: E402
from timm.models import get_pretrained_cfg  # noqa: E402


def timm_backbone(model_name: str, weights: str | Path | None) -> Backbone:
    """The image encoder `model_name` of timm, RGB; a clip is the mean of its frames.

    weights: a state dict by timm's own names, with or without its classifier; None fetches timm's pretrained ones.
    Raises ArgumentError for an unknown model, WeightsError, WeightsNotFoundError.
    """
    _check_known(model_name)
    if weights is None:
        model = _pretrained(model_name)
        source, sha256 = f"timm {model_name}", tensors_sha256(model.state_dict())
        published: Any = model.pretrained_cfg
        licence = published.get("license") or f"{NOT_STATED} by timm; see the model's page"
    else:
        path = Path(weights).expanduser()
        model, stated = _from_file(model_name, path)
        source, sha256, licence = path.name, checked_sha256(path), stated or NOT_STATED
    config: Any = model.pretrained_cfg
    preprocess = _preprocess(model_name, resolve_model_data_config(model))  # type: ignore[no-untyped-call]
    dim = _embedding_dim(model_name, model, preprocess.crop)
    return Backbone(
        f"timm:{model_name}",
        model,
        MeanOverFrames(),
        dim=dim,
        image_dim=dim,
        preprocess=preprocess,
        weights=WeightsInfo(source, sha256, licence, pretrained=True),
        fixed_image_size=bool(config.get("fixed_input_size")),
    )


def _check_known(model_name: str) -> None:
    names = timm.list_models()
    if model_name.split(".")[0] not in names:
        raise ArgumentError(
            f"timm {timm.__version__} has no model {model_name!r}{nearest(model_name, names)}; "
            "timm.list_models() lists all of them"
        )
    try:
        get_pretrained_cfg(model_name, allow_unregistered=False)
    except RuntimeError as error:
        tagged = ", ".join(timm.list_pretrained(f"{model_name.split('.')[0]}.*")) or "none"
        raise ArgumentError(f"timm has no weights {model_name!r}; it has: {tagged}") from error


def _pretrained(model_name: str) -> nn.Module:
    config = get_pretrained_cfg(model_name)
    if config is None or not config.has_weights:
        raise WeightsNotFoundError(f"timm has no pretrained weights for {model_name}; give a file (--weights)")
    try:
        # With its own classifier, because timm loads strictly only then.
        model: Any = timm.create_model(model_name, pretrained=True)
    except OSError as error:
        raise WeightsNotFoundError(
            f"timm's weights of {model_name} could not be fetched: {error}. On another computer, save "
            f"timm.create_model({model_name!r}, pretrained=True).state_dict() with torch.save, copy the file here, and "
            "give it with --weights FILE. To try things out without them: --backbone random (--init random)"
        ) from error
    model.reset_classifier(0)
    return cast(nn.Module, model)


def _from_file(model_name: str, path: Path) -> tuple[nn.Module, str]:
    """The model with a file's weights, and the licence that the file states, "" for none."""
    if not path.is_file():
        raise WeightsNotFoundError(f"{path}, given as weights (--weights), is not there")
    model: Any = timm.create_model(model_name, pretrained=False, num_classes=0)
    classifier = model.pretrained_cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    spare = "|".join(rf"{layer.replace('.', '[.]')}[.](weight|bias)" for layer in layers)
    file = read_checkpoint(path)
    taken = matching_tensors(
        model.state_dict(), file.tensors, model=f"timm's {model_name}", path=path, spare=spare or "(?!)"
    )
    model.load_state_dict(taken)
    return cast(nn.Module, model), file.recorded.licence


def _preprocess(model_name: str, config: dict[str, Any]) -> Preprocess:
    channels, height, width = config["input_size"]
    if channels != 3 or height != width or config["interpolation"] not in get_args(Interpolation):
        raise ArgumentError(
            f"timm:{model_name} takes {config['input_size']} pixels resized as {config['interpolation']!r}; allowed "
            f"are 3 channels, squares, and one of {', '.join(get_args(Interpolation))}"
        )
    return Preprocess(
        resize=int(height / config["crop_pct"]),
        crop=height,
        interpolation=config["interpolation"],
        channel_order="rgb",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _embedding_dim(model_name: str, model: nn.Module, size: int) -> int:
    """Asked of the model itself: timm's `num_features` is not what every model puts out without its classifier."""
    with torch.inference_mode():
        shape = model.eval()(torch.zeros(1, 3, size, size)).shape
    if len(shape) != 2:
        raise WeightsError(f"timm:{model_name} puts out an array of shape {tuple(shape)} a frame, not one embedding")
    return int(shape[1])
