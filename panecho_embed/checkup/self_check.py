"""Whether this machine computes what it should: feeding, and every engine and precision against eager fp32."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from panecho_embed._version import __version__
from panecho_embed.core.arraytypes import Ints, UInt8Array
from panecho_embed.core.errors import ArgumentError, EngineError, PanEchoEmbedError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.outputs import make_output_folder, refuse_to_replace, write_text
from panecho_embed.core.provenance import Precision, package_versions
from panecho_embed.extraction.choose import Agreement, agreement
from panecho_embed.extraction.clip_engine import ClipEngine
from panecho_embed.extraction.image_engine import (
    AcceleratorEngine,
    EagerEngine,
    ImageEngine,
    PictureBatch,
    RearrangedEngine,
)
from panecho_embed.extraction.preprocess import frame_preparer
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.models.panecho import PANECHO_FEEDING
from panecho_embed.models.torchvision_models import torchvision_feeding
from panecho_embed.models.weights import KNOWN, locate
from panecho_embed.models.zoo import ECHOCLIP_FEEDING, ECHOPRIME_FEEDING, IMAGENET_FEEDING
from panecho_embed.phantoms import make_patients, render

FILE = "self-check.json"
_SHAPES = ((600, 800), (112, 112), (600, 601))
"""Frames that are fed: landscape, EchoNet's, and one pixel off square."""

_Status = Literal["agrees", "DIFFERS", "FAILED", "not available"]

_GRID = 4  # sampled places a side
_MOST_LEVELS = 1  # grey levels by which builds of OpenCV and Pillow round otherwise


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """One comparison. kind: "feeding" or "engine". what: of what. against: with what. found: by how much it differs."""

    kind: Literal["feeding", "engine"]
    what: str
    against: str
    found: str
    status: _Status


def self_check(
    out: str | Path,
    *,
    models: Sequence[str] = (),
    weights: Mapping[str, str | Path] | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> list[SelfCheck]:
    """Check the arithmetic of this machine and write self-check.json into the folder `out`.

    Parameters
    ----------
    out : str or Path
    models : sequence of str
        Backbones whose engines are checked; by default all whose weights are here, and nothing is downloaded.
    weights : mapping, optional
        Weights files by model.
    device : str
        An accelerator to check beside the CPU; "auto" for one that is there.
    overwrite : bool
        Replace an earlier result.

    Raises
    ------
    ArgumentError
        For weights of a model that is not in `models`.
    WeightsNotFoundError
        For a named model whose weights are not available.
    """
    given = dict(weights or {})
    if models and (unused := [name for name in given if name not in models]):
        raise ArgumentError(f"--weights names a file for {unused[0]}, which is not checked (--backbone {unused[0]})")
    refuse_to_replace(Path(out) / FILE, overwrite, in_new_folder=True)
    make_output_folder(Path(out))
    devices = list(dict.fromkeys([torch.device("cpu"), resolve_device(device)]))
    found = list(feeding_checks())
    here = [*given, *(file.name for file in KNOWN if file.name not in given and locate(file.name) is not None)]
    for name in dict.fromkeys(models or here):
        found += engine_checks(load_backbone(name, given.get(name)), devices)
    document = {
        "version": __version__,
        "versions": package_versions(),
        "devices": [torch.cuda.get_device_name(one) if one.type == "cuda" else str(one) for one in devices],
        "checks": [asdict(check) for check in found],
    }
    write_text(Path(out) / FILE, json.dumps(document, indent=2) + "\n")
    return found


def feeding_checks() -> Iterator[SelfCheck]:
    """Sampled pixels of fed frames, compared with those that the tested release made."""
    for name, feeding in _feedings().items():
        for shape, known in zip(_SHAPES, _KNOWN_PIXELS[name], strict=True):
            expected = np.frombuffer(bytes.fromhex(known), np.uint8)
            difference = int(np.abs(_sampled_pixels(feeding, shape).astype(int) - expected).max())
            status: _Status = "agrees" if difference <= _MOST_LEVELS else "DIFFERS"
            what = f"feeding {name}, {shape[0]} x {shape[1]}"
            levels = f"largest difference {difference} grey levels"
            yield SelfCheck("feeding", what, "pixels of the tested release", levels, status)


def _feedings() -> dict[str, Feeding]:
    """How each backbone of the package is fed."""
    return {
        "panecho": PANECHO_FEEDING,
        "echoprime": ECHOPRIME_FEEDING,
        "echoclip": ECHOCLIP_FEEDING,
        "imagenet": IMAGENET_FEEDING,
        "kinetics": torchvision_feeding("r3d_18"),
    }


def _sampled_pixels(feeding: Feeding, shape: tuple[int, int]) -> UInt8Array:
    """(48,) uint8: a synthetic frame as it is fed, at 4 x 4 places of its three channels."""
    fed = frame_preparer(feeding)(_synthetic_frame(*shape))
    places = feeding.crop * (2 * np.arange(_GRID) + 1) // (2 * _GRID)
    return np.ascontiguousarray(fed[:, places][:, :, places]).ravel()


def _synthetic_frame(height: int, width: int) -> UInt8Array:
    """(height, width, 3) uint8, by whole numbers only: slanted waves, another in each channel."""
    y, x = np.mgrid[:height, :width]
    waves = [(31, 3, 1), (43, 1, 2), (53, 2, -1)]
    channels = [
        np.abs((down * y + across * x) % (2 * period) - period) * 255 // period for period, down, across in waves
    ]
    return np.stack(channels, axis=-1).astype(np.uint8)


def engine_checks(backbone: Backbone, devices: Sequence[torch.device]) -> Iterator[SelfCheck]:
    """Every engine and precision on each device, compared with eager fp32 on the CPU, on one clip."""
    backbone.to("cpu")
    clip = np.arange(backbone.feeding.clips.frames_per_clip)[None]
    made = backbone.pictures([clip], clip.size)
    prepare = frame_preparer(backbone.feeding)
    # Rounding is judged on what an encoder was trained on, or nearly.
    film = render(make_patients(1, seed=0)[0], num_frames=clip.size).pixels
    frames = torch.from_numpy(np.stack([prepare(frame) for frame in film]))
    planes = torch.from_numpy(made.planes)
    batch = PictureBatch(frames.flatten(0, 1)[planes], planes % 3)
    try:
        exact = EagerEngine(backbone, "fp32")(batch)
        whole = ClipEngine(backbone, "fp32", "eager")(exact, made.clips[0])
    except (PanEchoEmbedError, RuntimeError) as error:
        yield SelfCheck("engine", f"{backbone.name}, cpu, eager, fp32", "nothing", _first_line(error), "FAILED")
        return
    for device in devices:
        backbone.to(device)
        for precision in get_args(Precision):
            if backbone.image_dim is not None:
                for engine in ("eager", "rearranged" if device.type == "cpu" else "compiled"):
                    if (device.type, precision, engine) != ("cpu", "fp32", "eager"):
                        yield _image_check(backbone, engine, precision, batch, exact)
            yield from _clip_checks(backbone, precision, exact, made.clips[0], whole)
    backbone.to("cpu")


def _image_check(
    backbone: Backbone, name: str, precision: Precision, batch: PictureBatch, exact: torch.Tensor
) -> SelfCheck:
    def run() -> Agreement:
        engine: ImageEngine
        if name == "eager":
            engine = EagerEngine(backbone, precision)
        elif name == "rearranged":
            engine = RearrangedEngine(backbone, precision)
        else:
            engine = AcceleratorEngine(backbone, precision, len(batch))
        return agreement(engine(batch), exact)

    what = f"{backbone.name}, pictures, {backbone.device}, {name}, {precision}"
    return _checked(what, precision, run, is_required=name != "compiled")


def _clip_checks(
    backbone: Backbone, precision: Precision, features: torch.Tensor, clips: Ints, exact: torch.Tensor
) -> Iterator[SelfCheck]:
    for backend in ("eager", "auto") if backbone.device.type == "cpu" and backbone.image_dim else ("eager",):
        if (backbone.device.type, precision, backend) == ("cpu", "fp32", "eager"):
            continue
        engine = ClipEngine(backbone, precision, "eager" if backend == "eager" else "auto")

        def run(engine: ClipEngine = engine) -> Agreement:
            return agreement(engine(features.to(backbone.device), clips), exact)

        check = _checked(f"{backbone.name}, clips, {backbone.device}, {backend}, {precision}", precision, run)
        # Without an error, and without a name, "auto" was eager.
        if backend == "eager" or engine.names or check.status in ("FAILED", "not available"):
            yield check


def _checked(what: str, precision: Precision, run: Callable[[], Agreement], *, is_required: bool = True) -> SelfCheck:
    """Compare; an error of what `extract` needs in fp32 (`is_required`) is a failure, unless it is an EngineError."""
    against = "eager fp32 on the CPU"
    try:
        found = run()
    except (PanEchoEmbedError, RuntimeError) as error:
        # An EngineError says that a model has nothing for the engine to do: `extract` takes eager then.
        must = is_required and precision == "fp32" and not isinstance(error, EngineError)
        return SelfCheck("engine", what, against, _first_line(error), "FAILED" if must else "not available")
    return SelfCheck("engine", what, against, str(found), "agrees" if found.within(precision) else "DIFFERS")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


_KNOWN_PIXELS: Mapping[str, tuple[str, ...]] = {
    "panecho": (
        "4df84c65bd0ca6a534e6654cd5238ebd23092347e8f0ceaa0c193d60f4d7b3907bd5cd7336237ed8e78e342660bbe58d",
        "a3e46e06472da3e4cabe482d2054cabd53899a42e407d24e889941e007d34f8c8b3cf62e2e99992e31fa398f8ea623ec",
        "f379067b1791f177db601a942fa9d95f405c7a97b195775a5a7795b1977a5c4066a3e0dfe4a86a2d3311478480bdefc5",
    ),
    "echoprime": (
        "3858799a9abbdcf6f6e0be9d9d7c5c3b0f5ac5cdd96e03665ac5cd626e0366d19bdfdb9715589bdf712e1558fab4712e",
        "2b8db60207bb892f2fe85c5c5de92e8a876b9f53f119d9316b9f54b619d931c195fe9023432994fce2af43290876e1af",
        "8e6f51322b090d303755739299b8d6f695fd9a3234339afbfd962f38369ef991b9fcba763277bcfd530f357ada95500c",
    ),
    "echoclip": (
        "9bdfdb9715589bdf712e1558fab4712e0f5ac5cdd96e03665ac5cd626e0366d13858799a9abbdcf6f6e0be9d9d7c5c3b",
        "95fe9023432994fce2af43290876e1af876b9f53f119d9316b9f54b619d931c12b8db60207bb892f2fe85c5c5de92e8a",
        "b9fcba763277bcfd530f357ada95500c95fd9a3234339afbfd962f38369ef9918e6f51322b090d303755739299b8d6f6",
    ),
    "imagenet": (
        "881aaab9c02872e7e86039d2cb9916994959f360f3564ced56f3633f5948e970c3139db0238cc0107cd1208fe1317fce",
        "f017c2606079a93031f117c3c26079a91aa7932fb809cc6ea7932ff209cc6e53b2cb4b334d32b2cbb1cc4c324e31b1cc",
        "41d88a1917a2c12a3069e8626831c99be7465bf366f1544d4958f362f3574aeaa30ebc9109aca10f9cb109aec1129eaf",
    ),
    "kinetics": (
        "24154f888ec8f8c2bc82490f092f69a3e5cdb59e273e566dcab29b8342597088f491195f0379f194f17904771991f47c",
        "375ff17126bda91285e14b4ce38313aac65d7ba9a633f11714c45f797ca831f3d0d57d251b3c94ecf6af56030a63bbea",
        "2fa2884ae210c26868c20fe14a88a32fb0b9276b4152e585cb9f0c86266cfa6a04294d72f7e1bc981311355ae0f8d4b0",
    ),
}
"""What `_sampled_pixels` gave for each of `_SHAPES`, in hex; tests/golden pins this feeding to published code."""
