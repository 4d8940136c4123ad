"""Is what this package wrote still whole? Embedding files, run folders, indexes, weights, tables of `atlas`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from panecho_embed.core.digests import (
    SUMS,
    checked_sha256,
    listed_sums,
    problems_of_folder,
    read_checked,
    recorded_in_sums,
    recorded_sha256,
)
from panecho_embed.core.errors import StoreError, WeightsError
from panecho_embed.core.outputs import settled
from panecho_embed.store import EmbeddingFile
from panecho_embed.store import verify as verify_file
from panecho_embed.store.sealed_tables import table_problems


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in a file or folder.

    Parameters
    ----------
    path : Path
        What was read.
    problems : tuple of str
        One sentence each; empty where everything is whole.
    content : str
        What it holds, such as "240 clip rows"; "" if there are problems.
    """

    path: Path
    problems: tuple[str, ...]
    content: str

    def __bool__(self) -> bool:
        """True if everything is whole."""
        return not self.problems


def verify(path: str | Path) -> Verified:
    """Read a file or folder from end to end, and name every problem.

    Parameters
    ----------
    path : str or Path
        An embedding file, a run folder of `probe`, `finetune`, `grid`, `predict` or `compare` (with all folders below
        it), an index, a weights file or checkpoint, or a table of `atlas`.

    Returns
    -------
    Verified
        True in an `if` where everything is whole.
    """
    where = Path(path)
    problems, content = _checked(where)
    return Verified(where, tuple(problems), content)


def _checked(path: Path) -> tuple[list[str], str]:
    """The problems of a file or folder, and what it holds."""
    if path.is_dir():
        return _folder(path)
    if path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        return _tensors(path)
    if path.suffix == ".parquet":
        return table_problems(path), "as its SHA-256 says"
    try:
        if path.is_file() and recorded_in_sums(path) is not None:
            read_checked(path)
            return [], "as SHA256SUMS says"
    except StoreError as error:
        return [str(error)], ""
    if problems := verify_file(path):
        return problems, ""
    with EmbeddingFile(path) as file:
        return [], f"{len(file)} {file.level} rows, settings id {file.settings_id[:12]}"


def _folder(path: Path) -> tuple[list[str], str]:
    settled(path)
    folders = sorted({path, *(found.parent for found in path.rglob(SUMS))})
    embedded = sorted(path.glob("*.h5"))
    if folders == [path] and not (path / SUMS).exists():
        return [f"{path}: no {SUMS} is in it; a finished run has one"], ""
    problems = [
        problem for folder in folders if (folder / SUMS).exists() for problem in problems_of_folder(settled(folder))
    ]
    problems += [f"{file}: {problem}" for file in embedded for problem in verify_file(file)]
    count = 0 if problems else sum(len(listed_sums(folder)) for folder in folders)
    return problems, f"{count + len(embedded)} files"


def _tensors(path: Path) -> tuple[list[str], str]:
    from panecho_embed.models.checkpoint import count_tensors

    try:
        digest = checked_sha256(path)
        count = count_tensors(path)
        if recorded_sha256(path) is not None:
            known = "as recorded when it was written"
        elif path.suffix == ".safetensors":
            known = "nothing is recorded to compare it with, and the format has no checksum"
        else:
            known = "nothing is recorded to compare it with; every array has its CRC-32"
    except WeightsError as error:
        return [str(error)], ""
    return [], f"{count} arrays, sha256 {digest} ({known})"
