"""The methods paragraph says what was done, and nothing that was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from panecho_embed.records import EmbeddingTable
from probes.base import BaseProbe
from probes.knn import KNNProbe
from probes.linear import LinearProbe
from probes.problem import load_problem
from probes.run import RunSettings, run_target
from probes.wording import caution, few_tested_in, methods_paragraph

SETTINGS = RunSettings(draws=50)


def paragraph(table: EmbeddingTable, target: str, probe: BaseProbe, **settings: int) -> str:
    return methods_paragraph([run_target(load_problem(table, target), probe, RunSettings(draws=50, **settings))])


def test_a_chosen_strength_is_said_to_be_chosen_where_it_was(table: EmbeddingTable) -> None:
    given = paragraph(table, "LowEF", LinearProbe("binary"))
    assert "its strength minimised the log loss on the validation patients" in given
    assert "threshold maximised sensitivity plus specificity on held-out training data" in given
    assert "in 5 inner folds over the training patients" in paragraph(table, "EF", LinearProbe(), folds=3)


@pytest.mark.parametrize(
    ("probe", "text"),
    [
        (LinearProbe("binary", strengths=[2.0]), "its strength was fixed (C = 2)"),
        (KNNProbe("binary", k=[4]), "k was fixed (k = 4)"),
    ],
)
def test_a_fixed_setting_is_said_to_be_fixed(table: EmbeddingTable, probe: BaseProbe, text: str) -> None:
    made = paragraph(table, "LowEF", probe, folds=3)
    assert text in made
    assert "threshold was 0.5" in made
    assert "minimised" not in made


def test_targets_of_one_kind_share_a_paragraph(table: EmbeddingTable) -> None:
    results = [run_target(load_problem(table, name), LinearProbe(), SETTINGS) for name in ("EF", "Noise")]
    assert "EF and Noise were predicted per video" in methods_paragraph(results)


def test_few_tested_patients_are_warned_of(table: EmbeddingTable, table_of: Callable[..., EmbeddingTable]) -> None:
    few = run_target(load_problem(table, "EF"), LinearProbe(), SETTINGS).evaluation
    many = run_target(load_problem(table_of(split=False), "EF"), LinearProbe(), SETTINGS).evaluation
    assert "Only 12 patients were tested" in caution(few)
    assert caution(many) == ""


def test_the_rarest_tested_class_is_what_is_warned_of(table_of: Callable[..., EmbeddingTable]) -> None:
    wide = table_of(split=False)
    rare = np.where(np.char.endswith(wide.patient_id.astype(str), "5"), "ill", "well").astype(object)
    problem = load_problem(replace(wide, labels={"X": rare}), "X")
    assert few_tested_in(problem, np.arange(len(problem))) == "6 patients of class ill"
    assert few_tested_in(problem, np.arange(20)) == "10 patients (1 of class ill)"
    assert few_tested_in(load_problem(wide, "EF"), np.arange(len(problem))) == ""
