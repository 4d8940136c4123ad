"""Label columns become targets as a recipe says: data.task, data.positive, data.order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ManifestError, RecipeError
from panecho_embed.core.tasks import read_tasks
from panecho_embed.finetuning.data import Targets, make_targets
from panecho_embed.finetuning.recipe_files import load_recipe
from tests.finetuning.conftest import NARROW, finetune, rows_of

LABELS = {
    "EF": np.array([30.0, 50, 60, np.nan]),
    "Stage": np.array([0.0, 1, 2, 1]),
    "Low": np.array(["yes", "no", "", "no"], dtype=object),
    "Grade": np.array(["mild", "none", "severe", ""], dtype=object),
}


def targets(*settings: str) -> Targets:
    return make_targets(LABELS, load_recipe("custom", settings).data)


def test_values_tell_what_a_column_is() -> None:
    found = targets("data.targets=EF,Low,Grade")
    assert [one.kind for one in found.targets] == ["regression", "binary", "multiclass"]
    assert [task.type for task in found.tasks] == ["regression", "binary", "multiclass"]
    assert found.targets[1].classes == ("no", "yes")  # the positive one last, as "no" names the negative one
    np.testing.assert_array_equal(found.values[:, 1], [1, 0, np.nan, 0])


def test_the_positive_class_is_the_recipes() -> None:
    found = targets("data.targets=Low", "data.positive=no")
    assert (found.targets[0].positive, found.tasks[0].positive_class) == ("no", "no")
    np.testing.assert_array_equal(found.values[:, 0], [0, 1, np.nan, 1])


def test_numbers_that_may_name_classes_are_asked_about_and_stated() -> None:
    with pytest.raises(ManifestError, match=r"Stage has the whole numbers 0, 1, 2 alone.*--set data\.task=ordinal"):
        targets("data.targets=Stage")
    kinds = {}
    for task in ("regression", "multiclass", "ordinal"):
        found = targets("data.targets=Stage", f"data.task={task}")
        kinds[found.targets[0].kind] = (found.tasks[0].type, found.tasks[0].classes)
    assert kinds == {
        "regression": ("regression", ()),
        "multiclass": ("multiclass", ("0", "1", "2")),
        "ordinal": ("multiclass", ("0", "1", "2")),
    }


def test_grades_in_words_need_their_order() -> None:
    with pytest.raises(ManifestError, match=r"Grade.*--set data\.order="):
        targets("data.targets=Grade", "data.task=ordinal")
    found = targets("data.targets=Grade", "data.order=none,mild,severe")
    assert (found.targets[0].kind, found.targets[0].classes) == ("ordinal", ("none", "mild", "severe"))
    assert (found.tasks[0].type, found.tasks[0].classes) == ("multiclass", ("none", "mild", "severe"))
    np.testing.assert_array_equal(found.values[:, 0], [1, 0, 2, np.nan])
    with pytest.raises(ManifestError, match="severe"):
        targets("data.targets=Grade", "data.order=none,mild")


def test_a_kind_that_there_is_not_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"data\.task is 'ordnal'; allowed: .*ordinal"):
        load_recipe("custom", ["data.task=ordnal"])


@pytest.fixture(scope="module")
def ordinal(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "ordinal"
    settings = {"data.targets": "Grade", "data.order": "none,mild,severe", "model.width": NARROW}
    finetune("custom", "--init", "random", "--data", graded, "-o", out, **settings, schedule__epochs=1)
    return out


def test_grades_are_learned_as_classes_and_scored_as_grades(ordinal: Path) -> None:
    (task,) = read_tasks(ordinal / "tasks.csv")
    assert (task.type, task.classes) == ("multiclass", ("none", "mild", "severe"))
    found = json.loads((ordinal / "metrics.json").read_text())["targets"]["Grade"]
    assert (found["task"], found["primary"]) == ("ordinal", "weighted_kappa")
    assert {"grade_error", "auroc:mild or above", "auroc:severe or above"} <= set(found["metrics"])
    rows = rows_of(ordinal, found["level"], "test")
    shares = rows["probability"].str.split(";", expand=True).astype(float).to_numpy()
    called = (np.cumsum(shares, axis=1) >= 0.5).argmax(axis=1)
    assert rows["prediction"].tolist() == [task.classes[i] for i in called]
    off = np.abs(called - rows["truth"].map(task.classes.index).to_numpy())
    assert found["metrics"]["grade_error"]["value"] == pytest.approx(off.mean())
    assert "weighted kappa" in (ordinal / "report.html").read_text().lower()


def test_predict_and_compare_take_them_as_grades_too(ordinal: Path, graded: Path, tmp_path: Path) -> None:
    def run(*words: object, expect: int = 0) -> str:
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == expect, result.output
        return result.output

    words = ["predict", graded, "--weights", ordinal / "model.pt", "--workers", "0", "--no-sheets", "-o"]
    run(*words, tmp_path / "graded", "--order", "none,mild,severe")
    mine, theirs = (json.loads((p / "metrics.json").read_text())["targets"]["Grade"]
                    for p in (ordinal, tmp_path / "graded"))  # fmt: skip
    assert theirs["task"] == "ordinal"
    assert theirs["metrics"]["grade_error"]["value"] == mine["metrics"]["grade_error"]["value"]
    compare = ["compare", ordinal, "-o", tmp_path / "out", "--draws", "50"]
    assert "Grade: " in run(*compare, tmp_path / "graded")
    differences = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert differences["metric"].tolist() == ["weighted_kappa"]
    run(*words, tmp_path / "classes")
    told = run(*compare, tmp_path / "classes", "--overwrite", expect=2)
    assert "make both with the same reading of the labels" in told
