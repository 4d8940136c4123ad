"""Does a 95 % interval cover the truth 95 times in 100? Patients with several videos, known truth, both bootstraps.

    python benchmarks/probe_coverage.py                      prints the table, writes docs/probe_coverage.png
    python benchmarks/probe_coverage.py --simulations 100 --patients 50 200

Videos of one patient share an error. The row-level bootstrap takes them for independent and is too sure of itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from panecho_embed.evaluation.intervals import scores
from panecho_embed.evaluation.metrics import Metrics, binary_metrics, regression_metrics

VIDEOS_EACH = 8


def simulate(rng: np.random.Generator, patients: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth and prediction per video, and the patient; half of the error's variance is the patient's."""
    patient = np.repeat(np.arange(patients), VIDEOS_EACH)
    shared, own = rng.normal(size=patients)[patient], rng.normal(size=len(patient))
    if kind == "mae":
        truth = 55 + 10 * rng.normal(size=patients)[patient]
        return truth, truth + 6 * np.sqrt(0.5) * (shared + own), patient
    truth = (rng.random(patients) < 0.4)[patient].astype(float)
    logit = 1.2 * truth + np.sqrt(0.5) * (shared + own)
    return truth, 1 / (1 + np.exp(-logit)), patient


def make(kind: str, truth: np.ndarray, prediction: np.ndarray, patient: np.ndarray) -> Metrics:
    metrics = regression_metrics if kind == "mae" else binary_metrics
    return metrics(truth, prediction, patient)


def known_value(kind: str) -> float:
    """The metric of the process itself, from its closed form."""
    if kind == "mae":
        return float(6 * np.sqrt(2 / np.pi))
    from scipy.stats import norm

    return float(norm.cdf(1.2 / np.sqrt(2)))


def coverage(kind: str, patients: int, simulations: int, draws: int, seed: int = 0) -> tuple[float, float]:
    """How often the interval holds the known value: with patient clusters, and with rows taken for independent."""
    truth_value = known_value(kind)
    hits = np.zeros(2)
    for i in range(simulations):
        rng = np.random.default_rng([seed, patients, i])
        truth, prediction, patient = simulate(rng, patients, kind)
        for way, units in enumerate((patient, np.arange(len(patient)))):
            score = scores(make(kind, truth, prediction, units), draws=draws, seed=i)[kind]
            hits[way] += score.low <= truth_value <= score.high
    by_patient, by_row = hits / simulations
    return float(by_patient), float(by_row)


def draw(results: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for place, (kind, rows) in enumerate(results.items()):
        axes = figure.add_subplot(1, len(results), place + 1)
        sizes, by_patient, by_row = (np.array(column) for column in zip(*rows, strict=True))
        axes.axhspan(93, 97, color="#8593a1", alpha=0.2, linewidth=0)
        axes.axhline(95, color="#8593a1", linewidth=1, linestyle="--")
        axes.plot(sizes, 100 * by_patient, marker="o", color="#2166ac", label="bootstrap over patients")
        axes.plot(sizes, 100 * by_row, marker="o", color="#c8553d", label="bootstrap over rows")
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(50, 101)
        axes.set_title({"mae": "MAE", "auroc": "AUROC"}[kind], fontsize=10)
        axes.set_xlabel(f"patients, {VIDEOS_EACH} videos each")
        axes.set_ylabel("coverage of the 95 % interval, %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 20, 30, 50, 100, 200, 400])
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/probe_coverage.png"))
    arguments = parser.parse_args()
    results: dict[str, list[tuple[int, float, float]]] = {"mae": [], "auroc": []}
    print(f"{'metric':8s}{'patients':>9s}{'by patient':>12s}{'by row':>8s}")
    for kind, rows in results.items():
        for patients in arguments.patients:
            by_patient, by_row = coverage(kind, patients, arguments.simulations, arguments.draws)
            rows.append((patients, by_patient, by_row))
            print(f"{kind:8s}{patients:9d}{by_patient:12.3f}{by_row:8.3f}", flush=True)
    draw(results, arguments.out)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
