"""Is a weights file whole, and whose is it: load it as strictly as its model does."""

from __future__ import annotations

from pathlib import Path

from panecho_embed.core.digests import recorded_sha256
from panecho_embed.core.errors import WeightsError, WeightsNotFoundError
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.tasks import all_tasks
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.weights import KNOWN, locate

# One array that a model has and no other: enough to tell them apart, the strict loading does the rest.
_MARKS = {
    "panecho": "encoder.encoder.model.features.0.0.weight",
    "imagenet": "features.0.0.weight",
    "echoclip": "visual.trunk.stem.0.weight",
    "kinetics": "stem.0.weight",
    "echoprime": "conv_proj.weight",
}


def verify_weights(name: str) -> str:
    """Load weights as strictly as their model does, and say in a line what they are. Downloads nothing.

    Parameters
    ----------
    name : str
        One of the names of `weights()`, or a file of any of those models.

    Returns
    -------
    str
        What the file holds, its SHA-256 and its licence.

    Raises
    ------
    WeightsNotFoundError
        If the weights are not on this computer.
    WeightsError
        If they do not load.
    """
    if name in {file.name for file in KNOWN}:
        path = locate(name)
        if path is None:
            raise WeightsNotFoundError(f"not here; fetch them with `panecho-embed weights fetch {name}`")
        model = name
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            known_names = ", ".join(file.name for file in KNOWN)
            raise WeightsNotFoundError(f"neither a file nor one of the names {known_names}")
        model = _whose(path)
    info, content = _load(model, path, whole=name == "panecho")
    agrees = "as recorded when fetched" if recorded_sha256(path) else "none was recorded when fetched"
    return f"whole: {content}, {path}, sha256 {info.sha256} ({agrees}). Licence: {info.licence}"


def _load(model: str, path: Path, *, whole: bool) -> tuple[WeightsInfo, str]:
    """whole: it must have all 40 heads; a fine-tuned file may have some of them, or none."""
    from panecho_embed.models.panecho import PanEcho, tasks_in

    if model != "panecho":
        return load_backbone(model, weights=path).weights, model
    heads = tasks_in(path)
    if whole or heads:
        # Named one by one, they must all be there.
        tasks = [task.name for task in all_tasks()] if whole else "all"
        info = PanEcho(weights=path, tasks=tasks, activations=True).weights_info
    else:
        info = PanEcho(weights=path, backbone_only=True).weights_info
    assert info is not None
    return info, f"panecho with {len(heads)} heads"


def _whose(path: Path) -> str:
    from panecho_embed.models.checkpoint import SAME_SHAPE_LAYOUT, read_checkpoint

    file = read_checkpoint(path)
    state = file.tensors
    if file.recorded.layout == SAME_SHAPE_LAYOUT:
        return "panecho"
    for model, mark in _MARKS.items():
        if mark in state:
            return model
    raise WeightsError(
        f"{path}: the weights of none of {', '.join(_MARKS)}; "
        f"it has {len(state)} arrays, the first is {next(iter(state))!r}"
    )
