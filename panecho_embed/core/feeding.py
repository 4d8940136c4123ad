"""How a model is fed: everything between decoded frames and its first tensor, and the clips that it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import nearest

Geometry = Literal["squash", "square", "shortest"]
"""How a frame becomes the image that the centre is cropped from.

"squash": resized to a fixed height and width, aspect ratio ignored; "square": the longer side is cut to the shorter
one, then resized; "shortest": resized so that the shorter side has a fixed length, aspect ratio kept.
"""

Interpolation = Literal["area", "bilinear", "bicubic", "bilinear-antialias", "bicubic-antialias"]
"""How pixels are resized.

"area" and "bicubic": OpenCV's INTER_AREA and INTER_CUBIC; "bilinear": two taps a side, as torch without antialias;
"bilinear-antialias" and "bicubic-antialias": Pillow's, whose filter widens when an image shrinks.
"""

_ChannelOrder = Literal["rgb", "bgr", "echoprime"]
"""Order of the channels. "echoprime": RGB, except DICOM: BGR after OpenCV's YUV conversion of its YCbCr values."""

_Masking = Literal["always", "dicom", "never"]
"""Which files are masked outside the ultrasound sector; "dicom": DICOM files, whose pixels hold text and traces."""

_MaskMethod = Literal["motion", "echoprime"]
"""How the sector is found, see `panecho_embed.media.sector`."""

MaskChoice = Literal["auto", "on", "off"]
"""What a user says of the sector mask; "auto": as the model was trained."""

OVERRIDES: Mapping[str, Callable[[str], Any]] = {
    "geometry": str,
    "cut": float,
    "resize": int,
    "resize_width": int,
    "interpolation": str,
    "channel_order": str,
    "mask_method": str,
}
"""The fields that a user may override by name (--feed), and how their texts are read.

Scale, mean and deviation are not among them: other values are never what a set of weights was trained on.
"""

MIN_SIZE, MAX_SIZE = 32, 4096
"""Smallest and largest side of a model's input, in pixels."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """How a model is fed, from decoded frames to normalised pixels. The default is PanEcho's.

    In this order: colours, mask, region, geometry with `cut`, resize, centre crop, scale, mean and deviation.

    Parameters
    ----------
    geometry : {"squash", "square", "shortest"}
        How a frame becomes the image that the centre is cropped from.
    cut : float
        Share that is cut off each side before the frame is resized, 0 to below 0.5.
    resize : int
        Side after resizing, in pixels: of the square, of the shorter side, or the height of a squashed frame.
    resize_width : int, optional
        Width of a squashed frame, in pixels; None for `resize`.
    crop : int
        Side of the centre crop, in pixels, at most `resize`: the size of the model's input.
    interpolation : {"area", "bilinear", "bicubic", "bilinear-antialias", "bicubic-antialias"}
        How pixels are resized.
    channel_order : {"rgb", "bgr", "echoprime"}
        Order of the channels; `mean` and `std` are in this order.
    scale : float
        Factor on 0-255 pixels before mean and deviation: 1/255, or 1 for weights that were trained on 0-255.
    mean, std : tuple of 3 floats
        Subtracted from each channel, and what the result is divided by.
    mask : {"always", "dicom", "never"}
        Which files are blacked out outside the ultrasound sector.
    mask_method : {"motion", "echoprime"}
        How the sector is found.
    crop_region : bool
        Cut frames to the 2-D ultrasound region that the file names.
    clips : ClipPlan
        The model's own clips: frames, step, start, and what becomes of short videos.

    Raises
    ------
    ArgumentError
        For a value that is not allowed.
    """

    geometry: Geometry = "squash"
    cut: float = 0.0
    resize: int = 256
    resize_width: int | None = None
    crop: int = 224
    interpolation: Interpolation = "area"
    channel_order: _ChannelOrder = "bgr"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    mask: _Masking = "never"
    mask_method: _MaskMethod = "motion"
    crop_region: bool = False
    clips: ClipPlan = field(default_factory=ClipPlan)

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ArgumentError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(get_args(kind))} (--feed)")
        if not 0 <= self.cut < 0.5:
            raise ArgumentError(f"cut is {self.cut}; allowed is 0 to below 0.5, a share of each side (--feed cut=0.1)")
        if self.resize_width is not None and self.geometry != "squash":
            raise ArgumentError(
                f"resize_width is {self.resize_width} with geometry {self.geometry!r}; only squash has a width of its "
                "own (--feed)"
            )
        if not 1 <= self.crop <= self.least_side:
            raise ArgumentError(
                f"crop is {self.crop}, and frames are resized to {self.least_side}; allowed is 1 <= crop <= resize "
                "(--image-size, --feed resize=...)"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ArgumentError(f"mean {self.mean} and std {self.std}: three values each, std above 0")

    @property
    def least_side(self) -> int:
        """The shorter side of a resized frame, in pixels."""
        return min(self.resize, self.resize_width or self.resize)

    def masks(self, kind: str) -> bool:
        """Whether files of this kind (see `Cine.kind`) are masked outside the ultrasound sector."""
        return self.mask == "always" or (self.mask == "dicom" and kind == "dicom")

    def normalises_as(self, other: Feeding) -> bool:
        """Whether the same pixels become the same numbers, whatever their geometry."""
        mine, theirs = ((f.channel_order, f.scale, f.mean, f.std) for f in (self, other))
        return mine == theirs

    def at_size(self, image_size: int) -> Feeding:
        """The same for another model input size, with the margins of the centre crop in proportion."""
        if not MIN_SIZE <= image_size <= MAX_SIZE:
            raise ArgumentError(
                f"image size is {image_size}; the encoders take {MIN_SIZE} to {MAX_SIZE} (--image-size)"
            )
        height, width = (side and round(image_size * side / self.crop) for side in (self.resize, self.resize_width))
        assert height is not None
        return dataclasses.replace(self, crop=image_size, resize=height, resize_width=width)

    def overridden(
        self, changes: Mapping[str, Any] | None = None, *, mask_sector: MaskChoice = "auto", crop_region: bool = False
    ) -> Feeding:
        """The same with a user's changes.

        Parameters
        ----------
        changes : mapping, optional
            New values of the fields in `OVERRIDES`.
        mask_sector : {"auto", "on", "off"}
            Mask every file outside the ultrasound sector, or none; "auto" leaves the model's own rule.
        crop_region : bool
            Also cut to the 2-D region that the file names.

        Raises
        ------
        ArgumentError
            For a field that can't be changed, and for values that do not fit together.
        """
        changes = dict(changes or {})
        if unknown := [name for name in changes if name not in OVERRIDES]:
            raise ArgumentError(
                f"no feeding of this name can be changed: {unknown[0]!r}{nearest(unknown[0], list(OVERRIDES))}; "
                f"allowed: {', '.join(OVERRIDES)} (--feed), and the flags --image-size, --mask-sector, --crop-region"
            )
        if mask_sector not in get_args(MaskChoice):
            raise ArgumentError(f"mask_sector is {mask_sector!r}; allowed: {', '.join(get_args(MaskChoice))}")
        if changes.get("geometry", "squash") != "squash":
            changes.setdefault("resize_width", None)
        mask: dict[MaskChoice, _Masking] = {"auto": self.mask, "on": "always", "off": "never"}
        try:
            return dataclasses.replace(
                self, **changes, mask=mask[mask_sector], crop_region=crop_region or self.crop_region
            )
        except TypeError as error:
            raise ArgumentError(f"{changes}: not values of a feeding ({error}) (--feed)") from error

    def geometry_of(self, other: Feeding) -> Feeding:
        """The same with the geometry, interpolation and sizes of another model's."""
        names = ("geometry", "cut", "resize", "resize_width", "crop", "interpolation")
        return dataclasses.replace(self, **{name: getattr(other, name) for name in names})

    def describe(self) -> str:
        """One line for people: "squashed to 256 x 256 (area), central 224 x 224, BGR; sector mask: DICOM files"."""
        size = f"{self.resize} x {self.resize_width or self.resize}"
        by = f"({self.interpolation})"
        shapes = {
            "squash": f"squashed to {size} {by}",
            "square": f"centre square, resized to {size} {by}",
            "shortest": f"shorter side resized to {self.resize} {by}",
        }
        cut = f"{self.cut:.0%} cut off each side, " if self.cut else ""
        crop = (
            f", central {self.crop} x {self.crop}" if self.crop != self.least_side or self.geometry != "square" else ""
        )
        colours = {"rgb": "RGB", "bgr": "BGR", "echoprime": "RGB (DICOM: BGR of OpenCV's YUV)"}
        masks = {"always": "all files", "dicom": "DICOM files", "never": "none"}
        region = "; cut to the 2-D region" if self.crop_region else ""
        return (
            f"{cut}{shapes[self.geometry]}{crop}, {colours[self.channel_order]}; "
            f"sector mask: {masks[self.mask]}{region}"
        )

    def differences(self, own: Feeding, model: str) -> tuple[str, ...]:
        """Every setting that is not the model's own, as "frame_step 1 (echoprime's own: 2)". own: the model's."""
        mine, theirs = _flat(self), _flat(own)
        return tuple(
            f"{name} {_shown(mine[name])} ({model}'s own: {_shown(theirs[name])})"
            for name in mine
            if mine[name] != theirs[name]
        )

    def record(self) -> dict[str, Any]:
        """As plain values for a file, to be read back by `from_record`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Feeding:
        """Read what `record` gave. Raises ArgumentError, TypeError, ValueError or LookupError if it is not one."""
        fields = dict(record)
        fields |= {name: tuple(map(float, fields[name])) for name in ("mean", "std") if name in fields}
        if "clips" in fields:
            fields["clips"] = ClipPlan(**fields["clips"])
        return cls(**fields)


_CHOICES: dict[str, Any] = {
    "geometry": Geometry,
    "interpolation": Interpolation,
    "channel_order": _ChannelOrder,
    "mask": _Masking,
    "mask_method": _MaskMethod,
}


def _flat(feeding: Feeding) -> dict[str, Any]:
    fields = dataclasses.asdict(feeding)
    clips: dict[str, Any] = fields.pop("clips")
    return fields | clips


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
