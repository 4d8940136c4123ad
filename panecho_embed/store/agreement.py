"""What all shards of an extraction must agree on: the settings and the list of videos, kept beside the parts."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from panecho_embed.core.errors import EarlierReleaseError, SettingsMismatchError, StoreError
from panecho_embed.core.patients import TrainingPatients
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.records import Manifest, VideoRef

_VERSION = 1
_DAMAGED = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError)
_FIELDS = tuple(field.name for field in dataclasses.fields(VideoRef) if field.name not in ("origin", "phases"))


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """The settings and the videos of one extraction.

    As bytes: gzip, lines of JSON; a head with the settings and a digest of the list, then the list, column by column,
    so that those who only compare need not read it.
    """

    manifest: Manifest
    provenance: Provenance

    def to_bytes(self) -> bytes:
        """As it is kept."""
        head = {
            "version": _VERSION,
            "provenance": self.provenance.to_json(),
            "patients": self.provenance.patients.record(),
            "manifest": self.digest(),
            "labels": list(self.manifest.labels),
            "units": dict(self.manifest.units),
        }
        lines: list[Any] = [head, *([getattr(v, name) for v in self.manifest.videos] for name in _FIELDS)]
        lines += [column.tolist() for column in self.manifest.labels.values()]
        return gzip.compress("\n".join(map(json.dumps, lines)).encode(), compresslevel=1, mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises StoreError."""
        try:
            head, *columns = map(json.loads, gzip.decompress(data).splitlines())
            videos = tuple(
                VideoRef(**dict(zip(_FIELDS, values, strict=True)))
                for values in zip(*columns[: len(_FIELDS)], strict=True)
            )
            labels = {
                name: np.array(column, dtype=object if column and isinstance(column[0], str) else np.float64)
                for name, column in zip(head["labels"], columns[len(_FIELDS) :], strict=True)
            }
            patients = TrainingPatients.from_record(head.get("patients"))
            made = dataclasses.replace(Provenance.from_json(head["provenance"]), patients=patients)
            return cls(Manifest(videos, labels, units=dict(head.get("units", {}))), made)
        except EarlierReleaseError as error:
            raise EarlierReleaseError(f"the parts are {error} (--overwrite discards them)") from error
        except _DAMAGED as error:
            raise StoreError(f"the list of videos beside the parts is damaged ({error})") from error

    def digest(self) -> str:
        """SHA-256 of ids, views, splits, frame rates and labels; not of paths, which machines may see differently."""
        digest = hashlib.sha256()
        for name in _FIELDS:
            if name != "path":
                digest.update(json.dumps([getattr(video, name) for video in self.manifest.videos]).encode())
        for name, column in self.manifest.labels.items():
            digest.update(json.dumps([name, column.tolist()]).encode())
        return digest.hexdigest()

    def check(self, kept: bytes, where: object) -> None:
        """Raise SettingsMismatchError unless `kept` says the same as this, StoreError if it is damaged."""
        try:
            head = json.loads(gzip.decompress(kept).partition(b"\n")[0])
            theirs, their_digest = Provenance.from_json(head["provenance"]), head["manifest"]
        except EarlierReleaseError as error:
            raise EarlierReleaseError(f"the parts in {where} are {error} (--overwrite discards them)") from error
        except _DAMAGED as error:
            raise StoreError(f"the list of videos beside the parts in {where} is damaged ({error})") from error
        if theirs.settings_id != self.provenance.settings_id:
            raise SettingsMismatchError(
                f"another shard in {where} has other settings: {'; '.join(self.provenance.differences(theirs))}. "
                "Give all shards the same options, or begin anew with --overwrite"
            )
        if their_digest != self.digest():
            raise SettingsMismatchError(
                f"another shard in {where} was given another list of videos: {self._difference(kept)}. Give all shards "
                "one table (panecho-embed manifest), or begin anew with --overwrite"
            )

    def _difference(self, kept: bytes) -> str:
        theirs = Agreement.from_bytes(kept).manifest
        mine = {video.video_id: video for video in self.manifest.videos}
        others = {video.video_id: video for video in theirs.videos}
        for what, ids in (
            ("not in its list", mine.keys() - others.keys()),
            ("only there", others.keys() - mine.keys()),
        ):
            if ids:
                return f"{len(ids)} videos are {what}, for example {min(ids)}"
        for name in _FIELDS:
            changed = [i for i in mine if getattr(mine[i], name) != getattr(others[i], name)]
            if changed and name != "path":
                return f"{name} of {len(changed)} videos differs, for example of {changed[0]}"
        return "the labels or the order of the videos differ"
