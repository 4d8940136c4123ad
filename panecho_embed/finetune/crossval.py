"""The folds of a cross-validation put together: every patient predicted by the model that has not seen it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from panecho_embed.errors import SettingsMismatchError
from panecho_embed.evaluation.predictions import FILE, Predictions, read_predictions, write_predictions
from panecho_embed.finetune.folder import Identity, RunFolder, read_failures, write_failures
from panecho_embed.finetune.outcome import of_all_folds
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.finetune.report import write_run

PATIENCE_SECONDS = 120.0
"""How long folds on several machines wait for each other to write the folder that they share."""

_OF_ALL = ("command", "versions", "weights", "preprocess", "plane_order", "device", "processes", "precision")


def put_together(out: Path, identity: Identity, recipe: Recipe) -> list[int]:
    """Write the tables and metrics of all test folds into `out`, if all are done; returns the folds that are not.

    Both views, or all videos, of a study are averaged over the folds too. Raises StoreError, and
    SettingsMismatchError for folds that began from different weights.
    """
    with RunFolder(out, PATIENCE_SECONDS) as folder:
        infos = {number: RunFolder(out / f"fold-{number}").info() for number in range(recipe.data.folds)}
        done = [number for number, info in infos.items() if info.get("status") == "done"]
        missing = [number for number in infos if number not in done]
        if missing:
            folder.begin(identity, _facts(infos, done))
            return missing
        _check_weights(out, infos)
        facts = _facts(infos, done)
        folder.begin(identity, facts)
        seconds = sum(info["seconds"] for info in infos.values())
        predictions, shared = _of_all(out, infos)
        counts = facts["counts"] | {"shared_patients": shared}
        with folder.finished({"seconds": seconds, "counts": counts}) as new:
            write_predictions(predictions, new / FILE)
            failures = {one.video_id: one for number in infos for one in read_failures(out / f"fold-{number}")}
            write_failures(list(failures.values()), new)
        write_run(out)
    return []


def _check_weights(out: Path, infos: Mapping[int, Mapping[str, Any]]) -> None:
    first = infos[0]["weights"]
    for number, info in infos.items():
        theirs = info["weights"]
        if (first["pretrained"] or theirs["pretrained"]) and theirs["sha256"] != first["sha256"]:
            raise SettingsMismatchError(
                f"{out}: its folds began from different weights: sha256 {first['sha256'][:12]}... in fold-0, "
                f"{theirs['sha256'][:12]}... in fold-{number}; run that fold again (--fold {number} --overwrite)"
            )


def _of_all(out: Path, infos: Iterable[int]) -> tuple[list[Predictions], int]:
    """The predictions of all folds, and how many patients stand in more than one fold."""
    predictions = of_all_folds([read_predictions(out / f"fold-{number}" / FILE) for number in infos])
    fold_of: dict[str, set[str]] = {}
    for one in predictions:
        for patient, fold in zip(one.patient, one.fold, strict=True):
            fold_of.setdefault(patient, set()).add(fold)
    return predictions, sum(len(folds) > 1 for folds in fold_of.values())


def _facts(infos: Mapping[int, Mapping[str, Any]], done: Sequence[int]) -> dict[str, Any]:
    """Of run.json: what the folds have in common, and how many videos; of training and validation their mean."""
    if not done:
        return {"folds": []}
    first = infos[done[0]]
    counts = [infos[number]["counts"] for number in done]
    together = {}
    for key in counts[0]:
        total = sum(count[key] for count in counts)
        together[key] = total if key.startswith("test") else round(total / len(done))
    together["failed"] = max(count["failed"] for count in counts)
    return {name: first[name] for name in _OF_ALL} | {"data": first["data"], "counts": together, "folds": list(done)}
