"""Which patients trained a model: keyed hashes in its file, with which the patients of new predictions are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Texts
from panecho_embed.core.errors import WeightsError

_PARTS = ("train", "val")


@dataclass(frozen=True, slots=True)
class TrainingPatients:
    """Patients of a model's trainings.

    Parameters
    ----------
    trainings : tuple of mapping, optional
        One for each fine-tuning in turn: "key", and the hashes of patient ids under "train" (learned from) and "val"
        (chose the epoch and thresholds). None where the file of pretrained weights records nothing.
    before : str
        Pretrained weights that the first of them started from, whose patients are not recorded; "" for none.
    """

    trainings: tuple[Mapping[str, Any], ...] | None = None
    before: str = ""

    @property
    def known(self) -> bool:
        """Whether anything is recorded."""
        return self.trainings is not None

    def extended(self, key: str, *, train: Collection[str], val: Collection[str], start: str = "") -> TrainingPatients:
        """With one more training.

        Parameters
        ----------
        key : str
            Hexadecimal, of up to 64 bytes: what the hashes are keyed with.
        train, val : collection of str
            Patient ids.
        start : str
            The pretrained weights that it started from; "" for random ones.
        """
        added = {
            "key": key,
            **{part: frozenset(_hashed(ids, key)) for part, ids in zip(_PARTS, (train, val), strict=True)},
        }
        return TrainingPatients((*(self.trainings or ()), added), self.before if self.known else start)

    def parts_of(self, patients: npt.NDArray[Any]) -> Texts:
        """The part that each patient id (N,) had in any training: "train", else "val", else ""."""
        ids = list(dict.fromkeys(map(str, patients)))
        part = dict.fromkeys(ids, "")
        for training in self.trainings or ():
            for who, digest in zip(ids, _hashed(ids, training["key"]), strict=True):
                found = next((name for name in _PARTS if digest in training[name]), "")
                part[who] = part[who] if part[who] == "train" or not found else found
        return np.array([part[str(who)] for who in patients], dtype=object)

    def record(self) -> dict[str, Any]:
        """As plain values, for `read_training_patients`."""
        trainings = [
            {"key": one["key"], **{part: sorted(one[part]) for part in _PARTS}} for one in self.trainings or ()
        ]
        return {"trainings": trainings, "before": self.before}


def read_training_patients(record: Any, path: Path) -> TrainingPatients:
    """What `record` gave; nothing known where a file holds none. Raises WeightsError for anything else."""
    if record is None:
        return TrainingPatients()
    try:
        trainings = tuple(
            {"key": bytes.fromhex(one["key"]).hex()} | {part: frozenset(map(str, one[part])) for part in _PARTS}
            for one in record["trainings"]
        )
        if any(len(one["key"]) > 128 for one in trainings):
            raise ValueError("a key of more than 64 bytes")
        return TrainingPatients(trainings, str(record["before"]))
    # A file from anybody may hold values of any type there.
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: what it records as its training patients can't be read ({error})") from error


def _hashed(patients: Iterable[str], key: str) -> list[str]:
    secret = bytes.fromhex(key)
    return [
        hashlib.blake2b(who.encode("utf-8", "surrogateescape"), key=secret, digest_size=10).hexdigest()
        for who in patients
    ]
