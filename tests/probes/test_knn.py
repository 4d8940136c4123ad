"""The nearest-neighbour probes against scikit-learn, against each other, and by contract."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from panecho_embed.core.errors import ArgumentError
from probes.knn import ExactNeighbours, FaissKNNProbe, FaissNeighbours, KNNProbe

TASKS = ("regression", "binary", "multiclass")


def sample(n: int = 160, d: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32) + 0.3
    return x, 50 + 5 * x[:, 0] + rng.normal(size=n)


@parametrize_with_checks([KNNProbe(task) for task in TASKS] + [FaissKNNProbe(task) for task in TASKS])
def test_keeps_the_scikit_learn_contract(estimator: KNNProbe, check: Callable[[KNNProbe], None]) -> None:
    check(estimator)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["distance", "uniform", "softmax"])
def test_regression_equals_sklearn(metric: str, weights: str) -> None:
    if (metric, weights) == ("euclidean", "softmax"):
        pytest.skip("softmax is of a similarity")
    x, y = sample()
    theirs_weights = (lambda d: np.exp((1 - d) / 0.07)) if weights == "softmax" else weights
    theirs = KNeighborsRegressor(7, metric=metric, weights=theirs_weights, algorithm="brute").fit(x[:120], y[:120])
    ours = KNNProbe(metric=metric, weights=weights, k=[7], temperature=0.07, centre=False).fit(x[:120], y[:120])  # type: ignore[arg-type]
    np.testing.assert_allclose(ours.predict(x[120:]), theirs.predict(x[120:]), rtol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_class_probabilities_equal_sklearn(metric: str) -> None:
    x, y = sample()
    classes = np.digitize(y, [48, 52])
    theirs = KNeighborsClassifier(9, metric=metric, weights="distance", algorithm="brute").fit(x[:120], classes[:120])
    ours = KNNProbe("multiclass", metric=metric, weights="distance", k=[9], centre=False)  # type: ignore[arg-type]
    ours.fit(x[:120], classes[:120])
    np.testing.assert_allclose(ours.predict_proba(x[120:]), theirs.predict_proba(x[120:]), atol=1e-5)


@pytest.mark.parametrize(("metric", "weights"), [("cosine", "softmax"), ("euclidean", "distance")])
@pytest.mark.parametrize("task", TASKS)
def test_a_flat_faiss_index_gives_the_same_answers(metric: str, weights: str, task: str) -> None:
    x, y = sample()
    y = y if task == "regression" else np.digitize(y, [50.0] if task == "binary" else [48.0, 52.0])
    settings = {"metric": metric, "weights": weights}
    exact = KNNProbe(task, **settings).fit(x[:120], y[:120])  # type: ignore[arg-type]
    flat = FaissKNNProbe(task, **settings).fit(x[:120], y[:120])  # type: ignore[arg-type]
    assert flat.k_ == exact.k_
    np.testing.assert_allclose(flat.grid_, exact.grid_, rtol=1e-3)
    np.testing.assert_allclose(
        *(p.predict(x) if task == "regression" else p.predict_proba(x) for p in (flat, exact)), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(("index", "least"), [("flat", 1.0), ("ivf", 0.9), ("hnsw", 0.97), ("sq8", 0.9), ("pq", 0.2)])
def test_approximate_indexes_find_most_of_the_nearest(index: str, least: float) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 32))
    x = (centres[rng.integers(0, 20, 3000)] + rng.normal(size=(3000, 32)) * 0.4).astype(np.float32)
    _, exact = ExactNeighbours(x, "cosine").search(x[:100], 10)
    _, found = FaissNeighbours(x, "cosine", index).search(x[:100], 10)  # type: ignore[arg-type]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert recall >= least


def test_exact_search_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = sample()
    whole = ExactNeighbours(x, "euclidean").search(x, 5)
    monkeypatch.setattr("probes.knn._BLOCK_ELEMENTS", 500)
    in_blocks = ExactNeighbours(x, "euclidean").search(x, 5)
    np.testing.assert_array_equal(whole[1], in_blocks[1])
    assert (whole[1][:, 0] == np.arange(len(x))).all()
    assert (whole[0][:, 0] == 0).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 3, 7, 40])
def test_of_equally_near_rows_the_first_are_the_neighbours(metric: str, k: int) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(20, 4)), 5, axis=0)
    order = rng.permutation(100)
    distance, found = ExactNeighbours(x[order], metric).search(x[:1], 100)  # type: ignore[arg-type]
    few_distance, few = ExactNeighbours(x[order], metric).search(x[:1], k)  # type: ignore[arg-type]
    np.testing.assert_array_equal(few, found[:, :k])
    np.testing.assert_allclose(few_distance, distance[:, :k])
    assert (np.diff(found[0, :5]) > 0).all()


def test_a_large_index_is_trained_on_some_rows_and_holds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probes.knn._TRAINED_ON", 300)
    monkeypatch.setattr("probes.knn._ADDED_AT_ONCE", 128)
    x = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    index = FaissNeighbours(x, "cosine", "sq8")
    _, found = index.search(x, 1)
    assert index.index.ntotal == 1000
    assert (found[:, 0] == np.arange(1000)).mean() > 0.95


def test_k_is_chosen_by_held_out_loss_and_large_ks_are_left_out() -> None:
    x, y = sample()
    probe = KNNProbe().fit(x[:60], y[:60])
    assert max(setting.k for setting in probe.settings_) <= 48
    rows = probe.grid_rows()
    assert min(rows, key=lambda row: row["loss"])["chosen"]


def shifted(n: int = 240, d: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings with a large common mean: all cosines are close to 1."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, d)) + 8 * rng.normal(size=d)).astype(np.float32)
    return x, 50 + 5 * (x[:, 0] - x[:, 0].mean()) + rng.normal(size=n)


def test_every_combination_is_listed_with_its_held_out_loss() -> None:
    x, y = sample()
    probe = KNNProbe(k=[2, 5], temperature=[0.1, 0.02]).fit(x, y, holdout=np.arange(160) % 3)
    rows = probe.grid_rows()
    tried = [(row["centre"], row["temperature"], row["k"]) for row in rows]
    assert tried == [(c, t, k) for c in (True, False) for t in (0.02, 0.1) for k in (2, 5)]
    for row in rows:
        fixed = KNNProbe(k=[row["k"]], temperature=row["temperature"], centre=row["centre"])
        held_out = np.empty(160)
        for k in range(3):
            out = np.arange(160) % 3 == k
            held_out[out] = fixed.fit(x[~out], y[~out]).predict(x[out])
        assert row["loss"] == pytest.approx(np.square(held_out - y).mean(), rel=1e-5)
        if row["chosen"]:
            np.testing.assert_allclose(probe.holdout_prediction_, held_out, rtol=1e-5)
    assert sum(row["chosen"] for row in rows) == 1
    assert min(rows, key=lambda row: row["loss"])["chosen"]


def test_centring_is_chosen_where_a_common_mean_hides_the_differences() -> None:
    x, y = shifted()
    chosen = KNNProbe().fit(x[:180], y[:180])
    raw = KNNProbe(centre=False).fit(x[:180], y[:180])
    assert chosen.centred_
    np.testing.assert_allclose(chosen.centre_, x[:180].mean(axis=0), rtol=1e-5)
    assert chosen.score(x[180:], y[180:]) > raw.score(x[180:], y[180:])


def test_centred_cosine_equals_sklearn_on_centred_rows() -> None:
    x, y = shifted()
    mean = x[:180].mean(axis=0)
    theirs = KNeighborsRegressor(5, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.1), algorithm="brute")
    theirs.fit(x[:180] - mean, y[:180])
    ours = KNNProbe(k=[5], temperature=0.1, centre=True).fit(x[:180], y[:180])
    np.testing.assert_allclose(ours.predict(x[180:]), theirs.predict(x[180:] - mean), rtol=1e-5)


@pytest.mark.parametrize(
    ("probe", "settings"),
    [
        (KNNProbe(k=[4], temperature=0.07, centre=False), {"k", "temperature", "centre"}),
        (KNNProbe(k=[4], weights="distance", centre=True), {"k", "centre"}),
        (KNNProbe(k=[4], weights="uniform", metric="euclidean"), {"k"}),
    ],
)
def test_a_setting_that_plays_no_part_is_neither_chosen_nor_listed(probe: KNNProbe, settings: set[str]) -> None:
    assert not probe.chooses()
    assert probe.selection() == ""
    (row,) = probe.fit(*sample()).grid_rows()
    assert row.keys() - {"loss", "chosen"} == settings
    assert row["chosen"]
    assert "k was fixed (k = 4)" in probe.methods_sentence()


def test_what_is_chosen_is_said() -> None:
    assert KNNProbe().selection() == (
        "k, the temperature and whether the training mean was subtracted minimised the squared error"
    )
    assert KNNProbe(temperature=0.07, centre=True).selection() == "k minimised the squared error"
    assert "faiss, flat index" in FaissKNNProbe().methods_sentence()


@pytest.mark.parametrize("centre", [True, False])
def test_a_restored_probe_predicts_the_same(centre: bool) -> None:
    x, y = shifted()
    probe = KNNProbe(centre=centre).fit(x, y)
    same = KNNProbe(**probe.saved_parameters()).restore(probe.fitted_arrays())
    np.testing.assert_array_equal(same.predict(x), probe.predict(x))
    assert same.centred_ is centre


def test_groups_stay_together_in_the_inner_folds() -> None:
    """Copies of a row under one group: were they split, the nearest neighbour alone would look best."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    x = rng.normal(size=(40, 8))[groups] + rng.normal(size=(160, 8)) * 1e-3
    y = rng.normal(size=40)[groups]
    assert KNNProbe().fit(x, y).k_ <= 3
    assert KNNProbe().fit(x, y, groups=groups).k_ > 10


def test_rows_without_a_label_count_for_nothing() -> None:
    x, y = sample()
    some = np.where(np.arange(160) < 100, y, np.nan)
    part = np.arange(160) % 4
    with_gaps = KNNProbe().fit(x, some, holdout=part)
    without = KNNProbe().fit(x[:100], y[:100], holdout=part[:100])
    np.testing.assert_allclose(with_gaps.predict(x), without.predict(x))
    assert np.isnan(with_gaps.holdout_prediction_[100:]).all()


def test_faiss_probe_survives_pickle() -> None:
    x, y = sample()
    probe = FaissKNNProbe(index="hnsw", k=[3]).fit(x, y)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(probe)).predict(x), probe.predict(x))


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (KNNProbe(metric="manhattan"), r"metric is 'manhattan'; allowed are cosine, euclidean"),  # type: ignore[arg-type]
        (KNNProbe(weights="rank"), r"weights is 'rank'; allowed are softmax, distance, uniform"),  # type: ignore[arg-type]
        (KNNProbe(metric="euclidean"), r"weights='softmax' needs metric='cosine'"),
        (KNNProbe(temperature=0), r"temperature is 0; it must be above 0"),
        (KNNProbe(temperature=[0.1, -1]), r"temperature is \[0.1, -1\]; it must be above 0"),
        (KNNProbe(centre="yes"), r"centre is 'yes'; allowed are True, False and 'auto'"),  # type: ignore[arg-type]
        (KNNProbe(k=[0, 3]), r"k is \[0, 3\]; one or more whole numbers from 1"),
        (KNNProbe(k=[500]), r"k is \[500\], but there are 160 rows"),
        (FaissKNNProbe(index="annoy"), r"index is 'annoy'; allowed are flat, ivf, hnsw, sq8, pq"),  # type: ignore[arg-type]
        (FaissKNNProbe(index="pq"), r"a product-quantised index needs 256 rows, there are 128"),
        (FaissKNNProbe(index="hnsw", device="gpu"), r"faiss has no HNSW on the GPU"),
        (FaissKNNProbe(device="tpu"), r"device is 'tpu'; allowed are cpu, gpu"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_say_what_is_allowed(probe: KNNProbe, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        probe.fit(*sample())


def test_a_gpu_that_faiss_does_not_see_is_an_error_not_a_fallback() -> None:
    import faiss

    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        pytest.skip("faiss sees a GPU here")
    with pytest.raises(ArgumentError, match=r"this faiss sees no GPU \(--device gpu\): install faiss-gpu"):
        FaissKNNProbe(device="gpu").fit(*sample())


@pytest.mark.parametrize("order", ["import torch, faiss", "import faiss, torch"])
def test_faiss_and_torch_work_in_one_process_in_either_order(order: str) -> None:
    code = (
        f"{order}\nimport numpy as np\n"
        "x = np.random.default_rng(0).normal(size=(4000, 32)).astype('float32')\n"
        "t = torch.from_numpy(x); t = (t @ t[:64].T); torch.nn.Linear(64, 1)(t).sum().backward()\n"
        "for recipe in ('Flat', 'IVF32,Flat', 'HNSW16'):\n"
        "    index = faiss.index_factory(32, recipe); index.train(x); index.add(x); index.search(x[:64], 3)\n"
        "print(float((t.argmax(0).numpy() >= 0).mean()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "1.0", done.stderr
