"""Rows of different runs are lined up by id, and must agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.comparison.gather import Entry, line_up
from panecho_embed.errors import ArgumentError
from panecho_embed.finetune.outcome import TargetRows, read_outcome, read_targets
from tests.finetune.fabricate import EF, GRADE, fabricate, small_recipe


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, TargetRows]:
    return read_targets(read_outcome(fabricate(tmp_path, small_recipe("EF", "Grade"), tasks=(EF, GRADE))))


def with_ef(rows: dict[str, TargetRows], **changes: object) -> dict[str, TargetRows]:
    return {**rows, "EF": replace(rows["EF"], **changes)}  # type: ignore[arg-type]


def test_rows_that_not_every_run_has_are_left_out_and_counted(rows: dict[str, TargetRows]) -> None:
    fewer = {**rows, "EF": rows["EF"].take(np.arange(3, 36))}
    targets, candidates, left_out = line_up([Entry("a", 1.0, (rows,)), Entry("b", 1.0, (fewer,))])
    assert left_out == 3
    assert len(targets[0].truth) == 33
    np.testing.assert_array_equal(candidates[0].predictions["EF"][0], rows["EF"].prediction[3:])
    np.testing.assert_array_equal(candidates[1].predictions["EF"][0], rows["EF"].prediction[3:])


def test_targets_that_a_run_lacks_are_left_out(rows: dict[str, TargetRows]) -> None:
    targets, _, _ = line_up([Entry("a", 1.0, (rows,)), Entry("b", 1.0, ({"EF": rows["EF"]},))])
    assert [target.name for target in targets] == ["EF"]


@pytest.mark.parametrize("name", ["truth", "patients"])
def test_runs_that_disagree_are_refused(rows: dict[str, TargetRows], name: str) -> None:
    column = getattr(rows["EF"], name).copy()
    column[4] = 99.0 if name == "truth" else "somebody"
    with pytest.raises(ArgumentError, match="disagree on 1 test rows of EF, first v004-0"):
        line_up([Entry("a", 1.0, (rows,)), Entry("b", 1.0, (with_ef(rows, **{name: column}),))])


def test_no_row_in_common_is_refused(rows: dict[str, TargetRows]) -> None:
    renamed = with_ef(rows, ids=np.array([f"x{name}" for name in rows["EF"].ids], dtype=object))
    with pytest.raises(ArgumentError, match="no test row in common"):
        line_up([Entry("a", 1.0, (rows,)), Entry("b", 1.0, (renamed,))])


def test_rows_that_different_runs_lack_are_all_counted(rows: dict[str, TargetRows]) -> None:
    first, second = with_ef(rows), with_ef(rows)
    first["EF"], second["EF"] = rows["EF"].take(np.arange(3, 36)), rows["EF"].take(np.arange(0, 34))
    targets, _, left_out = line_up([Entry("a", 1.0, (first,)), Entry("b", 1.0, (second,))])
    assert (left_out, len(targets[0].truth)) == (5, 31)
