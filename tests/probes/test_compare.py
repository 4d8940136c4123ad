"""The same probe on several embeddings: the same patients, splits and draws; the sweep of samplings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.evaluation.candidates import common_rows, read_candidates
from panecho_embed.evaluation.comparison_report import verdict_text
from panecho_embed.evaluation.targets import Target
from probes.account import comparison_account
from probes.attentive import AttentiveProbe
from probes.comparison import Compared, compare_problems, default_samplings, sweep_tables
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import Problem, load_problem

SETTINGS = RunSettings(draws=100, refits=3)


def probe(problem: Problem) -> LinearProbe:
    return LinearProbe(problem.target.kind)


def noisier(table: EmbeddingTable, noise: float, seed: int = 1) -> EmbeddingTable:
    values = table.values + np.random.default_rng(seed).normal(size=table.values.shape) * noise
    return replace(table, values=values.astype(np.float32))


@pytest.fixture(scope="module")
def problems(table: EmbeddingTable) -> dict[str, list[Problem]]:
    return {name: [load_problem(noisier(table, noise), "EF")] for name, noise in (("bad", 8), ("good", 0), ("fair", 2))}


@pytest.fixture(scope="module")
def compared(problems: dict[str, list[Problem]]) -> Compared:
    return compare_problems(problems, probe, SETTINGS)


def test_better_embeddings_come_first_and_are_called_better(compared: Compared) -> None:
    (comparison,) = compared.comparisons
    assert comparison.ranked == ["good", "fair", "bad"]
    assert [(d.first, d.second) for d in comparison.contrasts] == [("good", "fair"), ("good", "bad"), ("fair", "bad")]
    assert comparison.contrasts[1].difference.high < 0
    assert comparison.contrasts[1].p_holm >= comparison.contrasts[1].difference.p_value
    assert comparison.contrasts[1].verdict == "better"


def test_a_split_holds_the_chance_of_the_training_patients(compared: Compared) -> None:
    (comparison,) = compared.comparisons
    found = comparison.contrasts[0].difference
    assert set(found.variances) == {"patients", "training"}
    assert found.unknown == ()
    assert len(compared.evaluations["EF"]["good"].chance.refits) == 3


def test_a_few_shots_are_the_same_patients_for_all(problems: dict[str, list[Problem]]) -> None:
    compared = compare_problems(problems, probe, replace(SETTINGS, k_shot=9, trainings=3))
    drawn = [[draw.patients for draw in evaluation.drawn] for evaluation in compared.evaluations["EF"].values()]
    assert drawn[0] == drawn[1] == drawn[2]
    assert [len(patients) for patients in drawn[0]] == [9, 9, 9]
    found = compared.comparisons[0].contrasts[0].difference
    assert set(found.variances) == {"patients", "draws", "training"}


def test_folds_are_the_same_partitions_for_all(problems: dict[str, list[Problem]]) -> None:
    some = {name: problems[name] for name in ("good", "bad")}
    compared = compare_problems(some, probe, replace(SETTINGS, folds=3, trainings=2))
    folds = [[plan.folds[0].test.tolist() for plan in one.plans] for one in compared.evaluations["EF"].values()]
    assert folds[0] == folds[1]
    found = compared.comparisons[0].contrasts[0].difference
    assert set(found.variances) == {"patients", "folds", "training"}


@pytest.mark.parametrize(("options", "source"), [({"k_shot": 20}, "draws"), ({"folds": 3}, "folds")])
def test_one_draw_or_partition_decides_nothing_and_says_so(
    problems: dict[str, list[Problem]], options: dict[str, int], source: str
) -> None:
    some = {name: problems[name] for name in ("good", "bad")}
    compared = compare_problems(some, probe, replace(SETTINGS, trainings=1, **options))
    (contrast,) = compared.comparisons[0].contrasts
    assert contrast.verdict == "undecided"
    assert contrast.difference.unknown == (source, "training")
    assert "What can't be concluded: one" in verdict_text(compared.comparisons[0], None)


def test_a_reference_leaves_one_difference_a_candidate(problems: dict[str, list[Problem]]) -> None:
    (comparison,) = compare_problems(problems, probe, SETTINGS, reference="bad").comparisons
    assert {(d.first, d.second) for d in comparison.contrasts} == {("good", "bad"), ("fair", "bad")}


def test_only_common_units_are_compared_whatever_their_order(problems: dict[str, list[Problem]]) -> None:
    (good,) = problems["good"]
    some = np.random.default_rng(0).permutation(len(good))[:100]
    (every, fewer), left_out = common_rows([("all", good), ("some", good.take(some))])
    assert left_out == 20
    assert (every.ids["video_id"] == fewer.ids["video_id"]).all()
    np.testing.assert_array_equal(every.values, fewer.values)
    compared = compare_problems({"all": [good], "some": [good.take(some)]}, probe, SETTINGS)
    assert compared.n_left_out == {"EF": 20}
    assert compared.comparisons[0].contrasts[0].difference.value == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"truth": p.truth + 1}, r"disagree on the EF of 120 rows, first v000"),
        (lambda p: {"split": np.full(len(p), "train", dtype=object)}, r"disagree on the split"),
        (lambda p: {"patient": np.full(len(p), "x", dtype=object)}, r"disagree on the patient"),
        (
            lambda p: {"target": Target("EF", "binary", ("no", "yes"))},
            r"EF is regression in a and binary \(no, yes\) in b",
        ),
        (
            lambda p: {"ids": {"video_id": np.full(len(p), "other")}},
            r"no row \(video\) in common, and .*: a has 120 rows, first v000",
        ),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    problems: dict[str, list[Problem]], change: Callable[[Problem], dict[str, object]], message: str
) -> None:
    (good,) = problems["good"]
    other = replace(good, **change(good))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=message):
        compare_problems({"a": [good], "b": [other]}, probe, SETTINGS)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["good"], {}, "two candidates or more"),
        (["good", "bad"], {"reference": "best"}, "reference is 'best'; the candidates are"),
        (["good", "bad"], {"margin": "0.5 ml"}, r"the margin is '0.5 ml', and MAE is in %"),
    ],
)
def test_unusable_requests_are_refused(
    problems: dict[str, list[Problem]], names: list[str], options: dict[str, str], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        compare_problems({name: problems[name] for name in names}, probe, SETTINGS, **options)


def test_the_account_says_what_is_common_and_what_differs(compared: Compared) -> None:
    account = comparison_account(compared, None, "panecho-embed probe compare")
    (section,) = account.sections
    common, apart = section.blocks
    assert section.title == "Embeddings"
    assert "Settings id" in common.facts
    assert apart.columns == ["Candidate", "Data digest"]
    assert [row[0] for row in apart.rows] == list(account.inputs) == ["bad", "good", "fair"]
    assert len({one["data_digest"] for one in account.inputs.values()}) == 3
    assert "The same probe was trained and tested on the same patients" in account.methods[0]
    assert "corrected for the 3 differences of this report by Holm's method" in account.methods[0]


def test_command_writes_tables_figure_and_report(
    table: EmbeddingTable, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    files = [str(write(tmp_path / f"{name}.h5", noisier(table, n))) for name, n in (("sharp", 0), ("blurred", 8))]
    options = ["--target", "EF,LowEF", "--draws", "100", "-o", str(tmp_path / "run"), "--reference", "blurred"]
    result = CliRunner().invoke(main, ["probe", "compare", *files, *options])
    assert result.exit_code == 0, result.output
    assert "Better than blurred: sharp." in result.output
    document = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert set(document["targets"]) == {"EF", "LowEF"}
    differences = pd.read_csv(tmp_path / "run" / "differences.csv").set_index("target")
    assert differences.loc["EF", "first"] == "sharp"
    assert set(pd.read_csv(tmp_path / "run" / "scores.csv")["candidate"]) == {"sharp", "blurred"}
    assert (tmp_path / "run" / "plots" / "EF-candidates.svg").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
    assert "sharp - blurred" in result.output
    # What each candidate predicted is a table that any comparison takes.
    paths = sorted((tmp_path / "run" / "predictions").iterdir())
    assert [one.name for one in read_candidates([("", path) for path in paths])] == ["blurred", "sharp"]


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
    assert "Grade was not compared: b lacks it" in document["warnings"]
    assert "LowEF was not compared: b lacks it" in (tmp_path / "run" / "report.html").read_text()


def test_attention_is_compared_too(
    table: EmbeddingTable,
    write: Callable[[Path, EmbeddingTable], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Short(AttentiveProbe):
        def __init__(self, task: str = "regression", *, epochs: int = 2, random_state: int = 0) -> None:
            super().__init__(task, epochs=epochs, random_state=random_state)  # type: ignore[arg-type]

    monkeypatch.setattr("probes.attentive.AttentiveProbe", Short)
    monkeypatch.setattr("probes.comparison._REFITS", 2)
    files = [str(write(tmp_path / f"{name}.h5", noisier(table, n))) for name, n in (("a", 0), ("b", 1))]
    options = ["--probe", "attentive", "--level", "study", "--target", "EF", "--draws", "50", "-o", str(tmp_path / "r")]
    result = CliRunner().invoke(main, ["probe", "compare", *files, *options])
    assert result.exit_code == 0, result.output
    assert "attention" in (tmp_path / "r" / "report.html").read_text()


def test_command_refuses_the_same_file_twice(embeddings: Path, tmp_path: Path) -> None:
    arguments = [str(embeddings), str(embeddings), "--target", "EF", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["probe", "compare", *arguments])
    assert (result.exit_code, "the same file is given twice" in result.output) == (2, True)


def test_default_samplings_differ_and_know_heartbeats_where_the_file_does() -> None:
    assert list(default_samplings(16))[:2] == ["consecutive, 1 clip", "consecutive, 2 clips"]
    assert len(set(default_samplings(16).values())) == 12
    assert default_samplings(8, beats=True)["one heartbeat, 4 clips"] == ClipPlan(8, beats=1)
    assert default_samplings(8)["uniform, 2 clips"] == ClipPlan(8, None, num_clips=2, uniform=True)


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
    from panecho_embed.extraction.reclipping import reclip
    from panecho_embed.store import EmbeddingFile

    path = write(tmp_path / "frames.h5", frames)
    reclip(path, tmp_path / "clips.h5", clips=ClipPlan(16, 1, num_clips=2), weights=on_frames, device="cpu")
    ((_, ours),) = sweep_tables(path, {"mine": ClipPlan(16, 1, num_clips=2)}, weights=on_frames, device="cpu")
    theirs = EmbeddingFile(tmp_path / "clips.h5").table()
    np.testing.assert_array_equal(ours.video_id, theirs.video_id)
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-5)


def test_samplings_that_take_the_same_frames_are_one_candidate_and_padding_is_said(
    frames: EmbeddingTable, on_frames: Path, write: Callable[[Path, EmbeddingTable], Path], tmp_path: Path
) -> None:
    path, said = write(tmp_path / "frames.h5", frames), list[str]()
    plans = {"all": ClipPlan(16, 4, num_clips=4), "one": ClipPlan(16, 4, num_clips=1), "other": ClipPlan(8, 1)}
    swept = [name for name, _ in sweep_tables(path, plans, weights=on_frames, device="cpu", announce=said.append)]
    assert swept == ["all", "other"]
    assert "one takes the same frames as all and is not a separate candidate" in said
    assert any(note.startswith("all: clips per video: 1 (") and "padded" in note for note in said)
    assert any("of the clips' frames is padding" in note for note in said)


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
    uniform = ClipPlan(16, None, num_clips=2, uniform=True)
    two = {"consecutive, 1 clip": ClipPlan(num_clips=1), "uniform, 2 clips": uniform}
    monkeypatch.setattr("probes.comparison.default_samplings", lambda n, beats: two)
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
