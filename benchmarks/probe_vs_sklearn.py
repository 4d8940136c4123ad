"""The linear probe against scikit-learn's RidgeCV and LogisticRegressionCV: the same work, values equal, time apart.

    python benchmarks/probe_vs_sklearn.py            EchoNet-Dynamic's size: 7,465 + 1,288 + 1,277 rows of 768
    python benchmarks/probe_vs_sklearn.py --targets 40

Same rows, same standardisation, same grid, same folds. scikit-learn standardises inside each fold with a Pipeline, as a
careful user would write it. It has no bound on standardised features, so values are compared with `bound=None`; times
are of that and of the default bound, by the wall and of all cores (which other work on the machine disturbs less).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from panecho_embed.evaluation.inference import scores
from panecho_embed.evaluation.metrics import target_metrics
from panecho_embed.evaluation.splits import grouped_folds
from panecho_embed.evaluation.targets import Target
from probes.linear import LOGISTIC_CS, RIDGE_ALPHAS, LinearProbe

TRAIN, VALIDATION, TEST, DIM = 7465, 1288, 1277, 768


def synthetic(targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Features with a spectrum that falls like that of real embeddings, and targets that a third of them tell."""
    rng = np.random.default_rng(0)
    n = TRAIN + VALIDATION + TEST
    mixing = rng.normal(size=(DIM, DIM)) * np.exp(-np.arange(DIM) / 150)
    x = (rng.normal(size=(n, DIM)) @ mixing.T).astype(np.float32)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    signal = z @ rng.normal(size=(DIM, targets))
    return x, 55 + 12 * (0.8 * signal / signal.std(axis=0) + 0.6 * rng.normal(size=signal.shape))


def timed(label: str, work: Callable[[], Any]) -> Any:
    """Run, print seconds by the wall and of all cores, give the result."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"{label:62s}{wall:9.2f} s {cpu:9.2f} s CPU", flush=True)
    return result


NUMBER, YES_NO = Target("X", "regression"), Target("X", "binary", ("no", "yes"))


def holdout() -> np.ndarray:
    return np.r_[np.full(TRAIN, -1), np.zeros(VALIDATION, dtype=int)]


def single(x: np.ndarray, y: np.ndarray) -> None:
    learn, test = slice(0, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None)
    patients = np.arange(TEST)

    def ours_regression() -> LinearProbe:
        probe = LinearProbe().fit(x[learn], y[learn], holdout=holdout())
        scores(target_metrics(NUMBER, y[test], probe.predict(x[test]), patients))
        return probe

    def ours_binary() -> LinearProbe:
        probe = LinearProbe("binary").fit(x[learn], y[learn] < 50, holdout=holdout())
        scores(target_metrics(YES_NO, y[test] < 50, probe.predict_proba(x[test])[:, 1], patients, threshold=0.5))
        return probe

    print("\nGiven validation set, whole grid, refit, test metrics, 10,000 bootstraps")
    timed("ours, regression", ours_regression)
    timed("ours, binary", ours_binary)

    print("\nSelection and refit alone, five folds, the same folds and grid")
    folds = grouped_folds(np.arange(TRAIN), y[:TRAIN], 5, discrete=False)
    split = PredefinedSplit(folds)
    timed("ours, ridge, with the default bound", lambda: LinearProbe().fit(x[:TRAIN], y[:TRAIN], holdout=folds))
    ours = timed(
        "ours, ridge, without a bound", lambda: LinearProbe(bound=None).fit(x[:TRAIN], y[:TRAIN], holdout=folds)
    )
    grid = {"ridge__alpha": RIDGE_ALPHAS}
    pipeline = make_pipeline(StandardScaler(), Ridge())
    search = GridSearchCV(pipeline, grid, cv=split, scoring="neg_mean_squared_error")
    theirs = timed(
        "scikit-learn, GridSearchCV(StandardScaler, Ridge)", lambda: search.fit(x[:TRAIN].astype(np.float64), y[:TRAIN])
    )
    report_difference(ours, theirs.best_estimator_, x[test], "predict")
    z = StandardScaler().fit_transform(x[:TRAIN].astype(np.float64))
    timed(
        "scikit-learn, RidgeCV, the same folds (standardised once)",
        lambda: RidgeCV(RIDGE_ALPHAS, cv=split).fit(z, y[:TRAIN]),
    )
    timed("scikit-learn, RidgeCV, leave-one-out (standardised once)", lambda: RidgeCV(RIDGE_ALPHAS).fit(z, y[:TRAIN]))

    low = (y[:TRAIN] < 50).astype(int)
    timed("ours, logistic, with the default bound", lambda: LinearProbe("binary").fit(x[:TRAIN], low, holdout=folds))
    ours = timed(
        "ours, logistic, without a bound",
        lambda: LinearProbe("binary", bound=None).fit(x[:TRAIN], low, holdout=folds),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = timed("scikit-learn, LogisticRegressionCV (standardised once)", lambda: logistic_cv(split).fit(z, low))
    final = make_pipeline(StandardScaler(), LogisticRegression(C=ours.strength_, tol=1e-8, max_iter=10_000))
    report_difference(ours, final.fit(x[:TRAIN].astype(np.float64), low), x[test], "predict_proba")
    chosen = float(np.ravel(theirs.C_)[0])
    print(f"  C: ours {ours.strength_:g}, scikit-learn {chosen:g}")


def logistic_cv(split: PredefinedSplit) -> LogisticRegressionCV:
    return LogisticRegressionCV(
        Cs=LOGISTIC_CS, cv=split, scoring="neg_log_loss", max_iter=1000, l1_ratios=(0,), use_legacy_attributes=False
    )


def report_difference(ours: LinearProbe, theirs: Any, x: np.ndarray, method: str) -> None:
    difference = np.abs(getattr(ours, method)(x) - getattr(theirs, method)(x)).max()
    print(f"  largest difference of {method} on the test rows: {difference:.2e}")


def many(x: np.ndarray, y: np.ndarray) -> None:
    learn, test = slice(0, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None)
    patients, half = np.arange(TEST), y.shape[1] // 2

    def work() -> None:
        for t in range(y.shape[1]):
            if t < half:
                probe = LinearProbe().fit(x[learn], y[learn, t], holdout=holdout())
                scores(target_metrics(NUMBER, y[test, t], probe.predict(x[test]), patients))
            else:
                probe = LinearProbe("binary").fit(x[learn], y[learn, t] < 50, holdout=holdout())
                scores(
                    target_metrics(YES_NO, y[test, t] < 50, probe.predict_proba(x[test])[:, 1], patients, threshold=0.5)
                )

    print(f"\n{half} regressions and {y.shape[1] - half} binary targets, one after the other, everything included")
    timed(f"ours, {y.shape[1]} targets", work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=1)
    targets = parser.parse_args().targets
    x, y = synthetic(targets)
    if targets == 1:
        single(x, y[:, 0])
    else:
        many(x, y)


if __name__ == "__main__":
    main()
