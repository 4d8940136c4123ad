"""Subgroups: the same predictions, scored in parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.intervals import scores
from panecho_embed.evaluation.page import Figure, Table
from panecho_embed.evaluation.predictions import concatenated
from panecho_embed.evaluation.scores import score
from panecho_embed.evaluation.subgroups import subgroup_blocks, subgroup_rows, subgroup_scores
from tests.evaluation.made import EF, LOW, made, texts

SEX = texts(*("FM"[i % 2] for i in range(60)))


def test_texts_and_few_numbers_are_groups_by_name() -> None:
    assert {name: len(rows) for name, rows in subgroup_rows(SEX, "Sex").items()} == {"F": 30, "M": 30}
    numbers = np.array([1.0, 2.5, 1.0, np.nan])
    assert {name: rows.tolist() for name, rows in subgroup_rows(numbers, "X").items()} == {
        "1": [0, 2],
        "2.5": [1],
        "missing": [3],
    }


def test_many_numbers_are_cut_into_thirds() -> None:
    groups = subgroup_rows(np.arange(90.0), "Age")
    assert [len(rows) for rows in groups.values()] == [30, 30, 30]
    assert list(groups) == ["below 29.67", "29.67 to 59.33", "59.33 and above"]


def test_many_texts_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Report has 60 different texts; a subgroup column has at most 12"):
        subgroup_rows(texts(*range(60)), "Report")


def test_a_group_is_scored_as_if_it_were_all() -> None:
    scored = score(made(EF), draws=100)
    found = subgroup_scores(scored, "Sex", SEX)
    women = scored.predictions.take(np.flatnonzero(SEX == "F"))
    assert found["F"] == scores(women.metrics(), draws=100)


def test_groups_of_several_trainings_are_averaged() -> None:
    scored = score(concatenated([made(EF, seed=i, draw=str(i)) for i in range(3)]), draws=50)
    found = subgroup_scores(scored, "Sex", np.tile(SEX, 3))
    error = np.abs(scored.predictions.prediction - scored.predictions.truth)
    assert found["F"]["mae"].value == pytest.approx(error[np.tile(SEX, 3) == "F"].mean())
    assert found["F"]["mae"].n == 30


def test_a_group_of_one_class_has_no_auroc() -> None:
    rows = made(LOW)
    same = np.where(rows.truth == 1, "yes", "no").astype(object)
    found = subgroup_scores(score(rows, draws=50), "Same", same)
    assert np.isnan(found["yes"]["auroc"].value)
    assert np.isfinite(found["yes"]["brier"].value)


def test_a_report_shows_a_table_and_a_figure_and_says_where_few_were_tested() -> None:
    scored = score(made(EF), draws=50)
    column = np.where(np.arange(60) < 5, "rare", "common").astype(object)
    table, drawn = subgroup_blocks(scored, "X", subgroup_scores(scored, "X", column), column)
    assert isinstance(table, Table)
    assert isinstance(drawn, Figure)
    assert [row[:3] for row in table.rows] == [["common", "55", "55"], ["rare", "5", "5"]]
    assert "Few tested (rare: 5 patients)" in table.caption


def test_missing_has_another_name_where_a_group_is_called_so() -> None:
    groups = subgroup_rows(texts("missing", "", "x"), "X")
    assert set(groups) == {"missing", "(missing)", "x"}


def test_cutoffs_hold_in_every_group() -> None:
    scored = score(made(EF), cutoffs=(50,), draws=50)
    assert all("auroc_below_50" in found for found in subgroup_scores(scored, "Sex", SEX).values())
    assert "auroc_below_50" not in subgroup_scores(replace(scored, cutoffs=()), "Sex", SEX)["F"]
