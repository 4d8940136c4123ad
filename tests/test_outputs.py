"""Everything is written whole or not at all, and what killed processes left goes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from panecho_embed.core import outputs
from panecho_embed.core.digests import SUMS, listed_sums, problems_of_folder, read_checked
from panecho_embed.core.errors import StoreError
from panecho_embed.core.outputs import (
    READY,
    kind_of_run,
    machine,
    refuse_to_replace,
    refuse_to_replace_run,
    settle,
    sweep,
    temporary_path,
    write_text,
    written_run,
    written_whole,
)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(folder: Path, **files: str) -> Path:
    with written_run(folder) as new:
        for name, text in files.items():
            path = new / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return folder


def ended() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_that_fails_half_way_leaves_the_former_one_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "former")
    with pytest.raises(StoreError, match=r"can't write .*a\.txt: no space left on the device; .* with --html"):  # noqa: SIM117
        with written_whole(tmp_path / "a.txt", "--html") as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert tree(tmp_path) == {"a.txt": b"former"}


def test_room_is_made_sure_of_before_anything_is_written(tmp_path):
    with pytest.raises(StoreError, match=r"no space left|no file that large"):  # noqa: SIM117
        with written_whole(tmp_path / "a.bin", size=1 << 60):
            pytest.fail("there is no such disk")
    assert not list(tmp_path.iterdir())


def test_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("former")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"it is no regular file \(-o\)"):
        write_text(tmp_path, "x")


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead, alive = ended(), os.getpid()
    (tmp_path / f".a.csv.{machine()}-{dead}-0.tmp").write_text("half")
    (tmp_path / f".new.{machine()}-{dead}-1.tmp").mkdir()
    (tmp_path / f".new.{machine()}-{dead}-1.tmp" / "report.html").write_text("half")
    kept = [f".a.csv.{machine()}-{alive}-7.tmp", ".a.csv.0123abcd-1-0.tmp", ".a.csv.123.tmp", "mine.tmp"]
    for name in kept:
        (tmp_path / name).write_text("x")
    write_text(tmp_path / "b.txt", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "b.txt"])


def test_what_another_machine_left_goes_after_a_day(tmp_path):
    left = tmp_path / ".a.csv.0123abcd-1-0.tmp"
    left.write_text("half")
    os.utime(left, (1, 1))
    sweep(tmp_path)
    assert not left.exists()


def test_a_run_replaces_the_files_of_the_former_one_and_no_others(tmp_path):
    written(tmp_path, **{"metrics.json": "1", "grid.csv": "1", "plots__a.svg": "1"})
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "plots" / "own.svg").write_text("mine")
    written(tmp_path, **{"metrics.json": "2", "plots__b.svg": "2"})
    found = tree(tmp_path)
    assert found.pop(SUMS)
    assert found == {"metrics.json": b"2", "notes.txt": b"mine", "plots/own.svg": b"mine", "plots/b.svg": b"2"}
    assert set(listed_sums(tmp_path)) == {"metrics.json", "plots/b.svg"}
    assert not problems_of_folder(tmp_path)


def test_sha256sum_reads_the_list(tmp_path):
    written(tmp_path, **{"metrics.json": "1", "plots__a b.svg": "1"})
    checked = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert checked.stdout.splitlines() == ["metrics.json: OK", "plots/a b.svg: OK"]


def test_a_run_that_fails_leaves_the_former_one_as_it_was(tmp_path):
    written(tmp_path / "run", a="1")
    before = tree(tmp_path)
    with pytest.raises(StoreError, match=r"can't write .*run: no space left on the device"):  # noqa: SIM117
        with written_run(tmp_path / "run") as new:
            write_text(new / "a", "2")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert tree(tmp_path) == before
    with pytest.raises(ZeroDivisionError), written_run(tmp_path / "none") as new:
        write_text(new / "a", str(1 / 0))
    assert not (tmp_path / "none").exists()


def test_files_that_a_run_had_already_stay_and_keep_their_digest(tmp_path):
    written(tmp_path, model="1", metrics="1")
    (tmp_path / "model").write_text("damaged")
    with written_run(tmp_path, also=["model"]) as new:
        write_text(new / "metrics", "2")
    assert read_checked(tmp_path / "metrics") == b"2"
    with pytest.raises(StoreError, match="model is damaged, or was changed after the run"):
        read_checked(tmp_path / "model")


# What a run of each kind writes in any case.
KINDS = {
    "prediction": ("predictions.json", "metrics.json"),
    "fine-tuning run": ("run.json", "metrics.json"),
    "grid of fine-tuning runs": ("runs.csv", "comparison.json"),
    "comparison": ("comparison.json",),
    "probe run": ("metrics.json", "probe.json"),
}


def test_a_finished_run_is_not_replaced_unasked(tmp_path):
    refuse_to_replace_run(tmp_path / "none", False, "probe run")
    refuse_to_replace_run(tmp_path, False, "probe run")
    (tmp_path / "notes.txt").write_text("of a person")
    refuse_to_replace_run(tmp_path, False, "probe run")
    written(tmp_path, **{"metrics.json": "{}"})
    with pytest.raises(StoreError, match=r"holds a finished probe run already; take another folder \(-o\)"):
        refuse_to_replace_run(tmp_path, False, "probe run")
    refuse_to_replace_run(tmp_path, True, "probe run")
    with pytest.raises(StoreError, match="is a file; name a folder"):
        refuse_to_replace_run(tmp_path / "notes.txt", True, "probe run")


@pytest.mark.parametrize("there", KINDS)
def test_a_run_replaces_no_run_of_another_kind_whatever_is_asked(tmp_path, there):
    written(tmp_path, **dict.fromkeys(KINDS[there], "{}"))
    assert kind_of_run(tmp_path) == there
    for kind in KINDS:
        if kind == there:
            refuse_to_replace_run(tmp_path, True, kind)
            continue
        for overwrite in (False, True):
            with pytest.raises(StoreError, match=f"holds a {there}, and a {kind} does not replace it"):
                refuse_to_replace_run(tmp_path, overwrite, kind)


def test_a_folder_of_another_command_is_not_taken(tmp_path):
    written(tmp_path, **{"labels.csv": "video_id\n"})
    with pytest.raises(StoreError, match="holds a run of another command"):
        refuse_to_replace_run(tmp_path, True, "comparison")


def test_a_file_in_a_missing_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(StoreError, match=r"none/a.json: the folder does not exist \(--html\)"):
        refuse_to_replace(tmp_path / "none" / "a.json", False, flag="--html")
    refuse_to_replace(tmp_path / "none" / "a.json", False, in_new_folder=True)


_WRITES = """
import sys
from pathlib import Path
from panecho_embed.core.outputs import written_run
from panecho_embed.core import outputs
for number in range(10**6):
    with written_run(sys.argv[1]) as new:
        for name in "abcdef":
            (new / name).write_text(str(number))
        if number % 2:
            (new / "odd").write_text(str(number))
    print(number, flush=True)
"""


def test_killed_at_any_moment_a_folder_holds_one_run_and_the_next_leaves_nothing_else(tmp_path):
    for kill in range(12):
        command = [sys.executable, "-c", _WRITES, tmp_path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(2 + kill):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        settle(tmp_path)
        assert not problems_of_folder(tmp_path)
        numbers = {(tmp_path / name).read_text() for name in listed_sums(tmp_path)}
        assert len(numbers) == 1
        assert ("odd" in listed_sums(tmp_path)) == (int(numbers.pop()) % 2 == 1)
    written(tmp_path, a="last")
    assert sorted(path.name for path in tmp_path.iterdir()) == [SUMS, "a"]


@pytest.mark.parametrize("stop", range(8))
def test_files_stopped_on_the_way_to_their_places_go_on(tmp_path, monkeypatch, stop):
    written(tmp_path, **{"a": "1", "b": "1", "plots__c": "1"})
    moves, moved = Path.replace, []

    def stopped(self, target):
        moved.append(self)
        if len(moved) > stop:
            raise KeyboardInterrupt
        return moves(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        try:
            written(tmp_path, **{"a": "2", "plots__d": "2"})
        except KeyboardInterrupt:
            assert (tmp_path / READY).is_dir()
    settle(tmp_path)
    assert {name: text for name, text in tree(tmp_path).items() if name != SUMS} == {"a": b"2", "plots/d": b"2"}


def test_a_run_that_was_killed_while_its_files_took_their_places_is_finished_and_shows_them(tmp_path):
    written(tmp_path / "made", **{"metrics.json": "1", "plots__c": "1"})
    (tmp_path / "run").mkdir()
    (tmp_path / "made").rename(tmp_path / "run" / READY)
    with pytest.raises(StoreError, match="holds a finished probe run already"):
        refuse_to_replace_run(tmp_path / "run", False, "probe run")
    assert sorted(tree(tmp_path / "run")) == [SUMS, "metrics.json", "plots/c"]


def test_whoever_settles_while_another_has_just_done_so_removes_nothing(tmp_path, monkeypatch):
    # A reader has seen the folder of the finished run; before it reads the list, the run itself moves everything.
    with written_run(tmp_path / "run") as new:
        write_text(new / "a", "1")
    (tmp_path / "run").rename(tmp_path / READY)
    lists = outputs.listed_sums

    def late(folder):
        if folder.name == READY:
            monkeypatch.setattr(outputs, "listed_sums", lists)
            settle(tmp_path)
        return lists(folder)

    monkeypatch.setattr(outputs, "listed_sums", late)
    settle(tmp_path)
    assert tree(tmp_path).keys() == {"a", SUMS}
    assert read_checked(tmp_path / "a", needed=True) == b"1"


def test_settling_takes_no_file_away_that_no_list_names(tmp_path):
    # The next run's folder can take the place of the one that was looked at.
    (tmp_path / READY / "plots").mkdir(parents=True)
    (tmp_path / READY / "plots" / "next.svg").write_text("x")
    settle(tmp_path)
    assert (tmp_path / READY / "plots" / "next.svg").read_text() == "x"
    (tmp_path / READY / "plots" / "next.svg").unlink()
    settle(tmp_path)
    assert not (tmp_path / READY).exists()


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for by signals")
def test_another_users_process_that_can_not_be_seen_is_at_work(tmp_path, monkeypatch):
    def not_yours(process, signal):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    left = tmp_path / f".a.csv.{machine()}-{ended()}-0.tmp"
    left.write_text("half")
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", not_yours)
        sweep(tmp_path)
    assert left.exists()
    sweep(tmp_path)
    assert not left.exists()


def test_temporary_names_are_each_once_and_known(tmp_path):
    names = {temporary_path(tmp_path / "x.csv").name for _ in range(100)}
    assert len(names) == 100
    assert all(outputs.TEMPORARY.fullmatch(name) for name in names)
