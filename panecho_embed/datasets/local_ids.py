"""The local table: what opaque ids stand for, and their salt. For this machine and its user only (mode 0600)."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

from panecho_embed.core.errors import ArgumentError, ManifestError, MediaError
from panecho_embed.core.outputs import explain_os_error, temporary_path, written_whole
from panecho_embed.core.patients import is_opaque
from panecho_embed.core.records import Manifest, Origin, VideoRef
from panecho_embed.core.remote import file_name, is_url
from panecho_embed.datasets.ids import hashed_id, new_salt, sealed, unsealed

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".ids.csv"
_COLUMNS = ("video_id", "study_id", "patient_id", "plain_video_id", "plain_study_id", "plain_patient_id", "path")


def local_path(out: str | Path) -> Path:
    """Where the local table of an output lies: beside it; of one at a URL, in the working folder."""
    return Path(f"{file_name(str(out).rstrip('/')) if is_url(out) else out}{SUFFIX}")


@dataclass(frozen=True, repr=False, eq=False)
class LocalIds:
    """A local table as read: path of the table, salt, and video_id -> the video's row (see `_COLUMNS`)."""

    path: Path
    salt: str
    rows: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `keep` wrote. Raises ManifestError, which quotes no row."""
        try:
            salt, content = unsealed(path.read_bytes(), path)
        except (OSError, ArgumentError) as error:
            raise ManifestError(f"the local table of ids can't be read: {error}") from error
        lines = csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""), strict=True)
        if tuple(next(lines, ())) != _COLUMNS:
            raise ManifestError(f"{path}: not a local table of ids; put the right one there, or move this away")
        return cls(path, salt, {row[0]: tuple(row) for row in lines})

    @classmethod
    def beside(cls, file: str | Path) -> Self | None:
        """The local table of a file: beside it, or beside its folder; of a copy of a URL's, in the working folder."""
        file = Path(file)
        for there in (local_path(file), local_path(file.absolute().parent), local_path(file.name)):
            if there.is_file():
                return cls.read(there)
        return None

    def path_of(self, video_id: str) -> str | None:
        """Where a video is read from; None if the table does not know it."""
        row = self.rows.get(video_id)
        return None if row is None else row[-1]

    @cached_property
    def _plain(self) -> dict[str, str]:
        return {row[i]: row[i + 3] for row in self.rows.values() for i in range(3)}

    def origin(self, path: str, video_id: str, study_id: str, patient_id: str) -> Origin | None:
        """What a video is in truth, of its opaque path and ids; None if the table does not know the path.

        Ids may have been corrected since, by others of the table or by plain ones.
        """
        if (where := self.path_of(path)) is None:
            return None
        ids = {"video": video_id, "study": study_id, "patient": patient_id}
        plain = [self._plain.get(name, name) if is_opaque(name, kind) else name for kind, name in ids.items()]
        return Origin(plain[0], plain[1], plain[2], where)

    def translated(self, kind: str, values: Sequence[str]) -> list[str]:
        """The opaque ids of ids as the hospital has them; what the table does not know is hashed with its salt.

        kind: video (by its path, or by its file's name where only one has it), study or patient. Raises ArgumentError
        for a patient's id that patients of several issuers have.
        """
        names = self._names(kind)
        if kind == "patient" and (torn := sum(len(names.get(value, ())) > 1 for value in set(values))):
            raise ArgumentError(
                f"{torn} patient ids are those of several patients, by different issuers; give the column patient_id "
                f"of {self.path} in their place"
            )
        known = {value: next(iter(opaque)) for value, opaque in names.items() if len(opaque) == 1}
        return [known.get(value) or (hashed_id(kind, value, self.salt) if value else "") for value in values]

    def _names(self, kind: str) -> dict[str, set[str]]:
        """The opaque ids that each plain one stands for."""
        names: dict[str, set[str]] = {}
        for video, study, patient, own, of_study, of_patient, path in self.rows.values():
            if kind == "video":
                pairs = [(own, video), (path, video), (own.rpartition("/")[2], video)]
            elif kind == "study":
                pairs = [(of_study, study)]
            else:
                # Behind the issuer: a backslash is in no value of a DICOM header.
                pairs = [(of_patient, patient), (of_patient.rpartition("\\")[2], patient)]
            for plain, opaque in pairs:
                names.setdefault(plain, set()).add(opaque)
        return names


def made_opaque(manifest: Manifest, salt: str | None, local: Path | None) -> Manifest:
    """The manifest with hashed ids and paths; what they stand for is kept in each video's `origin` and in `local`.

    salt: None for that of `local`, if it is there, else a random one. Raises ManifestError if the salt is not the one
    that `local` has.
    """
    salt = _settled(local, salt) if local else salt or new_salt()
    videos = tuple(_opaque(video, salt) for video in manifest.videos)
    notes = manifest.notes
    if local is not None:
        keep(local, salt, videos)
        notes = (*notes, f"ids are opaque; {local} maps them back, for this machine only (--ids plain keeps ids plain)")
    return replace(manifest, videos=videos, notes=notes)


def _opaque(video: VideoRef, salt: str) -> VideoRef:
    video_id = hashed_id("video", video.video_id, salt)
    return replace(
        video,
        video_id=video_id,
        study_id=hashed_id("study", video.study_id, salt),
        patient_id=hashed_id("patient", video.patient_id, salt),
        path=video_id,
        origin=video.origin or Origin(video.video_id, video.study_id, video.patient_id, video.path),
    )


def keep(local: Path, salt: str, videos: Iterable[VideoRef]) -> None:
    """Add what the ids of videos stand for to a table that is there; its other rows stay. Raises ManifestError."""
    new = {
        video.video_id: (video.video_id, video.study_id, video.patient_id, *_texts(video.origin))
        for video in videos
        if video.origin is not None
    }
    with _alone(local):
        rows = LocalIds.read(local).rows
        if any(rows.get(name) != row for name, row in new.items()):
            _write(local, salt, (rows | new).values())


def carry_over(source: str | Path, local: Path, ids: Iterable[str]) -> None:
    """Copy the local table of an embedding file with these ids, if it has one, for what was made of that file."""
    if any(map(is_opaque, [*ids][:1])) and (table := LocalIds.beside(source)) is not None and local != table.path:
        _write(local, table.salt, table.rows.values())


def located(file: str | Path, path: str) -> str:
    """Where a video of an embedding file is read from: its path there, or what the local table says of it.

    Raises MediaError, which names the table, where that is missing.
    """
    if not is_opaque(path):
        return path
    table = _remembered(Path(file))
    where = table.path_of(path) if table is not None else None
    if where is None:
        # Without folders: a server answers with it.
        name = (table.path if table else local_path(file)).name
        lacks = f"the local table {name} {'does not know it' if table else 'is not there'}"
        raise MediaError(f"the video can't be played: its ids are opaque, and {lacks}", stage="open")
    return where


def _remembered(file: Path) -> LocalIds | None:
    for there in (local_path(file), local_path(file.absolute().parent), local_path(file.name)):
        with contextlib.suppress(OSError):
            return _read_once(there, there.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=2)
def _read_once(path: Path, _mtime_ns: int) -> LocalIds:
    return LocalIds.read(path)


def _settled(local: Path, salt: str | None) -> str:
    """The salt that `local` has from now on; of shards that start together, the first decides."""
    if not local.is_file():
        temporary = temporary_path(local)
        try:
            _fill(temporary, salt or new_salt(), ())
            # Fails, as a rename does not, if another shard was faster.
            os.link(temporary, local)
        except FileExistsError:
            pass
        except OSError as error:
            # A file system without hard links; two shards that start in the same moment may meet here.
            if not temporary.exists():
                raise ManifestError(
                    f"can't write {local}, the local table of opaque ids: {explain_os_error(error)}"
                ) from error
            temporary.replace(local)
        finally:
            temporary.unlink(missing_ok=True)
    kept = LocalIds.read(local).salt
    if salt is not None and kept != salt:
        raise ManifestError(
            f"{local} has ids of another salt than the one given; leave that out (--salt-file), take another output, "
            "or move the table away"
        )
    return kept


@contextmanager
def _alone(local: Path) -> Iterator[None]:
    """Let no other process add to a table, which is there, while this block lasts.

    The table itself is locked, so that nothing is left behind. On Windows, and on a file system without locks, nothing
    is; extractions that share one table there had better follow each other.
    """
    while fcntl is not None:
        try:
            table = local.open("rb")
        except OSError as error:
            raise ManifestError(f"the local table of ids can't be read: {error}") from error
        with table:
            with contextlib.suppress(OSError):
                fcntl.flock(table, fcntl.LOCK_EX)
            # While this waited, a new one may have taken its place.
            if local.is_file() and os.path.samestat(os.fstat(table.fileno()), local.stat()):
                yield
                return
    yield


def _write(local: Path, salt: str, rows: Iterable[tuple[str, ...]]) -> None:
    with written_whole(local, error=ManifestError) as temporary:
        _fill(temporary, salt, rows)


def _fill(path: Path, salt: str, rows: Iterable[tuple[str, ...]]) -> None:
    """Write a new table, which is for its user only from the first byte on."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *rows])
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(sealed(salt, text.getvalue().encode("utf-8", "surrogateescape")))


def _texts(origin: Origin) -> tuple[str, str, str, str]:
    return origin.video_id, origin.study_id, origin.patient_id, origin.path
