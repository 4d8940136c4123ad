"""The work in progress of one embedding file: parts in `OUT.parts/`, from which a stopped extraction goes on."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Self

import numpy as np

from panecho_embed.errors import SettingsMismatchError, StoreError
from panecho_embed.records import Manifest, Provenance
from panecho_embed.store.merge import merge
from panecho_embed.store.read import EmbeddingFile
from panecho_embed.store.verify import verify
from panecho_embed.store.write import explain_os_error

# Hidden, so that an output inside the input folder adds nothing to the input.
_SALT = ".salt"


class Parts:
    """The parts of `out`, and `out` itself if it is there already: a finished file counts as a part.

    out: absolute path of the embedding file. salt: of the ids taken from headers; None for a random one, which stays
    beside the parts until the merge, so that a resumed extraction gives the same ids.
    Use it in a `with` block: a run that fails before its first part leaves no trace.
    """

    def __init__(self, out: Path, salt: str | None = None) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        self._given_salt = salt
        self._valid: list[Path] = []
        self.damaged: list[str] = []

    def __enter__(self) -> Self:
        if self.out.is_dir():
            raise StoreError(f"{self.out} is a folder; name the file to write (-o)")
        try:
            self.folder.mkdir(exist_ok=True)
            self.salt = self._salt()
        except OSError as error:
            raise StoreError(f"can't write {self.out}: {explain_os_error(error)}") from error
        for path in sorted(self.folder.glob("part-*.h5")):
            if problems := verify(path):
                self.damaged.append(f"{path.name} is left out: {problems[0]}")
            else:
                self._valid.append(path)
        if self.out.exists():
            self._valid.insert(0, self.out)
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.is_dir() and not any(self.folder.glob("part-*.h5")):
            shutil.rmtree(self.folder)

    def discard(self) -> None:
        """Forget the output and every part, to begin anew."""
        self.out.unlink(missing_ok=True)
        for path in self.folder.glob("part-*.h5"):
            path.unlink()
        self._valid.clear()
        self.damaged.clear()

    def check(self, provenance: Provenance) -> None:
        """Raise SettingsMismatchError, naming every field that differs, if anything was made with other settings."""
        for path in self._valid:
            made_with = EmbeddingFile(path).provenance
            if made_with.fingerprint != provenance.fingerprint:
                raise SettingsMismatchError(
                    f"{path} was made with other settings than asked for now: "
                    f"{'; '.join(provenance.differences(made_with))}. "
                    "Take another output (-o), or begin anew with --overwrite"
                )

    def check_complete(self, manifest: Manifest) -> None:
        """Raise StoreError if the finished file holds videos that the manifest does not list: they would be lost."""
        if not self.out.exists():
            return
        listed = {video.video_id for video in manifest.videos}
        lost = sorted(_done_ids(EmbeddingFile(self.out)) - listed)
        if lost:
            raise StoreError(
                f"{self.out} holds {len(lost)} videos that the input does not list, for example {lost[0]}. "
                "Take another output (-o), or begin anew with --overwrite"
            )

    def todo(self, manifest: Manifest) -> list[int]:
        """Positions of the videos that are not done; those that failed before are tried again."""
        done: set[str] = set().union(*(_done_ids(EmbeddingFile(path)) for path in self._valid))
        return [i for i, video in enumerate(manifest.videos) if video.video_id not in done]

    def new_path(self) -> Path:
        """Where the next part goes. The caller writes it, and tells with `written`."""
        return self.folder / f"part-{uuid.uuid4().hex}.h5"

    def written(self, path: Path) -> None:
        """Count a part in that was written to `new_path`."""
        self._valid.append(path)

    def finish(self, manifest: Manifest, provenance: Provenance) -> EmbeddingFile:
        """Merge all parts into the output, and remove them once it is in place.

        A finished file that already says the same is left as it is.
        """
        if not (self._valid == [self.out] and self._says_the_same(manifest)):
            merge(self._valid, manifest, provenance, self.out)
        shutil.rmtree(self.folder)
        return EmbeddingFile(self.out)

    def _says_the_same(self, manifest: Manifest) -> bool:
        there = EmbeddingFile(self.out).manifest()
        # A random salt differs from run to run; ids that differ for that alone are no news.
        ids = ["video_id", "view", "split", "path"]
        ids += ["study_id", "patient_id"] if self._given_salt is not None else []
        return (
            len(there) == len(manifest)
            and all(
                getattr(a, name) == getattr(b, name)
                for a, b in zip(there.videos, manifest.videos, strict=True)
                for name in ids
            )
            and list(there.labels) == sorted(manifest.labels)
            and all(_same(there.labels[name], manifest.labels[name]) for name in there.labels)
        )

    def _salt(self) -> str:
        if self._given_salt is not None:
            return self._given_salt
        file = self.folder / _SALT
        if not file.exists():
            # Under its name only when it is whole: a kill in between must not leave an empty salt.
            temporary = file.with_name(f"{_SALT}.{os.getpid()}")
            temporary.touch(mode=0o600)
            temporary.write_text(uuid.uuid4().hex)
            temporary.replace(file)
        return file.read_text()


def _done_ids(file: EmbeddingFile) -> set[str]:
    columns = file.video_columns
    return set(columns["video_id"][columns["status"] == "done"])


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind != other.dtype.kind:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
