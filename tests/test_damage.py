"""One bit flipped, or the end cut off, in any file that is kept for later use: an error, or the same result.

Embedding files are looked at in tests/store.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from panecho_embed.core.digests import checked_sha256, problems_of_folder
from panecho_embed.core.errors import PanEchoEmbedError
from panecho_embed.core.outputs import written_run
from panecho_embed.evaluation.candidates import read_candidates
from panecho_embed.evaluation.predictions import FILE, write_predictions
from panecho_embed.evaluation.scores import score, write_metrics
from panecho_embed.finetuning.folder import Identity, RunFolder, write_failures
from panecho_embed.finetuning.outcome import read_outcome
from panecho_embed.finetuning.saved import read_checkpoint, write_checkpoint
from panecho_embed.models.checkpoint import read_checkpoint as read_weights
from panecho_embed.models.checkpoint import write_weights
from panecho_embed.retrieval import Collection
from panecho_embed.retrieval.atlas import write_atlas
from panecho_embed.retrieval.index import build_index, index_path, open_collection
from panecho_embed.store.sealed_tables import table_problems
from probes.linear import LinearProbe
from probes.outputs import RunInfo, load_probes, write_run
from probes.problem import load_problem
from probes.run import RunSettings, run_target
from tests.evaluation.made import EF, LOW, made
from tests.finetuning import fabricate
from tests.probes.conftest import make_table
from tests.search.conftest import vectors_file

SETTINGS = RunSettings(draws=20)
STATE = {"encoder.weight": torch.arange(600, dtype=torch.float32).reshape(20, 30), "bias": torch.ones(3)}


def make_run(folder: Path) -> Path:
    """As `probe`, `predict` and `compare` leave one, for `compare`."""
    rows = [made(target, patients=20) for target in (EF, LOW)]
    with written_run(folder) as new:
        write_predictions(rows, new / FILE)
        write_metrics(new, "probe linear", [score(one, draws=20) for one in rows], about={})
    return folder


def use_run(folder: Path) -> Any:
    (candidate,) = read_candidates([("a", folder)])
    chance = sorted((name, str(one)) for name, one in candidate.chance.items())
    return candidate.made_by, chance, pd.concat([one.frame() for one in candidate.predictions.values()]).to_csv()


def make_probe(folder: Path) -> Path:
    table = replace(make_table(patients=20), level="video")
    return write_run([run_target(load_problem(table, "EF"), LinearProbe(), SETTINGS)], RunInfo("x"), folder)


def use_probe(folder: Path) -> Any:
    found = load_probes(folder)
    rows: NDArray[np.float32] = np.linspace(-1, 1, 48, dtype=np.float32).reshape(2, 24)
    return [
        (name, one.target, str(one.threshold), one.level, one.provenance, one.probe.predict(rows).tolist())
        for name, one in found.items()
    ]


def make_training(folder: Path) -> Path:
    """A finished fine-tuning."""
    recipe = fabricate.small_recipe()
    made_up = fabricate.fabricate(folder / "..made", recipe)
    identity = Identity(recipe, "panecho", "cd" * 32)
    with RunFolder(folder / "run") as run:
        run.claim(identity)
        run.begin(identity, fabricate.run_info("panecho", recipe, (fabricate.EF,)))
        shutil.copy(made_up / "history.csv", folder / "run" / "history.csv")
        with run.finished({}) as new:
            for name in ("tasks.csv", FILE, "metrics.json"):
                shutil.copy(made_up / name, new / name)
            write_failures([], new)
    shutil.rmtree(made_up)
    return folder / "run"


def use_training(folder: Path) -> Any:
    outcome = read_outcome(folder)
    rows = pd.concat([one.frame() for one in outcome.predictions]).to_csv()
    return outcome.recipe, dict(outcome.info), str(outcome.tasks), rows, outcome.histories[""].to_csv()


def make_begun(folder: Path) -> Path:
    """A fine-tuning that goes on."""
    recipe = fabricate.small_recipe()
    with RunFolder(folder / "run") as run:
        run.claim(Identity(recipe, "panecho", "cd" * 32))
        run.begin(Identity(recipe, "panecho", "cd" * 32), fabricate.run_info("panecho", recipe, (fabricate.EF,)))
    return folder / "run"


def use_begun(folder: Path) -> Any:
    with RunFolder(folder) as run:
        return run.claim(Identity(fabricate.small_recipe(), "panecho", "cd" * 32)), run.info()


def make_checkpoint(folder: Path) -> Path:
    write_checkpoint({"model": STATE, "progress": {"epoch": 3, "seconds": 1.5}}, folder / "last.pt")
    return folder


def use_checkpoint(folder: Path) -> Any:
    content = read_checkpoint(folder / "last.pt")
    return plain(content["model"]), content["progress"]


def make_weights(folder: Path) -> Path:
    """Weights of the user's own, without a digest beside them."""
    write_weights({"weights": STATE}, folder / "w.pt")
    return folder


def use_weights(folder: Path) -> Any:
    checked_sha256(folder / "w.pt")
    return plain(read_weights(folder / "w.pt").tensors)


def make_index(folder: Path) -> Path:
    path = vectors_file(folder / "emb.h5", patients=40)
    build_index(Collection(path), "ivf")
    return index_path(path)


def use_index(folder: Path) -> Any:
    collection, index = open_collection(folder.with_name("emb.h5"), True)
    assert index is not None
    units = collection.videos.units
    near = [index.nearest(units[i : i + 1], 3, np.ones(len(units), dtype=bool))[0].tolist() for i in range(0, 120, 40)]
    return near, np.asarray(units).tobytes(), np.asarray(collection.studies.units).tobytes()


def make_atlas(folder: Path) -> Path:
    (folder / "made").mkdir()
    path = vectors_file(folder / "made" / "emb.h5", patients=4)
    write_atlas(Collection(path), folder / "atlas.parquet", method="pca", thumbnails=False)
    shutil.rmtree(folder / "made")
    return folder


def use_atlas(folder: Path) -> Any:
    if problems := table_problems(folder / "atlas.parquet"):
        raise PanEchoEmbedError(problems[0])
    return pd.read_parquet(folder / "atlas.parquet").to_json()


def plain(state: dict[str, torch.Tensor]) -> list[tuple[str, str, list[Any]]]:
    return [(name, str(tensor.dtype), tensor.tolist()) for name, tensor in state.items()]


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "run": (make_run, use_run),
    "probe": (make_probe, use_probe),
    "training": (make_training, use_training),
    "begun": (make_begun, use_begun),
    "checkpoint": (make_checkpoint, use_checkpoint),
    "weights": (make_weights, use_weights),
    "index": (make_index, use_index),
    "atlas": (make_atlas, use_atlas),
}


def flipped(data: bytes, chance: random.Random) -> bytes:
    place, bit = chance.randrange(len(data)), chance.randrange(8)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def damaged(
    kind: str, folder: Path, damage: Callable[[bytes, random.Random], bytes], times: int, seed: int
) -> dict[str, int]:
    """Damage a file of a kind again and again; how often that was an error, and how often it made no difference."""
    make, use = KINDS[kind]
    folder.mkdir(exist_ok=True)
    place = make(folder)
    whole = use(place)
    chance = random.Random(seed)
    counts, told = {"error": 0, "same": 0}, ""
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size and path.name != ".lock")
    for _ in range(times):
        file = chance.choice(files)
        data = file.read_bytes()
        file.write_bytes(damage(data, chance))
        try:
            assert use(place) == whole, f"another result after damage to {file.name}, seed {seed}"
            counts["same"] += 1
        except PanEchoEmbedError as error:
            counts["error"] += 1
            told = max(told, str(error), key=len)
        file.write_bytes(data)
    assert len(told) < 600, told
    return counts


@pytest.mark.parametrize("damage", [flipped, cut])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_or_makes_no_difference(kind, damage, tmp_path):
    counts = damaged(kind, tmp_path / "kept", damage, 24, seed=7)
    assert counts["error"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_flips_and_cuts(kind, tmp_path):
    """250 flips and 125 cuts of each of eight kinds: 2,000 and 1,000."""
    assert sum(damaged(kind, tmp_path / "flips", flipped, 250, seed=1).values()) == 250
    assert sum(damaged(kind, tmp_path / "cuts", cut, 125, seed=2).values()) == 125


@pytest.mark.parametrize("kind", ["run", "probe", "training", "index"])
def test_verify_finds_every_flip(kind, tmp_path):
    (tmp_path / "kept").mkdir()
    place = KINDS[kind][0](tmp_path / "kept")
    assert not problems_of_folder(place)
    chance = random.Random(3)
    for file in [path for path in place.rglob("*") if path.is_file() and path.stat().st_size]:
        data = file.read_bytes()
        file.write_bytes(flipped(data, chance))
        assert problems_of_folder(place), file.name
        file.write_bytes(data)
