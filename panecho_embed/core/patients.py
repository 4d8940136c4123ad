"""Which patients trained a model: keyed hashes in its file, with which the patients of other data are compared."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import counted, plural

_OPAQUE = re.compile(r"(video|study|patient)-[0-9a-f]{16}")
_PARTS = ("train", "val")
_FORMS = ("opaque", "plain", "mixed")
_CALLED = {"opaque": "hashes", "plain": "plain", "mixed": "partly hashes"}


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many patients of some data trained a model.

    Parameters
    ----------
    patients : int
        All that were compared.
    training, validation : int
        Found among those that the model learned from, and among those that chose its epoch and thresholds.
    unclear : str
        Why nothing is known of the others; "" where they are known to have been in neither.
    """

    patients: int
    training: int
    validation: int
    unclear: str = ""

    @property
    def found(self) -> int:
        """How many were in training or validation."""
        return self.training + self.validation


@dataclass(frozen=True, slots=True)
class TrainingPatients:
    """Patients of a model's trainings.

    Parameters
    ----------
    trainings : tuple of mapping, optional
        One for each fine-tuning in turn: "key"; "ids", whether its patient ids were "opaque" (hashes), "plain" or
        "mixed", "" where its file does not say; and the hashes of patient ids under "train" (learned from) and "val"
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

    @property
    def num_hashes(self) -> int:
        """Number of hashes in all trainings."""
        return sum(len(one[part]) for one in self.trainings or () for part in _PARTS)

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
            "ids": _form_of([*train, *val]),
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

    def unclear(self, patients: npt.NDArray[Any]) -> str:
        """Why the record can't tell which of all patients (N,) of a file were in no training; "" where it can.

        Ids of DICOM are hashes under a key of each output. They are compared with hashes only, plain ids with plain
        ones; and where a training knows none of the hashes, nobody can tell other patients from another key.
        """
        if self.trainings is None:
            return "which patients these weights were trained on is not recorded"
        ids = list(dict.fromkeys(map(str, patients)))
        form = _form_of(ids)
        for training in self.trainings:
            if not training["ids"]:
                return "the model's file, of an earlier version, does not say whether its patient ids were hashes"
            if training["ids"] != form or form == "mixed":
                return f"their ids are {_CALLED[form]}, and those in training were {_CALLED[training['ids']]}"
            if form == "opaque" and not any(
                digest in training[part] for digest in _hashed(ids, training["key"]) for part in _PARTS
            ):
                return (
                    "their ids are hashes, and the model knows none of them. With the key of the training data the "
                    "ids are the same (--salt-file DATA.ids.csv)"
                )
        return ""

    def overlap(self, patients: npt.NDArray[Any], among: npt.NDArray[Any] | None = None) -> Overlap:
        """How many of the patients trained the model.

        Parameters
        ----------
        patients : (N,) ids
            Those that are counted, each once.
        among : (M,) ids, optional
            All patients of their file, by which it is decided whether ids can be compared. Default: `patients`.
        """
        part = self.parts_of(np.unique(patients.astype(str)))
        reason = self.unclear(patients if among is None else among)
        return Overlap(len(part), int((part == "train").sum()), int((part == "val").sum()), reason)

    def record(self) -> dict[str, Any] | None:
        """As plain values, for `from_record`; None where nothing is known."""
        if self.trainings is None:
            return None
        trainings = [
            {"key": one["key"], "ids": one["ids"], **{part: sorted(one[part]) for part in _PARTS}}
            for one in self.trainings
        ]
        return {"trainings": trainings, "before": self.before}

    @classmethod
    def from_record(cls, record: Any) -> TrainingPatients:
        """What `record` gave; nothing known for None. Raises ArgumentError for anything else."""
        if record is None:
            return cls()
        try:
            trainings = tuple(
                {"key": bytes.fromhex(one["key"]).hex(), "ids": str(one.get("ids", ""))}
                | {part: frozenset(map(str, one[part])) for part in _PARTS}
                for one in record["trainings"]
            )
            if any(len(one["key"]) > 128 for one in trainings):
                raise ValueError("a key of more than 64 bytes")
            if any(one["ids"] not in ("", *_FORMS) for one in trainings):
                raise ValueError(f"ids that are none of {', '.join(_FORMS)}")
            return cls(trainings, str(record["before"]))
        # A file from anybody may hold values of any type there.
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ArgumentError(f"what it records as its training patients can't be read ({error})") from error


def encoder_caution(
    patients: TrainingPatients, tested: npt.NDArray[Any], among: npt.NDArray[Any], noun: str = "tested patient"
) -> str:
    """What to say where tested patients may have trained the encoder of their embeddings; "" where none did.

    Of weights without a record, which are most that others published, there is nothing to say here. tested: patient ids
    (N,). among: those of all labelled patients (M,), see `TrainingPatients.overlap`. noun: what
    one of the tested is called.
    """
    if not patients.known:
        return ""
    overlap = patients.overlap(tested, among)
    notes = []
    if overlap.found:
        notes.append(
            f"{overlap.found} of the {counted(overlap.patients, noun)} trained or tuned the encoder "
            f"({overlap.training} in its training, {overlap.validation} in its validation): what is measured is partly "
            "memory of the encoder, not performance on new patients."
        )
    if overlap.unclear:
        notes.append(
            f"It can't be told which of the {'other ' if overlap.found else ''}{plural(noun, 2)} trained the encoder: "
            f"{overlap.unclear}."
        )
    return " ".join(notes)


def is_opaque(value: str, kind: str = "") -> bool:
    """Whether `value` has the form of a hashed id, of this kind if one is given."""
    match = _OPAQUE.fullmatch(value)
    return match is not None and kind in ("", match[1])


def _form_of(ids: Collection[str]) -> str:
    """Whether ids are "opaque", "plain" or "mixed"."""
    hashed = sum(map(is_opaque, ids))
    return "plain" if not hashed else "opaque" if hashed == len(ids) else "mixed"


def _hashed(patients: Iterable[str], key: str) -> list[str]:
    secret = bytes.fromhex(key)
    return [
        hashlib.blake2b(who.encode("utf-8", "surrogateescape"), key=secret, digest_size=10).hexdigest()
        for who in patients
    ]
