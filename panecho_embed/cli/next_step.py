"""Commands to type next, as they work on this computer: with the environment's path, and offline."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def next_step(*words: object, anywhere: bool = False) -> str:
    """Return a command of panecho-embed to paste into a shell.

    It starts with the environment's path where that environment is not active, or if `anywhere`: for what is kept and
    read later.
    """
    beside = Path(sys.executable).with_name("panecho-embed")
    if not beside.is_file():
        start = [_short(Path(sys.executable)), "-m", "panecho_embed"]
    elif not anywhere and shutil.which("panecho-embed") == str(beside):
        start = ["panecho-embed"]
    else:
        start = [_short(beside)]
    return shlex.join([*start, *map(str, words)])


def offline_backbone() -> str:
    """Return "panecho" if its weights are on this computer, otherwise "random", which needs none."""
    from panecho_embed.models.weights import locate

    return "random" if locate("panecho") is None else "panecho"


def _short(path: Path) -> str:
    """Return a path relative to the working directory where it is inside of it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
