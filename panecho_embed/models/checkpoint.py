"""Weights files: read without running what is in them, with what they record; matched name by name; written whole."""

from __future__ import annotations

import hashlib
import lzma
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, get_args

import torch
from torch import Tensor

from panecho_embed.core.errors import EARLIER_FEEDING, ArgumentError, PanEchoEmbedError, WeightsError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.outputs import written_whole
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.planes import PlaneOrder
from panecho_embed.core.wording import brief

KEY = "panecho_embed"
"""The entry beside the state dict that says what a model is, as plain values; released files have none."""

PANECHO_LAYOUT, SAME_SHAPE_LAYOUT, OWN_LAYOUT = "panecho", "panecho-embed", "own"
"""How a file of ours names its tensors.

"panecho": as the released checkpoint, for PanEcho's own code too: published order of planes, PanEcho's pixels.
"panecho-embed": a model of PanEcho's shape under our names, of another order or other pixels, which are recorded.
"own": a fine-tuned model of another shape, which nothing loads again.
"""

_LICENCE_KEYS = ("licence", "license")
_LONGEST = 300
# What torch.load and safetensors raise on bytes that are no checkpoint; a wrong seek of torch's is an OSError too.
_DAMAGED = (
    OSError,
    RuntimeError,
    MemoryError,
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_WRAPPERS = ("weights", "state_dict")
_MOST_LINES = 12
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A weights file. tensors: on the CPU, under the file's own names. recorded: what else it says of itself."""

    tensors: dict[str, Tensor]
    recorded: Recorded


def read_checkpoint(path: Path) -> Checkpoint:
    """What a weights file holds.

    A dict with the state dict under "weights" (PanEcho) or "state_dict", a bare state dict, or a .safetensors file.
    Read with `weights_only=True`, so that no code in it runs. Raises WeightsError, which names the file and its size,
    when it is damaged, cut short, or no such file.
    """
    content = _opened(path)
    recorded = Recorded()
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            recorded = _read_recorded(content, path)
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a dict of tensors")
    strangers = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(
            f"{path}: no state dict, nor one under {' or '.join(map(repr, _WRAPPERS))}; "
            f"these entries are no tensors: {_some(strangers)}"
        )
    if odd := [name for name, tensor in content.items() if tensor.layout != torch.strided or tensor.is_quantized]:
        raise WeightsError(f"{path}: sparse or quantised tensors, which no model here takes: {_some(odd)}")
    return Checkpoint(content, recorded)


def count_tensors(path: Path) -> int:
    """How many tensors a weights file, or a checkpoint of a training, holds. Raises WeightsError if it is damaged."""
    return sum(1 for _ in _tensors_in(_opened(path)))


def _opened(path: Path) -> Any:
    """What is in a file of tensors. Raises WeightsError."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error} (--weights)") from error
    try:
        with stream, warnings.catch_warnings():
            # torch remarks on odd pickles; whether they hold what they should is judged here.
            warnings.simplefilter("ignore")
            return _read(stream)
    except _DAMAGED as error:
        raise WeightsError(
            f"{path}: no readable weights file, or only the beginning of one; it has {path.stat().st_size:,} bytes. "
            f"Fetch or copy it again (--weights). Found: {_first_sentence(error)}"
        ) from error


def _read(stream: BinaryIO) -> Any:
    if Path(stream.name).suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(stream.read())
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return load_whole(stream)


def load_whole(stream: BinaryIO) -> Any:
    """torch.load of tensors and plain values, on the CPU; the values must be what was written.

    torch saves a zip archive with a CRC-32 of each array, and does not look at it when it reads. Raises BadZipFile, and
    what torch.load raises.
    """
    if stream.read(len(_ZIP)) == _ZIP:
        with zipfile.ZipFile(stream) as archive:
            size = stream.seek(0, os.SEEK_END)
            if sum(item.file_size for item in archive.infolist()) > size:
                raise zipfile.BadZipFile("its arrays are compressed, or stand in each other; torch.save does neither")
            if (bad := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{bad} is damaged: its CRC-32 is another one than when it was written")
    stream.seek(0)
    return torch.load(stream, map_location="cpu", weights_only=True)


def matching_tensors(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    *,
    model: str,
    path: Path,
    spare: str = "(?!)",
    optional: str = "(?!)",
    advice: str = "",
) -> dict[str, Tensor]:
    """Those tensors of a file that a model takes: all that it expects, none left over.

    expected: the model's tensors, by the file's names. spare, optional: regular expressions, for whole names: what
    the file may have and the model not, and what the file may lack. Raises WeightsError with one line for each name
    that is missing ("-"), left over ("+"), or has another shape, and the advice below them; and for values that are not
    finite.
    """
    missing = [name for name in expected if name not in found and not re.fullmatch(optional, name)]
    left_over = [name for name in found if name not in expected and not re.fullmatch(spare, name)]
    taken = {name: found[name] for name in expected if name in found}
    reshaped = [name for name, tensor in taken.items() if tensor.shape != expected[name].shape]
    if missing or left_over or reshaped:
        lines = [
            *_list("-", [f"{brief(name)} {_shape(expected[name])}" for name in missing]),
            *_list("+", [f"{brief(name)} {_shape(found[name])}" for name in left_over]),
            *_list("-+", [f"{brief(name)} {_shape(expected[name])}, not {_shape(found[name])}" for name in reshaped]),
            *filter(None, [advice]),
        ]
        raise WeightsError(
            f"{path}: these are not the weights of {model}: of {len(expected)} arrays {len(missing)} are missing (-), "
            f"{len(reshaped)} have another shape (-+); {len(left_over)} are left over (+)\n" + "\n".join(lines)
        )
    bad = [name for name, tensor in taken.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise WeightsError(f"{path}: values that are not finite (NaN or infinite) in {_some(bad)}")
    return taken


def write_weights(content: Mapping[str, Any], path: Path) -> None:
    """Save what `read_checkpoint` reads; `path` is replaced at once or left as it was.

    content: a state dict under "weights" or "state_dict", and plain values beside it. Raises WeightsError if it can't
    be written.
    """
    plain = {key: _on_the_cpu(value) if key in _WRAPPERS else value for key, value in content.items()}
    save_tensors(plain, path, WeightsError)


def save_tensors(content: Mapping[str, Any], path: Path, error: type[PanEchoEmbedError]) -> None:
    """torch.save, whole or not at all; raises `error` where it can't be."""
    size = sum(tensor.nbytes for tensor in _tensors_in(content))
    with written_whole(path, size=size, error=error) as part:
        try:
            with part.open("wb") as stream:
                torch.save(dict(content), stream)
        except RuntimeError as problem:
            # torch turns some failures to write, such as a full disk, into its own RuntimeErrors.
            raise error(f"can't write {path}: {_first_sentence(problem)} (-o)") from problem


def _tensors_in(content: Any) -> Iterable[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for item in content.values() if isinstance(content, Mapping) else content:
            yield from _tensors_in(item)


def _on_the_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, 64 hexadecimal digits; for weights that come from no file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _list(sign: str, lines: list[str]) -> Iterable[str]:
    yield from (f"  {sign} {line}" for line in lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        yield f"  {sign} ... and {len(lines) - _MOST_LINES} more"


def _some(names: list[Any]) -> str:
    return ", ".join(map(brief, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _shape(tensor: Tensor) -> str:
    return brief(tuple(tensor.shape))


def _first_sentence(error: BaseException) -> str:
    """Without the advice that follows, such as to load the file in a way that runs the code in it."""
    return brief(re.split(r"\. |\n", str(error) or type(error).__name__)[0], 300)


# PanEcho's checkpoint names and ours: one table of rules, read in both directions. The checkpoint's image encoder has
# torchvision's ConvNeXt names, ours has timm's; the arrays are the same, except `layer_scale` (C, 1, 1), which timm
# keeps as `gamma` (C,).
_Rules = tuple[tuple[str, str], ...]

_BLOCKS_PER_STAGE = (3, 3, 9, 3)
_BLOCK: _Rules = (
    ("gamma", "layer_scale"),
    ("conv_dw.", "block.0."),
    ("norm.", "block.2."),
    ("mlp.fc1.", "block.3."),
    ("mlp.fc2.", "block.5."),
)


def _convnext_tiny_rules(ours: str, theirs: str) -> Iterable[tuple[str, str]]:
    yield f"{ours}stem.", f"{theirs}features.0."
    for stage, blocks in enumerate(_BLOCKS_PER_STAGE):
        if stage:
            yield f"{ours}stages.{stage}.downsample.", f"{theirs}features.{2 * stage}."
        for block in range(blocks):
            for timm_name, torchvision_name in _BLOCK:
                yield (
                    f"{ours}stages.{stage}.blocks.{block}.{timm_name}",
                    f"{theirs}features.{2 * stage + 1}.{block}.{torchvision_name}",
                )
    yield f"{ours}head.norm.", f"{theirs}classifier.0."


CONVNEXT_TINY: _Rules = tuple(_convnext_tiny_rules("", ""))
"""timm's names to torchvision's."""

_PANECHO: _Rules = (
    *_convnext_tiny_rules("image_encoder.", "encoder.encoder.model."),
    ("clip_encoder.transformer.", "encoder.transformer."),
)
"""Our names to the released checkpoint's, all but the heads."""

ECHOCLIP: _Rules = (("trunk.", "visual.trunk."), ("proj.", "visual.head.proj."))
"""The image tower's names to open_clip's."""

POSITION_KEY = "encoder.time_encoder.pe"
"""The checkpoint's position table, (1, clip length, 768): a fixed sinusoid, recomputed and never loaded."""

_HEAD = re.compile(r"heads\.([^.]+)\.(.+)")
_CHECKPOINT_HEAD = re.compile(r"([^.]+)_head\.(.+)")


def to_checkpoint_names(state: Mapping[str, Tensor], rules: _Rules = _PANECHO) -> dict[str, Tensor]:
    """A state dict of ours under the checkpoint's names, `gamma` in the checkpoint's shape."""
    renamed = {}
    for name, tensor in state.items():
        head = _HEAD.fullmatch(name)
        key = f"{head[1]}_head.{head[2]}" if head else _rename(name, rules)
        renamed[key] = tensor.reshape(-1, 1, 1) if key.endswith(".layer_scale") else tensor
    return renamed


def from_checkpoint_names(state: Mapping[str, Tensor], rules: _Rules = _PANECHO) -> dict[str, Tensor]:
    """The inverse of `to_checkpoint_names`; the position table is omitted."""
    inverse = tuple((theirs, ours) for ours, theirs in rules)
    renamed = {}
    for key, tensor in state.items():
        if key == POSITION_KEY:
            continue
        head = _CHECKPOINT_HEAD.fullmatch(key)
        name = f"heads.{head[1]}.{head[2]}" if head else _rename(key, inverse)
        renamed[name] = tensor.reshape(-1) if key.endswith(".layer_scale") else tensor
    return renamed


def _rename(name: str, rules: _Rules) -> str:
    for old, new in rules:
        if name.startswith(old):
            return new + name[len(old) :]
    raise ArgumentError(
        f"no rule renames {name!r}; known are names that begin with {rules[0][0]!r}, {rules[1][0]!r}, ..."
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """licence: "" where the file states none. feeding: pixels and clips, None where it says nothing of them.

    plane_order: of released files "published". layout: how the file names its tensors. thresholds: of the yes-or-no
    decisions of a fine-tuned model, by task. init: what a fine-tuned model was trained from; "" for any other.
    start_pretrained: whether that start was pretrained.
    patients: that a fine-tuned model was trained on.
    """

    licence: str = ""
    feeding: Feeding | None = None
    plane_order: PlaneOrder = "published"
    layout: str = PANECHO_LAYOUT
    thresholds: Mapping[str, float] = field(default_factory=dict)
    init: str = ""
    start_pretrained: bool = True
    patients: TrainingPatients = field(default_factory=TrainingPatients)


def _read_recorded(content: Mapping[Any, Any], path: Path) -> Recorded:
    """What the dict of a weights file holds besides its state dict.

    Raises WeightsError where it describes pixels or clips that there can't be, for a fine-tuned model of another shape
    than PanEcho's, which no backbone reads, and for one of an earlier release, which was trained on RGB frames.
    """
    about = content.get(KEY)
    if not isinstance(about, Mapping):
        return Recorded(_licence(content))
    if about.get("layout") == OWN_LAYOUT:
        raise WeightsError(
            f"{path}: a model that `finetune` made from {about.get('init')!r} and whose shape is not PanEcho's. Only "
            "those with PanEcho's image encoder and a transformer over pictures are loaded again (made from panecho, "
            "random, imagenet). Its predictions stand beside it, in predictions.csv; docs/finetuning.md says how to "
            "read its tensors"
        )
    order, layout = about.get("plane_order"), about.get("layout")
    if order is None:
        raise WeightsError(
            f"{path}: an earlier release trained this model on RGB frames, where PanEcho's published forward pass "
            'takes three consecutive planes ("Order of planes" in docs/models.md); fine-tune again'
        )
    if order not in get_args(PlaneOrder) or layout not in (PANECHO_LAYOUT, SAME_SHAPE_LAYOUT):
        raise WeightsError(
            f"{path}: its order of planes is {str(order)[:80]!r} and its layout {str(layout)[:80]!r}; known are "
            f"{', '.join(get_args(PlaneOrder))} and {PANECHO_LAYOUT}, {SAME_SHAPE_LAYOUT}"
        )
    return Recorded(
        _licence(about) or _licence(content),
        _feeding(about, path),
        order,
        layout,
        _thresholds(about.get("thresholds"), path),
        str(about.get("init") or ""),
        about.get("pretrained") is not False,
        _patients(about.get("patients"), path),
    )


def _patients(record: Any, path: Path) -> TrainingPatients:
    try:
        return TrainingPatients.from_record(record)
    except ArgumentError as error:
        raise WeightsError(f"{path}: {error}") from error


def _thresholds(given: Any, path: Path) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(
        isinstance(value, float) and 0 <= value <= 1 for value in given.values()
    ):
        raise WeightsError(f"{path}: its decision thresholds are {str(given)[:80]!r}; numbers from 0 to 1 are needed")
    return {str(name): float(value) for name, value in given.items()}


def _licence(content: Mapping[Any, Any]) -> str:
    for key in _LICENCE_KEYS:
        value = content.get(key)
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())[:_LONGEST]
    return ""


def _feeding(about: Mapping[Any, Any], path: Path) -> Feeding | None:
    if "preprocess" in about:
        raise WeightsError(f"{path}: {EARLIER_FEEDING}")
    record = about.get("feeding")
    if record is None:
        return None
    try:
        return Feeding.from_record(record)
    # A file from anybody may hold values of any type there.
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise WeightsError(
            f"{path}: what it records as its feeding can't be ({error}); it was not written by this release"
        ) from error
