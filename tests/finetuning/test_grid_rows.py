"""Rows of different runs are lined up by id, and must agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.candidates import Candidate, line_up
from panecho_embed.evaluation.comparison import compare_candidates
from panecho_embed.evaluation.predictions import Predictions
from panecho_embed.finetuning.outcome import read_outcome
from tests.finetuning.fabricate import EF, GRADE, fabricate, small_recipe


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Predictions]:
    """The labelled test rows of a run, by target."""
    outcome = read_outcome(fabricate(tmp_path, small_recipe("EF", "Grade"), tasks=(EF, GRADE)))
    return {name: one.of_split("test") for name, one in outcome.at("video").items()}


def test_rows_that_not_every_run_has_are_left_out_and_counted(rows: dict[str, Predictions]) -> None:
    lined_up, left_out = line_up({"a": rows["EF"], "b": rows["EF"].take(np.arange(3, 36))})
    assert left_out == 3
    assert [len(one) for one in lined_up.values()] == [33, 33]
    for one in lined_up.values():
        np.testing.assert_array_equal(one.prediction, rows["EF"].prediction[3:])


def test_the_order_of_rows_does_not_matter(rows: dict[str, Predictions]) -> None:
    lined_up, left_out = line_up({"a": rows["EF"], "b": rows["EF"].take(np.arange(36)[::-1])})
    assert left_out == 0
    np.testing.assert_array_equal(lined_up["a"].prediction, lined_up["b"].prediction)


def test_targets_that_a_run_lacks_are_left_out(rows: dict[str, Predictions]) -> None:
    found = compare_candidates([Candidate("a", rows), Candidate("b", {"EF": rows["EF"]})], draws=20)
    assert [comparison.name for comparison in found] == ["EF"]


@pytest.mark.parametrize("name", ["truth", "patient"])
def test_runs_that_disagree_are_refused(rows: dict[str, Predictions], name: str) -> None:
    column = getattr(rows["EF"], name).copy()
    column[4] = 99.0 if name == "truth" else "somebody"
    with pytest.raises(ArgumentError, match="of 1 rows, first v004-0"):
        line_up({"a": rows["EF"], "b": replace(rows["EF"], **{name: column})})


def test_no_row_in_common_is_refused(rows: dict[str, Predictions]) -> None:
    ids = {name: np.array([f"x{value}" for value in column], dtype=object) for name, column in rows["EF"].ids.items()}
    with pytest.raises(ArgumentError, match=r"no row \(video\) in common, and 20 patients"):
        line_up({"a": rows["EF"], "b": replace(rows["EF"], ids=ids)})


def test_rows_that_different_runs_lack_are_all_counted(rows: dict[str, Predictions]) -> None:
    lined_up, left_out = line_up({"a": rows["EF"].take(np.arange(3, 36)), "b": rows["EF"].take(np.arange(0, 34))})
    assert (left_out, len(lined_up["a"])) == (5, 31)
