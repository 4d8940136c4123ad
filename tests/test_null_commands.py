"""Equal candidates through the real commands, every route: they are rarely told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.predictions import Predictions, write_predictions
from panecho_embed.evaluation.targets import Target
from tests.probes.conftest import make_table, write_table

COMPARISONS = 10
# Of ten comparisons at a true rate of 5 %, more than three would be told apart in one of a thousand runs.
AT_MOST = 3
DIM, LATENT = 32, 8

pytestmark = pytest.mark.slow


def run(*words: object) -> None:
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def told_apart(folder: Path) -> bool:
    (found,) = json.loads((folder / "comparison.json").read_text())["differences"]
    return bool(found["verdict"] in ("better", "worse"))


def equal_embeddings(seed: int, patients: int, *, split: bool) -> list[EmbeddingTable]:
    """Two noisy views of the same patients, of equal quality."""
    rng = np.random.default_rng(seed)
    table = make_table(patients, videos_each=1, rows_each=1, split=split, seed=seed)
    latent = rng.normal(size=(patients, LATENT))
    view = 2 * np.linalg.qr(rng.normal(size=(DIM, LATENT)))[0]
    labels = {"EF": 55 + 10 * latent[:, 0] + 5 * rng.normal(size=patients)}
    return [
        replace(
            table,
            values=(latent @ view.T + rng.normal(size=(patients, DIM))).astype(np.float32),
            labels=labels,
            provenance=replace(table.provenance, dim=DIM),
        )
        for _ in range(2)
    ]


@pytest.mark.parametrize(
    ("patients", "split", "options"),
    [(300, True, ("--k-shot", 10)), (100, False, ("--folds", 5)), (350, True, ())],
    ids=["k-shot", "folds", "split"],
)
def test_equal_embeddings(tmp_path: Path, patients: int, split: bool, options: tuple[object, ...]) -> None:
    found = []
    for i in range(COMPARISONS):
        files = [tmp_path / f"{name}{i}.h5" for name in "ab"]
        for file, table in zip(files, equal_embeddings(i, patients, split=split), strict=True):
            write_table(file, table)
        run("probe", "compare", *files, "--target", "EF", *options, "--draws", 500, "-o", tmp_path / f"c{i}")
        found.append(told_apart(tmp_path / f"c{i}"))
    assert sum(found) <= AT_MOST


def test_equal_fine_tuned_models(tmp_path: Path) -> None:
    """Three seeds of two starts, as tables of predictions that `compare` takes."""
    patients = 100
    ids = np.array([f"p{i:03d}" for i in range(patients)], dtype=object)
    found = []
    for i in range(COMPARISONS):
        rng = np.random.default_rng(i)
        truth, shared = rng.normal(55, 12, patients), rng.normal(0, 3, patients)
        words = []
        for start in "ab":
            own = rng.normal(0, 3, patients)
            for seed in range(3):
                bias = rng.normal(0, 1)
                path = tmp_path / f"{start}{seed}-{i}.csv"
                predictions = Predictions(
                    Target("EF", "regression", unit="%"),
                    "video",
                    {"video_id": ids},
                    patient=ids,
                    split=np.full(patients, "test", dtype=object),
                    truth=truth,
                    prediction=truth + shared + own + rng.normal(0, 2, patients) + bias,
                    run=np.full(patients, str(seed), dtype=object),
                )
                write_predictions([predictions], path)
                words.append(f"{start}={path}")
        run("compare", *words, "--draws", 500, "-o", tmp_path / f"c{i}")
        scores = pd.read_csv(tmp_path / f"c{i}" / "scores.csv")
        assert set(scores["trainings"]) == {3}
        found.append(told_apart(tmp_path / f"c{i}"))
    assert sum(found) <= AT_MOST
