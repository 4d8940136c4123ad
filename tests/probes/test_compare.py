"""Comparisons: paired on the same patients, corrected, refused where files contradict; the sweep of samplings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.cli.main import main
from panecho_embed.errors import ArgumentError, SettingsMismatchError
from panecho_embed.evaluation.intervals import bootstrap, holm, paired_differences
from panecho_embed.records import EmbeddingTable
from probes import evaluation
from probes.attentive import AttentiveProbe
from probes.compare import common_units, compare_problems, corrected_together, write_comparison
from probes.linear import LinearProbe
from probes.problem import Problem, load_problem
from probes.run import RunSettings
from probes.sweep import Sampling, default_samplings, sweep_tables
from probes.wording import resolution_note

SETTINGS = RunSettings(draws=200)


def probe(problem: Problem) -> LinearProbe:
    return LinearProbe(problem.task)


def noisier(table: EmbeddingTable, noise: float, seed: int = 1) -> EmbeddingTable:
    values = table.values + np.random.default_rng(seed).normal(size=table.values.shape) * noise
    return replace(table, values=values.astype(np.float32))


@pytest.fixture(scope="module")
def problems(table: EmbeddingTable) -> dict[str, Problem]:
    return {name: load_problem(noisier(table, noise), "EF") for name, noise in (("bad", 8), ("good", 0), ("fair", 2))}


def test_better_embeddings_come_first_and_differ_significantly(problems: dict[str, Problem]) -> None:
    comparison = compare_problems(problems, probe, SETTINGS)
    assert list(comparison.evaluations) == ["good", "fair", "bad"]
    assert [(d.first, d.second) for d in comparison.differences] == [("good", "fair"), ("good", "bad"), ("fair", "bad")]
    assert comparison.differences[1].difference.high < 0
    assert comparison.differences[1].p_holm >= comparison.differences[1].difference.p_value


def test_differences_are_those_of_the_paired_bootstrap(problems: dict[str, Problem]) -> None:
    comparison = compare_problems(problems, probe, SETTINGS)
    good, bad = (comparison.evaluations[name].metrics() for name in ("good", "bad"))
    assert comparison.differences[1].difference == paired_differences(good, bad, draws=200, seed=0)["mae"]


def test_every_candidate_is_bootstrapped_once(problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        evaluation, "bootstrap", lambda *args, **options: calls.append(1) or bootstrap(*args, **options)
    )
    compare_problems(problems, probe, SETTINGS)
    assert len(calls) == 3


def test_p_values_of_one_report_are_corrected_together(problems: dict[str, Problem]) -> None:
    alone = compare_problems(problems, probe, SETTINGS)
    together = corrected_together([alone, alone])
    p = [d.difference.p_value for d in alone.differences]
    assert [d.p_holm for c in together for d in c.differences] == holm(p + p).tolist()


def test_so_few_bootstraps_that_nothing_can_be_shown_are_told() -> None:
    assert resolution_note(3, 10_000) == ""
    assert "66 differences no corrected p-value can be below 0.26" in resolution_note(66, 500)


def test_a_few_shots_are_the_same_patients_for_all(problems: dict[str, Problem]) -> None:
    comparison = compare_problems(problems, probe, replace(SETTINGS, k_shot=9))
    trained = {tuple(e.problem.patient[e.folds[0].train]) for e in comparison.evaluations.values()}
    assert len(trained) == 1
    assert len(set(trained.pop())) == 9


def test_a_reference_leaves_one_difference_a_candidate(problems: dict[str, Problem]) -> None:
    comparison = compare_problems(problems, probe, SETTINGS, reference="bad")
    assert {(d.first, d.second) for d in comparison.differences} == {("good", "bad"), ("fair", "bad")}


def test_only_common_units_are_compared_whatever_their_order(problems: dict[str, Problem]) -> None:
    good = problems["good"]
    some = np.random.default_rng(0).permutation(len(good))[:100]
    taken = common_units({"all": good, "some": good.take(some)})
    assert (taken["all"].ids["video_id"] == taken["some"].ids["video_id"]).all()
    np.testing.assert_array_equal(taken["all"].values, taken["some"].values)
    comparison = compare_problems({"all": good, "some": good.take(some)}, probe, SETTINGS)
    assert comparison.n_left_out == 20
    assert comparison.differences[0].difference.value == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"truth": p.truth + 1}, r"disagree on the EF of 120 video rows, first video_id v000"),
        (lambda p: {"split": np.full(len(p), "train", dtype=object)}, r"disagree on the split"),
        (lambda p: {"patient": np.full(len(p), "x", dtype=object)}, r"disagree on the patient"),
        (lambda p: {"task": "binary"}, r"EF is regression \(\) in a and binary"),
        (lambda p: {"ids": {"video_id": np.full(len(p), "other")}}, r"no video in common: a has .*v000"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    problems: dict[str, Problem], change: Callable[[Problem], dict[str, object]], message: str
) -> None:
    other = replace(problems["good"], **change(problems["good"]))
    with pytest.raises(ArgumentError, match=message):
        compare_problems({"a": problems["good"], "b": other}, probe, SETTINGS)


@pytest.mark.parametrize(
    ("names", "reference", "message"),
    [(["good"], None, "two candidates or more"), (["good", "bad"], "best", "reference is 'best'; the candidates are")],
)
def test_unusable_requests_are_refused(
    problems: dict[str, Problem], names: list[str], reference: str | None, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        compare_problems({name: problems[name] for name in names}, probe, SETTINGS, reference=reference)


def test_command_writes_tables_figure_and_report(
    table: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    files = [str(write(tmp_path / f"{name}.h5", noisier(table, n))) for name, n in (("sharp", 0), ("blurred", 8))]
    options = ["--target", "EF,LowEF", "--draws", "100", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(main, ["probe", "compare", *files, *options])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert set(document["candidates"]) == {"sharp", "blurred"}
    assert document["targets"]["EF"]["differences"][0]["first"] == "sharp"
    assert {"scores.csv", "differences.csv", "report.html"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert (tmp_path / "run" / "plots" / "EF-comparison.svg").is_file()
    assert "sharp - blurred" in result.output


def test_a_target_that_a_file_lacks_is_listed_and_the_others_compared(
    table: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    fewer = replace(table, labels={name: table.labels[name] for name in ("EF", "Sex")})
    files = [str(write(tmp_path / "a.h5", table)), str(write(tmp_path / "b.h5", fewer))]
    options = ["--target", "all", "--draws", "50", "--probe", "knn", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(main, ["probe", "compare", *files, *options])
    assert result.exit_code == 3, result.output
    document = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert set(document["targets"]) == {"EF", "Sex"}
    assert document["not_compared"]["Grade"] == "b lacks it"
    assert "LowEF was not compared: b lacks it" in (tmp_path / "run" / "report.html").read_text()


def test_attention_is_compared_too(
    table: EmbeddingTable,
    write: Callable[[Path, EmbeddingTable], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probes.AttentiveProbe", partial(AttentiveProbe, epochs=2))
    files = [str(write(tmp_path / f"{name}.h5", noisier(table, n))) for name, n in (("a", 0), ("b", 1))]
    options = ["--probe", "attentive", "--level", "study", "--target", "EF", "--draws", "50", "-o", str(tmp_path / "r")]
    result = CliRunner().invoke(main, ["probe", "compare", *files, *options])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r" / "comparison.json").read_text())["targets"]["EF"]["probe"]["epochs"] == 2


def test_command_refuses_the_same_file_twice(embeddings: Path, tmp_path: Path) -> None:
    arguments = [str(embeddings), str(embeddings), "--target", "EF", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["probe", "compare", *arguments])
    assert (result.exit_code, "the same file is given twice" in result.output) == (2, True)


@given(st.integers(1, 400), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, None]))
def test_samplings_stay_inside_the_video_and_ascend(num_frames: int, clips: int, step: int | None) -> None:
    indices = Sampling(16, clips, step).indices(num_frames)
    assert indices.shape[1] == 16
    assert indices.min() >= 0
    assert indices.max() < num_frames
    assert (np.diff(indices, axis=1) >= 0).all()


def test_uniform_clips_span_the_video_and_interleave() -> None:
    indices = Sampling(4, 2, None).indices(16)
    assert indices.tolist() == [[1, 5, 9, 13], [3, 7, 11, 15]]


def test_default_samplings_have_different_names() -> None:
    names = [sampling.name for sampling in default_samplings(16)]
    assert names[:2] == ["consecutive, 1 clip", "consecutive, 2 clips"]
    assert len(set(names)) == 12


@pytest.fixture(scope="module")
def on_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of PanEcho's shape whose pictures are frames."""
    from panecho_embed.models.panecho import PanEcho, save_checkpoint

    model = PanEcho(pretrained=False, backbone_only=True, width=1 / 12)
    model.plane_order = "frames"
    path = tmp_path_factory.mktemp("weights") / "on-frames.pt"
    save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def frames(table_of: Callable[..., EmbeddingTable], on_frames: Path) -> EmbeddingTable:
    """Frames as that model would give them, in its dimension."""
    from panecho_embed.models.backbones import load_backbone

    small = table_of(patients=20, videos_each=1, rows_each=20, level="frame")
    weights = load_backbone("panecho", on_frames).weights
    wide = np.repeat(small.values, -(-64 // small.values.shape[1]), axis=1)[:, :64]
    provenance = replace(small.provenance, backbone="panecho", dim=64, weights=weights)
    return replace(small, values=wide, first_frame=np.tile(np.arange(20), 20).astype(np.int32), provenance=provenance)


def test_a_sweep_makes_the_clips_that_reclip_makes(
    frames: EmbeddingTable, on_frames: Path, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    from panecho_embed.clips import ClipPlan
    from panecho_embed.reclipping import reclip
    from panecho_embed.store import EmbeddingFile

    path = write(tmp_path / "frames.h5", frames)
    reclip(path, tmp_path / "clips.h5", clips=ClipPlan(16, 1, num_clips=2), weights=on_frames, device="cpu")
    ((_, ours),) = sweep_tables(path, [Sampling(16, 2, 1)], weights=on_frames, device="cpu")
    theirs = EmbeddingFile(tmp_path / "clips.h5").table()
    np.testing.assert_array_equal(ours.video_id, theirs.video_id)
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)


def test_a_sweep_needs_frames_and_their_own_weights(
    frames: EmbeddingTable, embeddings: Path, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="holds clip rows; a sweep needs frames"):
        next(sweep_tables(embeddings))
    from panecho_embed.models.panecho import PanEcho, save_checkpoint

    model = PanEcho(pretrained=False, backbone_only=True, width=1 / 12)
    model.plane_order = "frames"
    other = tmp_path / "other.pt"
    save_checkpoint(model, other)
    with pytest.raises(SettingsMismatchError, match="name those"):
        next(sweep_tables(write(tmp_path / "frames.h5", frames), weights=other, device="cpu"))


def test_frames_of_panecho_are_not_swept(
    frames: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    published = replace(frames, provenance=replace(frames.provenance, plane_order="published"))
    path = write(tmp_path / "frames.h5", published)
    with pytest.raises(ArgumentError, match=r"panecho builds its clips from other pictures .*--plan"):
        next(sweep_tables(path))


def test_sweep_command_compares_samplings(
    frames: EmbeddingTable,
    on_frames: Path,
    write: Callable[[Path, EmbeddingTable], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("probes.sweep.default_samplings", lambda n: [Sampling(n, 1, 1), Sampling(n, 2, None)])
    path = write(tmp_path / "frames.h5", frames)
    options = [
        "--sweep",
        "--backbone-weights",
        str(on_frames),
        "--target",
        "EF",
        "--folds",
        "4",
        "--draws",
        "50",
        "-o",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(main, ["probe", "compare", str(path), *options])
    assert result.exit_code == 0, result.output
    assert "uniform, 2 clips" in result.output


def test_who_was_drawn_is_written(problems: dict[str, Problem], tmp_path: Path) -> None:
    comparison = compare_problems(problems, probe, replace(SETTINGS, k_shot=9))
    write_comparison([comparison], tmp_path)
    (draw,) = json.loads((tmp_path / "draws.json").read_text())[comparison.target]["k_shot"]
    first = next(iter(comparison.evaluations.values()))
    assert set(draw["patients"]) == set(first.problem.patient[first.folds[0].train])
