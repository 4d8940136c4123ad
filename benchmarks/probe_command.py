"""The whole command `panecho-embed probe linear` against the same work written plainly with scikit-learn.

    python benchmarks/probe_command.py                       a regression and a binary target, and the plain way
    python benchmarks/probe_command.py --targets 40          --target all: numbers, two classes, three classes
    python benchmarks/probe_command.py --keep folder/        leave the embedding file and the runs there

EchoNet-Dynamic's size: 7,465 + 1,288 + 1,277 rows of 768, one video a patient. The command's time is that of a new
process: imports, reading, selection, refit, test, 10,000 bootstraps of probe and baseline, tables, plots, report. The
plain way has the arrays in memory, selects with `RidgeCV` or `LogisticRegressionCV` on the validation rows, and makes
its intervals with a loop of 10,000 bootstraps over `sklearn.metrics`; it writes and draws nothing. "As fast" compares
seconds of CPU, so that other work on the machine does not decide it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn import metrics
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.store import EmbeddingWriter
from probes.linear import LOGISTIC_CS, RIDGE_ALPHAS

SIZES = {"train": 7465, "val": 1288, "test": 1277}
DIM = 768
MISSING = (0.0, 0.0, 0.05, 0.2, 0.4)  # share of the videos without a label: of the target's group, measured together
DRAWS = 10_000


def labels(signal: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A label a column of `signal` (N, T), of standard deviation 1: in turn a number, two classes, and three."""
    missing = [rng.random(len(signal)) < share for share in MISSING]
    columns: dict[str, np.ndarray] = {}
    for t, column in enumerate(signal.T):
        value = 0.8 * column + 0.6 * rng.normal(size=len(column))
        kind = ("number", "sign", "grade")[(0, 1, 0, 1, 2)[t % 5]]
        if kind == "number":
            given = 55 + 12 * value
        elif kind == "sign":
            given = (value > 0.7).astype(float)
        else:
            given = np.array(["none", "mild", "severe"], dtype=object)[np.digitize(value, [0.2, 1.2])]
        given[missing[t // 5 % len(MISSING)]] = "" if kind == "grade" else np.nan
        columns[f"{kind}{t:02d}"] = given
    return columns


def write_file(path: Path, targets: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """An embedding file; its values (N, D), labels and splits. The features' spectrum falls as that of embeddings."""
    rng = np.random.default_rng(0)
    split = np.repeat(list(SIZES), list(SIZES.values()))
    mixing = rng.normal(size=(DIM, DIM)) * np.exp(-np.arange(DIM) / 150)
    x = (rng.normal(size=(len(split), DIM)) @ mixing.T).astype(np.float32)
    signal = ((x - x.mean(axis=0)) / x.std(axis=0)) @ rng.normal(size=(DIM, targets))
    columns = labels(signal / signal.std(axis=0), rng)
    refs = tuple(VideoRef(f"v{i:05d}", f"s{i:05d}", f"p{i:05d}", f"{i}.avi", "A4C", s) for i, s in enumerate(split))
    weights = WeightsInfo("random (seed 0)", "0" * 64, "none", False)
    provenance = Provenance("random", weights, Feeding(), ClipPlan(num_clips=1), "clip", DIM)
    rows = np.arange(len(x))
    with EmbeddingWriter(path, provenance) as writer:
        writer.add(rows, x, np.zeros_like(rows), 1.0, np.full(len(x), 16))
        writer.finish(Manifest(refs, columns), [VideoFacts("done", "", 64, 30.0, "test")] * len(x), [])
    return x, columns, split


def command(file: Path, target: str, run: Path) -> tuple[float, float]:
    """Run the command in a separate process: seconds by the wall, and of all cores."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    words = [sys.executable, "-m", "panecho_embed", "probe", "linear", str(file), "--target", target, "-o", str(run)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plain(x: np.ndarray, y: np.ndarray, split: np.ndarray, draws: int) -> dict[str, float]:
    """The same with scikit-learn: select on the validation rows, refit, test, a loop of bootstraps. MAE or AUROC."""
    test = split == "test"
    holdout = PredefinedSplit(np.where(split[~test] == "val", 0, -1))
    scaler = StandardScaler().fit(x[~test])
    z, new = scaler.transform(x[~test]), scaler.transform(x[test])
    numbers = len(np.unique(y)) > 2
    if numbers:
        predicted = RidgeCV(RIDGE_ALPHAS, cv=holdout).fit(z, y[~test]).predict(new)
    else:
        model = LogisticRegressionCV(
            Cs=LOGISTIC_CS,
            cv=holdout,
            scoring="neg_log_loss",
            max_iter=1000,
            l1_ratios=(0,),
            use_legacy_attributes=False,
        )
        predicted = model.fit(z, y[~test]).predict_proba(new)[:, 1]
    score = _regression if numbers else _binary
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, test.sum(), size=(draws, test.sum()))
    values = np.array([score(y[test][rows], predicted[rows]) for rows in drawn])
    low, high = np.percentile(values[:, 0], [2.5, 97.5])
    return {"value": score(y[test], predicted)[0], "low": low, "high": high}


def _regression(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    error = predicted - truth
    spread = 1.96 * error.std(ddof=1)
    return [
        metrics.mean_absolute_error(truth, predicted),
        metrics.root_mean_squared_error(truth, predicted),
        metrics.r2_score(truth, predicted),
        np.corrcoef(truth, predicted)[0, 1],
        error.mean(),
        error.mean() - spread,
        error.mean() + spread,
        np.polyfit(predicted, truth, 1)[0],
    ]


def _binary(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    false, found, _ = metrics.roc_curve(truth, predicted)
    called = predicted >= 0.5
    return [
        metrics.roc_auc_score(truth, predicted),
        metrics.average_precision_score(truth, predicted),
        found[false <= 0.1].max(),
        metrics.balanced_accuracy_score(truth, called),
        metrics.f1_score(truth, called),
        metrics.brier_score_loss(truth, predicted),
    ]


def compare(folder: Path, draws: int) -> None:
    """One regression and one binary target, each the plain way and by the command."""
    x, columns, split = write_file(folder / "two.h5", 2)
    columns_of_times = "".join(f"{name:>15s}" for name in ("command, s", "CPU s", "plain, s", "CPU s", "as fast"))
    print(f"{'target':10s}{columns_of_times}  value (95 % interval) of both")
    for name, y in columns.items():
        wall, cpu = command(folder / "two.h5", name, folder / name)
        start, start_cpu = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = plain(x.astype(np.float64), y, split, draws)
        seconds, seconds_cpu = time.perf_counter() - start, time.process_time() - start_cpu
        scores = json.loads((folder / name / "metrics.json").read_text())["targets"][name]["metrics"]
        ours = scores["mae" if "mae" in scores else "auroc"]
        shown = "; ".join(f"{s['value']:.4f} ({s['low']:.4f} to {s['high']:.4f})" for s in (ours, theirs))
        times = "".join(f"{value:15.1f}" for value in (wall, cpu, seconds, seconds_cpu, seconds_cpu / cpu))
        print(f"{name:10s}{times}  {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, help="so many, by the command alone")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of the plain way")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.targets is None:
            compare(folder, arguments.draws)
            return
        _, columns, _ = write_file(folder / "many.h5", arguments.targets)
        wall, cpu = command(folder / "many.h5", "all", folder / "all")
        print(f"{len(columns)} targets: {wall:.1f} s, {cpu:.1f} s of all cores")


if __name__ == "__main__":
    main()
