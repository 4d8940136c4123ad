"""The work in progress of one embedding file: parts in `OUT.parts/`, from which a stopped extraction goes on."""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from panecho_embed.content import Stamp, unchanged
from panecho_embed.errors import SettingsMismatchError, StoreError
from panecho_embed.records import FPS_OF_MANIFEST, Manifest, Provenance, VideoFacts, VideoRef
from panecho_embed.store.ledger import Ledger
from panecho_embed.store.merge import merge_ledger
from panecho_embed.store.read import EmbeddingFile
from panecho_embed.store.verify import verify
from panecho_embed.store.write import explain_os_error

# Hidden, so that an output inside the input folder adds nothing to the input.
_SALT, _LOCK, _REPLACING = ".salt", ".lock", ".replacing"


class Parts:
    """The parts of `out`, and `out` itself if it is there already: a finished file counts as a part.

    out: absolute path of the embedding file. salt: of the ids taken from headers; None for a random one, which stays
    beside the parts until the merge, so that a resumed extraction gives the same ids.
    Use it in a `with` block: one run at a time has it, and a run that fails before its first part leaves no trace.
    """

    def __init__(self, out: Path, salt: str | None = None) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".parts")
        self.notes: list[str] = []
        self._given_salt = salt
        self._valid = Ledger()
        self._lock = FileLock(self.folder / _LOCK, blocking=False)

    def __enter__(self) -> Self:
        if self.out.is_dir():
            raise StoreError(f"{self.out} is a folder; name the file to write (-o)")
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock.acquire()
            self.salt = self._salt()
        except Timeout:
            raise StoreError(f"another run is writing {self.out}; wait for it, or take another output (-o)") from None
        except OSError as error:
            raise StoreError(f"can't write {self.out}: {explain_os_error(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder.is_dir() and not any(self.folder.glob("part-*.h5")):
            shutil.rmtree(self.folder)
        self._lock.release()

    def begin(self, manifest: Manifest, provenance: Provenance, overwrite: bool = False) -> None:
        """Look at what is there already, and refuse what does not go together with this manifest and these settings.

        overwrite: begin anew. The old file stays until the new one takes its place; an interrupted new beginning goes
        on like any other extraction. Raises SettingsMismatchError, naming every field that differs, and StoreError if
        videos would be lost, or if what stands at the output is no embedding file.
        """
        if overwrite and self.out.exists():
            EmbeddingFile(self.out)
        parts = sorted(self.folder.glob("part-*.h5"))
        replacing = self.folder / _REPLACING
        if overwrite and not (replacing.exists() and all(_made_with(path, provenance) for path in parts)):
            for path in parts:
                path.unlink()
            parts = []
            replacing.touch()
        if self.out.exists() and not replacing.exists():
            self._enter(self.out, provenance)
        for path in parts:
            if problems := verify(path):
                self.notes.append(f"{path.name} is damaged and was left out: {problems[0]}")
            else:
                self._enter(path, provenance)
        self._check_complete(manifest)

    def todo(self, manifest: Manifest) -> list[int]:
        """Positions of the videos that are not settled.

        Settled is what the latest word on it calls done or skipped, if its content and its frame rate by hand are still
        the same; what failed is tried again.
        """
        entries = self._valid.entries([video.video_id for video in manifest.videos]).tolist()
        return [
            position
            for position, (video, entry) in enumerate(zip(manifest.videos, entries, strict=True))
            if entry < 0 or not _is_settled(video, self._valid.fact(entry))
        ]

    def new_path(self) -> Path:
        """Where the next part goes; names sort by time. The caller writes it, and tells with `written`."""
        return self.folder / f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.h5"

    def written(self, path: Path) -> None:
        """Count a part in that was written to `new_path`."""
        self._valid.add(EmbeddingFile(path))

    def finish(self, manifest: Manifest, provenance: Provenance) -> EmbeddingFile:
        """Merge all parts into the output, and remove them once it is in place.

        A finished file that already says the same is left as it is.
        """
        if not (self._valid.paths == [self.out] and self._says_the_same(manifest)):
            if self.out in self._valid.paths:
                self._tell_of_new_ids(manifest)
            merge_ledger(self._valid, manifest, provenance, self.out, scratch=self.folder)
        shutil.rmtree(self.folder)
        return EmbeddingFile(self.out)

    def _enter(self, path: Path, provenance: Provenance) -> None:
        file = EmbeddingFile(path)
        if file.fingerprint != provenance.fingerprint:
            raise SettingsMismatchError(
                f"{path} was made with other settings than asked for now: "
                f"{'; '.join(provenance.differences(file.provenance))}. "
                "Take another output (-o), or begin anew with --overwrite"
            )
        self._valid.add(file)

    def _check_complete(self, manifest: Manifest) -> None:
        if lost := sorted(set(self._valid.done()) - {video.video_id for video in manifest.videos}):
            raise StoreError(
                f"{self.out} holds {len(lost)} videos that the input does not list, for example {lost[0]}; they would "
                "be lost. Take another output (-o), or begin anew with --overwrite"
            )

    def _says_the_same(self, manifest: Manifest) -> bool:
        there = EmbeddingFile(self.out).manifest()
        # A random salt differs from run to run; ids that differ for that alone are no news.
        ids = ["video_id", "view", "split", "path", "fps"]
        ids += ["study_id", "patient_id"] if self._given_salt is not None else []
        return (
            len(there) == len(manifest)
            and all(
                getattr(a, name) == getattr(b, name)
                for a, b in zip(there.videos, manifest.videos, strict=True)
                for name in ids
            )
            and _same_labels(there.labels, manifest.labels)
        )

    def _tell_of_new_ids(self, manifest: Manifest) -> None:
        before = {video.video_id: video.patient_id for video in EmbeddingFile(self.out).manifest().videos}
        changed = sum(before.get(video.video_id, video.patient_id) != video.patient_id for video in manifest.videos)
        if changed and self._given_salt is None:
            self.notes.append(
                f"{changed} videos that were there already have new patient ids; ids hashed from DICOM headers stay "
                "the same from run to run with --id-salt"
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


def _made_with(path: Path, provenance: Provenance) -> bool:
    try:
        return EmbeddingFile(path).fingerprint == provenance.fingerprint
    except StoreError:
        return False


def _is_settled(video: VideoRef, fact: VideoFacts) -> bool:
    if fact.status == "failed":
        return False
    by_hand = fact.fps if fact.fps_source == FPS_OF_MANIFEST else None
    if fact.status == "done" and video.fps != by_hand and not (by_hand and math.isnan(by_hand)):
        return False
    return unchanged(video.path, Stamp(fact.size_bytes, fact.mtime_ns), fact.sha256)


def _same_labels(mine: Mapping[str, npt.NDArray[Any]], theirs: Mapping[str, npt.NDArray[Any]]) -> bool:
    return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.dtype.kind != other.dtype.kind:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
