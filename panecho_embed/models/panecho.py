"""PanEcho: an image encoder, a small transformer over the pictures of a clip, one head a reporting task.

The released forward pass does not show frames to the image encoder. It reshapes a clip (N, 3, L, H, W) to
(N L, 3, H, W) without moving the frame axis in front of the channels, so each of the L pictures of a clip is three
consecutive planes in channel-major order; see `panecho_embed.core.planes`. The released weights were trained that way.

Holste et al., "Complete AI-Enabled Echocardiography Interpretation With Multitask Deep Learning", JAMA 2025,
doi 10.1001/jama.2025.8731.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from panecho_embed.core.errors import ArgumentError, WeightsError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.provenance import WeightsInfo
from panecho_embed.core.tasks import Task, all_tasks, read_tasks
from panecho_embed.core.wording import nearest
from panecho_embed.models.checkpoint import (
    KEY,
    PANECHO_LAYOUT,
    POSITION_KEY,
    SAME_SHAPE_LAYOUT,
    Checkpoint,
    Recorded,
    from_checkpoint_names,
    matching_tensors,
    read_checkpoint,
    to_checkpoint_names,
    write_weights,
)
from panecho_embed.models.torchvision_ops import ensure_torchvision
from panecho_embed.models.weights import find_weights, weights_info

ensure_torchvision()
import timm  # noqa: E402

_Size = Literal["tiny", "base"]

CHANNELS: Mapping[_Size, int] = {"tiny": 96, "base": 128}
"""Channels of ConvNeXt's stem as published; each of the three following stages doubles them."""

TaskTable = str | Path | Sequence[Task] | None

PANECHO_FEEDING = Feeding(mask="dicom")
"""As PanEcho was trained: 256 x 256 by area, the central 224, BGR. Its hospital videos were masked beforehand."""

DIM = 768
_ANY_HEAD = r"([^.]+)_head\.1\.(weight|bias)"
_TRANSFORMER = r"encoder\.transformer\..+"
_STEM = "encoder.encoder.model.features.0.0.weight"


def sinusoid(length: int, dim: int) -> Tensor:
    """Position table, (1, length, dim) float32: sin(p / 10000^(2i/dim)) at 2i, cos at 2i + 1 (Vaswani et al. 2017)."""
    position = torch.arange(length, dtype=torch.float64, device="cpu")[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") * (-math.log(10000) / dim))
    table = torch.stack([torch.sin(position * frequency), torch.cos(position * frequency)], dim=-1)
    return table.reshape(1, length, dim).to(torch.float32)


class ClipEncoder(nn.Module):
    """Vectors of pictures (N, L, dim) to clip embeddings (N, dim): position, transformer, mean over the pictures.

    Any L; `clip_len` is the length that the position table is kept for. `dim` must be a multiple of 8.
    """

    positions: Tensor

    def __init__(self, dim: int = DIM, clip_len: int = 16) -> None:
        super().__init__()
        self.register_buffer("positions", sinusoid(clip_len, dim), persistent=False)
        layer = nn.TransformerEncoderLayer(dim, nhead=8, dim_feedforward=dim, dropout=0.0, batch_first=True)
        # Nested tensors only serve padded clips, of which there are none, and warn.
        self.transformer = nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, L, dim) float to (N, dim)."""
        encoded: Tensor = self.transformer(pictures + self.positions_of(pictures.shape[1]))
        return encoded.mean(dim=1)

    def positions_of(self, length: int) -> Tensor:
        """The position table of clips of this many frames, (1, length, dim)."""
        _, known, dim = self.positions.shape
        return self.positions[:, :length] if length <= known else sinusoid(length, dim).to(self.positions)


def clip_pictures(x: Tensor, order: PlaneOrder) -> Tensor:
    """The pictures of clips (N, 3, L, H, W), clip after clip, (N L, 3, H, W); see `panecho_embed.core.planes`."""
    _check_order(order)
    if order == "frames":
        x = x.transpose(1, 2)
    return x.reshape(-1, 3, *x.shape[3:])


class PanEcho(nn.Module):
    """PanEcho as published: image encoder, temporal Transformer and 40 reporting heads, in eval mode.

    Called on a float tensor (N, 3, T, H, W), normalised, with H and W at least 32 (trained at 224), it returns a dict:
    task -> (N, 1), or (N, number of classes). With `activations` a binary task gives the probability of the clinically
    positive class (`Task.positive_class_index`), a multiclass task those of its classes; a regression is always the
    value as it was trained, in the task's unit (GLS with its sign flipped: `Task.sign`). With `backbone_only` it
    returns (N, 768). With `image_encoder_only` it takes (N, 3, H, W) and returns (N, 768).

    The image encoder sees the published pictures of a clip, three consecutive planes each, and not RGB frames. To call
    `image_encoder` and `clip_encoder` separately, make the pictures with `clip_pictures(x, model.plane_order)`; on
    frames the clip's embedding is another one (with random weights its cosine to the published one is 0.85 to 0.92). A
    model with `image_encoder_only` is given pictures, as a rule frames.

    Parameters
    ----------
    pretrained : bool
        Load the released weights, found or fetched as `panecho_embed.models.weights` says. False: random weights, and
        nothing is downloaded.
    tasks : "all" or sequence of str
        Heads by task name. "all": those of the task table, with weights those that the file has heads for.
    backbone_only : bool
        No heads; a clip's embedding.
    image_encoder_only : bool
        No Transformer either; a picture's embedding.
    activations : bool
        Return probabilities instead of logits, as the released code does since December 2024.
    clip_len : int
        Number of frames that the position table is stored for; clips of any other length are accepted too.
    weights : str or Path, optional
        File in the released checkpoint's layout.
    task_table : str, Path or tasks, optional
        Tasks that `tasks` names, and whose heads the weights may have: a file for `read_tasks`, or what it returned.
        Default: tasks.csv beside `weights` if it exists, else PanEcho's own 40.
    width : float
        Without weights: number of channels relative to the released model, above 0 to 1; `dim`, 768, shrinks with it.

    Attributes
    ----------
    plane_order : str
        Order of a clip's planes that the weights were trained on: "published", or "frames" for a model of `finetune`
        that says so.
    weights_info : WeightsInfo or None
        Which weights these are; None for random ones.
    recorded : Recorded
        Pixels and clips that the weights were trained on, where their file says so.

    Raises
    ------
    ArgumentError, TaskTableError
        For options that contradict each other, and unknown tasks.
    WeightsNotFoundError, WeightsError
        If the weights are unavailable, or do not fit the model.
    """

    def __init__(
        self,
        pretrained: bool = True,
        tasks: str | Sequence[str] = "all",
        backbone_only: bool = False,
        image_encoder_only: bool = False,
        activations: bool = False,
        clip_len: int = 16,
        weights: str | Path | None = None,
        task_table: TaskTable = None,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        headless = backbone_only or image_encoder_only
        _check_together(pretrained, tasks, backbone_only, image_encoder_only, activations, weights)
        table = () if headless else _known_tasks(task_table, weights)
        chosen = () if headless else _choose_tasks(tasks, table)
        if not 0 < width <= 1:
            raise ArgumentError(f"width is {width}; allowed is above 0, at most 1")
        if isinstance(clip_len, bool) or not isinstance(clip_len, int) or clip_len < 1:
            raise ArgumentError(f"clip_len is {clip_len!r}; it must be a whole number of frames, 1 or more")
        path = find_weights("panecho", weights) if pretrained else None
        file = Checkpoint({}, Recorded()) if path is None else _read(path)
        state = file.tensors
        if path is not None and tasks == "all" and not headless:
            chosen = _with_heads(table, state, path)

        self.tasks: tuple[Task, ...] = chosen
        self.activations = activations
        self.weights_info: WeightsInfo | None = None
        self.recorded = file.recorded
        self.plane_order: PlaneOrder = file.recorded.plane_order
        channels = channels_in("tiny", state, _STEM) if state else max(1, round(width * CHANNELS["tiny"]))
        self.dim = 8 * channels
        self.image_encoder: nn.Module = convnext("tiny", channels)
        self.clip_encoder = None if image_encoder_only else ClipEncoder(self.dim, clip_len)
        self.heads = nn.ModuleDict({task.name: make_head(task, self.dim) for task in self.tasks})
        if path is not None:
            _load(self, path, state, table, other_heads=headless or tasks != "all")
            self.weights_info = weights_info("panecho", path, self.recorded.licence)
            if self.tasks and not activations:
                _say_logits()
        self.eval()

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """(N, 3, T, H, W), or (N, 3, H, W) for an image encoder; see the class."""
        _check_input(x, "(N, 3, H, W)" if self.clip_encoder is None else "(N, 3, T, H, W)")
        if self.clip_encoder is None:
            picture: Tensor = self.image_encoder(x)
            return picture
        pictures = self.image_encoder(clip_pictures(x, self.plane_order)).unflatten(0, (x.shape[0], x.shape[2]))
        clip: Tensor = self.clip_encoder(pictures)
        return self.predict(clip) if self.tasks else clip

    def predict(self, clips: Tensor) -> dict[str, Tensor]:
        """Clip embeddings (N, 768) to the dict of task outputs that `forward` returns."""
        raw = {task.name: self.heads[task.name](clips) for task in self.tasks}
        if not self.activations:
            return raw
        return {task.name: _activate(raw[task.name], task) for task in self.tasks}


def save_checkpoint(model: PanEcho, path: str | Path) -> None:
    """Write a model for `PanEcho(weights=path)`, its order of planes, pixels and clips recorded.

    A model of the published order that takes PanEcho's pixels has the released checkpoint's layout, for PanEcho's own
    code too; any other keeps our names for its tensors, which that code refuses. The file is replaced at once or left
    as it was. Raises WeightsError if it can't be written.
    """
    positions = None if model.clip_encoder is None else model.clip_encoder.positions
    feeding = model.recorded.feeding or PANECHO_FEEDING
    content = checkpoint_content(model.state_dict(), model.plane_order, feeding, positions)
    content[KEY]["feeding"] = feeding.record()
    if model.recorded.licence:
        content[KEY]["licence"] = model.recorded.licence
    write_weights(content, Path(path))


def checkpoint_content(
    state: Mapping[str, Tensor], order: PlaneOrder, feeding: Feeding, positions: Tensor | None
) -> dict[str, dict[str, Any]]:
    """What the file of a model of PanEcho's shape holds: its tensors, and the beginning of our record under `KEY`.

    state: by our names. feeding: of the model. positions: the position table, (1, L, dim); None without
    transformer.
    """
    _check_order(order)
    whole = order == "published" and feeding.normalises_as(PANECHO_FEEDING)
    about = {"layout": PANECHO_LAYOUT if whole else SAME_SHAPE_LAYOUT, "plane_order": order}
    if not whole:
        return {"state_dict": dict(state), KEY: about}
    renamed = to_checkpoint_names(state)
    if positions is not None:
        renamed[POSITION_KEY] = positions.float()
    return {"weights": renamed, KEY: about}


def tasks_in(path: str | Path) -> list[str]:
    """Names of the tasks that a checkpoint has heads for, in the file's order; [] for a backbone without heads."""
    return _heads_of(_read(Path(path)).tensors)


def _read(path: Path) -> Checkpoint:
    """A checkpoint, its tensors by the released names whatever its layout."""
    file = read_checkpoint(path)
    if file.recorded.layout != SAME_SHAPE_LAYOUT:
        return file
    try:
        return Checkpoint(to_checkpoint_names(file.tensors), file.recorded)
    except ArgumentError as error:
        raise WeightsError(f"{path}: not the names of a model of PanEcho's shape ({error})") from error


def _known_tasks(task_table: TaskTable = None, weights: str | Path | None = None) -> tuple[Task, ...]:
    """The tasks that a weights file's heads may have: see `PanEcho`. Raises TaskTableError, ArgumentError."""
    if task_table is None and weights is not None:
        beside = Path(weights).with_name("tasks.csv")
        task_table = beside if beside.is_file() else None
    if task_table is None:
        return all_tasks()
    table = read_tasks(task_table) if isinstance(task_table, str | Path) else tuple(task_table)
    # torch keeps modules by name beside its own attributes.
    taken = [task.name for task in table if hasattr(nn.ModuleDict(), task.name)]
    if taken or not table:
        raise ArgumentError(
            f"a task can't be called {', '.join(map(repr, taken))}: torch uses the name itself; rename it"
            if taken
            else "the table of tasks is empty (task_table, --task-table)"
        )
    return table


def _heads_of(state: Mapping[str, Tensor]) -> list[str]:
    found = (re.fullmatch(_ANY_HEAD, key) for key in state)
    return list(dict.fromkeys(match[1] for match in found if match))


def _with_heads(table: tuple[Task, ...], state: Mapping[str, Tensor], path: Path) -> tuple[Task, ...]:
    heads = _heads_of(state)
    if not heads:
        raise WeightsError(f"{path} has no heads, only a backbone; load it with backbone_only=True, or extract with it")
    return tuple(task for task in table if task.name in heads)


def _load(
    model: PanEcho, path: Path, state: Mapping[str, Tensor], table: tuple[Task, ...], *, other_heads: bool
) -> None:
    spare = [POSITION_KEY.replace(".", r"\.")]
    if other_heads:
        spare.append(_ANY_HEAD)
    if model.clip_encoder is None:
        spare.append(_TRANSFORMER)
    taken = matching_tensors(
        to_checkpoint_names(model.state_dict()),
        state,
        model="PanEcho" if not model.tasks else f"PanEcho with {len(model.tasks)} heads",
        path=path,
        spare="|".join(spare),
        advice=_advice(model, _heads_of(state), table, other_heads=other_heads),
    )
    model.load_state_dict(from_checkpoint_names(taken))


def _advice(model: PanEcho, heads: list[str], table: tuple[Task, ...], *, other_heads: bool) -> str:
    """What to do about heads that do not fit; "" where they do."""
    names = [task.name for task in table]
    strangers = [] if other_heads else [head for head in heads if head not in names]
    missing = [task.name for task in model.tasks if task.name not in heads]
    lines = [f"{head!r} is no task of the table{nearest(head, names)}" for head in strangers]
    lines += [f"the file has no head of {name!r}{nearest(name, heads)}" for name in missing]
    if strangers:
        lines.append("A model with tasks of its own needs their table: --task-table FILE, or tasks.csv beside the file")
    return "\n".join(lines)


def make_head(task: Task, dim: int, dropout: float = 0.25, scale: float = 1.0) -> nn.Sequential:
    """(N, dim) to (N, outputs) of a task, randomly initialised; one output begins at the task's training mean.

    dropout: before the linear layer, by default as released. scale: factor on its first weights.
    """
    linear = nn.Linear(dim, task.num_outputs)
    linear.weight.data.mul_(scale)
    if task.num_outputs == 1 and math.isfinite(task.training_mean):
        nn.init.constant_(linear.bias, task.training_mean)
    return nn.Sequential(nn.Dropout(dropout), linear)


def _activate(raw: Tensor, task: Task) -> Tensor:
    if task.type == "binary":
        # The logit is the log-odds of index 1, and sigmoid(-x) = 1 - sigmoid(x) without the cancellation.
        return torch.sigmoid(raw if task.positive_class_index == 1 else -raw)
    return raw.softmax(dim=1) if task.type == "multiclass" else raw


def _choose_tasks(tasks: str | Sequence[str], known: tuple[Task, ...]) -> tuple[Task, ...]:
    table = {task.name: task for task in known}
    if isinstance(tasks, str):
        if tasks == "all":
            return known
        raise ArgumentError(f"tasks is {tasks!r}; allowed are 'all' and a list of names, such as [{tasks!r}]")
    names = list(tasks)
    unknown = [name for name in names if name not in table]
    if unknown:
        hints = "".join(nearest(str(name), table) for name in unknown)
        raise ArgumentError(f"unknown tasks: {', '.join(map(repr, unknown))}{hints}; allowed: {', '.join(table)}")
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"tasks is {names}; name one task or more, each once, out of: {', '.join(table)}")
    return tuple(table[name] for name in names)


@cache
def _say_logits() -> None:
    """Once in a process: whoever comes from the released code expects probabilities from the same call."""
    logging.getLogger(__name__).warning(
        "PanEcho returns logits, as its reference document shows; the released code has returned probabilities since "
        "December 2024: PanEcho(activations=True)"
    )


def _check_together(
    pretrained: bool,
    tasks: str | Sequence[str],
    backbone_only: bool,
    image_encoder_only: bool,
    activations: bool,
    weights: str | Path | None,
) -> None:
    if backbone_only and image_encoder_only:
        raise ArgumentError("backbone_only and image_encoder_only are both True; at most one of them is allowed")
    if (backbone_only or image_encoder_only) and (activations or tasks != "all"):
        raise ArgumentError(
            f"tasks is {tasks!r} and activations is {activations}, but a model without heads was asked for "
            "(backbone_only or image_encoder_only); allowed with it are tasks='all' and activations=False alone"
        )
    if weights is not None and not pretrained:
        raise ArgumentError(
            f"weights is {str(weights)!r} and pretrained is False; a file is loaded with pretrained=True"
        )


def _check_order(order: str) -> None:
    if order not in get_args(PlaneOrder):
        raise ArgumentError(f"plane_order is {order!r}; allowed are {', '.join(get_args(PlaneOrder))}")


def _check_input(x: Tensor, layout: str) -> None:
    if x.ndim != layout.count(",") + 1 or x.shape[1] != 3 or min(x.shape) < 1 or min(x.shape[-2:]) < 32:
        raise ArgumentError(f"input has shape {tuple(x.shape)}; allowed is {layout}, H and W at least 32")
    if not x.is_floating_point():
        raise ArgumentError(f"input is {x.dtype}; allowed are floating point numbers, normalised as ImageNet's pixels")


def convnext(size: _Size, channels: int | None = None) -> nn.Module:
    """(T, 3, S, S) float to (T, 8 x channels), random weights, without a classifier. channels: None as published."""
    stem = channels or CHANNELS[size]
    dims = tuple(stem * factor for factor in (1, 2, 4, 8))
    model: nn.Module = timm.create_model(f"convnext_{size}", pretrained=False, num_classes=0, dims=dims)
    return model


def channels_in(size: _Size, state: Mapping[str, Tensor], stem: str) -> int:
    """Channels of the stem in a state dict; as published if it has none under the name `stem`.

    So a custom narrower model loads as the published one does; what else does not fit is found when matching.
    """
    weight = state.get(stem)
    if weight is None or weight.ndim != 4 or not 0 < len(weight) <= CHANNELS[size]:
        return CHANNELS[size]
    return len(weight)
