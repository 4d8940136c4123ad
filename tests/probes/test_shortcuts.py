"""What the embedding gives away of the recording, and what that says of a target."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.extraction.run import extract
from panecho_embed.phantoms import write_studies
from probes import shortcuts as module
from probes.leakage import shortcut_findings
from probes.shortcuts import Shortcuts, find_shortcuts
from tests.probes.conftest import make_table
from tests.tiny import tiny

Write = Callable[..., Path]


def run(*words: object, expect: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result.output


def named(found: Shortcuts, name: str) -> module.Shortcut:
    return next(fact for fact in found.facts if fact.name == name)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Embeddings of phantoms of two scanners, the newer of which is brighter and sees most of the sick; and labels.

    Whether somebody is sick has nothing to do with the heart.
    """
    folder = tmp_path_factory.mktemp("phantoms")
    videos = write_studies(folder, "dicom", patients=40, videos_per_study=1, num_frames=2, size=(48, 64))
    rng = np.random.default_rng(0)
    lines = ["patient_id,Sick"]
    for number, path in enumerate(videos):
        header, newer = pydicom.dcmread(path), number % 2 == 0
        header.decompress()
        pixels = np.clip(header.pixel_array * (2.0 if newer else 1.0), 0, 255).astype(np.uint8)
        header.set_pixel_data(pixels, "RGB", 8)
        header.ManufacturerModelName = "new" if newer else "old"
        header.save_as(path)
        lines.append(f"{header.PatientID},{'yes' if rng.random() < (0.9 if newer else 0.1) else 'no'}")
    labels, out = folder / "sick.csv", folder / "e.h5"
    labels.write_text("\n".join(lines) + "\n")
    extract(folder, out, backbone=tiny(), clips={"num_clips": 1, "frames_per_clip": 2}, layout="folder", workers=0)
    return out, labels


def test_a_scanner_that_predicts_the_label_is_found_by_the_probe_and_named_by_the_audit(
    phantoms: tuple[Path, Path], tmp_path: Path
) -> None:
    embeddings, labels = phantoms
    told = run("audit", embeddings, "--labels", labels, "--target", "Sick", "-o", tmp_path / "audit.json")
    assert "warning: scanner model is a shortcut to Sick: the embedding gives scanner model away (AUROC" in told
    assert "0 kinds of leak, 1 warning" in told
    document = json.loads((tmp_path / "audit.json").read_text())
    warned = [one["examples"] for one in document["findings"] if one["kind"] == "shortcut"]
    assert ["scanner model", "Sick"] in warned
    (scanner,) = (one for one in document["shortcuts"]["facts"] if one["name"] == "scanner model")
    assert scanner["given_away"]["score"]["low"] > 0.5
    assert scanner["predicts"]["Sick"]["score"]["low"] > 0.5
    words = [
        "--labels",
        labels,
        "--target",
        "Sick",
        "--draws",
        100,
        "--folds",
        5,
        "--trainings",
        1,
        "-o",
        tmp_path / "run",
    ]
    assert "Warning: the recordings alone" in run("probe", "linear", embeddings, *words)


def test_facts_and_labels_of_a_file(table: EmbeddingTable, write: Write, tmp_path: Path) -> None:
    """The frame rate lies in the embeddings and says nothing of EF; the hospital lies in them and says all of Site."""
    rng = np.random.default_rng(0)
    patients, patient = np.unique(table.patient_id.astype(str), return_inverse=True)
    hospital, rate = rng.integers(0, 2, len(patients)), rng.normal(50, 10, len(patients))
    values = table.values.copy()
    values[:, 0] += 4 * hospital[patient]
    values[:, 1] += rate[patient] / 2
    labels = {
        "Sick": (hospital ^ (rng.random(len(patients)) < 0.1)).astype(float)[patient],
        "EF": table.labels["EF"],
        "Hospital": np.array(["Yale", "Oslo"], dtype=object)[hospital[patient]],
        "Code": 1.0 + hospital[patient],
        "Id": table.patient_id.copy(),
    }
    rates = dict(zip(table.video_id, rate[patient], strict=True))
    path = write(tmp_path / "e.h5", replace(table, values=values, labels=labels), rates)
    found = find_shortcuts(path, "Sick,EF", columns=["Code"])
    assert {fact.name: fact.where for fact in found.facts} == {
        "view": "recording",
        "frame rate": "recording",
        "Hospital": "label",
        "Code": "label",
        "Id": "label",
    }
    assert [fact.name for fact in found.facts if fact.is_one_of("Sick")] == ["Hospital", "Code"]
    assert not any(fact.is_one_of("EF") for fact in found.facts)
    rate_read, hospital_read = named(found, "frame rate").given_away, named(found, "Hospital").given_away
    assert rate_read is not None
    assert rate_read.beats_guessing
    assert rate_read.score.metric == "mae"
    assert hospital_read is not None
    assert (hospital_read.score.value > 0.95, hospital_read.guess) == (True, 0.5)
    assert named(found, "Id").why_not == "no two values of Id have 10 patients each"
    assert {finding.examples for finding in shortcut_findings(found)} == {("Hospital", "Sick"), ("Code", "Sick")}
    assert set(found.recording_only) == {"Sick", "EF"}
    told = run("audit", path)
    assert "Name the target with --target" in told
    assert "shortcut to" not in told


def test_what_the_embedding_does_not_hold_is_not_given_away(table: EmbeddingTable) -> None:
    found = find_shortcuts(replace(table, labels={"Sex": table.labels["Sex"], "EF": table.labels["EF"]}), "EF")
    (sex,) = found.facts
    assert sex.given_away is not None
    assert not sex.given_away.beats_guessing
    assert sex.given_away.score.low < 0.5 < sex.given_away.score.high


def test_patients_are_drawn_where_there_are_many(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_UNITS", 50)
    found = find_shortcuts(replace(table, labels={"Sex": table.labels["Sex"]}))
    assert (found.n, found.n_patients) == (50, 25)


def of_patients(counts: list[int]) -> EmbeddingTable:
    """Videos, so many of each patient."""
    patient = np.repeat([f"p{i}" for i in range(len(counts))], counts).astype(object)
    table = make_table(sum(counts), videos_each=1, rows_each=1, level="video")
    return replace(table, patient_id=patient, labels={})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([2_500] + [5] * 100, {1_500, 5}),
        ([2_500] * 4, {500}),
        ([2_500], {2_000}),
        ([1_500] * 3, {1_500, 250}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_patient_of_many_videos_leaves_room_for_others(counts: list[int], expected: set[int], seed: int) -> None:
    sampled = module._sampled(of_patients(counts), seed)
    assert len(sampled) == 2_000
    found = Counter(sampled.patient_id)
    assert (len(found), set(found.values())) == (len(counts), expected)
    np.testing.assert_array_equal(sampled.video_id, module._sampled(of_patients(counts), seed).video_id)


def test_a_label_that_is_called_as_a_fact_is_kept_apart(table: EmbeddingTable, write: Write, tmp_path: Path) -> None:
    rates = {name: 20.0 + i for i, name in enumerate(dict.fromkeys(table.video_id))}
    labels = {"frame rate": table.labels["Sex"], "EF": table.labels["EF"]}
    found = find_shortcuts(write(tmp_path / "e.h5", replace(table, labels=labels), rates), "EF")
    assert {fact.name: fact.where for fact in found.facts} == {
        "view": "recording",
        "frame rate": "recording",
        "label frame rate": "label",
    }
    metrics = [named(found, name).given_away.score.metric for name in ("frame rate", "label frame rate")]  # type: ignore[union-attr]
    assert metrics == ["mae", "auroc"]
    assert set(found.facts[0].predicts) == {"EF"}


def test_leaks_are_told_where_shortcuts_can_not_be_looked_for(
    table: EmbeddingTable, write: Write, tmp_path: Path
) -> None:
    split = table.split.copy()
    labels = {"EF": table.labels["EF"], "Same": np.ones(len(table))}
    sound = write(tmp_path / "sound.h5", replace(table, labels=labels))
    assert "shortcuts to Same not looked for: " in run("audit", sound, "--target", "Same,EF", expect=3)
    split[np.flatnonzero(table.video_id == "v000")] = "test"
    leaking = write(tmp_path / "leak.h5", replace(table, split=split, labels=labels))
    words = ("audit", leaking, "--target", "Same,EF", "-o", tmp_path / "audit.json")
    told = run(*words, expect=1)
    assert "leak: 1 patient ids in more than one split" in told
    assert "shortcuts to Same not looked for: " in told
    assert "predicts EF, without an image" in told
    document = json.loads((tmp_path / "audit.json").read_text())
    assert document["findings"][0]["severity"] == "leak"
    assert list(document["shortcuts"]["not_looked_for"]) == ["Same"]
    told = run("audit", leaking, "--target", "EFF", expect=1)
    assert "leak: 1 patient ids in more than one split" in told
    assert "shortcuts not looked for: " in told


def test_bad_input_is_named(embeddings: Path) -> None:
    with pytest.raises(ArgumentError, match=r"no label column 'Hospitl'; there are EF, .* \(--shortcut\)"):
        find_shortcuts(embeddings, columns=["Hospitl"])
    assert "name one with --target" in run("audit", embeddings, "--task", "binary", expect=2)
    assert "did you mean EF" in run("audit", embeddings, "--target", "EFF", expect=2)
