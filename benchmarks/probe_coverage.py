"""Do 95 % intervals contain the true value in 95 of 100 simulations? Patients with several videos, known truth.

    python benchmarks/probe_coverage.py                   MAE and AUROC by number of patients, probe_coverage.png
    python benchmarks/probe_coverage.py --simulations 100 --patients 50 200
    python benchmarks/probe_coverage.py --classes         AUROC, average precision, sensitivity, ... of rare classes
    python benchmarks/probe_coverage.py --classes --fast  the same with 200 simulations per cell

Videos of one patient share an error. Intervals that take rows for independent are too narrow.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from panecho_embed.evaluation.estimates import Estimates, decision_estimates, ranking_part, ranking_values
from panecho_embed.evaluation.inference import scores
from panecho_embed.evaluation.metrics import Metrics, target_metrics
from panecho_embed.evaluation.targets import Target

VIDEOS_EACH = 8

AUROCS = (0.7, 0.8, 0.9, 0.95, 0.967, 0.98)
POSITIVES = (10, 20, 50, 100, 200)
PREVALENCES = (0.05, 0.2, 0.5)
ROWS = ("one", "several", "either")


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
    target = Target("X", "regression") if kind == "mae" else Target("X", "binary", ("no", "yes"))
    return target_metrics(target, truth, prediction, patient, threshold=0.5)


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
            # The interval of AUROC needs no bootstrap.
            score = scores(make(kind, truth, prediction, units), draws=draws if kind == "mae" else 1, seed=i)[kind]
            hits[way] += score.low <= truth_value <= score.high
    by_patient, by_row = hits / simulations
    return float(by_patient), float(by_row)


@dataclass(frozen=True)
class Cell:
    """A binormal setting.

    positives: patients with the disease. rows: "one" per patient; "several", one to six, of the patient's class;
    "either", one to six, 30 % of which are of a class drawn again. spread: SD of the positives' scores, the negatives'
    being 1. The patient has 60 % of the variance of a score.
    """

    auroc: float
    positives: int
    prevalence: float
    rows: str
    spread: float = 1.0

    @property
    def shift(self) -> float:
        from scipy.special import ndtri

        return float(ndtri(self.auroc) * np.hypot(1, self.spread))

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Class, score and patient of each row."""
        count = round(self.positives / self.prevalence)
        sizes = np.ones(count, dtype=int) if self.rows == "one" else rng.integers(1, 7, size=count)
        patient = np.repeat(np.arange(count), sizes)
        positive = patient < self.positives
        if self.rows == "either":
            anew = rng.random(len(patient)) < 0.3
            positive = np.where(anew, rng.random(len(patient)) < self.prevalence, positive)
        error = np.sqrt(0.6) * rng.normal(size=count)[patient] + np.sqrt(0.4) * rng.normal(size=len(patient))
        return positive, np.where(positive, self.shift + self.spread * error, error), patient

    def truth(self) -> dict[str, float]:
        """The metrics of the process: areas by numerical integration, decisions at half of the shift."""
        from scipy.integrate import quad
        from scipy.stats import norm

        high, low, p = norm(self.shift, self.spread), norm(0, 1), self.prevalence
        at = self.shift / 2
        hit, false = float(high.sf(at)), float(low.sf(at))

        def weighted_precision(x: float) -> float:
            return float(high.pdf(x) * p * high.sf(x) / (p * high.sf(x) + (1 - p) * low.sf(x)))

        ends = self.shift - 8 * self.spread, self.shift + 8 * self.spread
        return {
            "auroc": self.auroc,
            "average_precision": quad(weighted_precision, *ends, limit=400)[0],
            "sensitivity_at_specificity": float(high.sf(low.ppf(0.9))),
            "sensitivity": hit,
            "specificity": 1 - false,
            "ppv": p * hit / (p * hit + (1 - p) * false),
            "npv": (1 - p) * (1 - false) / ((1 - p) * (1 - false) + p * (1 - hit)),
            "balanced_accuracy": (1 + hit - false) / 2,
            "f1": 2 * p * hit / (p + p * hit + (1 - p) * false),
        }

    def estimates(self, rng: np.random.Generator) -> Estimates:
        """The metrics of one sample, with intervals."""
        positive, score, patient = self.sample(rng)
        count = int(patient[-1]) + 1
        ranking = ranking_part(positive, score, patient, count, ranking_values(0.9))
        return ranking.estimate() | decision_estimates(positive, score >= self.shift / 2, patient, count)


def class_coverage(cell: Cell, simulations: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """By metric: how often the interval contains the true value, and its mean width."""
    truth = cell.truth()
    hits = {name: np.zeros(2) for name in truth}
    made = dict.fromkeys(truth, 0)
    for i in range(simulations):
        for name, one in cell.estimates(np.random.default_rng([seed, i])).items():
            hits[name] += one.low <= truth[name] <= one.high, one.high - one.low
            made[name] += 1
    return {name: (float(sums[0] / made[name]), float(sums[1] / made[name])) for name, sums in hits.items()}


def cells(prevalences: tuple[float, ...] = PREVALENCES, rows: tuple[str, ...] = ROWS) -> Iterator[Cell]:
    """Every setting of the table."""
    return (Cell(*setting) for setting in product(AUROCS, POSITIVES, prevalences, rows))


def print_classes(results: dict[Cell, dict[str, tuple[float, float]]]) -> None:
    """One table per metric: the lowest and highest coverage over prevalences and rows, in per cent."""
    for metric in next(iter(results.values())):
        print(f"\n{metric}: coverage in %, lowest to highest over prevalences and rows per patient")
        print("AUROC " + "".join(f"{positives:>14d}" for positives in POSITIVES) + "  positive patients")
        for auroc in AUROCS:
            line = []
            for positives in POSITIVES:
                found = [100 * r[metric][0] for c, r in results.items() if (c.auroc, c.positives) == (auroc, positives)]
                line.append(f"{min(found):6.1f} to{max(found):5.1f}" if found else "")
            print(f"{auroc:<6g}" + "".join(f"{text:>14s}" for text in line))
        enough = [r[metric][0] for c, r in results.items() if c.positives >= 20]
        print(f"20 positives or more, {len(enough)} cells: lowest {100 * min(enough):.1f}, mean "
              f"{100 * np.mean(enough):.1f}; {sum(c < 0.93 for c in enough)} below 93, "
              f"{sum(c > 0.97 for c in enough)} above 97 (conservative)")  # fmt: skip


def draw(results: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for place, (kind, rows) in enumerate(results.items()):
        axes = figure.add_subplot(1, len(results), place + 1)
        sizes, by_patient, by_row = (np.array(column) for column in zip(*rows, strict=True))
        axes.axhspan(93, 97, color="#8593a1", alpha=0.2, linewidth=0)
        axes.axhline(95, color="#8593a1", linewidth=1, linestyle="--")
        axes.plot(sizes, 100 * by_patient, marker="o", color="#2166ac", label="patients as clusters")
        axes.plot(sizes, 100 * by_row, marker="o", color="#c8553d", label="rows as independent")
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
    parser.add_argument("-o", "--out", type=Path, default=Path("probe_coverage.png"))
    parser.add_argument("--classes", action="store_true", help="metrics of two classes instead of MAE and AUROC")
    parser.add_argument("--fast", action="store_true", help="200 simulations per cell")
    arguments = parser.parse_args()
    simulations = 200 if arguments.fast else arguments.simulations
    if arguments.classes:
        print_classes({cell: class_coverage(cell, simulations) for cell in cells()})
        return
    results: dict[str, list[tuple[int, float, float]]] = {"mae": [], "auroc": []}
    print(f"{'metric':8s}{'patients':>9s}{'by patient':>12s}{'by row':>8s}")
    for kind, rows in results.items():
        for patients in arguments.patients:
            by_patient, by_row = coverage(kind, patients, simulations, arguments.draws)
            rows.append((patients, by_patient, by_row))
            print(f"{kind:8s}{patients:9d}{by_patient:12.3f}{by_row:8.3f}", flush=True)
    draw(results, arguments.out)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
