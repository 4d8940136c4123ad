from __future__ import annotations

import math
from pathlib import Path

import pytest

from panecho_embed.core.errors import StoreError, TaskTableError
from panecho_embed.core.tasks import Task, all_tasks, read_tasks, write_tasks

MINE = """name,type,classes_in_index_order,positive_class_index,unit
Strain,regression,,,%  (sign flipped: true strain = -output)
Amyloid,binary,no;yes,1,
Rhythm,multiclass,sinus;AF;paced;other,,
"""


def read(text: str, folder: Path) -> tuple[Task, ...]:
    (folder / "tasks.csv").write_text(text, encoding="utf-8")
    return read_tasks(folder / "tasks.csv")


def test_gls_alone_is_reported_with_its_sign_flipped():
    assert [(task.name, task.unit) for task in all_tasks() if task.sign == -1] == [("GLS", "%")]


def test_the_positive_class_has_a_name():
    named = {task.name: task.positive_class for task in all_tasks()}
    assert (named["MVStenosis"], named["LVWallMotionAbnormalities"]) == ("Mild|Moderate|Severe", "Present")
    assert named["EF"] == ""


def test_a_table_of_ones_own(tmp_path):
    strain, amyloid, rhythm = read(MINE, tmp_path)
    assert (strain.unit, strain.sign, strain.num_outputs) == ("%", -1, 1)
    assert math.isnan(strain.training_mean)
    assert (amyloid.classes, amyloid.positive_class, amyloid.num_outputs) == (("no", "yes"), "yes", 1)
    assert (rhythm.num_outputs, rhythm.positive_class_index) == (4, None)


def test_what_is_written_is_read_back(tmp_path):
    assert read_tasks(write_tasks(all_tasks(), tmp_path / "tasks.csv")) == all_tasks()
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.csv"]


def test_a_spreadsheet_s_byte_order_mark_and_line_ends_do_not_matter(tmp_path):
    assert read("\ufeff" + MINE.replace("\n", "\r\n"), tmp_path)[1:] == read(MINE, tmp_path)[1:]


BAD = [
    ("name,typ\nEF,regression\n", r"unknown column 'typ'; nearest: type.*\n  the column 'type' is missing"),
    ("name,type,type\nEF,regression,binary\n", r"'type' stands twice"),
    ("name,type\n", r"no rows"),
    ("", r"the column 'name' is missing"),
    ("name,type\nEF,regresion\n", r"row 2 \(EF\): type is 'regresion'; nearest: regression"),
    ("name,type\nEF,regression\nEF,regression\n", r"the name 'EF' stands 2 times"),
    ("name,type\na.b,regression\n", r"row 2 \(a\.b\): the name is 'a\.b'; it must not"),
    ("name,type\n,regression\n", r"row 2: the name is ''"),
    ("name,type\nEF,regression,more\n", r"row 2 \(EF\): it has more cells"),
    ("name,type,classes_in_index_order\nEF,regression,a;b\n", r"a regression has no classes"),
    ("name,type,classes_in_index_order\nX,multiclass,a\n", r"a multiclass task has two or more"),
    ("name,type,classes_in_index_order\nX,multiclass,a;a;b\n", r"each class must have its own name"),
    ("name,type,classes_in_index_order,positive_class_index\nX,binary,a;b;c,1\n", r"a binary task has two"),
    ("name,type,classes_in_index_order,positive_class_index\nX,binary,a;b,\n", r"positive_class_index is ''.*0 or 1"),
    ("name,type,classes_in_index_order,positive_class_index\nX,binary,a;b,2\n", r"positive_class_index is '2'"),
    ("name,type,classes_in_index_order,positive_class_index\nX,multiclass,a;b;c,1\n", r"only a binary task has one"),
    ("name,type,classes_in_index_order,num_outputs\nX,multiclass,a;b;c,4\n", r"num_outputs is '4'.*is 3"),
    ("name,type,training_mean\nEF,regression,fifty\n", r"training_mean is 'fifty'; it must be a number"),
    ("name,type,training_mean\nEF,regression,inf\n", r"training_mean is 'inf'"),
    ('name,type\n"EF,regression\n', r"no CSV table: line"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_bad_table_is_refused_with_what_is_wrong(text, message, tmp_path):
    with pytest.raises(TaskTableError, match=message) as caught:
        read(text, tmp_path)
    assert str(tmp_path / "tasks.csv") in str(caught.value)


def test_every_problem_is_listed(tmp_path):
    with pytest.raises(TaskTableError) as caught:
        read("name,type,training_mean\nA,x,1\nB,y,z\n", tmp_path)
    assert len(str(caught.value).splitlines()) == 4


def test_a_missing_or_binary_file_is_named(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"\xff\xfe\x80")
    for name, message in (("model.pt", "no UTF-8 text"), ("none.csv", "No such file")):
        with pytest.raises(TaskTableError, match=rf"{name}: .*{message}.*--task-table"):
            read_tasks(tmp_path / name)


def test_a_table_that_can_t_be_written_says_so(tmp_path):
    with pytest.raises(StoreError, match="can't write"):
        write_tasks(all_tasks(), tmp_path / "nowhere" / "tasks.csv")
