from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError
from panecho_embed.phantoms import write_studies
from probes.benchmarks.report import ranks_of
from probes.benchmarks.suite import load_suite, parse_suite, suite_names
from tests.datasets.trees import nifti

SUITE = """
description = "Two phantoms"
draws = 50
backbones = [
    { name = "r0", backbone = "random", image_size = 32 },
    { name = "r1", backbone = "random", seed = 1, image_size = 32 },
]
[samplings.short]
frames_per_clip = 2
num_clips = 1
[[tasks]]
name = "EF, Dynamic"
data = "echonet-dynamic"
target = "EF"
published = [{ model = "theirs", metric = "mae", value = 4.0, source = "a paper", backbone = "r0" }]
[[tasks]]
name = "EF, CAMUS"
data = "camus"
target = "EF"
split = { folds = 2 }
[[tasks]]
name = "LVH"
data = "echonet-lvh"
target = "IVSd"
"""


def camus(root, patients=8):
    for i in range(1, patients + 1):
        folder = root / "database_nifti" / f"patient{i:04d}"
        nifti(folder / f"patient{i:04d}_4CH_half_sequence.nii.gz", frames=2 + i % 3)
        info = f"ED: 1\nES: 2\nNbFrame: 2\nSex: F\nAge: 60\nImageQuality: Good\nEF: {30 + 4 * i}\nFrameRate: 50\n"
        (folder / "Info_4CH.cfg").write_text(info)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    write_studies(folder / "dynamic", "echonet-dynamic", 20, num_frames=8, size=32)
    camus(folder / "camus")
    (folder / "two.toml").write_text(SUITE)
    return folder


def words(place, out, *more):
    data = [f"--data=echonet-dynamic={place / 'dynamic'}", f"--data=camus={place / 'camus'}"]
    return ["benchmark", str(place / "two.toml"), *data, "-o", str(out), "--workers", "0", *more]


def run(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def done(place):
    result = run(*words(place, place / "done"))
    assert result.exit_code == 3, result.output
    return place / "done"


def test_two_data_sets_are_extracted_probed_and_compared(done):
    document = json.loads((done / "benchmark.json").read_text())
    assert [task["name"] for task in document["tasks"]] == ["EF, Dynamic", "EF, CAMUS"]
    for task in document["tasks"]:
        assert set(task["candidates"]) == {"r0", "r1"}
        assert len(task["differences"]) == 1
        assert task["candidates"]["r0"]["scores"] != task["candidates"]["r1"]["scores"]
    assert document["missing"][0] == {"what": "data set echonet-lvh", "why": "not given (--data echonet-lvh=FOLDER)"}
    page = (done / "report.html").read_text()
    assert "theirs" in page
    assert "not given (--data echonet-lvh=FOLDER)" in page


def test_a_second_run_computes_no_task_again(place, done):
    before = {path: path.stat().st_mtime_ns for path in (done / "tasks").iterdir()}
    text = (done / "benchmark.json").read_text()
    assert run(*words(place, done)).exit_code == 3
    assert {path: path.stat().st_mtime_ns for path in (done / "tasks").iterdir()} == before
    assert (done / "benchmark.json").read_text() == text


def test_merged_results_keep_both_labs(done, tmp_path):
    document = json.loads((done / "benchmark.json").read_text())
    for task in document["tasks"]:
        task["candidates"]["r0"]["scores"]["mae"] = [1.0, 0.5, 2.0]
    (tmp_path / "theirs.json").write_text(json.dumps(document))
    out = tmp_path / "both"
    result = run("benchmark", "--merge", done / "benchmark.json", "--merge", tmp_path / "theirs.json", "-o", out)
    assert result.exit_code == 0, result.output
    task = json.loads((out / "benchmark.json").read_text())["tasks"][0]
    assert set(task["candidates"]) == {"r0", "r1", "r0 (theirs)"}
    assert (out / "report.html").is_file()


def test_results_of_other_tasks_are_not_merged(done, tmp_path):
    document = json.loads((done / "benchmark.json").read_text())
    document["suite"]["tasks"][0]["target"] = "ESV"
    (tmp_path / "theirs.json").write_text(json.dumps(document))
    result = run("benchmark", "--merge", done / "benchmark.json", "--merge", tmp_path / "theirs.json", "-o", tmp_path)
    assert result.exit_code == 2
    assert "task 'EF, Dynamic': target is EF in" in result.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('target = "EF"\nsplit', 'target = "EFF"\nsplit', "camus has no column 'EFF'"),
        ("draws = 50", "drawz = 50", "no key 'drawz'"),
        ('data = "camus"', 'layout = "camus"', "task 2 (EF, CAMUS): no key 'layout'"),
        ("EF, CAMUS", "EF, Dynamic", "two tasks are called 'EF, Dynamic'"),
        ("folds = 2", "folds = 1", "folds stands alone, and is 2 or more"),
        ("frames_per_clip = 2", "frames_per_clip = 0", "samplings.short: frames_per_clip is 0"),
    ],
)
def test_mistakes_in_a_suite_are_named(place, tmp_path, old, new, told):
    assert old in SUITE
    (tmp_path / "two.toml").write_text(SUITE.replace(old, new, 1))
    data = f"--data=camus={place / 'camus'}"
    result = run("benchmark", tmp_path / "two.toml", data, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert told in result.output


def test_a_folder_of_another_layout_is_refused(place, tmp_path):
    result = run("benchmark", place / "two.toml", f"--data=camus={place / 'dynamic'}", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "--data camus:" in result.output
    assert "no CAMUS below it" in result.output


def test_a_data_set_of_no_task_is_refused(place, tmp_path):
    result = run("benchmark", place / "two.toml", f"--data=camos={place / 'camus'}", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "no task of two is on 'camos'" in result.output


def test_the_shipped_suites_can_be_read():
    assert [load_suite(name).name for name in suite_names()] == ["cardiobench", "ef"]
    assert len(load_suite("ef").tasks) == 4


def test_a_backbone_that_is_not_there_is_an_error():
    with pytest.raises(ArgumentError, match="panechoo"):
        parse_suite(SUITE.replace('backbone = "random"', 'backbone = "panechoo"'), "two")


def test_ranks_are_as_wide_as_the_differences_leave_them():
    scores = {name: {"scores": {"mae": [value, None, None]}} for name, value in (("a", 1), ("b", 2), ("c", 3))}
    differences = [
        {"first": "c", "second": "a", "verdict": "worse"},
        {"first": "a", "second": "b", "verdict": "undecided"},
    ]
    found = ranks_of({"primary": "mae", "candidates": scores}, differences)
    assert found == {"a": (1, 1, 2), "b": (2, 1, 3), "c": (3, 2, 3)}


@pytest.mark.slow
def test_killed_at_several_moments_it_ends_with_the_same_result(place, done, tmp_path):
    command = [sys.executable, "-m", "panecho_embed", *words(place, tmp_path / "out")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = 0
    for _ in range(6):
        process = subprocess.Popen(command, **quiet)
        time.sleep(random.Random(killed).uniform(4, 12))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert subprocess.run(command, **quiet, check=False).returncode == 3
    assert (tmp_path / "out" / "benchmark.json").read_text() == (done / "benchmark.json").read_text()
