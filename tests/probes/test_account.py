"""What a report says beside its scores: what was done, what is to be distrusted, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.scores import few_tested
from panecho_embed.evaluation.thresholds import ThresholdRule
from probes.account import account_of, cautions_of
from probes.base import BaseProbe
from probes.knn import KNNProbe
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import load_problem
from probes.run import evaluate, run_target

SETTINGS = RunSettings(draws=50)
ONE = RunSettings(draws=50, trainings=1)


def paragraph(table: EmbeddingTable, target: str, probe: BaseProbe, **settings: Any) -> str:
    result = run_target(load_problem(table, target), probe, RunSettings(draws=50, **settings))
    (text,) = account_of([result], source="x.h5", command="").methods
    return str(text)


def test_a_chosen_strength_is_said_to_be_chosen_where_it_was(table: EmbeddingTable) -> None:
    given = paragraph(table, "LowEF", LinearProbe("binary"))
    assert "its strength minimised the log loss on the validation patients" in given
    assert "threshold maximised sensitivity plus specificity on held-out training data" in given
    assert "in 5 inner folds over the training patients" in paragraph(table, "EF", LinearProbe(), folds=3, trainings=1)


@pytest.mark.parametrize(
    ("probe", "text"),
    [
        (LinearProbe("binary", strengths=[2.0]), "its strength was fixed (C = 2)"),
        (KNNProbe("binary", k=[4], temperature=[0.1], centre=True), "k was fixed"),
    ],
)
def test_a_fixed_setting_is_said_to_be_fixed(table: EmbeddingTable, probe: BaseProbe, text: str) -> None:
    made = paragraph(table, "LowEF", probe, folds=3, trainings=1)
    assert text in made
    # Nothing was held out, so no threshold was chosen; before, 0.5 was taken.
    assert "decision threshold" not in made
    assert "minimised" not in made


def test_targets_of_one_kind_share_a_paragraph(table: EmbeddingTable) -> None:
    results = [run_target(load_problem(table, name), LinearProbe(), SETTINGS) for name in ("EF", "Noise")]
    (text,) = account_of(results, source="x.h5", command="").methods
    assert "EF and Noise were predicted per video" in text


def test_few_tested_patients_are_warned_of(table: EmbeddingTable, table_of: Callable[..., EmbeddingTable]) -> None:
    few = evaluate(load_problem(table, "EF"), LinearProbe(), SETTINGS)
    many = evaluate(load_problem(table_of(split=False), "EF"), LinearProbe(), ONE)
    assert few.scored.few == "12 patients"
    assert many.scored.few == ""


def test_the_rarest_tested_class_is_what_is_warned_of(table_of: Callable[..., EmbeddingTable]) -> None:
    wide = table_of(split=False)
    rare = np.where(np.char.endswith(wide.patient_id.astype(str), "5"), "ill", "well").astype(object)
    problem = load_problem(replace(wide, labels={"X": rare}), "X")
    who, truth, classes = problem.patient, problem.truth, problem.target.classes
    assert few_tested(who, truth, classes) == "6 patients of class ill"
    assert few_tested(who[:20], truth[:20], classes) == "10 patients (1 of class ill)"
    assert few_tested(who, truth, ()) == ""


def test_patients_far_outside_are_named(table: EmbeddingTable) -> None:
    values = table.values.copy()
    values[table.patient_id == "p004"] *= 1000  # p004 is tested
    result = evaluate(load_problem(replace(table, values=values), "EF"), LinearProbe(), SETTINGS)
    (note,) = cautions_of(result)
    assert note.startswith(
        "1 test patient is far outside what was trained on (many features were cut at the bound): p004. "
    )
    assert cautions_of(evaluate(load_problem(table, "EF"), LinearProbe(), SETTINGS)) == []


def test_a_run_without_a_threshold_says_so(table: EmbeddingTable) -> None:
    result = evaluate(load_problem(table, "LowEF"), LinearProbe("binary", strengths=[1.0]), replace(ONE, folds=3))
    assert any(note.startswith("No decision threshold was chosen") for note in cautions_of(result))


def test_what_was_taken_for_granted_of_the_labels_is_told(table: EmbeddingTable) -> None:
    strain = replace(table, labels={"GLS": np.abs(table.labels["EF"]) / 3})
    result = evaluate(load_problem(strain, "GLS"), LinearProbe(), SETTINGS)
    assert cautions_of(result) == [
        "GLS is reported as negative, and its labels are all above 0: they are taken with the sign flipped."
    ]


def test_draws_partitions_and_the_rule_of_the_threshold_are_told(table: EmbeddingTable) -> None:
    few = paragraph(table, "LowEF", LinearProbe("binary"), k_shot=4, trainings=3)
    assert "4 patients of each class were drawn at random from the training patients, 3 times." in few
    assert "Values are means over 3 trainings" in few
    assert "for 2 partitions into folds" in paragraph(table, "EF", LinearProbe(), folds=3, trainings=2)
    rule = ThresholdRule.parse("sensitivity=0.9")
    assert "was chosen for a sensitivity of 0.9" in paragraph(table, "LowEF", LinearProbe("binary"), threshold=rule)


def test_one_warning_holds_for_all_targets_that_share_it(table: EmbeddingTable) -> None:
    values = table.values.copy()
    values[table.patient_id == "p004"] *= 1000
    problems = [load_problem(replace(table, values=values), name) for name in ("EF", "Noise")]
    results = [run_target(problem, LinearProbe(), SETTINGS) for problem in problems]
    account = account_of(results, source="x.h5", command="")
    assert [note for note in account.warnings if "far outside" in note] == cautions_of(results[0].evaluation)
    assert account.title == "Linear probe: EF, Noise"
