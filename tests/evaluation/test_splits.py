"""Folds and draws: patients never cross, classes and values are spread, draws are nested."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation.splits import (
    Fold,
    check_fractions,
    check_no_leakage,
    check_shots,
    draw_patients,
    given_folds,
    grouped_folds,
    kfold,
    leaking_patients,
    patients_of_classes,
    random_order,
    split_name,
)


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


def test_patients_of_every_crossing_are_listed() -> None:
    folds = [Fold("split", np.array([0, 1]), np.array([2]), np.array([3]))]
    assert leaking_patients(folds, np.array(["a", "b", "a", "b"], dtype=object)) == ["a", "b"]
    assert leaking_patients(folds, np.array(["a", "b", "c", "d"], dtype=object)) == []


@pytest.mark.parametrize(
    ("text", "name"), [("Validation", "val"), (" dev ", "val"), ("TRAINING", "train"), ("3", ""), ("", "")]
)
def test_splits_have_one_name_each(text: str, name: str) -> None:
    assert split_name(text) == name


PATIENTS = np.array([f"p{i:02d}" for i in range(100)], dtype=object)
IS_RARE = (np.arange(100) % 20 == 3).astype(float)


@given(st.integers(0, 100), st.floats(0.02, 1), st.floats(0.02, 1))
def test_a_smaller_fraction_lies_inside_a_larger_one(seed: int, one: float, other: float) -> None:
    small, large = (draw_patients(PATIENTS, IS_RARE, 2, size, "fraction", seed=seed) for size in sorted((one, other)))
    assert set(small) <= set(large)
    assert all(len(set(small) & set(PATIENTS[np.equal(IS_RARE, index)])) >= 2 for index in (0, 1))


def test_a_fraction_is_of_the_patients_not_of_the_rows() -> None:
    rows = np.repeat(PATIENTS, np.arange(1, 101))
    drawn = draw_patients(rows, None, 0, 0.1, "fraction", seed=0)
    assert len(drawn) == 10
    assert drawn == random_order(PATIENTS.tolist(), 0)[:10]


def test_a_draw_does_not_depend_on_who_else_is_there() -> None:
    drawn = draw_patients(PATIENTS, None, 0, 30, "shots", seed=1)
    without = PATIENTS[~np.isin(PATIENTS.astype(str), drawn[:3])]
    assert draw_patients(without[::-1], None, 0, 27, "shots", seed=1) == drawn[3:]


def test_other_repeats_and_seeds_draw_others() -> None:
    draws = [
        tuple(draw_patients(PATIENTS, None, 0, 10, "shots", seed=seed, repeat=repeat))
        for seed in range(3)
        for repeat in range(3)
    ]
    assert len(set(draws)) == 9


def test_shots_are_patients_of_each_class() -> None:
    drawn = draw_patients(PATIENTS, IS_RARE, 2, 3, "shots", seed=0)
    assert patients_of_classes(
        PATIENTS[np.isin(PATIENTS.astype(str), drawn)], IS_RARE[np.isin(PATIENTS, drawn)], 2
    ) == {
        0: 3,
        1: 3,
    }
    assert len(draw_patients(PATIENTS, None, 0, 7, "shots", seed=0)) == 7


def test_a_patient_of_two_classes_counts_for_both() -> None:
    who, truth = np.repeat(PATIENTS[:6], 2), np.tile([0.0, 1.0], 6)
    assert len(draw_patients(who, truth, 2, 4, "shots", seed=0)) == 4


@pytest.mark.parametrize(
    ("truth", "classes", "size", "message"),
    [
        (
            IS_RARE,
            2,
            6,
            r"6 patients of each class were asked for; of class 1 there are 5 to train on \(--shots, --k-shot",
        ),
        (None, 0, 101, r"101 patients were asked for; there are 100 to train on"),
    ],
)
def test_more_shots_than_patients_are_refused(truth: np.ndarray | None, classes: int, size: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        draw_patients(PATIENTS, truth, classes, size, "shots", seed=0)


@pytest.mark.parametrize("fractions", [[], [0], [0.5, 1.5], [0.5, 0.5], [-0.1]])
def test_unusable_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ArgumentError, match=r"each must be above 0, at most 1, and stand once \(--fractions 0.1,1\)"):
        check_fractions(fractions)


def test_one_shot_is_enough_where_nothing_is_chosen() -> None:
    check_shots([1, 5], chooses=False)
    with pytest.raises(ArgumentError, match=r"of 1 patient a class none can be held out .*--strengths 1"):
        check_shots([1, 5], chooses=True)
    with pytest.raises(ArgumentError, match=r"shots are 0, 5; 1 or more are needed"):
        check_shots([0, 5], chooses=False)


def test_a_fold_of_drawn_patients_keeps_its_test_and_has_no_validation() -> None:
    fold = Fold("split", np.arange(50), np.arange(50, 60), np.arange(60, 100))
    small = fold.with_patients(PATIENTS, ["p03", "p40", "p70"])
    assert (small.train.tolist(), len(small.validation), small.test.tolist()) == ([3, 40], 0, list(range(60, 100)))
