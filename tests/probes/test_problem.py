"""From an embedding file to units with labels, at each level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import ROW_COLUMNS, EmbeddingTable
from probes.problem import data_digest, load_problem, load_problems


@pytest.mark.parametrize(("level", "units"), [("clip", 360), ("video", 120), ("study", 60)])
def test_one_unit_a_row_of_the_level(table: EmbeddingTable, level: str, units: int) -> None:
    problem = load_problem(table, "EF", level=level)
    assert (len(problem), len(problem.values), problem.level) == (units, units, level)


def test_the_data_digest_follows_ids_embeddings_and_labels(table: EmbeddingTable, embeddings: Path) -> None:
    one = data_digest([load_problem(table, "EF")])
    assert one == data_digest([load_problem(embeddings, "EF")])
    values = table.values.copy()
    values[0, 0] += 1
    labels = table.labels | {"EF": table.labels["EF"] + 1}
    renamed = np.array([f"x{name}" for name in table.video_id], dtype=object)
    for changed in (replace(table, values=values), replace(table, labels=labels), replace(table, video_id=renamed)):
        assert data_digest([load_problem(changed, "EF")]) != one
    assert data_digest([load_problem(table, "LowEF")]) != one


def test_default_level_is_the_video(embeddings: Path) -> None:
    assert load_problem(embeddings, "EF").level == "video"


def test_late_fusion_keeps_the_rows_of_each_unit(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF", level="study", fusion="late")
    assert (len(problem), len(problem.values)) == (60, 360)
    assert (problem.patient[problem.unit] == table.patient_id).all()


def test_mean_and_std_pooling_doubles_the_features(table: EmbeddingTable) -> None:
    assert load_problem(table, "EF", pooling="mean+std").values.shape == (120, 2 * table.values.shape[1])


def test_units_without_a_label_are_left_out_and_counted(table: EmbeddingTable) -> None:
    ef = table.labels["EF"].copy()
    ef[table.patient_id == "p003"] = np.nan
    problem = load_problem(replace(table, labels={"EF": ef}), "EF", fusion="late")
    assert (len(problem), problem.n_missing) == (118, 2)
    assert "p003" not in problem.patient
    np.testing.assert_allclose(problem.truth[problem.unit], ef[np.isfinite(ef)])


def test_view_is_a_target_too(table: EmbeddingTable) -> None:
    assert load_problem(table, "view").target.classes == ("A4C", "PLAX")


def test_several_targets_make_several_problems(table: EmbeddingTable) -> None:
    assert [p.target.name for p in load_problems(table, "EF, Sex")] == ["EF", "Sex"]


def test_targets_share_their_embeddings_whoever_has_a_label(table: EmbeddingTable) -> None:
    some = np.where(np.arange(len(table)) < 30, np.nan, table.labels["EF"])
    problems = load_problems(replace(table, labels={"EF": table.labels["EF"], "Some": some}), "all", level="clip")
    assert [len(problem) for problem in problems] == [360, 330]
    assert all(problem.source is table.values for problem in problems)
    np.testing.assert_array_equal(problems[1].values, table.values[30:])


def test_taken_units_keep_their_rows(table: EmbeddingTable) -> None:
    problem = load_problem(table, "EF", level="study", fusion="late")
    some = problem.take(np.array([5, 2]))
    assert some.ids["study_id"].tolist() == ["s005", "s002"] or some.ids["study_id"].tolist() == [
        problem.ids["study_id"][5],
        problem.ids["study_id"][2],
    ]
    np.testing.assert_array_equal(some.values[some.unit == 0], problem.values[problem.unit == 5])


def test_embeddings_that_are_not_finite_are_named(table: EmbeddingTable) -> None:
    values = table.values.copy()
    values[7, 3], values[20, 0] = np.nan, np.inf
    with pytest.raises(ArgumentError, match=r"2 of 360 embeddings have NaN or infinite values, .* v002, v006"):
        load_problem(replace(table, values=values), "EF")


def test_study_level_needs_study_ids(table_of: Callable[..., EmbeddingTable]) -> None:
    frames = table_of(level="frame")
    nameless = replace(frames, study_id=frames.video_id)
    with pytest.raises(ArgumentError, match=r"has no study ids.*--level video"):
        load_problem(nameless, "EF", level="study")


def test_a_video_counts_the_same_in_its_study_whatever_its_rows(table: EmbeddingTable) -> None:
    keep = ~np.isin(np.arange(len(table)), [0, 1])  # v000 keeps one row of three
    some = replace(
        table,
        values=table.values[keep],
        labels={name: column[keep] for name, column in table.labels.items()},
        **{name: getattr(table, name)[keep] for name in ROW_COLUMNS},
    )
    problem = load_problem(some, "EF", level="study", fusion="late")
    assert problem.share[:4].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(np.bincount(problem.unit, weights=problem.share), 1)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("patient_id", "p999", r"1 studies have more than one patient \(s000: p000; s000: p999\)"),
        ("split", "test", r"1 studies have more than one split \(s000: test; s000: train\)"),
    ],
)
def test_a_study_of_two_patients_or_splits_is_refused(
    table: EmbeddingTable, column: str, value: str, message: str
) -> None:
    changed = getattr(table, column).copy()
    changed[table.video_id == "v001"] = value
    with pytest.raises(ArgumentError, match=message):
        load_problem(replace(table, **{column: changed}), "EF", level="study")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max", "fusion": "late"}, r"give --pooling or --fusion late, not both"),
        ({"pooling": "max", "level": "clip"}, r"stands at clip level already; there is nothing to pool"),
    ],
)
def test_a_pooling_that_would_pool_nothing_is_refused(
    table: EmbeddingTable, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        load_problem(table, "EF", **options)


def test_of_several_targets_the_unusable_are_refused_by_name(table: EmbeddingTable) -> None:
    one_class = replace(table, labels={**table.labels, "Flat": np.ones(len(table))})
    refused: dict[str, str] = {}
    assert [p.target.name for p in load_problems(one_class, "EF,Flat", refused=refused)] == ["EF"]
    assert refused == {"Flat": "Flat has only one class, '1'; there is nothing to learn"}


def test_a_level_below_the_files_is_refused(table: EmbeddingTable) -> None:
    with pytest.raises(ArgumentError, match=r"stands at clip level; level 'frame' can't be had"):
        load_problem(table, "EF", level="frame")


def test_a_target_without_any_value_is_refused(table: EmbeddingTable) -> None:
    empty = replace(table, labels={"EF": np.full(len(table), np.nan)})
    with pytest.raises(ArgumentError, match=r"EF has no value at all; leave it out"):
        load_problem(empty, "EF")
