"""How often are two equally good candidates told apart, and how often is a real difference found?

    python benchmarks/null_bench.py                1,000 comparisons per route; about 20 minutes on 2 cores
    python benchmarks/null_bench.py --quick        40 per route; one to two minutes on 2 idle cores
    python benchmarks/null_bench.py --routes seeds --simulations 5000

Probes: two embeddings are noisy views of the same latent state with noise of the same size, so they are equally good.
The probes are fitted and tested by the functions that `panecho-embed probe compare` calls. Fine-tuned models:
predictions are the truth, an error of the patient that both candidates share, one of the candidate, and one of the seed
(per patient, and a bias and a slope for all patients). All patients, draws, folds and seeds are new in every
simulation. Set OMP_NUM_THREADS=1.

Power: the same simulations after the first candidate's predictions have been moved towards the truth, by a quarter or
a half of the standard deviation over patients: of the absolute errors (MAE), or of the scores within a class (AUROC).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import binomtest

from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.inference import Replicates, Sample, difference, sample
from panecho_embed.evaluation.metrics import Metrics, target_metrics
from panecho_embed.evaluation.splits import Fold, kfold
from panecho_embed.evaluation.targets import Target
from probes.linear import LinearProbe
from probes.plans import fit_fold, predict_units
from probes.problem import Problem, load_problem

DIM, LATENT = 32, 8
BOOTSTRAPS = 400
SHOTS, DRAWS = 10, 20
FOLDS, REPEATS = 5, 5
REFITS, REFIT_SHARE = 10, 0.8
# Noise of the embeddings and of the label, which set how good a probe gets.
KINDS = {"MAE": (1.0, 0.5), "AUROC .7": (1.0, 1.0), "AUROC .95": (0.5, 0.15)}
SHIFTS = (0.0, 0.25, 0.5)

Row = tuple[int, float, float]  # replicates, shift, p-value


# ---- the probes, as the commands call them ----


def make_problem(values: np.ndarray, truth: np.ndarray) -> Problem:
    """One video per patient."""
    n = len(truth)
    names, empty = np.array([f"p{i:04d}" for i in range(n)], dtype=object), np.full(n, "", dtype=object)
    weights = WeightsInfo("random (seed 0)", "0" * 64, "none", False)
    provenance = Provenance("random", weights, Feeding(), None, "video", values.shape[1], pooling="mean")
    table = EmbeddingTable(
        values=values.astype(np.float32),
        video_id=names,
        study_id=names,
        patient_id=names,
        view=empty,
        split=empty,
        first_frame=np.zeros(n, dtype=np.int64),
        frame_step=np.zeros(n),
        frames_per_clip=np.zeros(n, dtype=np.int64),
        labels={"y": truth},
        level="video",
        provenance=provenance,
    )
    return load_problem(table, "y")


def predict(problem: Problem, binary: bool, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Train on some units, choosing settings on inner folds of them, and predict others.

    A logistic regression of one strength: to choose one among eleven would take an hour.
    """
    probe = LinearProbe("binary", strengths=(0.1,)) if binary else LinearProbe()
    fitted, _ = fit_fold(problem, probe, Fold("", train, np.empty(0, dtype=np.int64), test))
    return predict_units(problem, fitted, test)


# ---- one simulation of each route: (name, n, R, shift) -> p-value ----


@dataclass(frozen=True)
class Route:
    """kind: of KINDS. n: patients to train on (draws, none) or in all (folds). tested: patients of the test set."""

    replicates: Replicates
    kind: str
    n: int
    tested: int
    counts: tuple[int, ...]

    @property
    def name(self) -> str:
        return {"draws": f"{SHOTS}-shot", "folds": "5 folds", "none": "one split", "seeds": "seeds"}[self.replicates]

    @property
    def patients(self) -> str:
        return (
            f"{self.n}" if self.replicates == "folds" else f"{self.n} + {self.tested}" if self.n else f"{self.tested}"
        )


def simulate(route: Route, number: int) -> list[Row]:
    """(R, shift, p-value) of one simulated comparison."""
    rng = np.random.default_rng([number, route.n, route.tested, list(KINDS).index(route.kind)])
    run = {"draws": simulate_draws, "folds": simulate_folds, "none": simulate_split, "seeds": simulate_seeds}
    return list(run[route.replicates](route, rng))


def embeddings(rng: np.random.Generator, n: int, kind: str) -> tuple[list[np.ndarray], np.ndarray]:
    noise, label_noise = KINDS[kind]
    view = 2 * np.linalg.qr(rng.normal(size=(DIM, LATENT)))[0]
    direction = rng.normal(size=LATENT)
    latent = rng.normal(size=(n, LATENT))
    truth = latent @ (direction / np.linalg.norm(direction)) + label_noise * rng.normal(size=n)
    if kind != "MAE":
        truth = (truth > 0.25 * np.hypot(1, label_noise)).astype(float)
    return [latent @ view.T + noise * rng.normal(size=(n, DIM)) for _ in range(2)], truth


def make_metrics(kind: str, truth: np.ndarray, prediction: np.ndarray) -> Metrics:
    target = Target("X", "regression") if kind == "MAE" else Target("X", "binary", ("no", "yes"))
    return target_metrics(target, truth, prediction, np.arange(len(truth)), threshold=0.5)


def better(kind: str, truth: np.ndarray, prediction: np.ndarray, shift: float) -> np.ndarray:
    """Predictions moved towards the truth by `shift` standard deviations over patients."""
    if shift == 0:
        return prediction
    if kind == "MAE":
        error = prediction - truth
        size = np.abs(error)
        return np.asarray(truth + error * (1 - shift * size.std() / size.mean()))
    logit = np.log(prediction / (1 - prediction))
    spread = np.sqrt(np.mean([logit[truth == c].var() for c in (0, 1)]))
    return np.asarray(1 / (1 + np.exp(-(logit + shift * spread * truth))))


def p_values(
    route: Route,
    truth: np.ndarray,
    runs: Sequence[Sequence[np.ndarray]],
    share: float | None,
    refits: Sequence[Sequence[np.ndarray]] = (),
) -> Iterator[Row]:
    metric = "mae" if route.kind == "MAE" else "auroc"

    def sampled(predictions: Sequence[np.ndarray], shift: float) -> Sample:
        moved = [better(route.kind, truth, prediction, shift) for prediction in predictions]
        return sample([make_metrics(route.kind, truth, one) for one in moved], metric, draws=BOOTSTRAPS)

    second = sampled([b for _, b in runs], 0)
    for shift in SHIFTS:
        first = sampled([a for a, _ in runs], shift)
        again: tuple[np.ndarray, np.ndarray] | None = None
        if refits:
            again = (sampled([a for a, _ in refits], shift).points, sampled([b for _, b in refits], 0).points)
        for count in route.counts:
            taken = slice(None) if route.replicates == "none" else slice(count)
            pair = (some_runs(first, taken), some_runs(second, taken))
            yield count, shift, difference(*pair, replicates=route.replicates, share=share, refits=again).p_value


def some_runs(whole: Sample, runs: slice) -> Sample:
    return replace(whole, points=whole.points[runs], sampled=whole.sampled[runs])


def simulate_draws(route: Route, rng: np.random.Generator) -> Iterator[Row]:
    views, truth = embeddings(rng, route.n + route.tested, route.kind)
    problems = [make_problem(values, truth) for values in views]
    test = np.arange(route.n, route.n + route.tested)
    binary, pool = route.kind != "MAE", truth[: route.n]
    strata = [np.flatnonzero(pool == c) for c in (0, 1)] if binary else [np.arange(route.n)]
    size = SHOTS if binary else 2 * SHOTS
    runs = []
    for _ in range(max(route.counts)):
        train = np.sort(np.concatenate([rng.choice(stratum, size, replace=False) for stratum in strata]))
        runs.append(tuple(predict(problem, binary, train, test) for problem in problems))
    yield from p_values(route, truth[test], runs, max(size / len(stratum) for stratum in strata))


def simulate_folds(route: Route, rng: np.random.Generator) -> Iterator[Row]:
    views, truth = embeddings(rng, route.n, route.kind)
    problems = [make_problem(values, truth) for values in views]
    binary = route.kind != "MAE"
    runs = []
    for repeat in range(max(route.counts)):
        predictions = (np.empty(route.n), np.empty(route.n))
        for fold in kfold(problems[0].patient, truth, FOLDS, discrete=binary, seed=repeat):
            for problem, prediction in zip(problems, predictions, strict=True):
                prediction[fold.test] = predict(problem, binary, fold.train, fold.test)
        runs.append(predictions)
    yield from p_values(route, truth, runs, (FOLDS - 1) / FOLDS)


def simulate_split(route: Route, rng: np.random.Generator) -> Iterator[Row]:
    views, truth = embeddings(rng, route.n + route.tested, route.kind)
    problems = [make_problem(values, truth) for values in views]
    test, binary = np.arange(route.n, route.n + route.tested), route.kind != "MAE"
    runs = []
    for refit in range(1 + route.counts[0]):
        train = np.arange(route.n)
        if refit:
            train = np.sort(rng.choice(route.n, round(REFIT_SHARE * route.n), replace=False))
        runs.append(tuple(predict(problem, binary, train, test) for problem in problems))
    yield from p_values(route, truth[test], runs[:1], REFIT_SHARE if runs[1:] else None, runs[1:])


def simulate_seeds(route: Route, rng: np.random.Generator) -> Iterator[Row]:
    n, binary = route.tested, route.kind != "MAE"
    separation = {"MAE": 1.0, "AUROC .7": 0.65, "AUROC .95": 2.1}[route.kind]
    truth = (rng.random(n) < 0.4).astype(float) if binary else rng.normal(size=n)
    shared = 0.6 * rng.normal(size=n)
    columns: list[list[np.ndarray]] = []
    for _candidate in range(2):
        own = 0.4 * rng.normal(size=n)
        columns.append([])
        for _seed in range(max(route.counts)):
            slope, bias = 1 + 0.1 * rng.normal(), 0.15 * rng.normal()
            signal = separation * slope * truth + bias + shared + own + 0.4 * rng.normal(size=n)
            columns[-1].append(1 / (1 + np.exp(-signal)) if binary else signal)
    yield from p_values(route, truth, list(zip(*columns, strict=True)), None)


# ---- the table ----


def all_routes() -> list[Route]:
    """R of "one split" is the number of refits; 0: the variance of the training set is omitted."""
    seeds = [Route("seeds", "MAE", 0, n, (1, 2, 3, 5)) for n in (50, 100, 300)]
    seeds += [Route("seeds", kind, 0, 100, (1, 2, 3, 5)) for kind in ("AUROC .7", "AUROC .95")]
    split = [Route("none", kind, 250, 100, (REFITS,)) for kind in KINDS]
    split += [Route("none", "MAE", 100, 300, (refits,)) for refits in (0, REFITS)]
    draws = [Route("draws", "MAE", 200, 100, (2, 5, 10, DRAWS))]
    draws += [Route("draws", kind, 200, 100, (2, 5, 10)) for kind in ("AUROC .7", "AUROC .95")]
    folds = [Route("folds", "MAE", 100, 0, (2, 3, REPEATS)), Route("folds", "MAE", 60, 0, (2, 3))]
    folds += [Route("folds", kind, 100, 0, (2, 3)) for kind in ("AUROC .7", "AUROC .95")]
    return [*seeds, *split, *draws, *folds, Route("folds", "MAE", 300, 0, (2, 3))]


def report(route: Route, found: Sequence[list[Row]]) -> None:
    by_case: dict[tuple[int, float], list[bool]] = defaultdict(list)
    for row in found:
        for count, shift, p in row:
            by_case[count, shift].append(p < 0.05)
    for count in route.counts:
        null = by_case[count, 0.0]
        low, high = binomtest(sum(null), len(null)).proportion_ci(method="wilson")
        power = "  ".join(f"{100 * np.mean(by_case[count, shift]):5.1f} %" for shift in SHIFTS[1:])
        print(
            f"{route.name:10s} {route.kind:10s}{route.patients:>10s}{count:>4d}{len(null):>7d}"
            f"{100 * np.mean(null):>7.1f} % ({100 * low:.1f} to {100 * high:.1f}){'':4s}{power}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="40 simulations per route")
    parser.add_argument("--jobs", type=int, default=2, help="processes; set OMP_NUM_THREADS=1")
    parser.add_argument("--routes", nargs="+", choices=["draws", "folds", "none", "seeds"])
    given = parser.parse_args()
    simulations = 40 if given.quick else given.simulations
    print(f"{'route':10s} {'metric':10s}{'patients':>10s}{'R':>4s}{'sims':>7s}{'rejected (95 %)':>23s}    power")
    start = time.perf_counter()
    with ProcessPoolExecutor(given.jobs) as workers:
        mapped: Callable[..., Iterator[list[Row]]] = workers.map
        for route in all_routes():
            if not given.routes or route.replicates in given.routes:
                report(route, list(mapped(partial(simulate, route), range(simulations), chunksize=10)))
    print(f"{time.perf_counter() - start:.0f} s with {given.jobs} processes")


if __name__ == "__main__":
    main()
