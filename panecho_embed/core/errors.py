"""The errors that this package raises: one root, a few children, each also the builtin that a caller expects."""

from __future__ import annotations


class PanEchoEmbedError(Exception):
    """The root of every error that this package raises on purpose."""


class ArgumentError(PanEchoEmbedError, ValueError):
    """An argument has a value that is not allowed; the message quotes it and lists what is."""


class NotInstalledError(ArgumentError):
    """An optional part is not installed; the message names the extra that brings it.

    Parameters
    ----------
    package : str
        What is missing.
    extra : str
        The extra of this package that installs it.
    needed_for : str
        The option that needs it; "" for none.
    """

    def __init__(self, package: str, extra: str, needed_for: str = "") -> None:
        how = f"pip install 'panecho-embed[{extra}]'"
        super().__init__(f"{package} is not installed: {how}" + (f" ({needed_for})" if needed_for else ""))


class RecipeError(ArgumentError):
    """A recipe has an unknown key, or a value that is not allowed; the message says which, and what is."""


class ManifestError(PanEchoEmbedError, ValueError):
    """The list of videos is unusable; the message lists every problem, not only the first."""


class TaskTableError(PanEchoEmbedError, ValueError):
    """A table of reporting tasks is unusable; the message lists every problem, not only the first."""


class MediaError(PanEchoEmbedError, ValueError):
    """A file could not be turned into frames.

    `stage` says how far it came ("open", "decode", "pixels", "clips", ...), for the failures table.
    """

    def __init__(self, message: str, *, stage: str = "decode") -> None:
        super().__init__(message)
        self.stage = stage

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_media_error, (type(self), str(self), self.stage)


class NotACineError(MediaError):
    """A readable file that is no moving 2-D image: a still, a spectral Doppler, an M-mode. Skipped, not failed."""

    def __init__(self, message: str, *, stage: str = "skipped") -> None:
        super().__init__(message, stage=stage)


class WeightsError(PanEchoEmbedError, RuntimeError):
    """A weights file is damaged, or belongs to another model."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """The weights were not found; the message says where they were looked for and how to fetch them."""


class WorkersError(PanEchoEmbedError, RuntimeError):
    """Worker processes can't start, or die one after the other."""


class EngineError(PanEchoEmbedError, RuntimeError):
    """An engine of the image encoder can't run here, or gives other values than the eager one."""


class NoMemoryError(PanEchoEmbedError, MemoryError):
    """Memory does not suffice for a single picture or clip; the message says what was tried."""


class StoreError(PanEchoEmbedError, OSError):
    """An embedding file can't be written, or is not whole."""


class EarlierReleaseError(StoreError):
    """A file of an earlier release, whose values are not what this release would compute; it has to be made again."""


EARLIER_ORDER = (
    "made by an earlier release: it does not say in which order of planes. PanEcho's image encoder was shown RGB "
    'frames then, not the published pictures ("Order of planes" in docs/models.md). Make it again with this release'
)
"""What is said of every file that records no order of planes."""

EARLIER_FEEDING = (
    'made by an earlier release, which fed several models otherwise than their published pipelines ("Feeding" in '
    "docs/models.md). Make it again with this release"
)
"""What is said of every file that records no feeding."""


class RemoteError(PanEchoEmbedError, OSError):
    """What a URL names can't be read or written; the message says why."""


class TrainingError(PanEchoEmbedError, ArithmeticError):
    """Training can't go on: its loss is not a number any more; the message names the videos of the batch."""


class SettingsMismatchError(PanEchoEmbedError, ValueError):
    """Work was begun with other settings; the message names the field that differs."""


def _rebuild_media_error(kind: type[MediaError], message: str, stage: str) -> MediaError:
    return kind(message, stage=stage)
