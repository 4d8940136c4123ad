"""Any image model of timm as a backbone, fed as timm states for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from panecho_embed.core.digests import checked_sha256
from panecho_embed.core.errors import ArgumentError, WeightsError, WeightsNotFoundError
from panecho_embed.core.feeding import Feeding, Geometry, Interpolation
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.wording import nearest
from panecho_embed.models.backbone import Backbone, MeanOverFrames
from panecho_embed.models.checkpoint import matching_tensors, read_checkpoint, tensors_sha256
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.models.weights import NOT_STATED

ensure_torchvision()
import timm  # noqa: E402
from timm.data.config import resolve_data_config  # noqa: E402
from timm.models import get_pretrained_cfg  # noqa: E402

_GEOMETRIES: dict[str, Geometry] = {"center": "shortest", "squash": "squash"}
"""timm's crop modes; "border", of six of its weights, is not among them."""


def timm_backbone(model_name: str, weights: str | Path | None, image_size: int | None = None) -> Backbone:
    """The image encoder `model_name` of timm, RGB, fed as timm's data config says; a clip is the mean of its frames.

    Parameters
    ----------
    model_name : str
        A model of timm, with or without the tag of its weights.
    weights : str or Path, optional
        A state dict by timm's own names, with or without its classifier; None fetches timm's pretrained ones.
    image_size : int, optional
        Side of the model's input in pixels; None for that of the weights. A model of one size, such as a vision
        transformer, is given positions for another by timm's own resampling.

    Raises
    ------
    ArgumentError
        For an unknown model, and for a size that it can't take.
    WeightsError, WeightsNotFoundError
        For a file of another model, and if there are no weights.
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
    own = feeding = _feeding(model_name, model, None)
    if image_size is not None and image_size != own.crop:
        own.at_size(image_size)
        feeding = _feeding(model_name, model, image_size)
        _resample_positions(model_name, model, image_size)
    config: Any = model.pretrained_cfg
    dim = _embedding_dim(model_name, model, feeding.crop)
    return Backbone(
        f"timm:{model_name}",
        model,
        MeanOverFrames(),
        dim=dim,
        image_dim=dim,
        feeding=feeding,
        own_feeding=own,
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


def _feeding(model_name: str, model: nn.Module, image_size: int | None) -> Feeding:
    """What timm's own `create_transform` does for evaluation, at the size of the weights or another."""
    size = {} if image_size is None else {"input_size": (3, image_size, image_size)}
    config: dict[str, Any] = resolve_data_config(size, model=model)  # type: ignore[no-untyped-call]
    channels, height, width = config["input_size"]
    geometry, interpolation = _GEOMETRIES.get(config["crop_mode"]), f"{config['interpolation']}-antialias"
    if channels != 3 or height != width or geometry is None or interpolation not in get_args(Interpolation):
        raise ArgumentError(
            f"timm:{model_name} takes {config['input_size']} pixels resized as {config['interpolation']!r} in the mode "
            f"{config['crop_mode']!r}; allowed are 3 channels, squares, bilinear and bicubic, and the modes "
            f"{', '.join(_GEOMETRIES)}"
        )
    return Feeding(
        geometry=geometry,
        resize=math.floor(height / config["crop_pct"]),
        crop=height,
        interpolation=cast(Interpolation, interpolation),
        channel_order="rgb",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _resample_positions(model_name: str, model: Any, image_size: int) -> None:
    """Give a model of one size positions for another, as timm does; others take any size."""
    if not model.pretrained_cfg.get("fixed_input_size"):
        return
    native = model.pretrained_cfg["input_size"][1]
    if not hasattr(model, "set_input_size"):
        raise ArgumentError(
            f"image size is {image_size}; timm:{model_name} takes {native} only (leave out --image-size)"
        )
    try:
        model.set_input_size(img_size=(image_size, image_size))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ArgumentError(
            f"image size is {image_size}; timm:{model_name}, of {native}, can't be resampled to it: {error} "
            "(--image-size)"
        ) from error


def _embedding_dim(model_name: str, model: nn.Module, size: int) -> int:
    """Asked of the model itself: timm's `num_features` is not what every model puts out without its classifier."""
    with torch.inference_mode():
        shape = model.eval()(torch.zeros(1, 3, size, size)).shape
    if len(shape) != 2:
        raise WeightsError(f"timm:{model_name} puts out an array of shape {tuple(shape)} a frame, not one embedding")
    return int(shape[1])
