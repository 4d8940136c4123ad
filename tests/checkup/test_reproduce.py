"""The published figures, measured again: the protocol by hand, the whole command on phantoms, and the self-check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from panecho_embed.checkup import reproduce as module
from panecho_embed.checkup import self_check as checks
from panecho_embed.checkup.reproduce import FEEDING, PUBLISHED, SAMPLINGS, SIZES, Published, ridge_on_one_clip, verdict
from panecho_embed.checkup.self_check import engine_checks, feeding_checks
from panecho_embed.cli.main import main
from panecho_embed.core.clips import resolve_plan
from panecho_embed.core.errors import WeightsNotFoundError
from panecho_embed.models.panecho import PANECHO_FEEDING, PanEcho, save_checkpoint
from panecho_embed.models.zoo import ECHOPRIME_FEEDING
from panecho_embed.phantoms import write_studies
from tests.probes.conftest import make_table
from tests.tiny import tiny, tiny_3d


def run(*words: object, expect: int = 0) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == expect, result.output
    return result.output


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PanEcho's layout, narrow, with made-up numbers."""
    path = tmp_path_factory.mktemp("weights") / "panecho.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PanEcho(pretrained=False, width=1 / 12)
    for name, value in model.named_parameters():
        if name.endswith("gamma"):
            # As they are at first, blocks hardly count.
            torch.nn.init.constant_(value, 0.3)
    save_checkpoint(model, path)
    return path


def test_the_protocol_is_ridge_on_standardised_training_rows_with_alpha_chosen_on_validation() -> None:
    """By the normal equations, written out."""
    table = make_table(rows_each=1, videos_each=1, level="video")
    predictions, alpha = ridge_on_one_clip(table)
    x, y = table.values.astype(np.float64), table.labels["EF"]
    train, val, test = (np.flatnonzero(table.split == split) for split in SIZES)
    z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    centre = y[train].mean()

    def fitted(strength: float) -> np.ndarray:
        gram = z[train].T @ z[train] + strength * np.eye(z.shape[1])
        return centre + z @ np.linalg.solve(gram, z[train].T @ (y[train] - centre))

    errors = {strength: np.abs(fitted(strength)[val] - y[val]).mean() for strength in module.ALPHAS}
    assert alpha == min(errors, key=lambda strength: errors[strength])
    np.testing.assert_allclose(predictions.prediction, fitted(alpha)[test], atol=1e-8)
    np.testing.assert_array_equal(predictions.truth, y[test])


def test_labels_of_the_tested_choose_nothing() -> None:
    table = make_table(rows_each=1, videos_each=1, level="video")
    swapped = np.where(table.split == "test", 100 - table.labels["EF"], table.labels["EF"])
    other = replace(table, labels={**table.labels, "EF": swapped})
    (mine, alpha), (theirs, same) = ridge_on_one_clip(table), ridge_on_one_clip(other)
    assert alpha == same
    np.testing.assert_array_equal(mine.prediction, theirs.prediction)


def test_verdicts() -> None:
    published = Published(4.75, 4.53, 5.02, 0.727)
    assert verdict(4.53, published) == verdict(5.0, published) == "agrees"
    assert verdict(5.25, published) == "off by +0.50 (published interval 4.53 to 5.02)"
    assert verdict(4.25, published).startswith("off by -0.50")


def test_published_runs_fed_both_models_with_echoprime_s_geometry_and_one_clip_from_the_first_frame() -> None:
    fed = PANECHO_FEEDING.overridden(FEEDING["panecho"])
    for name in ("geometry", "cut", "resize", "crop", "interpolation"):
        assert getattr(fed, name) == getattr(ECHOPRIME_FEEDING, name)
    assert fed.channel_order == "rgb"
    assert set(PUBLISHED) == {(model, sampling) for model in FEEDING for sampling in SAMPLINGS}
    for name, step in (("step-2", 2), ("consecutive", 1)):
        plan = resolve_plan(SAMPLINGS[name], ECHOPRIME_FEEDING.clips)
        assert plan.require(100).tolist() == [list(range(0, 16 * step, step))]
        assert plan.require(5)[0, -1] == 4
    spread = resolve_plan(SAMPLINGS["uniform"], ECHOPRIME_FEEDING.clips).require(160)
    assert spread.tolist() == [list(range(5, 160, 10))]


def test_the_command_from_videos_to_one_file(weights: Path, tmp_path: Path) -> None:
    write_studies(tmp_path / "data", "echonet-dynamic", patients=6, num_frames=20)
    words = ("reproduce", "echonet-dynamic", "--data", tmp_path / "data", "-o", tmp_path / "out", "--workers", 1)
    told = run(*words, "--backbone", "panecho", "--weights", f"panecho={weights}", "--device", "cpu")
    assert "panecho, step-2" in told
    assert "4.75 (4.53 to 5.02)" in told
    assert "Nothing was reproduced: these are phantoms." in told
    text = (tmp_path / "out" / "reproduction.json").read_text()
    document = json.loads(text)
    assert [(row["model"], row["sampling"], row["verdict"]) for row in document["rows"]] == [
        ("panecho", sampling, "not comparable") for sampling in SAMPLINGS
    ]
    assert [sum(row["sizes"].values()) for row in document["rows"]] == [6, 6, 6]
    assert {row["incomparable"] for row in document["rows"]} == {"these are phantoms"}
    assert document["gpu"] is None
    row = document["rows"][0]
    assert (row["provenance"]["precision"], row["provenance"]["weights"]["source"]) == ("fp32", "panecho.pt")
    assert str(tmp_path) not in text
    listed = (tmp_path / "data" / "FileList.csv").read_text().splitlines()[1:]
    assert not any(line.partition(",")[0] in text for line in listed)
    assert "--overwrite" in run(*words, "--backbone", "panecho", expect=1)


def test_a_model_without_weights_is_told_and_none_is_an_error(weights: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "extract", lambda *a, **k: None)

    def missing(name: str, *_: object) -> None:
        raise WeightsNotFoundError(f"the weights of {name} are not here")

    monkeypatch.setattr(module, "load_backbone", missing)
    words = ("reproduce", "echonet-dynamic", "--data", tmp_path, "-o", tmp_path / "out")
    told = run(*words, expect=1)
    assert "the weights of panecho are not here" in told
    assert "the weights of echoprime are not here" in told
    assert "no published figure of 'kinetics'" in run(*words, "--backbone", "kinetics", expect=2)
    assert "the weights of panecho are not here" in run(*words, "--weights", f"panecho={tmp_path / 'no.pt'}", expect=1)
    assert "is not NAME=FILE" in run(*words, "--weights", "panecho.pt", expect=2)
    assert "name the data set and its folder" in run("reproduce", expect=2)
    assert "takes no data set" in run("reproduce", "echonet-dynamic", "--self-check", expect=2)


def test_an_earlier_result_is_completed_and_no_figure_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PanEcho first, as where EchoPrime's weights are not there; then both, EchoPrime on fewer videos."""
    overwritten = []

    def extract(_data: object, out: Path, *, overwrite: bool, **_: object) -> None:
        overwritten.append((out.name, overwrite))

    def table(path: Path) -> SimpleNamespace:
        full = make_table(60 if path.parent.name == "panecho" else 50, rows_each=1, videos_each=1, level="video")
        return SimpleNamespace(table=lambda: full)

    def load(name: str, given: object) -> None:
        if name != "panecho" and given is None:
            raise WeightsNotFoundError(f"the weights of {name} are not here\nLooked in:\n  /home/somebody")

    for name, other in (("extract", extract), ("EmbeddingFile", table), ("load_backbone", load)):
        monkeypatch.setattr(module, name, other)
    out, given = tmp_path / "not" / "there", tmp_path / "echoprime.pt"
    words = ("reproduce", "echonet-dynamic", "--data", tmp_path, "-o", out, "--device", "cpu")
    told = run(*words, expect=3)
    assert "echoprime was not run: the weights of echoprime are not here\n  Looked in:\n    /home/somebody\n" in told
    text = (out / "reproduction.json").read_text()
    assert json.loads(text)["not_run"] == {"echoprime": "the weights of echoprime are not here"}
    told = run(*words, "--backbone", "echoprime", "--weights", f"echoprime={given}", expect=1)
    assert "holds figures of panecho, which would be lost: add --backbone panecho" in told
    told = run(*words, "--weights", f"echoprime={given}")
    assert "videos of panecho step-2, panecho consecutive, panecho uniform: 36 train" in told
    assert "Nothing of echoprime step-2, echoprime consecutive, echoprime uniform was reproduced: 30 videos" in told
    rows = json.loads((out / "reproduction.json").read_text())["rows"]
    assert [(row["model"], sum(row["sizes"].values())) for row in rows] == [("panecho", 60)] * 3 + [
        ("echoprime", 50)
    ] * 3
    assert "replace it with --overwrite" in run(*words, "--weights", f"echoprime={given}", expect=1)
    assert overwritten == [("panecho", False), ("panecho", False), ("echoprime", False)]


def test_weights_of_a_model_that_is_not_run_are_an_error(tmp_path: Path) -> None:
    words = ("--backbone", "panecho", "--weights", f"echoprime={tmp_path / 'e.pt'}", "-o", tmp_path / "out")
    told = run("reproduce", "echonet-dynamic", "--data", tmp_path, *words, expect=2)
    assert "--weights names a file for echoprime, which is not run (--backbone echoprime)" in told
    assert "echoprime, which is not checked" in run("reproduce", "--self-check", *words, expect=2)


def test_a_folder_that_can_not_be_made_is_an_error_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(checks, "feeding_checks", None)
    told = run("reproduce", "--self-check", "-o", tmp_path / "file" / "out", expect=1)
    assert "a part of its path is a file, not a folder" in told


def test_other_numbers_of_videos_are_not_comparable(tmp_path: Path) -> None:
    assert module._incomparable(tmp_path, {**SIZES, "test": 1_276}) == ""
    assert module._incomparable(tmp_path, {**SIZES, "test": 1_000}).startswith(
        "1000 videos of the split test, and 1277"
    )


def test_the_self_check_of_a_sound_machine_agrees(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "not" / "there"
    told = run("reproduce", "--self-check", "-o", out, "--weights", f"panecho={weights}", "--device", "cpu")
    assert " 0 differ, 0 failed" in told
    document = json.loads((out / "self-check.json").read_text())
    by_kind = {kind: [c for c in document["checks"] if c["kind"] == kind] for kind in ("feeding", "engine")}
    assert len(by_kind["feeding"]) == 5 * 3
    assert all(c["status"] == "agrees" for c in by_kind["feeding"])
    agreed = [c["what"] for c in by_kind["engine"] if c["status"] == "agrees"]
    assert "panecho, pictures, cpu, rearranged, fp32" in agreed
    assert "panecho, clips, cpu, eager, bf16" in agreed


def test_the_self_check_finds_other_pixels_and_other_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    real = checks.frame_preparer
    monkeypatch.setattr(checks, "frame_preparer", lambda feeding: real(replace(feeding, interpolation="bilinear")))
    assert {check.status for check in feeding_checks() if check.what.startswith("feeding panecho, 600")} == {"DIFFERS"}
    monkeypatch.setattr(checks, "EagerEngine", _Skewed)
    found = list(engine_checks(tiny(), [torch.device("cpu")]))
    assert {check.status for check in found if "pictures, cpu, eager" in check.what} == {"DIFFERS"}
    # A model without ConvNeXt blocks has nothing to rearrange.
    assert {check.status for check in found if "rearranged" in check.what} == {"not available"}


def test_an_fp32_engine_that_can_not_run_has_failed_and_a_half_precision_is_not_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(checks, "feeding_checks", lambda: [])
    monkeypatch.setattr(checks, "load_backbone", lambda *_: tiny())
    monkeypatch.setattr(checks, "RearrangedEngine", broken)
    words = ("reproduce", "--self-check", "--backbone", "random", "--device", "cpu")
    assert "1 failed, 2 not available" in run(*words, "-o", tmp_path / "rearranged", expect=1)
    document = json.loads((tmp_path / "rearranged" / "self-check.json").read_text())
    status = {check["what"]: check["status"] for check in document["checks"] if "rearranged" in check["what"]}
    assert list(status.values()) == ["FAILED", "not available", "not available"]
    monkeypatch.setattr(checks, "EagerEngine", broken)
    assert "1 failed" in run(*words, "-o", tmp_path / "eager", expect=1)


def test_a_model_of_whole_clips_is_checked_too() -> None:
    found = list(engine_checks(tiny_3d(), [torch.device("cpu")]))
    assert [check.what for check in found] == [f"tiny-3d, clips, cpu, eager, {half}" for half in ("bf16", "fp16")]
    assert {check.status for check in found} == {"agrees"}


class _Skewed(checks.EagerEngine):
    """Other values in half precision, as a faulty build would give."""

    def __call__(self, batch):
        values = super().__call__(batch)
        return values if self._precision == "fp32" else values.flip(1)
