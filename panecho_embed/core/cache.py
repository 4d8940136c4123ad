"""Where this user's caches are: one folder, with a folder in it for each purpose."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "PANECHO_EMBED_CACHE"


def cache_folder(purpose: str) -> Path:
    """The folder of one purpose ("read" or "written"), which need not be there yet.

    It lies in $PANECHO_EMBED_CACHE, else in $XDG_CACHE_HOME/panecho-embed, else in ~/.cache/panecho-embed.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser() / purpose
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "panecho-embed" / purpose
