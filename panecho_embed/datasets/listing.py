"""The table of what would be embedded, for a person to check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.outputs import refuse_to_replace, written_whole
from panecho_embed.core.progress import Progress, silent
from panecho_embed.core.records import Ids
from panecho_embed.datasets import describe_manifest, local_path, read_manifest
from panecho_embed.datasets.describe import understood

if TYPE_CHECKING:
    import pandas as pd


def manifest(
    source: str | Path,
    out: str | Path | None = None,
    *,
    layout: str = "auto",
    ids: Ids = "auto",
    id_salt: str | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> pd.DataFrame:
    """List what `extract` would embed: one row per video, with ids, view, split, frames, frame rate and labels.

    Parameters
    ----------
    source : str or Path
        Folder, table or public data set, as for `extract`.
    out : str or Path, optional
        Table to write (CSV), which `extract` takes in place of `source`. Beside it stands OUT.ids.csv where ids are
        hashed. By default nothing is written.
    layout : str
        How the folder is read, see `panecho_embed.datasets.read_manifest`.
    ids : {"auto", "opaque", "plain"}
        Whether ids and paths are hashed; "auto" hashes them where a file is DICOM.
    id_salt : str, optional
        Key of the hashes, at least 16 characters.
    overwrite : bool
        Replace `out`.
    progress : callable
        Called with the number of files read and the number of all files.

    Returns
    -------
    DataFrame
        One row per video. `attrs["understood"]` are lines that say what the input was taken for (layout, patients,
        views, splits, labels with units); `attrs["notes"]` are doubts to look at.

    Raises
    ------
    ManifestError
        For every problem of the input, or if several data sets are below it.
    StoreError
        If `out` exists (unless `overwrite`), or can't be written.
    """
    if out is not None:
        refuse_to_replace(Path(out), overwrite, source)
    local = None if out is None else local_path(out)
    found = read_manifest(source, layout, ids=ids, salt=id_salt, local=local)
    table = describe_manifest(found, progress=progress)
    if out is not None:
        # Names of files byte for byte.
        with written_whole(Path(out)) as temporary:
            table.to_csv(temporary, index=False, encoding="utf-8", errors="surrogateescape")
    table.attrs |= {"understood": understood(found), "notes": list(found.notes)}
    return table
