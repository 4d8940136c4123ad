"""Where weights are found and fetched, under which licence they stand, and what to say when they are not to be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from panecho_embed.core.digests import checked_sha256
from panecho_embed.core.errors import ArgumentError, WeightsNotFoundError
from panecho_embed.core.nearest import nearest
from panecho_embed.core.provenance import WeightsInfo

PLACE_VARIABLE = "PANECHO_EMBED_WEIGHTS"
"""Environment variable: a folder that holds weights files under their published names, or one weights file.

The one file is PanEcho's, unless it bears another model's published name.
"""

MIRROR_VARIABLE = "PANECHO_EMBED_WEIGHTS_URL"
"""Environment variable: an http(s) address that has the files by name; it is asked instead of the publishers'."""

_TORCHVISION = "BSD-3-Clause (torchvision)"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A published weights file.

    url: where it can be fetched; "" if only as part of an archive (`notes` says which) or, with `hub_repo`, from
    the Hugging Face hub. sha256: its first digits, "" if the publisher names none.
    """

    name: str
    file_name: str
    url: str
    licence: str
    sha256: str = ""
    hub_repo: str = ""
    notes: str = ""


KNOWN: tuple[WeightsFile, ...] = (
    WeightsFile(
        "panecho",
        "panecho.pt",
        "https://github.com/CarDS-Yale/PanEcho/releases/download/v1.0/panecho.pt",
        "CC BY-NC-SA 4.0",
        notes="also serves panecho-image",
    ),
    WeightsFile(
        "imagenet",
        "convnext_tiny-983f1562.pth",
        "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
        f"{_TORCHVISION}; trained on ImageNet-1K, whose terms are non-commercial",
        sha256="983f1562",
    ),
    WeightsFile(
        "echoclip",
        "open_clip_pytorch_model.bin",
        "",
        "academic, non-commercial use only (terms on the model's page)",
        hub_repo="mkaichristensen/echo-clip",
        notes="gated: needs a Hugging Face token",
    ),
    WeightsFile(
        "kinetics",
        "r3d_18-b3b3357e.pth",
        "https://download.pytorch.org/models/r3d_18-b3b3357e.pth",
        f"{_TORCHVISION}; trained on Kinetics-400",
        sha256="b3b3357e",
    ),
    WeightsFile(
        "echoprime",
        "echo_prime_encoder.pt",
        "",
        "academic, non-commercial use only (terms in the release)",
        notes="inside model_data.zip of https://github.com/echonet/EchoPrime/releases",
    ),
)

_SERVES = {"panecho-image": "panecho"}

NOT_STATED = "not stated"
"""The licence of weights that say nothing of it and are no published file."""


def known(name: str) -> WeightsFile:
    """The published file behind a model's name. Raises ArgumentError, with the nearest names, if there is none."""
    table = {file.name: file for file in KNOWN}
    file = table.get(_SERVES.get(name, name))
    if file is None:
        raise ArgumentError(
            f"no published weights are called {name!r}{nearest(name, table)}; known: {', '.join(table)}"
        )
    return file


def cache_folder() -> Path:
    """The torch hub cache for weights: `$TORCH_HOME`/hub/checkpoints, by default below ~/.cache/torch."""
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(name: str, weights: str | Path | None = None) -> Path:
    """The weights file of a model: `weights`, $PANECHO_EMBED_WEIGHTS, the caches, or fetched now.

    Raises WeightsNotFoundError, which says where was looked and what to do, and never falls back to anything else.
    """
    return locate(name, weights) or fetch(name)


def locate(name: str, weights: str | Path | None = None) -> Path | None:
    """As `find_weights`, without the network: None if the file is nowhere.

    Raises WeightsNotFoundError if `weights` or $PANECHO_EMBED_WEIGHTS names something that is not there.
    """
    file = known(name)
    if weights is not None:
        return _named(Path(weights).expanduser(), file)
    return next((path for _, path in _places(file) if path.is_file()), None)


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a model's weights into `folder` (the torch hub cache if None), and return the file.

    A file that is there already is checked against its recorded SHA-256 and kept. $PANECHO_EMBED_WEIGHTS_URL may name a
    mirror. Raises WeightsNotFoundError if they are not to be had, WeightsError if they can't be written or are damaged.
    """
    from panecho_embed.models.download import download
    from panecho_embed.models.hub import download_from_hub

    file = known(name)
    path = Path(folder or cache_folder()) / file.file_name
    if path.is_file():
        checked_sha256(path, file.sha256)
        return path
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    url = f"{mirror.rstrip('/')}/{file.file_name}" if mirror else file.url
    try:
        if url:
            download(url, path, file.sha256)
        elif file.hub_repo:
            download_from_hub(file.hub_repo, path)
        else:
            raise ConnectionError(f"no address: it is {file.notes}")
    except (ConnectionError, TimeoutError) as error:
        raise WeightsNotFoundError(_how_to_get(file, str(error))) from error
    return path


def weights_info(name: str, path: Path, stated: str = "") -> WeightsInfo:
    """What goes into every file and report about these weights. Reads the whole file once, for its SHA-256.

    stated: the licence that the file itself states. Without one, a published file has its publisher's, and is told by
    its SHA-256 where the publisher names it, else by its name; any other file's is not stated. Raises WeightsError if a
    SHA-256 was recorded when it was fetched and is now another one.
    """
    file, digest = known(name), checked_sha256(path)
    published = digest.startswith(file.sha256) if file.sha256 else path.name == file.file_name
    licence = stated or (file.licence if published else NOT_STATED)
    return WeightsInfo(source=path.name, sha256=digest, licence=licence, pretrained=True)


def _places(file: WeightsFile) -> Iterator[tuple[str, Path]]:
    """Where a file may lie, in the order of looking, each with what to call the place."""
    set_to = os.environ.get(PLACE_VARIABLE, "")
    if set_to:
        path = Path(set_to).expanduser()
        if path.is_dir():
            yield f"${PLACE_VARIABLE}", path / file.file_name
        elif not path.is_file():
            raise WeightsNotFoundError(f"{path}, given as ${PLACE_VARIABLE}, is not there")
        elif file.name == next((other.name for other in KNOWN if other.file_name == path.name), "panecho"):
            yield f"${PLACE_VARIABLE}", path
    yield "torch hub cache", cache_folder() / file.file_name
    if file.hub_repo:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(file.hub_repo, file.file_name)
        if isinstance(cached, str):
            yield "Hugging Face cache", Path(cached)


def _named(path: Path, file: WeightsFile) -> Path:
    """A file that the user named: it is taken, or it is an error."""
    if path.is_dir():
        raise WeightsNotFoundError(f"{path} is a folder; give the file in it, such as {file.file_name} (--weights)")
    if not path.is_file():
        raise WeightsNotFoundError(f"{path} is not there; it should be the weights file of {file.name} (--weights)")
    return path


def _how_to_get(file: WeightsFile, reason: str) -> str:
    places = "\n".join(f"  {place}: {path}" for place, path in _places(file))
    unset = "" if os.environ.get(PLACE_VARIABLE) else f"\n  ${PLACE_VARIABLE}: not set"
    page = f"https://huggingface.co/{file.hub_repo}" if file.hub_repo else ""
    source = file.url or (f"{file.file_name} from {page}" if page else f"{file.file_name}, {file.notes},")
    return (
        f"the weights of {file.name} ({file.file_name}) are not here and could not be fetched: {reason}\n"
        f"Looked in:\n{places}{unset}\n"
        f"To bring them: get {source} on a computer that can, copy it here, and give it with --weights FILE, or set "
        f"${PLACE_VARIABLE} to it or to its folder, or put it into {cache_folder()}.\n"
        "To try things out without them: --backbone random, or --init random where a start is asked for (random "
        "weights; named so in every file)."
    )
