"""The leakage audit finds what was planted, and nothing in a clean file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from probes.cli.audit import audit as command
from probes.leakage import Finding, audit


def kinds(findings: list[Finding]) -> set[str]:
    return {f"{finding.severity}: {finding.kind}" for finding in findings}


@pytest.fixture
def clean(table: EmbeddingTable) -> EmbeddingTable:
    return replace(table, labels={name: table.labels[name] for name in ("EF", "Grade", "Noise", "Sex")})


def moved(table: EmbeddingTable, video: str, to: str) -> EmbeddingTable:
    """The table with the embeddings of one video put in the place of another's."""
    values = table.values.copy()
    values[table.video_id == to] = values[table.video_id == video]
    return replace(table, values=values)


def test_a_clean_file_has_no_findings(clean: EmbeddingTable) -> None:
    assert audit(clean) == []


def test_patients_and_studies_across_splits_are_named(clean: EmbeddingTable) -> None:
    split = clean.split.copy()
    split[np.flatnonzero(clean.video_id == "v000")] = "test"
    findings = audit(replace(clean, split=split))
    assert kinds(findings) == {"leak: patient_across_splits", "leak: study_across_splits"}
    assert findings[0].examples == ("p000 (test, train)",)


def test_the_same_video_in_two_splits_is_a_leak(clean: EmbeddingTable) -> None:
    findings = audit(moved(clean, "v000", "v008"))  # p000 trains, p004 is tested
    assert kinds(findings) == {"leak: same_embedding_across_splits"}
    assert findings[0].examples == ("v000 and v008",)


def test_the_same_video_under_two_ids_in_one_split_is_a_warning(clean: EmbeddingTable) -> None:
    assert kinds(audit(moved(clean, "v000", "v002"))) == {"warning: same_embedding"}


def test_a_nearly_identical_video_across_splits_is_a_warning(clean: EmbeddingTable) -> None:
    almost = moved(clean, "v000", "v008")
    values = almost.values.copy()
    rows = almost.video_id == "v008"
    values[rows] += np.random.default_rng(0).normal(size=values[rows].shape).astype(np.float32) * 0.01
    assert kinds(audit(replace(almost, values=values))) == {"warning: near_embedding_across_splits"}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda t: t.labels["EF"] * 2 + 1, "rank correlation 1.000"),
        (lambda t: (t.labels["EF"] < 50).astype(float), "AUROC 1.000"),
        (lambda t: np.digitize(t.labels["EF"], [40, 48, 55, 62]).astype(float), "AUROC 1.000"),
        (lambda t: np.array(["a", "c", "b"], dtype=object)[np.digitize(t.labels["EF"], [45, 55])], "AUROC 1.000"),
        (lambda t: t.view.copy(), "view and Copy give each other away"),
        (lambda t: np.where(t.labels["Sex"] == "F", "female", "male").astype(object), "in 100.0 % of videos"),
    ],
)
def test_a_label_that_another_gives_away_is_a_warning(
    clean: EmbeddingTable, make: Callable[[EmbeddingTable], np.ndarray], reason: str
) -> None:
    findings = audit(replace(clean, labels={**clean.labels, "Copy": make(clean)}))
    assert kinds(findings) == {"warning: label_given_away"}
    assert reason in findings[0].message


def test_labels_of_a_table_are_looked_at_too(clean: EmbeddingTable, tmp_path: Path) -> None:
    ids, first = np.unique(clean.patient_id.astype(str), return_index=True)
    rows = [f"{name},{2 * clean.labels['EF'][i]}" for name, i in zip(ids, first, strict=True)]
    (tmp_path / "labels.csv").write_text("patient_id,Copy\n" + "\n".join(rows))
    assert kinds(audit(clean, labels=tmp_path / "labels.csv")) == {"warning: label_given_away"}


def test_the_same_video_without_a_split_leaks_nothing(clean: EmbeddingTable) -> None:
    split = clean.split.copy()
    split[clean.patient_id == "p004"] = ""
    assert kinds(audit(replace(moved(clean, "v000", "v008"), split=split))) == {"warning: same_embedding"}


def test_embeddings_that_are_not_finite_are_refused(clean: EmbeddingTable) -> None:
    values = clean.values.copy()
    values[0, 0] = np.nan
    with pytest.raises(ArgumentError, match=r"1 of \d+ embeddings have NaN or infinite values"):
        audit(replace(clean, values=values))


def test_near_must_be_a_cosine(clean: EmbeddingTable) -> None:
    with pytest.raises(ArgumentError, match=r"near is 2; it must be above 0 and at most 1"):
        audit(clean, near=2)


def test_command_exits_with_1_on_a_leak_and_writes_json(
    clean: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    path = write(tmp_path / "leak.h5", moved(clean, "v000", "v008"))
    result = CliRunner().invoke(command, [str(path), "-o", str(tmp_path / "audit.json")])
    assert result.exit_code == 1
    assert "v000 and v008" in result.output
    assert json.loads((tmp_path / "audit.json").read_text())["findings"][0]["severity"] == "leak"


def test_command_exits_with_0_on_a_clean_file(
    clean: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    result = CliRunner().invoke(command, [str(write(tmp_path / "clean.h5", clean))])
    assert (result.exit_code, "0 kinds of leak, 0 warnings" in result.output) == (0, True)
