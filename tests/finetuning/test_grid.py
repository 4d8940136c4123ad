"""`panecho-embed grid` from videos to the report: what is missing is run, what is done reused, what is lost told."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from panecho_embed.cli.main import main
from panecho_embed.core.digests import write_sums
from panecho_embed.core.tasks import Task
from panecho_embed.evaluation.scores import read_metrics
from panecho_embed.finetuning.data import read_dataset
from panecho_embed.finetuning.frozen import _backbone, _predict, embed_start
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.recipe_files import load_recipe
from panecho_embed.finetuning.starts import load_start
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.phantoms import write_studies
from probes.frozen import linear_probe
from tests.finetuning.conftest import rows_of
from tests.finetuning.fabricate import change_info

SMALL = {
    "model.image_size": "32",
    "clips.frames": "4",
    "clips.test": "2",
    "schedule.epochs": "1",
    "optimizer.batch_size": "8",
    "evaluation.draws": "100",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom studies, and weights of two narrow models."""
    folder = tmp_path_factory.mktemp("grid")
    write_studies(folder / "data", "echonet-dynamic", 12, num_frames=8, fps=30, size=48)
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        save_checkpoint(PanEcho(pretrained=False, tasks=["EF"], width=1 / 12), folder / f"{name}.pt")
    return folder


def run(
    place: Path, out: str, *more: str, inits: str = "panecho,panecho-image", settings: Sequence[str] = ()
) -> Result:
    words = ["grid", "echonet-dynamic", "--inits", inits, "--data", place / "data", "-o", place / out]
    for init, file in (("panecho", "a.pt"), ("panecho-image", "b.pt")):
        words += ["--weights", f"{init}={place / file}"] if init in inits.split(",") else []
    for key, value in SMALL.items():
        words += ["--set", f"{key}={value}"]
    for setting in settings:
        words += ["--set", setting]
    return CliRunner().invoke(main, [*map(str, words), *more])


@pytest.fixture(scope="module")
def compared(place: Path) -> Path:
    """Two starts, two seeds, two fractions, frozen probes."""
    result = run(place, "whole", "--seeds", "2", "--fractions", "0.5,1", "--frozen")
    assert result.exit_code == 0, result.output
    assert "8 runs trained, 0 reused" in result.output
    return place / "whole"


def mae_of(run: Path) -> float:
    """What a run wrote of itself."""
    value: float = read_metrics(run)["targets"]["EF"]["metrics"]["mae"]["value"]
    return value


def test_every_run_has_its_folder_and_its_value_in_the_table(compared: Path) -> None:
    runs = pd.read_csv(compared / "runs.csv")
    assert len(runs) == 8
    for _, row in runs.iterrows():
        assert row["mae:EF"] == pytest.approx(mae_of(Path(row["folder"])))


def test_starts_and_frozen_starts_stand_in_one_table(compared: Path) -> None:
    starts = {"panecho", "panecho-image", "panecho (frozen)", "panecho-image (frozen)"}
    for folder in (compared, compared / "fraction-0.5"):
        scores = pd.read_csv(folder / "scores.csv").query("metric == 'mae'")
        assert set(scores["candidate"]) == starts
        assert set(scores["n"]) == {2}
    page = (compared / "report.html").read_text(encoding="utf-8")
    # Of two patients no value is reported; the names are.
    assert "2 patients were tested, and statistics are reported from 10 on" in page
    (table,) = re.findall(r"<table>(?:(?!</table>).)*withheld.*?</table>", page, re.DOTALL)[:1]
    assert set(re.findall(r"<td[^>]*>([^<]*)</td>", table)) == starts | {"withheld"}
    (curve,) = re.findall(r"<table>(?:(?!</table>).)*<th[^>]*>0.5</th>.*?</table>", page, re.DOTALL)
    assert set(re.findall(r"<td[^>]*>([^<]*)</td>", curve)) == starts | {"withheld"}
    assert "a.pt" in page
    assert "<dt>Licence of the weights</dt><dd>not stated</dd>" in page


def test_the_frozen_probe_is_tested_on_the_same_videos(compared: Path) -> None:
    trained = rows_of(compared / "runs/panecho/fraction-1/seed-0")
    frozen = rows_of(compared / "frozen/panecho/fraction-1/seed-0")
    columns = ["video_id", "patient_id", "split", "truth"]
    pd.testing.assert_frame_equal(
        trained[columns].sort_values("video_id").reset_index(drop=True),
        frozen[columns].sort_values("video_id").reset_index(drop=True),
    )


@pytest.mark.parametrize("ids", ["opaque", "plain"])
def test_the_frozen_start_knows_its_videos_by_the_ids_of_training(place: Path, tmp_path: Path, ids: str) -> None:
    """Opaque ids of files that have none, and plain ones of DICOM, are not what `extract` gives by default."""
    write_studies(tmp_path / "dicom", "dicom", 2, num_frames=4, fps=30, size=48)
    videos, dicom = place / "data" / "Videos", tmp_path / "dicom"
    files = sorted(videos.glob("*.avi"))[:2] if ids == "opaque" else sorted(dicom.rglob("IM_0002.dcm"))
    table = tmp_path / "table.csv"
    table.write_text("path,split,EF\n" + "".join(f"{file},train,{40 + i}\n" for i, file in enumerate(files)))
    words = [f"{key}={value}" for key, value in SMALL.items()]
    words += ["data.layout=csv", f"data.ids={ids}", "data.targets=EF", "model.width=0.083"]
    recipe = load_recipe("echonet-dynamic", words)
    dataset = read_dataset(table, recipe.data)
    found = embed_start("random", None, recipe, table, tmp_path / "out" / "a.h5", device="cpu", workers=0)
    assert set(found.video_id) == {video.video_id for video in dataset.videos}
    assert all(name.startswith("video-") == (ids == "opaque") for name in found.video_id)


def test_what_is_done_is_reused_and_what_is_missing_is_run(place: Path, compared: Path) -> None:
    again = place / "again"
    shutil.copytree(compared, again)
    shutil.rmtree(again / "runs/panecho/fraction-1/seed-1")
    kept = again / "runs/panecho-image/fraction-1/seed-0/model.pt"
    written = kept.stat().st_mtime_ns
    result = run(place, "again", "--seeds", "2", "--fractions", "0.5,1", "--frozen")
    assert "1 run trained, 7 reused" in result.output
    assert kept.stat().st_mtime_ns == written
    first, second = (pd.read_csv(folder / "scores.csv") for folder in (compared, again))
    pd.testing.assert_frame_equal(first, second)


def test_a_run_that_was_stopped_goes_on(place: Path, compared: Path) -> None:
    stopped = place / "stopped"
    shutil.copytree(compared, stopped)
    for info in (stopped / "runs/panecho").glob("*/*/run.json"):
        change_info(info.parent, status="running")
    result = run(place, "stopped", "--seeds", "2", "--fractions", "0.5,1")
    assert "4 runs trained, 4 reused" in result.output


def test_other_settings_are_refused_before_anything_is_trained(place: Path, compared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in compared.rglob("*") if path.is_file()}
    result = run(place, "whole", "--seeds", "3", settings=["optimizer.lr=3e-5"])
    assert result.exit_code == 1
    assert "optimizer.lr: 3e-05, not 0.0001" in result.output
    assert {path: path.stat().st_mtime_ns for path in compared.rglob("*") if path.is_file()} == before


def test_a_start_whose_weights_are_lost_is_told_and_the_others_go_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(tmp_path))  # an empty folder: nothing to be found there
    result = run(place, "lost", "--seeds", "1", inits="panecho,echoprime")
    assert result.exit_code == 3
    assert "unavailable: echoprime" in result.output
    assert "the weights of echoprime" in (place / "lost/report.html").read_text(encoding="utf-8")
    strict = run(place, "strict", "--seeds", "1", "--strict", inits="panecho,echoprime")
    assert strict.exit_code == 1
    assert not (place / "strict").exists()


def test_an_unknown_start_is_refused_before_anything_is_trained(place: Path) -> None:
    result = run(place, "unknown", inits="panecho,pancho")
    assert result.exit_code == 2
    assert "no backbone is called 'pancho'" in result.output
    assert not (place / "unknown").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reference", "imagenet"], "the starts are panecho, panecho-image"),
        (["--fractions", "0"], "each must be above 0"),
        (["--fractions", "all"], "no list|not a list"),
        (["--weights", "kinetics=nowhere.pt"], "START=FILE"),
    ],
)
def test_wrong_usage_is_refused(place: Path, more: list[str], message: str) -> None:
    result = run(place, "wrong", *more)
    assert result.exit_code == 2
    assert any(part in result.output for part in message.split("|"))


def test_the_frozen_probe_learns_from_training_rows_alone() -> None:
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(90, 5, generator=rng).double().numpy()
    truth = values @ [3.0, 0, 0, 1, 0]
    split = pd.Series(["train"] * 40 + ["val"] * 20 + ["test"] * 30).to_numpy(dtype=str)
    predicted = linear_probe(values, truth, split, task="regression")
    assert abs(predicted - truth[60:]).mean() < 0.2
    shifted = truth.copy()
    shifted[40:60] += 1000  # validation labels choose the strength, and teach nothing else
    assert abs(linear_probe(values, shifted, split, task="regression")).max() < 20


def test_a_class_of_many_that_training_lacks_is_given_to_nobody() -> None:
    truth = np.array([0.0, 2, 0, 2, 1, 0, 1])
    split = np.array(["train"] * 4 + ["val"] * 2 + ["test"])
    seen = {}

    def probe(values: object, truth: object, split: object, *, task: str) -> object:
        seen.update(truth=truth, split=split)
        return np.array([[0.3, 0.7]])

    found = _predict(np.zeros((7, 2)), truth, split, "Grade", "multiclass", 3, probe)
    assert found.tolist() == [[0.3, 0, 0.7]]
    np.testing.assert_array_equal(seen["truth"], [0, 1, 0, 1, 0, np.nan])
    assert list(seen["split"]) == ["train"] * 4 + ["val", "test"]


def test_a_class_that_training_lacks_is_refused() -> None:
    values, split = torch.randn(6, 2).numpy(), pd.Series(["train"] * 3 + ["val"] * 2 + ["test"]).to_numpy(dtype=str)
    with pytest.raises(ValueError, match="no training row has class 1"):
        linear_probe(values.astype(float), pd.Series([0.0, 0, 0, 1, 0, 1]).to_numpy(), split, task="binary")


def test_other_weights_than_those_of_done_runs_are_refused(place: Path, compared: Path) -> None:
    words = ["--seeds", "3", "--weights", f"panecho={place / 'b.pt'}"]
    result = run(place, "whole", *words, settings=[])
    assert result.exit_code == 1
    assert "seed-0 was begun from other weights" in result.output


def test_unusable_videos_are_told_again_by_the_next_call(place: Path, compared: Path) -> None:
    again = place / "lacking"
    shutil.copytree(compared, again)
    with (again / "runs/panecho/fraction-1/seed-0/failures.csv").open("a", encoding="utf-8") as file:
        file.write("v1,v1.avi,decode,broken\n")
    write_sums(again / "runs/panecho/fraction-1/seed-0")
    result = run(place, "lacking", "--seeds", "2", "--fractions", "0.5,1")
    assert result.exit_code == 3
    assert "unavailable: panecho, fraction 1, seed 0: 1 video could not be used" in result.output


def test_shared_patients_are_refused_unless_asked_for(place: Path) -> None:
    files = pd.read_csv(place / "data" / "FileList.csv")
    paths = [place / "data" / "Videos" / f"{name}.avi" for name in files.FileName]
    ids = {"study_id": files.FileName, "patient_id": [f"p{i % 3}" for i in range(len(files))]}
    table = pd.DataFrame({"path": paths, **ids, "split": files.Split.str.lower(), "EF": files.EF})
    table.to_csv(place / "shared.csv", index=False)
    words = ["grid", "custom", "--inits", "panecho", "--data", place / "shared.csv", "-o", place / "shared"]
    words += ["--weights", f"panecho={place / 'a.pt'}", "--seeds", "1", "--frozen", "--set", "data.targets=EF"]
    words += [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    words += ["--set", "schedule.warmup_epochs=0"]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert "stand in more than one of training, validation and test" in result.output
    result = CliRunner().invoke(main, [*map(str, words), "--allow-leakage"])
    assert result.exit_code == 0, result.output
    info = json.loads((place / "shared/runs/panecho/fraction-1/seed-0/run.json").read_text())
    assert info["counts"]["shared_patients"] > 0


@pytest.mark.parametrize("temporal", ["none", "transformer"])
def test_the_frozen_start_is_the_same_function_as_the_trained_one(place: Path, temporal: str) -> None:
    settings = [f"model.temporal={temporal}", "model.image_size=32"]
    recipe = load_recipe("echonet-dynamic", settings)
    start = load_start("panecho", recipe.model, 4, weights=place / "a.pt")
    frozen = _backbone("panecho", place / "a.pt", recipe)
    assert type(frozen.clip_encoder) is type(start.clip_encoder)
    assert (frozen.dim, frozen.pooling) == (start.dim, "mean" if temporal == "none" else "transformer")
    clips = torch.randn(2, 4, start.dim, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(frozen.clip_encoder(clips), start.clip_encoder.eval()(clips))


@pytest.mark.parametrize("recipe_name", ["echonet-dynamic", "custom"])
@pytest.mark.parametrize("init", ["panecho", "random"])
def test_from_pixels_to_a_clip_too(place: Path, recipe_name: str, init: str) -> None:
    """In the same order of planes, and on the same pixels."""
    settings = ["model.image_size=32", "data.targets=EF"] + (["model.width=0.0833"] if init == "random" else [])
    recipe = load_recipe(recipe_name, settings)
    weights = place / "a.pt" if init == "panecho" else None
    start, frozen = load_start(init, recipe.model, 4, weights=weights), _backbone(init, weights, recipe)
    assert frozen.plane_order == start.plane_order
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = frozen.pictures([np.arange(4)[None]], 4)
    planes = torch.from_numpy(made.planes)
    pictures = frozen.normalise(pixels.flatten(0, 1)[planes], planes % 3)
    clips = frozen.encode_clips(frozen.encode_pictures(pictures, planes % 3)[made.clips[0]])
    model = FineTuneModel(start, [Task("EF", "regression", 1, (), None, "%", 55.0, "")]).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model.heads["EF"](clips), model(pixels[None]), atol=1e-4, rtol=1e-5)
