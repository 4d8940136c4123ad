"""Differences with all of their chance: small cases by hand, null simulations of every route, verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation import inference
from panecho_embed.evaluation.inference import Difference, Sample, difference, sample, shared_factor, verdict
from panecho_embed.evaluation.metrics import Metrics, binary_metrics, point_values, regression_metrics


def mae_runs(errors: np.ndarray) -> list[Metrics]:
    """Runs (R, P) of given errors, one row per patient."""
    return [regression_metrics(np.arange(len(row)), np.arange(len(row)) + row, np.arange(len(row))) for row in errors]


def mae_sample(errors: np.ndarray, draws: int = 200) -> Sample:
    return sample(mae_runs(errors), "mae", draws=draws)


def made(points: list[float], patients: int = 50, spread: float = 0.0, seed: int = 0) -> Sample:
    """A sample with given points, whose bootstraps have about this standard deviation, the same for all runs."""
    noise = spread * np.random.default_rng(seed).normal(size=500)
    return Sample("mae", np.array(points), np.array(points)[:, None] + noise, np.arange(patients), patients)


def test_patients_only_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 80))
    found = difference(mae_sample(a[None], 20_000), mae_sample(b[None], 20_000), replicates="none")
    expected = stats.ttest_rel(np.abs(a), np.abs(b))
    assert found.value == pytest.approx(np.abs(a).mean() - np.abs(b).mean())
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), abs=0.01)
    assert found.df == 79
    assert found.unknown == ("training",)


def test_draws_by_hand() -> None:
    # Differences by draw 1, 2, 3: mean 2, variance 1; a third of it, and 0.25 / 0.75 of it from the pool.
    found = difference(made([2, 4, 6]), made([1, 2, 3]), replicates="draws", share=0.5)
    assert found.value == 2
    assert found.variances == {"patients": 0, "draws": pytest.approx(1 / 3), "training": pytest.approx(1 / 3)}
    assert found.df == pytest.approx(2)
    assert found.se == pytest.approx(np.sqrt(2 / 3))
    assert found.p_value == pytest.approx(2 * stats.t.sf(2 / np.sqrt(2 / 3), 2))
    assert found.unknown == ()
    assert (found.n, found.n_patients) == (50, 50)


def test_draws_in_each_fold_share_as_often_as_there_are_folds() -> None:
    found = difference(made([2, 4, 6]), made([1, 2, 3]), replicates="draws", share=0.5, sets=5)
    assert found.variances["training"] == pytest.approx(5 / 3)


def test_seeds_by_hand_with_satterthwaite() -> None:
    # Variances of the means: 2 / 2 with 1 degree of freedom, 1 / 3 with 2.
    found = difference(made([1, 3]), made([1, 2, 3]), replicates="seeds")
    assert found.variances == {"patients": 0, "seeds": pytest.approx(4 / 3)}
    assert found.df == pytest.approx((4 / 3) ** 2 / (1 + (1 / 3) ** 2 / 2))
    assert found.unknown == ("training",)


def test_a_candidate_without_seeds_adds_no_variance() -> None:
    found = difference(made([1, 3]), made([2]), replicates="seeds", seeded=(True, False))
    assert found.variances["seeds"] == pytest.approx(1)
    assert found.unknown == ("training",)


def test_refits_add_what_the_training_set_does() -> None:
    refits = ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    found = difference(made([1]), made([0]), replicates="none", share=0.8, refits=refits)
    assert found.variances == {"patients": 0, "training": pytest.approx(0.64 / 0.36)}
    assert found.unknown == ()


def test_patients_and_replicates_add_up() -> None:
    first, second = made([2, 4, 6], spread=1.0), made([1, 2, 3])
    found = difference(first, second, replicates="folds", share=0.8)
    assert found.variances["patients"] == pytest.approx(first.sampled[0].var(ddof=1) * 50 / 49)
    assert found.se**2 == pytest.approx(sum(found.variances.values()))
    assert 2 < found.df < 49


@pytest.mark.parametrize("replicates", ["draws", "folds", "seeds"])
def test_one_run_says_what_it_cannot_show(replicates: inference.Replicates) -> None:
    found = difference(made([9], spread=1.0), made([1]), replicates=replicates)
    assert found.unknown == (replicates, "training")
    assert list(found.variances) == ["patients"]
    assert found.p_value < 0.001
    assert verdict(found, higher_is_better=False, p=found.p_value) == "undecided"


def test_a_model_against_itself() -> None:
    one = mae_sample(np.random.default_rng(0).normal(size=(3, 20)))
    found = difference(one, one, replicates="draws", share=0.1)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_bootstraps_without_a_positive_are_left_out() -> None:
    truth = np.r_[1, 1, np.zeros(28)]
    scores = np.random.default_rng(0).uniform(0.1, 0.9, size=(2, 30))
    samples = [sample([binary_metrics(truth, s, np.arange(30))], "auroc", draws=400) for s in scores]
    assert np.isnan(samples[0].sampled).any()
    assert np.isfinite(difference(*samples, replicates="none").p_value)


def test_a_metric_that_is_mostly_undefined_has_no_interval() -> None:
    truth = np.r_[1, np.zeros(19)]
    samples = [sample([binary_metrics(truth, truth / 2, np.arange(20))], "auroc", draws=50) for _ in range(2)]
    nowhere = [replace(s, sampled=np.full_like(s.sampled, np.nan)) for s in samples]
    found = difference(*nowhere, replicates="none")
    assert np.isnan([found.low, found.high, found.p_value, found.se]).all()
    assert found.value == 0
    assert np.isnan(found.p_equivalent(1))
    assert verdict(found, higher_is_better=True, p=found.p_value, p_equivalent=found.p_equivalent(1)) == "undecided"


def test_one_patient_has_no_interval() -> None:
    found = difference(mae_sample(np.ones((2, 1))), mae_sample(np.zeros((2, 1))), replicates="seeds")
    assert np.isnan([found.p_value, found.low, found.high]).all()
    assert found.unknown == ("patients",)


def test_two_patients_have_a_wide_one() -> None:
    found = difference(mae_sample(np.array([[1.0, 2]])), mae_sample(np.array([[0.0, 0]])), replicates="none")
    assert found.df == 1
    assert found.high - found.low > 5


def test_mean_over_targets_draws_from_all_patients() -> None:
    rng = np.random.default_rng(0)
    targets = [
        regression_metrics(rng.normal(size=20), rng.normal(size=20), np.arange(start, start + 20)) for start in (0, 10)
    ]
    mean = inference.mean_over_targets(targets, "r2")
    assert len(mean.patients) == 30
    assert point_values(mean)["r2"] == pytest.approx(np.mean([point_values(target)["r2"] for target in targets]))
    assert sample([mean], "r2", draws=20).sampled.shape == (1, 20)


@pytest.mark.parametrize(
    ("first", "second", "given", "text"),
    [
        (made([1]), made([1], patients=40), {"replicates": "none"}, "same patients"),
        (made([1, 2]), made([1]), {"replicates": "draws"}, "2 and 1 runs"),
        (made([1, 2]), made([1, 2]), {"replicates": "none"}, "2 runs"),
        (made([1, 2]), made([1, 2]), {"replicates": "folds", "share": 1.0}, "share is 1.0"),
        (made([1, 2]), made([1, 2]), {"replicates": "seeds", "share": 0.5}, "share is of"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: Sample, second: Sample, given: dict[str, object], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        difference(first, second, **given)  # type: ignore[arg-type]


def test_unknown_metrics_and_no_runs_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'auroc'; there are bias, calibration_slope"):
        sample(mae_runs(np.ones((1, 3))), "auroc")
    with pytest.raises(ArgumentError, match="no runs"):
        sample([], "mae")


def found(value: float, se: float = 1.0, unknown: tuple[str, ...] = ()) -> Difference:
    p = float(2 * stats.t.sf(abs(value) / se, 30))
    reach = float(stats.t.ppf(0.975, 30)) * se
    return Difference("mae", value, value - reach, value + reach, p, se, 30, {"patients": se**2}, unknown, 50, 50)


@pytest.mark.parametrize(
    ("value", "margin", "p", "expected"),
    [
        (3, None, None, "worse"),
        (-3, None, None, "better"),
        (-3, None, 0.2, "undecided"),
        (1, None, None, "undecided"),
        (1, 2, None, "undecided"),
        (0.2, 2, None, "equivalent"),
        (3, 10, None, "equivalent"),
        (3, 4, None, "worse"),
    ],
)
def test_verdict_of_an_error(value: float, margin: float | None, p: float | None, expected: str) -> None:
    one = found(value)
    p_equivalent = np.nan if margin is None else one.p_equivalent(margin)
    told = verdict(one, higher_is_better=False, p=one.p_value if p is None else p, p_equivalent=p_equivalent)
    assert told == expected


def test_verdict_of_a_score_and_of_an_unknown_training_set() -> None:
    assert verdict(found(3, unknown=("training",)), higher_is_better=True, p=0.01) == "better"
    assert verdict(found(3, unknown=("seeds",)), higher_is_better=True, p=0.01, p_equivalent=0.01) == "undecided"


@pytest.mark.parametrize(("value", "margin"), [(0.2, 2), (-1.4, 2), (3, 4), (0, 0.5), (5, 4)])
def test_equivalence_is_that_of_two_one_sided_tests(value: float, margin: float) -> None:
    one = found(value)
    both = stats.t.sf([value + margin, margin - value], 30)  # se is 1
    assert one.p_equivalent(margin) == pytest.approx(max(both))
    reach = stats.t.ppf(0.95, 30)
    assert (one.p_equivalent(margin) < 0.05) == (-margin < value - reach and value + reach < margin)


def test_shared_factor() -> None:
    assert shared_factor(0) == 0
    assert shared_factor(0.8) == pytest.approx(16 / 9)


# ---- equally good candidates are told apart rarely ----

SIMULATIONS = 80
AT_MOST = 9 / SIMULATIONS  # more has a probability of 1 % where 5 % are rejected, and of 93 % where 18 % are


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + 5 * np.eye(x.shape[1]), centred.T @ (y - y.mean()))
    return np.asarray(y.mean() + (new - x.mean(axis=0)) @ weights)


def views(rng: np.random.Generator, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    latent = rng.normal(size=(n, 4))
    noisy = [np.tile(latent, 3) + rng.normal(size=(n, 12)) for _ in range(2)]
    return noisy, latent[:, 0] + 0.5 * rng.normal(size=n)


def draws_p(rng: np.random.Generator) -> float:
    both, y = views(rng, 160)
    test = np.arange(100, 160)
    trained = [rng.choice(100, 20, replace=False) for _ in range(8)]
    runs = [mae_sample(np.array([ridge(x[t], y[t], x[test]) - y[test] for t in trained]), 100) for x in both]
    return difference(*runs, replicates="draws", share=0.2).p_value


def folds_p(rng: np.random.Generator) -> float:
    both, y = views(rng, 60)
    partitions = [rng.permutation(60) % 5 for _ in range(3)]

    def errors(x: np.ndarray, fold: np.ndarray) -> np.ndarray:
        out = np.empty(60)
        for k in range(5):
            out[fold == k] = ridge(x[fold != k], y[fold != k], x[fold == k]) - y[fold == k]
        return out

    runs = [mae_sample(np.array([errors(x, fold) for fold in partitions]), 100) for x in both]
    return difference(*runs, replicates="folds", share=0.8).p_value


def split_p(rng: np.random.Generator) -> float:
    both, y = views(rng, 160)
    test = np.arange(60, 160)
    subsets = [np.arange(60), *(rng.choice(60, 48, replace=False) for _ in range(6))]
    runs = [mae_sample(np.array([ridge(x[t], y[t], x[test]) - y[test] for t in subsets]), 100) for x in both]
    first = [replace(run, points=run.points[:1], sampled=run.sampled[:1]) for run in runs]
    refits = (runs[0].points[1:], runs[1].points[1:])
    return difference(*first, replicates="none", share=0.8, refits=refits).p_value


def seeds_p(rng: np.random.Generator) -> float:
    shared, runs = 0.6 * rng.normal(size=60), []
    for _ in range(2):
        own = shared + 0.4 * rng.normal(size=60)
        seeds = [own + 0.3 * rng.normal(size=60) + 0.2 * rng.normal() for _ in range(3)]
        runs.append(mae_sample(np.array(seeds), 100))
    return difference(*runs, replicates="seeds").p_value


@pytest.mark.parametrize("route", [draws_p, folds_p, split_p, seeds_p])
def test_equally_good_candidates_are_rarely_told_apart(route: object) -> None:
    p = np.array([route(np.random.default_rng([7, i])) for i in range(SIMULATIONS)])  # type: ignore[operator]
    assert (p < 0.05).mean() <= AT_MOST
    assert (p < 0.5).mean() > 0.2  # and it is not blind
