"""Intervals, differences and p-values: against a slow plain bootstrap, by hand, in null simulations; verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from panecho_embed.core.errors import ArgumentError
from panecho_embed.evaluation import inference, metrics
from panecho_embed.evaluation.inference import Difference, Sample, difference, sample, shared_factor, verdict
from panecho_embed.evaluation.metrics import Metrics, point_values
from tests.evaluation.made import binary_metrics, regression_metrics
from tests.evaluation.test_metrics import binary_sample, regression_sample


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


def paired(a: metrics.Metrics, b: metrics.Metrics, draws: int = 100) -> Difference:
    """The difference in MAE of two models, each trained once."""
    one, other = (sample([model], "mae", draws=draws) for model in (a, b))
    return difference(one, other, replicates="none")


@pytest.mark.parametrize(
    ("make", "sample", "plain"),
    [
        (regression_metrics, regression_sample(), {"mae": sk.mean_absolute_error, "r2": sk.r2_score}),
        (
            binary_metrics,
            binary_sample(ties=True),
            {"auroc": sk.roc_auc_score, "average_precision": sk.average_precision_score, "brier": sk.brier_score_loss},
        ),
    ],
)
def test_bootstraps_equal_a_plain_loop_over_drawn_patients(
    make: Callable[..., metrics.Metrics], sample: tuple[np.ndarray, ...], plain: dict[str, Callable[..., float]]
) -> None:
    truth, prediction, patients = sample
    model = make(truth, prediction, patients)
    fast = inference.bootstrap([model], draws=60, seed=3)[0]
    weights = np.concatenate(list(inference.patient_weights(len(model.patients), 60, 3)))
    for draw, weight in enumerate(weights):
        rows = np.concatenate(
            [
                np.flatnonzero(patients == who)
                for who, w in zip(model.patients, weight, strict=True)
                for _ in range(int(w))
            ]
        )
        for name, metric in plain.items():
            assert fast[name][draw] == pytest.approx(metric(truth[rows], prediction[rows])), name


def test_interval_is_the_central_95_percent_of_the_bootstraps() -> None:
    model = regression_metrics(*regression_sample())
    score = inference.scores(model, draws=500, seed=1)["mae"]
    sampled = inference.bootstrap([model], draws=500, seed=1)[0]["mae"]
    assert (score.low, score.high) == pytest.approx(np.percentile(sampled, [2.5, 97.5]))


def test_each_draw_has_as_many_patients_as_there_are() -> None:
    weights = np.concatenate(list(inference.patient_weights(37, 200, seed=0, width=500_000)))
    assert weights.shape == (200, 37)
    assert (weights.sum(axis=1) == 37).all()


def test_same_seed_same_interval() -> None:
    model = regression_metrics(*regression_sample())
    assert inference.scores(model, draws=200, seed=5) == inference.scores(model, draws=200, seed=5)
    assert inference.scores(model, draws=200, seed=5) != inference.scores(model, draws=200, seed=6)


def test_ten_videos_of_one_patient_do_not_narrow_the_interval() -> None:
    truth, prediction, _ = regression_sample()
    patients = np.arange(len(truth))
    once = inference.scores(regression_metrics(truth, prediction, patients), draws=1000)["mae"]
    copied = regression_metrics(truth.repeat(10), prediction.repeat(10), patients.repeat(10))
    ten = inference.scores(copied, draws=1000)["mae"]
    assert (ten.low, ten.high) == pytest.approx((once.low, once.high))
    assert (ten.n, ten.n_patients) == (10 * len(truth), len(truth))


def test_paired_difference_of_a_model_with_itself_is_zero_and_not_significant() -> None:
    model = regression_metrics(*regression_sample())
    found = paired(model, model, draws=200)
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_paired_difference_sees_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    truth, prediction, patients = regression_sample(200)
    slightly_worse = prediction + np.sign(prediction - truth) * rng.uniform(0, 0.5, 200)
    a = regression_metrics(truth, prediction, patients)
    b = regression_metrics(truth, slightly_worse, patients)
    assert inference.scores(a, draws=1000)["mae"].high > inference.scores(b, draws=1000)["mae"].low
    found = paired(a, b, draws=1000)
    assert found.high < 0
    assert found.p_value < 0.01


def test_paired_differences_refuse_other_patients() -> None:
    truth, prediction, patients = regression_sample()
    a = regression_metrics(truth, prediction, patients)
    b = regression_metrics(truth, prediction, patients + 1)
    with pytest.raises(ArgumentError, match="same patients"):
        paired(a, b)


def test_draws_without_a_positive_are_left_out_of_the_interval() -> None:
    sampled = np.r_[np.full(400, np.nan), np.linspace(0, 1, 601)]
    assert inference.percentile_interval(sampled, 32) == pytest.approx((0.025, 0.975))
    assert np.isnan(inference.percentile_interval(np.r_[sampled, np.full(400, np.nan)], 32)).all()


def test_intervals_of_an_order_do_not_depend_on_the_seed() -> None:
    model = binary_metrics(*binary_sample(ties=True))
    one, other = (inference.scores(model, draws=50, seed=seed) for seed in (1, 2))
    for name in ("auroc", "average_precision", "sensitivity_at_specificity"):
        assert one[name] == other[name]


def test_no_interval_of_an_order_has_no_width() -> None:
    truth = np.r_[1, 1, np.zeros(30)]
    found = inference.scores(binary_metrics(truth, np.linspace(1, 0, 32), np.arange(32)), draws=50)
    for name in ("auroc", "average_precision", "sensitivity_at_specificity"):
        assert found[name].value == found[name].high == 1
        assert found[name].low < 0.2


def test_a_class_that_is_not_there_gives_no_interval() -> None:
    found = inference.scores(binary_metrics(np.zeros(32), np.linspace(1, 0, 32), np.arange(32)), draws=50)
    assert np.isnan(found["auroc"].value)
    assert np.isnan(found["auroc"].low)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("auroc:mild", "Newcombe"),
        ("auroc_below_40", "Newcombe"),
        ("sensitivity", "Clopper"),
        ("f1:mild", "Clopper"),
        ("mae", "percentile intervals of a bootstrap over patients"),
    ],
)
def test_the_method_of_an_interval_is_named(metric: str, words: str) -> None:
    assert words in inference.interval_method(metric)


def test_one_patient_gives_no_interval() -> None:
    truth, prediction, _ = regression_sample()
    score = inference.scores(regression_metrics(truth, prediction, np.zeros(len(truth))), draws=50)["mae"]
    assert np.isnan(score.low)
    assert score.value == pytest.approx(np.abs(truth - prediction).mean())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p: list[float]) -> None:
    adjusted = inference.holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(1, np.array(p) * len(p)) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_holm_on_a_worked_example() -> None:
    assert inference.holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)


def test_one_patient_gives_no_p_value() -> None:
    y = np.arange(5.0)
    one, other = (regression_metrics(y, y + error, ["p"] * 5) for error in (0.1, 0.2))
    assert np.isnan(paired(one, other, draws=50).p_value)
