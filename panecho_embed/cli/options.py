"""Options that several commands share, so that a flag means the same everywhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from panecho_embed.core.clips import ShortVideoPolicy
from panecho_embed.core.errors import PanEchoEmbedError
from panecho_embed.core.feeding import OVERRIDES, MaskChoice
from panecho_embed.core.provenance import Precision
from panecho_embed.core.records import EngineBackend, Ids
from panecho_embed.core.remote import cached, check_url, is_url
from panecho_embed.core.wording import nearest

if TYPE_CHECKING:
    from panecho_embed.evaluation.thresholds import ThresholdRule

Command = TypeVar("Command", bound=Callable[..., Any])


class Place(click.ParamType[Path | str]):
    """A path of this machine as a Path, or a URL as it is."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """See click.ParamType."""
        try:
            return check_url(str(value)) if is_url(value) else Path(value)
        except PanEchoEmbedError as error:
            self.fail(str(error), param, ctx)


class LocalPath(click.Path):
    """A path to write to, on this machine."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if is_url(value):
            self.fail(f"{str(value).partition('://')[0]}://... is a URL; only `extract` writes to one", param, ctx)
        return super().convert(value, param, ctx)


class FileToRead(click.Path):
    """A file to read, of this machine or at a URL; that is fetched into the cache."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        try:
            return super().convert(str(cached(str(value))) if is_url(value) else value, param, ctx)
        except PanEchoEmbedError as error:
            self.fail(str(error), param, ctx)


existing_file = FileToRead(exists=True, dir_okay=False, path_type=Path)
file_to_check = FileToRead(path_type=Path)


def stacked(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; they appear in --help in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def out_option(what: str, kind: click.ParamType[Any] | None = None) -> Callable[[Command], Command]:
    """-o: the file or folder to write; on this machine, unless its kind is `Place`."""
    return click.option("-o", "--out", required=True, type=kind or LocalPath(path_type=Path), help=f"{what}.")


overwrite_option = click.option("--overwrite", is_flag=True, help="Overwrite existing output.")

replace_option = click.option("--overwrite", is_flag=True, help="Replace a finished run in the output folder.")

model_options = stacked(
    click.option(
        "--weights",
        type=existing_file,
        help="Weights file.  [default: $PANECHO_EMBED_WEIGHTS, the cache, or a download]",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed for the weights of --backbone random."),
    click.option(
        "--device", default="auto", show_default=True, help="Device to compute on: auto, cpu, cuda, cuda:1, mps."
    ),
)


def _salt(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> str | None:
    """The salt in the file, else in the environment; on the command line it would appear in `ps` and the history."""
    from panecho_embed.datasets.ids import SALT_VARIABLE, checked_salt, read_salt

    if value is not None:
        return read_salt(value)
    salt = os.environ.get(SALT_VARIABLE)
    return None if salt is None else checked_salt(salt, f"${SALT_VARIABLE}")


input_options = stacked(
    click.option(
        "--layout",
        metavar="NAME",
        default="auto",
        show_default=True,
        help="How the input is laid out: auto, folder, csv, images (every image file is a separate still), or the "
        "name of a public data set (docs/datasets.md).",
    ),
    click.option(
        "--ids",
        type=click.Choice(get_args(Ids)),
        default="auto",
        show_default=True,
        help="How ids and paths are stored. opaque: as hashes, which the local table OUT.ids.csv maps "
        "back; plain: as folders, tables and headers state them; auto: opaque where the input has"
        " DICOM.",
    ),
    click.option(
        "--salt-file",
        "id_salt",
        callback=_salt,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="File with the key of the hashes, 16 characters or more, or another output's local table, for the same "
        "ids in several outputs.  [default: $PANECHO_EMBED_ID_SALT, the salt itself; else that of the local table; "
        "else a random one]",
    ),
)


class _ClipCount(click.ParamType[int | str]):
    """A number of clips, or "ed-es"."""

    name = "integer|ed-es"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if value == "ed-es":
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor ed-es.", param, ctx)


clip_options = stacked(
    click.option(
        "--frames-per-clip", type=int, help="Number of frames per clip.  [default: the backbone's, PanEcho 16]"
    ),
    click.option("--frame-step", type=int, help="Take every n-th frame.  [default: the backbone's, PanEcho 1]"),
    click.option("--fps", "target_fps", type=float, help="Frames per second of a clip, instead of --frame-step."),
    click.option(
        "--uniform",
        is_flag=True,
        default=None,
        help="Spread the frames of a clip over the whole video, instead of --frame-step.",
    ),
    click.option(
        "--beats",
        type=int,
        help="Spread the frames of a clip over N heartbeats; further beats give further clips, up to "
        "--clips. Videos without a known beat are listed and sampled by --frame-step or --fps.",
    ),
    click.option(
        "--clips",
        "num_clips",
        type=_ClipCount(),
        help="Number of clips per video, evenly spaced; or ed-es: one clip, its frames spread from end diastole to "
        "end systole, frames that the columns ed_frame and es_frame name.  [default: the backbone's, PanEcho 4]",
    ),
    click.option("--stride", type=int, help="Start a clip every N frames, instead of --clips."),
    click.option("--start", type=int, help="First frame of the only clip.  [default: the backbone's, EchoPrime 0]"),
    click.option(
        "--short",
        type=click.Choice(get_args(ShortVideoPolicy)),
        help="How to fill a clip from a shorter video: repeat the last frame, wrap around to the "
        "first, pad with zeros after normalising (only backbones that see whole clips), or skip "
        "the video.  [default: the backbone's, PanEcho repeat]",
    ),
)


@click.command(add_help_option=False)
@clip_options
def _clips_of_a_plan(**_: object) -> None:
    """Parses the options of one --plan."""


class Plan(click.ParamType[tuple[str, dict[str, Any]]]):
    """Clip options in one text, "--frame-step 2 --clips 8", as a name, frame-step=2_clips=8, and what they say."""

    name = "options"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        try:
            words = shlex.split(value)
            chosen = clips_taken(_clips_of_a_plan.make_context("--plan", words).params)
        except (ValueError, click.UsageError) as error:
            reason = error.format_message() if isinstance(error, click.UsageError) else str(error)
            self.fail(f'{value!r}: {reason} It takes the clip options, as "--frame-step 2 --clips 8".', param, ctx)
        flags = {option.name: option.opts[0].lstrip("-") for option in _clips_of_a_plan.params}
        parts = (flags[name] if chosen[name] is True else f"{flags[name]}={chosen[name]}" for name in chosen)
        return "_".join(parts) or "default", chosen


plan_option = click.option(
    "--plan",
    "plans",
    type=Plan(),
    multiple=True,
    help='Clip options of one output file, such as "--frame-step 2 --clips 8"; repeatable, to '
    "write several files in one pass over the videos. OUT is then a folder.",
)


def _changes(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any] | None:
    """("geometry=squash", "resize=256") as a mapping with values of the right types; None for nothing."""
    changes: dict[str, Any] = {}
    for value in values:
        name, _, text = value.partition("=")
        if name not in OVERRIDES:
            raise click.BadParameter(
                f"{value!r}: allowed is NAME=VALUE with one of {', '.join(OVERRIDES)}{nearest(name, list(OVERRIDES))}"
            )
        try:
            changes[name] = OVERRIDES[name](text)
        except ValueError:
            raise click.BadParameter(f"{value!r}: {name} takes a number") from None
    return changes or None


_feed_option = click.option(
    "--feed",
    multiple=True,
    callback=_changes,
    metavar="NAME=VALUE",
    help="Change how the backbone is fed, such as geometry=squash or resize=256; repeatable. "
    "Changes are printed and recorded in the file; docs/models.md lists the names.",
)

encoding_options = stacked(
    click.option(
        "--image-size", type=int, help="Side of the model's input in pixels.  [default: the backbone's, panecho 224]"
    ),
    click.option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default="fp32",
        show_default=True,
        help="Arithmetic of the encoder.",
    ),
    click.option(
        "--engine-backend",
        type=click.Choice(get_args(EngineBackend)),
        default="auto",
        show_default=True,
        help="Encoder backend: what runs the image encoder. auto: the fastest in a short trial at the "
        "same precision. Each one is checked against eager on its first batch.",
    ),
    click.option(
        "--batch-pictures",
        type=click.IntRange(min=1),
        help="Number of pictures per batch of the image encoder.  [default: on a CPU 16 of 112 pixels, else 256]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        help="Number of decoding processes; 0 decodes in the main process, without a time limit.  "
        "[default: one per four cores, with a GPU one per core]",
    ),
    click.option(
        "--timeout",
        "timeout_seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="Time limit for decoding one video, in seconds.",
    ),
    click.option(
        "--mask-sector",
        type=click.Choice(get_args(MaskChoice)),
        default="auto",
        show_default=True,
        help="Black out text, ECG and scales outside the ultrasound sector. auto: as the backbone was trained (PanEcho "
        "and EchoPrime: DICOM files only).",
    ),
    click.option("--crop-region", is_flag=True, help="Crop to the 2-D region that the DICOM header names."),
    _feed_option,
    click.option("--include-stills", is_flag=True, help="Also embed DICOM stills, as videos of one frame."),
)


def clips_taken(options: dict[str, Any]) -> dict[str, Any]:
    """Take the clip options out of all options: those that were given; what was not is the backbone's to say."""
    taken = {str(option.name): options.pop(str(option.name)) for option in _clips_of_a_plan.params}
    return {name: value for name, value in taken.items() if value is not None}


def names(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The names of "none,mild,severe"; () when the option is not given."""
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def _threshold_rule(_ctx: click.Context, _param: click.Parameter, value: str) -> ThresholdRule:
    """The rule of "youden", "sensitivity=0.9" or "0.5"."""
    from panecho_embed.core.errors import ArgumentError
    from panecho_embed.evaluation.thresholds import ThresholdRule

    try:
        return ThresholdRule.parse(value)
    except ArgumentError as error:
        raise click.BadParameter(str(error)) from error


# How label columns are read.
reading_options = stacked(
    click.option(
        "--task",
        type=click.Choice(["regression", "binary", "multiclass", "ordinal"]),
        help="How to read the label column.  [default: decided by its values]",
    ),
    click.option(
        "--positive",
        multiple=True,
        metavar="[TARGET=]CLASS",
        help="Positive class of binary targets, or of one of several targets; repeatable.",
    ),
    click.option(
        "--order",
        multiple=True,
        metavar="[TARGET=]NONE,MILD,...",
        help="Ordered grades of the targets, or of one of several targets, the lowest first; repeatable.",
    ),
)

threshold_option = click.option(
    "--threshold",
    default="youden",
    show_default=True,
    callback=_threshold_rule,
    metavar="RULE",
    help="Decision threshold of a binary target: youden, sensitivity=0.9, specificity=0.9, or a number.",
)
