"""Means over seeds and paired differences, against a bootstrap written out row by row."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from panecho_embed.comparison.statistics import Candidate, Comparison, Target, compare_candidates
from panecho_embed.errors import ArgumentError
from panecho_embed.evaluation.intervals import holm, patient_weights

DRAWS = 150
RNG = np.random.default_rng(3)
PATIENTS = np.array([f"p{i // 2}" for i in range(60)])  # two videos a patient
TRUTH = RNG.normal(55, 12, 60)
EF = Target("EF", "regression", (), TRUTH, PATIENTS, "%")


def candidate(name: str, noise: float, runs: int = 3, fraction: float = 1.0, random: bool = True) -> Candidate:
    return Candidate(name, {"EF": tuple(TRUTH + RNG.normal(0, noise, 60) for _ in range(runs))}, fraction, random)


CANDIDATES = (
    candidate("panecho", 3),
    candidate("random", 9),
    candidate("imagenet", 4),
    candidate("panecho, frozen", 5, 1, random=False),
)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_candidates([EF], CANDIDATES, "panecho", draws=DRAWS)[0]


def plain_bootstrap(truth, predictions, metric) -> np.ndarray:
    """(candidates, draws): rows of the drawn patients copied, the metric of each run, its mean over runs."""
    names, patient = np.unique(PATIENTS, return_inverse=True)
    values = []
    for weights in np.concatenate(list(patient_weights(len(names), DRAWS, 0, 60))):
        rows = np.repeat(np.arange(60), weights[patient].astype(int))
        values.append([np.mean([metric(truth[rows], run[rows]) for run in several]) for several in predictions])
    return np.array(values).T


def test_the_mean_over_seeds_and_its_interval_are_those_of_a_plain_bootstrap(comparison: Comparison) -> None:
    expected = plain_bootstrap(TRUTH, [c.predictions["EF"] for c in CANDIDATES], mean_absolute_error)
    for standing, values in zip(comparison.standings, expected, strict=True):
        score = standing.scores["mae"]
        assert score.value == pytest.approx(
            np.mean([abs(run - TRUTH).mean() for run in standing.candidate.predictions["EF"]])
        )
        np.testing.assert_allclose([score.low, score.high], np.percentile(values, [2.5, 97.5]))
        assert standing.sampling_sd["mae"] == pytest.approx(values.std())


def test_differences_are_paired_by_patient(comparison: Comparison) -> None:
    expected = plain_bootstrap(TRUTH, [c.predictions["EF"] for c in CANDIDATES], mean_absolute_error)
    for contrast, values in zip(comparison.contrasts, expected[1:] - expected[0], strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        np.testing.assert_allclose([contrast.difference.low, contrast.difference.high], [low, high])
        p = min(1, 2 * (min((values <= 0).sum(), (values >= 0).sum()) + 1) / (DRAWS + 1))
        assert contrast.difference.p_value == pytest.approx(p)


def low_ef(name: str = "low") -> tuple[Target, list[Candidate]]:
    low = (TRUTH < 55).astype(float)
    candidates = [
        Candidate(c.name, {name: tuple(1 / (1 + np.exp(run / 10 - 5.5)) for run in c.predictions["EF"])})
        for c in CANDIDATES[:2]
    ]
    return Target(name, "binary", ("no", "yes"), low, PATIENTS), candidates


def test_auroc_is_averaged_over_seeds_too() -> None:
    target, candidates = low_ef()
    (found,) = compare_candidates([target], candidates, "panecho", draws=DRAWS)
    expected = plain_bootstrap(target.truth, [c.predictions["low"] for c in candidates], roc_auc_score)
    for standing, values in zip(found.standings, expected, strict=True):
        score = standing.scores["auroc"]
        np.testing.assert_allclose([score.low, score.high], np.percentile(values, [2.5, 97.5]))


def test_the_mean_over_tasks_comes_first_and_draws_the_same_patients() -> None:
    low, candidates = low_ef()
    labelled = np.arange(60) < 40  # the second task lacks the labels of the last ten patients
    fewer = Target("fewer", "binary", low.classes, low.truth[labelled], PATIENTS[labelled])
    both = [
        Candidate(c.name, {**c.predictions, "fewer": tuple(p[labelled] for p in c.predictions["low"])})
        for c in candidates
    ]
    mean, first, second = compare_candidates([low, fewer], both, "panecho", draws=DRAWS)
    assert mean.name == "Mean over 2 class tasks"
    assert mean.standings[0].scores["auroc"].value == pytest.approx(
        (first.standings[0].scores["auroc"].value + second.standings[0].scores["auroc"].value) / 2
    )

    def of_both(truth, prediction) -> float:
        has = np.isin(truth[:, 1], np.flatnonzero(labelled))
        values = truth[:, 0]
        return (roc_auc_score(values, prediction) + roc_auc_score(values[has], prediction[has])) / 2

    indexed = np.column_stack([low.truth, np.arange(60)])
    expected = plain_bootstrap(indexed, [c.predictions["low"] for c in candidates], of_both)
    for standing, values in zip(mean.standings, expected, strict=True):
        score = standing.scores["auroc"]
        np.testing.assert_allclose([score.low, score.high], np.percentile(values, [2.5, 97.5]))


def test_p_values_are_corrected_for_all_contrasts_of_the_target(comparison: Comparison) -> None:
    raw = [contrast.difference.p_value for contrast in comparison.contrasts]
    np.testing.assert_allclose([contrast.p_holm for contrast in comparison.contrasts], holm(raw))


def test_seed_spread_is_told_apart_from_sampling(comparison: Comparison) -> None:
    panecho, random = comparison.standings[:2]
    by_hand = [[abs(run - TRUTH).mean() for run in s.candidate.predictions["EF"]] for s in (panecho, random)]
    assert random.seed_sd("mae") == pytest.approx(np.std(by_hand[1], ddof=1))
    expected = np.sqrt((np.var(by_hand[0], ddof=1) + np.var(by_hand[1], ddof=1)) / 3)
    assert comparison.contrasts[0].seed_se == pytest.approx(expected)


def test_what_has_no_seed_has_no_seed_spread(comparison: Comparison) -> None:
    assert comparison.standings[3].seed_sd("mae") == 0


def test_one_seed_leaves_the_spread_unknown() -> None:
    (found,) = compare_candidates([EF], [candidate("a", 3, runs=1), candidate("b", 5, runs=1)], "a", draws=DRAWS)
    assert np.isnan(found.standings[0].seed_sd("mae"))
    assert np.isnan(found.contrasts[0].seed_se)


def test_contrasts_stay_within_a_fraction() -> None:
    both = [candidate(name, noise, 2, f) for f in (0.1, 1.0) for name, noise in (("a", 3), ("b", 6))]
    (found,) = compare_candidates([EF], [*both, candidate("b", 9, 2, 0.01)], "a", draws=DRAWS)
    assert [(c.first, c.fraction) for c in found.contrasts] == [("b", 0.1), ("b", 1.0)]


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(ArgumentError, match="compared are panecho, random, imagenet"):
        compare_candidates([EF], CANDIDATES, "pan-echo", draws=DRAWS)
