"""The work in progress of one embedding file: parts in `OUT.parts/`, from which a stopped extraction goes on."""

from __future__ import annotations

import math
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from panecho_embed.core.content import Stamp, unchanged
from panecho_embed.core.errors import EarlierReleaseError, SettingsMismatchError, StoreError
from panecho_embed.core.outputs import explain_os_error, sweep, written_whole
from panecho_embed.core.patients import is_opaque
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import FPS_OF_MANIFEST, Failure, Manifest, VideoFacts, VideoRef
from panecho_embed.core.shards import Shard
from panecho_embed.store.agreement import Agreement
from panecho_embed.store.contents import begins_as_hdf5
from panecho_embed.store.lock import RunLock
from panecho_embed.store.merge import Ledger, merge_ledger
from panecho_embed.store.mirror import Mirror
from panecho_embed.store.read import EmbeddingFile
from panecho_embed.store.verify import problems_of

_PATTERN = "part-*.h5"
"""What the names of all parts match."""

_SHARD_OF_PART = re.compile(r"-(\d+)of(\d+)\.h5$")
# Hidden, so that an output inside the input folder adds nothing to the input.
_REPLACING, _AGREEMENT = ".replacing", ".videos.jsonl.gz"

_WAY_OUT = "Take a copy of it, another output (-o), or begin anew with --overwrite"


class Parts:
    """The parts of `out`, and `out` itself if it is there already: a finished file counts as a part.

    out: absolute path of the embedding file. shard: which share of the videos is looked after; None for all.
    mirror: the URL that `out` and its parts stand for; None if they are themselves.
    Use it in a `with` block: one run at a time has it, or every shard once, and a run that fails before its first part
    leaves no trace.
    """

    def __init__(self, out: Path, shard: Shard | None = None, mirror: Mirror | None = None) -> None:
        # A link stays one, and what it leads to is written.
        self.out = out.resolve() if _is_link(out) else out
        self.folder = self.out.with_name(self.out.name + ".parts")
        self.shard = shard
        self.notes: list[str] = []
        self._latest_ns = 0
        self._mirror = mirror
        self._valid = Ledger()
        self._finished: EmbeddingFile | None = None
        self._lock = RunLock(self.folder, shard)

    def __enter__(self) -> Self:
        try:
            self._check_place()
            self._lock.acquire()
            if self._mirror is not None:
                self._pull(self._mirror)
            with self._lock.briefly():
                sweep(self.folder)
        except StoreError:
            raise
        except OSError as error:
            self._lock.release()
            raise StoreError(f"can't write {self.out}: {explain_os_error(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._mirror is not None:
                self._mirror.leave(bool(self._names()))
            if self.folder.is_dir() and not self._names():
                with self._lock.briefly():
                    if not (self._names() or self._lock.working(self._lock.shards())):
                        self._lock.remove_folder()
        finally:
            self._lock.release()
            if self._mirror is not None:
                self._mirror.close()

    def begin(self, manifest: Manifest, provenance: Provenance, overwrite: bool = False) -> None:
        """Look at what is there already, and refuse what does not go together with this manifest and these settings.

        overwrite: start again. The old file stays until the new one takes its place; an interrupted new beginning goes
        on like any other extraction. Raises SettingsMismatchError, naming every field that differs, and StoreError if
        videos would be lost, or if what is at the output is not an embedding file.
        """
        if overwrite and self.out.exists() and not begins_as_hdf5(self.out):
            raise StoreError(f"{self.out} is no embedding file, so it is not overwritten; take another output (-o)")
        with self._lock.briefly():
            if overwrite:
                self._begin_anew(provenance)
            if self.shard is not None:
                self._agree(Agreement(manifest, provenance))
        if self.out.exists() and not self._replacing.exists():
            self._finished = self._enter(_opened(self.out), provenance)
        for name in self._names():
            self._latest_ns = max(self._latest_ns, _time_ns(name))
            if _concerns(name, self.shard):
                self._enter_part(name, provenance)
        self._check_complete(manifest)

    def agreement(self) -> Agreement | None:
        """What the shards have agreed on; None if no shard was here."""
        file = self.folder / _AGREEMENT
        return Agreement.from_bytes(file.read_bytes()) if file.exists() else None

    def check_finished(self) -> None:
        """Raise StoreError if the finished file, which is about to be extended, is damaged in any place."""
        if self._finished is None:
            return
        try:
            problems = problems_of(self._finished)
        except StoreError as error:
            raise StoreError(f"{error}. {_WAY_OUT}") from error
        if problems:
            raise StoreError(f"{self.out}: {problems[0]}. {_WAY_OUT}")

    def share(self, manifest: Manifest) -> list[int]:
        """Positions of the videos that are looked after."""
        return [i for i, video in enumerate(manifest.videos) if self.shard is None or self.shard.takes(video.video_id)]

    def todo(self, manifest: Manifest) -> list[int]:
        """Positions of the videos that are not settled.

        Settled is what the latest word on it calls done or skipped, if its content and its frame rate by hand are still
        the same; what failed is tried again.
        """
        share = np.array(self.share(manifest), dtype=np.int64)
        entries = self._valid.entries([manifest.videos[i].video_id for i in share])
        known = share[entries >= 0].tolist()
        facts = self._valid.facts(entries[entries >= 0])
        settled = {i for i, fact in zip(known, facts, strict=True) if _is_settled(manifest.videos[i], fact)}
        return [i for i in share.tolist() if i not in settled]

    def check_all_there(self, manifest: Manifest) -> None:
        """Raise StoreError, naming the shards that have to run again, if a video is neither done nor failed."""
        entries = self._valid.entries([video.video_id for video in manifest.videos])
        lost = [manifest.videos[i].video_id for i in np.flatnonzero(entries < 0)]
        if not lost:
            return
        counts = {shard.count for shard in self._lock.shards()}
        found = Counter(str(shard) for count in counts for video_id in lost for shard in (Shard.of(video_id, count),))
        whose = ", ".join(f"{shard} ({videos} videos)" for shard, videos in sorted(found.items()))
        raise StoreError(
            f"{self.out} can't be put together yet: {len(lost)} videos are neither done nor failed. Run again: shard "
            f"{whose}; or the same command without --shard, which does what is left and puts everything together"
        )

    def tally(self, manifest: Manifest) -> tuple[int, list[Failure]]:
        """Number of rows, and the failures, of the videos that are looked after, once all are settled."""
        videos = [manifest.videos[i] for i in self.share(manifest)]
        entries = self._valid.entries([video.video_id for video in videos])
        failures = (self._valid.failure(entry) for entry in entries.tolist())
        told = [replace(f, path=video.path) for f, video in zip(failures, videos, strict=True) if f is not None]
        return (int(self._valid.columns["row_count"][entries].sum()) if len(videos) else 0), told

    def new_path(self) -> Path:
        """Where the next part goes. The caller writes it, and tells with `written`."""
        path = _new_part_path(self.folder, self.shard, self._latest_ns)
        self._latest_ns = _time_ns(path.name)
        return path

    def written(self, part: EmbeddingFile) -> None:
        """Count a part in that was written to `new_path`."""
        self._valid.add(part)
        if self._mirror is not None:
            self._mirror.push(self.folder / name for name in (_REPLACING, *self._names()))

    def is_news(self, manifest: Manifest) -> bool:
        """Does the finished file, if there is one, say something else than this manifest and the parts?"""
        return self._valid.paths != [self.out] or not _says_the_same(self.finished, manifest)

    def finish(self, manifest: Manifest, provenance: Provenance) -> EmbeddingFile:
        """Merge all parts into the output, and remove them once it is in place.

        A finished file that already says the same is left as it is; see `is_news`.
        """
        self.put_in_place(manifest, provenance)
        self.remove()
        return self.finished

    def put_in_place(self, manifest: Manifest, provenance: Provenance) -> None:
        """The first half of `finish`: merge all parts into the output."""
        changed = self.is_news(manifest)
        if changed:
            self._finished = merge_ledger(self._valid, manifest, provenance, self.out, scratch=self.folder)
        if self._mirror is not None:
            self._mirror.deliver(changed)

    def remove(self) -> None:
        """The second half of `finish`: remove the parts."""
        if self._mirror is not None:
            self._mirror.clean()
        self._lock.remove_folder()

    @property
    def finished(self) -> EmbeddingFile:
        """The finished file, as it was opened and checked. Raises StoreError if there is none."""
        if self._finished is None:
            raise StoreError(f"{self.out}: no such file")
        return self._finished

    def _pull(self, mirror: Mirror) -> None:
        try:
            mirror.pull(self.folder)
        except StoreError:
            self.__exit__()
            raise

    def _check_place(self) -> None:
        if self.out.is_dir():
            raise StoreError(f"{self.out} is a folder; name the file to write (-o)")
        if self.out.exists() and not self.out.is_file():
            raise StoreError(f"{self.out} is a pipe, a socket or a device; name the file to write (-o)")

    @property
    def _replacing(self) -> Path:
        return self.folder / _REPLACING

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(_PATTERN))

    def _begin_anew(self, provenance: Provenance) -> None:
        """Discard the parts that were not made by a new beginning with the same settings."""
        names = self._names()
        if self._replacing.exists() and all(_made_with(self.folder / name, provenance) for name in names):
            return
        if working := self._lock.working(self._lock.shards()):
            raise StoreError(f"shard {working[0]} is writing {self.out}; its work can't be discarded (--overwrite)")
        for name in (*names, _AGREEMENT):
            (self.folder / name).unlink(missing_ok=True)
        if self._mirror is not None:
            self._mirror.discard()
        self._replacing.touch()

    def _agree(self, mine: Agreement) -> None:
        file = self.folder / _AGREEMENT
        if not file.exists():
            with written_whole(file) as temporary:
                temporary.write_bytes(mine.to_bytes())
        mine.check(file.read_bytes(), self.folder)

    def _enter_part(self, name: str, provenance: Provenance) -> None:
        """Take in a part, or leave it out, with a note, if it is damaged."""
        try:
            file = EmbeddingFile(self.folder / name)
            problems = problems_of(file)
        except EarlierReleaseError as error:
            raise EarlierReleaseError(f"{error} (--overwrite)") from error
        except StoreError as error:
            problems = [str(error)]
        if problems:
            self.notes.append(f"{name} is damaged and was left out: {problems[0]}")
        else:
            self._enter(file, provenance)

    def _enter(self, file: EmbeddingFile, provenance: Provenance) -> EmbeddingFile:
        if file.settings_id != provenance.settings_id:
            raise SettingsMismatchError(
                f"{file.path} was made with other settings than asked for now: "
                f"{'; '.join(provenance.differences(file.provenance))}. "
                "Take another output (-o), or begin anew with --overwrite"
            )
        self._valid.add(file)
        return file

    def _check_complete(self, manifest: Manifest) -> None:
        if lost := sorted(set(self._valid.done()) - {video.video_id for video in manifest.videos}):
            salt = " (are their ids of another salt?)" if is_opaque(lost[0]) else ""
            raise StoreError(
                f"{self.out} holds {len(lost)} videos that the input does not list, for example {lost[0]}{salt}; they "
                "would be lost. Take another output (-o), or begin anew with --overwrite"
            )


def finish_together(several: Sequence[Parts], manifest: Manifest, provenances: Sequence[Provenance]) -> None:
    """Merge the parts of files that belong together, see `Parts.finish`."""
    for parts, provenance in zip(several, provenances, strict=True):
        parts.put_in_place(manifest, provenance)
    # After all merges: a run that is stopped before goes on from the parts.
    for parts in several:
        parts.remove()


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        # A name too long; writing says so.
        return False


def _opened(path: Path) -> EmbeddingFile:
    """The finished file; an error says how it is replaced."""
    try:
        return EmbeddingFile(path)
    except EarlierReleaseError as error:
        raise EarlierReleaseError(f"{error} (--overwrite)") from error
    except StoreError as error:
        raise StoreError(f"{error}. {_WAY_OUT}") from error


def _made_with(path: Path, provenance: Provenance) -> bool:
    try:
        return EmbeddingFile(path).settings_id == provenance.settings_id
    except StoreError:
        return False


def _is_settled(video: VideoRef, fact: VideoFacts) -> bool:
    """Whether what is known of a video holds: done or skipped, with the same content, rate by hand and phases."""
    if fact.status == "failed":
        return False
    by_hand = fact.fps if fact.fps_source == FPS_OF_MANIFEST else None
    if fact.status == "done" and video.fps != by_hand and not (by_hand and math.isnan(by_hand)):
        return False
    cut_by = (fact.recording.end_diastole, fact.recording.end_systole)
    if fact.status == "done" and video.phases is not None and video.phases != cut_by:
        return False
    return unchanged(video.location, Stamp(fact.size_bytes, fact.mtime_ns), fact.sha256)


def _says_the_same(file: EmbeddingFile, manifest: Manifest) -> bool:
    """Whether a file has the videos and labels of a manifest already, in its order."""
    if file.num_videos != len(manifest):
        return False
    names = ["video_id", "study_id", "patient_id", "view", "split", "path"]
    # By columns: a million videos as objects take their time.
    there = file.read_videos(names)
    return (
        all(there[name].tolist() == [getattr(video, name) for video in manifest.videos] for name in names)
        and file.rates_by_hand() == [video.fps for video in manifest.videos]
        and _same_labels(file.labels, manifest.labels)
        and file.units == {name: manifest.units[name] for name in manifest.labels if manifest.units.get(name)}
    )


def _same_labels(mine: Mapping[str, npt.NDArray[Any]], theirs: Mapping[str, npt.NDArray[Any]]) -> bool:
    return mine.keys() == theirs.keys() and all(_same(mine[name], theirs[name]) for name in mine)


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.dtype.kind != other.dtype.kind:
        return False
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


def _new_part_path(folder: Path, shard: Shard | None, latest_ns: int) -> Path:
    """A path that no other part has, whoever writes it; names sort by time, and behind `latest_ns`.

    A clock that was set back, or another machine's, must not make the latest word on a video look older than the one
    before.
    """
    tag = "" if shard is None else f"-{shard.index}of{shard.count}"
    return folder / f"part-{max(time.time_ns(), latest_ns + 1):020d}-{uuid.uuid4().hex[:8]}{tag}.h5"


def _time_ns(name: str) -> int:
    """The time in a part's name, nanoseconds since 1970; 0 where there is none."""
    digits = name.split("-")[1]
    return int(digits) if digits.isdecimal() else 0


def _concerns(name: str, shard: Shard | None) -> bool:
    """Whether a part can hold videos of a share: not if another shard of as many has written it."""
    match = _SHARD_OF_PART.search(name)
    if match is None or shard is None or int(match[2]) != shard.count:
        return True
    return int(match[1]) == shard.index
