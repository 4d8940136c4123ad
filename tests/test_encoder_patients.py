"""Patients who trained an encoder, found again by `predict`, `probe` and `search` on what it embeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.patients import Overlap, TrainingPatients, encoder_caution
from panecho_embed.datasets.ids import hashed_id
from panecho_embed.extraction.pooling import pool
from panecho_embed.store import EmbeddingFile
from tests.finetuning.conftest import NARROW, finetune, graded

__all__ = ["graded"]

KEY = "ab" * 32


def plain(*numbers: int) -> list[str]:
    return [f"p{number}" for number in numbers]


def opaque(*numbers: int, salt: str = "0123456789abcdef") -> list[str]:
    return [hashed_id("patient", name, salt) for name in plain(*numbers)]


def trained(train: list[str], val: list[str]) -> TrainingPatients:
    return TrainingPatients(()).extended(KEY, train=train, val=val)


def ids(names: list[str]) -> np.ndarray:
    return np.array(names, dtype=object)


@pytest.mark.parametrize("make", [plain, opaque])
def test_ids_of_the_same_form_are_compared(make) -> None:
    patients = trained(make(1, 2), make(3))
    assert patients.overlap(ids(make(1, 1, 3, 4, 5))) == Overlap(4, 1, 1)
    assert TrainingPatients.from_record(json.loads(json.dumps(patients.record()))) == patients


@pytest.mark.parametrize(
    ("train", "new", "reason"),
    [
        (opaque(1, 2), plain(1, 2), "their ids are plain, and those in training were hashes"),
        (plain(1, 2), opaque(1, 2), "their ids are hashes, and those in training were plain"),
        (plain(1), [*plain(1), *opaque(2)], "their ids are partly hashes, and those in training were plain"),
        ([*plain(1), *opaque(2)], plain(1), "their ids are plain, and those in training were partly hashes"),
        (opaque(1), opaque(1, 2, salt="fedcba9876543210"), "the model knows none of them"),
    ],
)
def test_ids_of_another_form_or_key_say_nothing(train: list[str], new: list[str], reason: str) -> None:
    assert reason in trained(train, []).overlap(ids(new)).unclear


def test_every_training_of_the_model_has_to_be_comparable() -> None:
    patients = trained(opaque(1, 2), []).extended(KEY, train=plain(7), val=[])
    overlap = patients.overlap(ids(plain(7, 8)))
    assert (overlap.training, "those in training were hashes" in overlap.unclear) == (1, True)


def test_a_record_of_an_earlier_version_tells_who_was_found_and_nothing_of_the_others() -> None:
    record = trained(plain(1), []).record()
    assert record is not None
    del record["trainings"][0]["ids"]
    overlap = TrainingPatients.from_record(record).overlap(ids(plain(1, 2)))
    assert overlap.found == 1
    assert "does not say whether its patient ids were hashes" in overlap.unclear
    record["trainings"][0]["ids"] = "other"
    with pytest.raises(ArgumentError, match="ids that are none of opaque, plain, mixed"):
        TrainingPatients.from_record(record)


def test_the_key_of_a_file_is_known_by_any_of_its_patients() -> None:
    patients = trained(opaque(1, 2), [])
    assert encoder_caution(patients, ids(opaque(3)), ids(opaque(1, 3))) == ""
    assert "It can't be told" in encoder_caution(patients, ids(opaque(3)), ids(opaque(3, 4)))
    assert encoder_caution(TrainingPatients(), ids(plain(1)), ids(plain(1))) == ""


def run(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def embedded(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of all 28 patients, embedded by a model that was tuned on 12 of them and validated on 8."""
    folder = tmp_path_factory.mktemp("tuned")
    settings = {"data.targets": "EF", "model.width": NARROW}
    finetune("custom", "--init", "random", "--data", graded, "-o", folder / "run", **settings)
    weights = ("--weights", folder / "run" / "model.pt", "--workers", 0)
    for shard in ("1/2", "2/2"):
        run("extract", graded, "-o", folder / "own.h5", *weights, "--shard", shard)
    run("merge", folder / "own.h5")
    return folder / "own.h5"


def test_the_record_goes_from_the_weights_through_shards_and_pooling(embedded: Path, tmp_path: Path) -> None:
    pool(embedded, "study", tmp_path / "studies.h5")
    for path in (embedded, tmp_path / "studies.h5"):
        file = EmbeddingFile(path)
        overlap = file.provenance.patients.overlap(file.video_columns["patient_id"])
        assert overlap == Overlap(28, 12, 8)
        assert "trainings" not in file.provenance.to_json()


def test_a_probe_says_that_its_tested_patients_tuned_the_encoder(embedded: Path, tmp_path: Path) -> None:
    options = ("--target", "EF", "--folds", 3, "--trainings", 1, "--draws", 20)
    said = run("probe", "linear", embedded, *options, "-o", tmp_path / "run")
    warning = "20 of the 28 tested patients trained or tuned the encoder (12 in its training, 8 in its validation)"
    assert warning in said
    assert warning in (tmp_path / "run" / "report.html").read_text()
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())["targets"]["EF"]["encoder_patients"]
    assert (document["patients"], document["training"], document["validation"]) == (28, 12, 8)
    told = run("probe", "apply", tmp_path / "run", embedded, "-o", tmp_path / "predicted.csv")
    assert "20 of the 28 patients trained or tuned the encoder (12 in its training, 8 in its validation)" in told


def test_patients_whom_the_encoder_never_saw_give_no_warning(embedded: Path, tmp_path: Path) -> None:
    """The given split tests the 8 patients of the model's own test."""
    said = run("probe", "linear", embedded, "--target", "EF", "--draws", 20, "-o", tmp_path / "run")
    assert "8 tested, of 8 patients" in said
    assert "the encoder" not in said


def test_a_comparison_names_the_candidate_whose_encoder_saw_them(embedded: Path, tmp_path: Path, graded: Path) -> None:
    run("extract", graded, "-o", tmp_path / "plain.h5", "--backbone", "random", "--workers", 0, "--image-size", 32)
    files = (embedded, tmp_path / "plain.h5")
    options = ("--target", "EF", "--folds", 3, "--trainings", 1, "--refits", 2, "--draws", 20)
    said = run("probe", "compare", *files, *options, "-o", tmp_path / "compared")
    warning = "own: 20 of the 28 tested patients trained or tuned the encoder"
    assert said.count("trained or tuned the encoder") == said.count(warning) == 1
    document = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert any(warning in note for note in document["warnings"])


def test_retrieval_says_it_too(embedded: Path) -> None:
    said = run("search", embedded, "--evaluate", "EF")
    assert "20 of the 28 tested patients trained or tuned the encoder" in said
    document = json.loads(run("search", embedded, "--evaluate", "EF", "--json"))
    assert document["caution"].startswith("20 of the 28 tested patients")
