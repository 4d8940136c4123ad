"""`panecho-embed verify`: is what this package wrote still whole?"""

from __future__ import annotations

from pathlib import Path

import click

from panecho_embed.cli.options import file_to_check
from panecho_embed.cli.printable import echo_line


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=file_to_check)
@click.pass_context
def verify(ctx: click.Context, paths: tuple[Path, ...]) -> None:
    """Read files from end to end and name every problem.

    PATH is an embedding file, a run folder of `probe`, `finetune`, `grid`, `predict` or `compare` (with all folders
    below it), an index, a weights file or checkpoint, or a table of `atlas`. Exit code 1 if there is a problem.
    """
    bad = 0
    for path in paths:
        problems, whole = _checked(path)
        bad += bool(problems)
        for problem in problems:
            echo_line(problem if problem.startswith(str(path)) else f"{path}: {problem}")
        if not problems:
            echo_line(f"{path}: whole, {whole}")
    ctx.exit(1 if bad else 0)


def _checked(path: Path) -> tuple[list[str], str]:
    """The problems of a file or folder, and what it holds."""
    if path.is_dir():
        return _folder(path)
    if path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        return _tensors(path)
    if path.suffix == ".parquet":
        from panecho_embed.retrieval.atlas import atlas_problems

        return atlas_problems(path), "as its SHA-256 says"
    from panecho_embed.core.digests import read_checked, recorded_in_sums
    from panecho_embed.core.errors import StoreError
    from panecho_embed.store import EmbeddingFile
    from panecho_embed.store import verify as run

    try:
        if path.is_file() and recorded_in_sums(path) is not None:
            read_checked(path)
            return [], "as SHA256SUMS says"
    except StoreError as error:
        return [str(error)], ""
    if problems := run(path):
        return problems, ""
    with EmbeddingFile(path) as file:
        return [], f"{len(file)} {file.level} rows, fingerprint {file.fingerprint[:12]}"


def _folder(path: Path) -> tuple[list[str], str]:
    from panecho_embed.core.digests import SUMS, listed_sums, problems_of_folder
    from panecho_embed.core.outputs import settled
    from panecho_embed.store import verify

    settled(path)
    folders = sorted({path, *(found.parent for found in path.rglob(SUMS))})
    embedded = sorted(path.glob("*.h5"))
    if folders == [path] and not (path / SUMS).exists():
        return [f"{path}: no {SUMS} is in it; a finished run has one"], ""
    problems = [
        problem for folder in folders if (folder / SUMS).exists() for problem in problems_of_folder(settled(folder))
    ]
    problems += [f"{file}: {problem}" for file in embedded for problem in verify(file)]
    count = 0 if problems else sum(len(listed_sums(folder)) for folder in folders)
    return problems, f"{count + len(embedded)} files"


def _tensors(path: Path) -> tuple[list[str], str]:
    from panecho_embed.core.digests import checked_sha256, recorded_sha256
    from panecho_embed.core.errors import WeightsError
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
