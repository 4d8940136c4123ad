"""Models with heads of the user's own tasks, in the released checkpoint's layout."""

from __future__ import annotations

import math

import pytest
import torch

from panecho_embed.core.errors import ArgumentError, TaskTableError, WeightsError
from panecho_embed.core.tasks import Task, all_tasks, write_tasks
from panecho_embed.models.panecho import PanEcho, save_checkpoint, tasks_in
from panecho_embed.models.verify import verify_weights

AMYLOID = Task("Amyloid", "binary", 1, ("yes", "no"), 0, "", 0.9, "cardiac amyloidosis")
RHYTHM = Task("Rhythm", "multiclass", 4, ("sinus", "AF", "paced", "other"), None, "", math.nan, "")
MASS = Task("LVMass", "regression", 1, (), None, "g", math.nan, "LV mass")
MINE = (AMYLOID, RHYTHM, MASS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(PanEcho(pretrained=False, task_table=MINE), folder / "model.pt")
    write_tasks(MINE, folder / "tasks.csv")
    return folder


@pytest.fixture
def alone(folder, tmp_path):
    """The checkpoint without its table."""
    (tmp_path / "model.pt").symlink_to(folder / "model.pt")
    return tmp_path / "model.pt"


def outputs(model):
    with torch.no_grad():
        return model(torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def test_the_table_beside_the_file_says_what_its_heads_are(folder):
    model = PanEcho(weights=folder / "model.pt", activations=True)
    assert [task.name for task in model.tasks] == ["Amyloid", "Rhythm", "LVMass"]
    result, raw = outputs(model), outputs(PanEcho(weights=folder / "model.pt"))
    assert result["Rhythm"].shape == (2, 4)
    assert torch.allclose(result["Amyloid"], 1 - torch.sigmoid(raw["Amyloid"]))
    assert torch.equal(result["LVMass"], raw["LVMass"])


def test_the_table_can_be_given(folder, alone):
    by_file = PanEcho(weights=alone, task_table=folder / "tasks.csv", tasks=["LVMass"])
    by_value = PanEcho(weights=alone, task_table=MINE, tasks=["LVMass"])
    assert torch.equal(outputs(by_file)["LVMass"], outputs(by_value)["LVMass"])


def test_a_mean_that_the_table_does_not_give_leaves_the_bias_as_torch_starts_it():
    model = PanEcho(pretrained=False, task_table=MINE)
    assert model.heads["Amyloid"][1].bias.item() == pytest.approx(0.9)
    assert model.heads["LVMass"][1].bias.isfinite().all()


def test_heads_without_their_table_are_refused_with_the_way_out(alone):
    with pytest.raises(WeightsError) as caught:
        PanEcho(weights=alone)
    text = str(caught.value)
    assert "  + Rhythm_head.1.weight (4, 768)" in text
    assert "'LVMass' is no task of the table; nearest:" in text
    assert "--task-table" in text


def test_heads_of_another_shape_are_refused(folder, alone):
    three = Task("Rhythm", "multiclass", 3, ("sinus", "AF", "paced"), None, "", math.nan, "")
    with pytest.raises(WeightsError, match=r"-\+ Rhythm_head\.1\.weight \(3, 768\), not \(4, 768\)"):
        PanEcho(weights=alone, task_table=(AMYLOID, three, MASS))


def test_a_table_may_hold_more_than_the_file_has_heads_for(alone):
    model = PanEcho(weights=alone, task_table=(*all_tasks(), *MINE))
    assert [task.name for task in model.tasks] == ["Amyloid", "Rhythm", "LVMass"]
    with pytest.raises(WeightsError, match=r"- EF_head\.1\.weight(.|\n)*the file has no head of 'EF'"):
        PanEcho(weights=alone, task_table=(*all_tasks(), *MINE), tasks=["EF"])


def test_a_file_with_some_of_the_40_heads_gives_those(tmp_path):
    save_checkpoint(PanEcho(pretrained=False, tasks=["AVStenosis", "EF"]), tmp_path / "two.pt")
    assert [task.name for task in PanEcho(weights=tmp_path / "two.pt").tasks] == ["EF", "AVStenosis"]
    assert tasks_in(tmp_path / "two.pt") == ["AVStenosis", "EF"]


def test_a_file_without_heads_is_named_so(tmp_path):
    save_checkpoint(PanEcho(pretrained=False, backbone_only=True), tmp_path / "bare.pt")
    with pytest.raises(WeightsError, match=r"bare\.pt has no heads, only a backbone"):
        PanEcho(weights=tmp_path / "bare.pt")


def test_the_backbone_of_such_a_file_loads_without_its_table(alone):
    assert outputs(PanEcho(weights=alone, backbone_only=True)).shape == (2, 768)


def test_verify_counts_its_heads(folder):
    assert "panecho with 3 heads" in verify_weights(str(folder / "model.pt"))


def test_a_bad_table_is_refused_before_anything_is_loaded(alone, tmp_path):
    (tmp_path / "tasks.csv").write_text("name\nEF\n")
    with pytest.raises(TaskTableError, match="the column 'type' is missing"):
        PanEcho(weights=alone)


@pytest.mark.parametrize("name", ["items", "training", "values"])
def test_a_name_that_torch_uses_itself_is_refused(name):
    with pytest.raises(ArgumentError, match=rf"can't be called '{name}'"):
        PanEcho(pretrained=False, task_table=(Task(name, "regression", 1, (), None, "", 1.0, ""),))
