"""Which weights are at hand, and whether they are whole; nothing is fetched."""

from __future__ import annotations

from panecho_embed.checkup.findings import Check
from panecho_embed.core.digests import checked_sha256, recorded_sha256
from panecho_embed.core.errors import PanEchoEmbedError, WeightsNotFoundError
from panecho_embed.models.verify import verify_weights
from panecho_embed.models.weights import KNOWN, PLACE_VARIABLE, WeightsFile, cache_folder, locate

# What `extract` takes when it is not told otherwise.
_DEFAULT = "panecho"


def check_weights() -> list[Check]:
    """PanEcho's are loaded as strictly as `extract` does; the others' SHA-256 is compared where one is known."""
    checks, absent = [], []
    for file in KNOWN:
        try:
            path = locate(file.name)
            if path is not None:
                checks.append(Check("weights", "ok", _whole(file)))
                continue
        except WeightsNotFoundError as error:
            # The variable is wrong, for all of them.
            return [Check("weights", "problem", str(error), f"set ${PLACE_VARIABLE} right, or unset it")]
        except PanEchoEmbedError as error:
            checks.append(_damaged(file, error))
            continue
        absent.append(file.name)
    if _DEFAULT in absent:
        absent.remove(_DEFAULT)
        checks.insert(
            0,
            Check(
                "weights",
                "warning",
                f"{_DEFAULT} is not here; `extract` would download it to {cache_folder()}",
                f"panecho-embed weights fetch {_DEFAULT} (without a network: see `panecho-embed weights --help`)",
            ),
        )
    if absent:
        checks.append(Check("weights", "ok", f"not here, and only needed with their --backbone: {', '.join(absent)}"))
    return checks


def _whole(file: WeightsFile) -> str:
    path = locate(file.name)
    assert path is not None
    checked_sha256(path, file.sha256)
    if file.name == _DEFAULT:
        verify_weights(file.name)
    known = "sha256 as published" if file.sha256 else "sha256 as fetched" if recorded_sha256(path) else ""
    loads = "loads" if file.name == _DEFAULT else ""
    how = ", ".join(filter(None, (known, loads))) or "no sha256 to compare with; panecho-embed weights verify loads it"
    return f"{file.name}: {path}, {path.stat().st_size / 1e6:.0f} MB, {how}"


def _damaged(file: WeightsFile, error: PanEchoEmbedError) -> Check:
    first = str(error).splitlines()[0]
    return Check(
        "weights",
        "problem" if file.name == _DEFAULT else "warning",
        f"{file.name}: {first}",
        f"delete that file, then: panecho-embed weights fetch {file.name}",
    )
