"""Scores: metrics with intervals beside the baseline, over one training or several, and metrics.json."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.core.outputs import without_nan, write_json
from panecho_embed.core.records import Score
from panecho_embed.evaluation.inference import scores
from panecho_embed.evaluation.metrics import METRICS, base_name, point_values
from panecho_embed.evaluation.page import Figure, Table
from panecho_embed.evaluation.predictions import Predictions, concatenated
from panecho_embed.evaluation.report import subgroup_blocks
from panecho_embed.evaluation.scores import (
    averaged,
    read_metrics,
    score,
    subgroup_rows,
    subgroup_scores,
    with_runs,
    write_metrics,
)
from panecho_embed.evaluation.targets import Target
from tests.evaluation.made import EF, GRADE, LOW, VIEW, made, texts

KINDS = [EF, LOW, VIEW, GRADE]


def several(target: Target = EF, noise: float = 5.0, count: int = 3) -> Predictions:
    return concatenated([made(target, noise, seed=i, run=str(i)) for i in range(count)])


@pytest.mark.parametrize("target", KINDS, ids=lambda t: t.kind)
def test_one_training_has_the_intervals_of_its_metrics(target: Target) -> None:
    rows = made(target)
    found = score(rows, draws=100)
    assert found.scores == scores(rows.metrics(), draws=100)
    assert found.primary.n == found.primary.n_patients == 60


@pytest.mark.parametrize("target", KINDS, ids=lambda t: t.kind)
def test_a_signal_is_better_than_the_baseline_and_noise_is_not(target: Target) -> None:
    good, bad = (score(made(target, noise), draws=200) for noise in (3.0, 1000.0))
    sign = 1 if METRICS[good.metric].better == "higher" else -1
    assert min(sign * good.gain[good.metric].low, sign * good.gain[good.metric].high) > 0
    assert min(sign * bad.gain[bad.metric].low, sign * bad.gain[bad.metric].high) < 0
    assert good.gain[good.metric].value == pytest.approx(good.primary.value - good.baseline[good.metric].value)


def test_what_has_no_better_side_has_no_difference() -> None:
    found = score(made(EF), draws=50)
    assert {"bias", "loa_low", "calibration_slope"} & set(found.gain) == set()
    assert "bias" in found.scores


def test_without_a_baseline_there_is_no_difference() -> None:
    found = score(made(EF, baseline=False), draws=50)
    assert (found.baseline, found.gain) == ({}, {})


def test_only_labelled_test_rows_count() -> None:
    rows = made(EF)
    truth = rows.truth.copy()
    truth[:10] = np.nan
    split = np.where(np.arange(60) < 30, "test", "val").astype(object)
    found = score(replace(rows, truth=truth, split=split), draws=50)
    assert found.primary.n == 20
    assert len(found.predictions) == 20


def test_several_trainings_are_averaged_and_their_chance_widens_the_interval() -> None:
    rows = several()
    found = score(rows, draws=200)
    each = [point_values(one.metrics()) for one in rows.replicates().values()]
    assert found.by_run["mae"] == pytest.approx([one["mae"] for one in each])
    assert found.primary.value == pytest.approx(found.by_run["mae"].mean())
    over_patients = scores(averaged([one.metrics() for one in rows.replicates().values()]), draws=200)["mae"]
    assert found.primary.low < over_patients.low < over_patients.high < found.primary.high


def test_trainings_that_agree_change_nothing() -> None:
    one = made(EF)
    same = concatenated([replace(one, run=texts(*[i] * 60)) for i in range(3)])
    single, triple = score(one, draws=200).primary, score(same, draws=200).primary
    assert (triple.value, triple.low, triple.high) == pytest.approx((single.value, single.low, single.high))


def test_a_difference_to_the_baseline_varies_as_it_does_itself_over_trainings() -> None:
    parts = []
    for run, constant in enumerate((40.0, 55.0, 70.0)):  # what few training patients tell differs much
        rows = made(EF, run=str(run))
        tenth_better = constant + 0.1 * (rows.truth - constant)
        parts.append(replace(rows, prediction=tenth_better, baseline=np.full(60, constant)))
    found = score(concatenated(parts), draws=200)
    assert found.gain["mae"].value == pytest.approx(-0.1 * found.baseline["mae"].value)
    assert found.gain["mae"].high < 0
    assert found.primary.high > found.baseline["mae"].value


@pytest.mark.parametrize("target", KINDS, ids=lambda t: t.kind)
def test_no_interval_leaves_the_values_that_a_metric_can_have(target: Target) -> None:
    rows = concatenated([made(target, noise, seed=1, run=str(noise)) for noise in (0.5, 40.0)])
    for name, one in score(rows, draws=100).scores.items():
        known = METRICS[base_name(name)]
        assert not one.low < known.lowest
        assert not one.high > known.highest


def test_the_chance_of_two_runs_has_one_degree_of_freedom() -> None:
    # Patients tell the value exactly; two runs half apart: 0.25 +- t(1 df) x 0.25.
    sampled = {"r2": np.random.default_rng(0).normal(0.25, 1e-9, 5000)}
    low, high = np.percentile(sampled["r2"], [2.5, 97.5])
    given = {"r2": Score("r2", 0.25, float(low), float(high), 1000, 1000)}
    found = with_runs(given, {"r2": np.array([0.0, 0.5])}, sampled, bounded=False)["r2"]
    assert found.high - found.low == pytest.approx(2 * 12.706 * 0.25, rel=0.05)
    assert with_runs(given, {"r2": np.array([0.25])}, sampled) == given


def test_cutoffs_are_of_regressions() -> None:
    assert "auroc_below_50" in score(made(EF), cutoffs=(50,), draws=50).scores
    found = score(made(LOW), cutoffs=(50,), draws=50)
    assert found.cutoffs == ()


def test_too_few_of_the_rarer_class_are_told() -> None:
    assert score(made(EF), draws=50).few == ""
    assert score(made(EF, patients=20), draws=50).few == "20 patients"
    assert score(made(LOW, patients=40), draws=50).few.endswith("of class yes")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (made(EF, truth=np.full(60, np.nan)), r"EF: no test row has a label"),
        (made(EF, split=np.full(60, "val", dtype=object)), r"EF: no test row has a label"),
        (made(LOW, truth=np.zeros(60)), r"LowEF: the test set has only one class, 'no'; AUROC needs two"),
    ],
)
def test_nothing_to_test_is_refused(rows: Predictions, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        score(rows, draws=10)


def test_trainings_on_other_rows_are_not_averaged() -> None:
    rows = concatenated([made(EF, run="0"), made(EF, run="1").take(np.arange(50))])
    with pytest.raises(ArgumentError, match=r"must be tested on the same rows of the same patients"):
        score(rows, draws=10)


def test_metrics_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = [score(several(EF), cutoffs=(50,), draws=50), score(made(LOW), draws=50, seed=0)]
    facts = {"LowEF": {"threshold_rule": "youden"}}
    write_metrics(tmp_path, "probe linear", found, about={"command": "x"}, of_target=facts)
    document = read_metrics(tmp_path)
    assert (document["made_by"], document["command"], document["draws"]) == ("probe linear", "x", 50)
    assert document["targets"]["LowEF"]["threshold_rule"] == "youden"
    assert document["targets"]["LowEF"]["thresholds"] == [0.5]
    assert document["targets"]["EF"]["trainings"] == 3
    assert document["targets"]["EF"]["cutoffs"] == [50]
    for one in found:
        told = document["targets"][one.target.name]
        for kind, own in (("metrics", one.scores), ("baseline", one.baseline), ("versus_baseline", one.gain)):
            assert told[kind] == without_nan({name: asdict(value) for name, value in own.items()})


def test_what_is_not_defined_is_null(tmp_path: Path) -> None:
    write_metrics(tmp_path, "x", [score(made(EF), draws=50)], about={})
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["targets"]["EF"]["baseline"]["pearson"]["value"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"metrics.json: no metrics of a finished run"),
        ("{", r"metrics.json: no metrics of a finished run"),
        ("[]", r"metrics.json: no metrics of a finished run"),
        ('{"schema_version": 1}', r"metrics.json: of schema version 1, not 2: run the command again"),
        ("{}", r"of schema version None, not 2"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        read_metrics(tmp_path)


def test_json_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"can't write .*x.json: the folder does not exist"):
        write_json(tmp_path / "no" / "x.json", {})


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
