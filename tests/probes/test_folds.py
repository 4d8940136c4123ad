"""Folds: patients never cross, classes and values are spread, split columns are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.errors import ArgumentError
from probes.folds import Fold, check_no_leakage, given_folds, grouped_folds, kfold


@given(st.integers(0, 1000), st.integers(2, 6), st.booleans())
def test_folds_are_a_partition_that_keeps_groups_together(seed: int, k: int, discrete: bool) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.r_[np.arange(k), rng.integers(0, k * 3, 40)])
    y = rng.integers(0, 3, len(groups)) if discrete else rng.normal(size=len(groups))
    number = grouped_folds(groups, y, k, discrete=discrete, seed=seed)
    assert set(number.tolist()) == set(range(k))
    assert all(len(set(number[groups == g].tolist())) == 1 for g in groups)
    sizes = [len(set(groups[number == i].tolist())) for i in range(k)]
    assert max(sizes) - min(sizes) <= 1


def test_a_rare_class_is_spread_over_the_folds() -> None:
    y = np.zeros(100, dtype=int)
    y[:5] = 1
    number = grouped_folds(np.arange(100), y, 5, discrete=True)
    assert sorted(number[:5].tolist()) == [0, 1, 2, 3, 4]


def test_kfold_tests_every_row_once() -> None:
    folds = kfold(np.arange(20) // 2, np.arange(20.0), 4, discrete=False)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(20))


def test_split_column_names_are_read_in_any_case() -> None:
    (fold,) = given_folds(np.array(["TRAIN", "Val", "test", "training"], dtype=object))
    assert (fold.train.tolist(), fold.validation.tolist(), fold.test.tolist()) == ([0, 3], [1], [2])


def test_numbered_folds_test_one_and_validate_on_the_next() -> None:
    folds = given_folds(np.array(["0", "1", "2", "0"], dtype=object))
    assert [(f.test.tolist(), f.validation.tolist(), f.train.tolist()) for f in folds] == [
        ([0, 3], [1], [2]),
        ([1], [2], [0, 3]),
        ([2], [0, 3], [1]),
    ]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train", "holdout"], r"split column has 'holdout'; allowed are train, val and test"),
        (["train", "val"], r"test split is empty \(train 1, val 1, test 0 rows"),
        (["test"], r"train split is empty"),
        (["0", "1"], r"fold numbers \[0, 1\]; at least three"),
    ],
)
def test_unusable_split_columns_say_why(split: list[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        given_folds(np.array(split, dtype=object))


def test_fewer_patients_than_folds_is_an_error() -> None:
    with pytest.raises(ArgumentError, match=r"5 folds need at least 5 patients; there are 3 .*--folds"):
        grouped_folds(["a", "b", "c", "c"], [1.0, 2, 3, 4], 5, discrete=False)


def test_patients_on_both_sides_are_named() -> None:
    fold = Fold("split", np.array([0, 1]), np.array([], dtype=int), np.array([2, 3]))
    with pytest.raises(ArgumentError, match=r"1 patient is in both train and test \(split\): anna; .*--allow-leakage"):
        check_no_leakage([fold], np.array(["anna", "ben", "anna", "carl"], dtype=object))


def test_validation_patients_may_not_be_tested_either() -> None:
    fold = Fold("split", np.array([0]), np.array([1]), np.array([2]))
    with pytest.raises(ArgumentError, match="both validation and test"):
        check_no_leakage([fold], np.array(["a", "b", "b"], dtype=object))


def test_no_fold_holds_out_every_patient_of_a_class() -> None:
    redrawn = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(rng.integers(6, 15)), 3)
        y = rng.choice(3, size=len(patient), p=[0.7, 0.2, 0.1])
        patients = [len(set(patient[y == index])) for index in range(3)]
        if min(patients) < 2:
            continue
        number = grouped_folds(patient, y, min(5, *patients), discrete=True, seed=seed)
        assert all(len(set(number[y == index])) > 1 for index in range(3))
        redrawn += 1
    assert redrawn > 20
