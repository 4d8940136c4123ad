"""Whose a run folder is, whatever a kill left in it."""

from __future__ import annotations

import threading

import pytest

from panecho_embed.core.errors import SettingsMismatchError, StoreError
from panecho_embed.finetuning.folder import Identity, RunFolder
from panecho_embed.finetuning.recipe_files import load_recipe

MINE = Identity(load_recipe("custom"), "panecho", "d" * 64)


@pytest.fixture
def begun(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        assert folder.claim(MINE) == "fresh"
        folder.begin(MINE, {"data": {"digest": MINE.data}})
    return tmp_path / "run"


def test_a_begun_run_goes_on_and_a_done_one_is_done(begun):
    with RunFolder(begun) as folder:
        assert folder.claim(MINE) == "begun"
        with folder.finished({}):
            pass
        assert folder.claim(MINE) == "done"


def test_killed_before_its_recipe_was_written_it_begins_anew(begun):
    (begun / "recipe.toml").unlink()
    with RunFolder(begun) as folder:
        assert folder.claim(MINE) == "fresh"


def test_a_recipe_of_the_users_own_is_left_alone(tmp_path):
    (tmp_path / "recipe.toml").write_text("mine")
    with RunFolder(tmp_path) as folder, pytest.raises(StoreError, match=r"holds recipe\.toml and no run"):
        folder.claim(MINE)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Identity(load_recipe("custom", ["seed=4"]), "panecho", "d" * 64), "seed: 4, not 0"),
        (Identity(MINE.recipe, "random", "d" * 64), "init: random, not panecho"),
        (Identity(MINE.recipe, "panecho", "e" * 64), "ids, splits and labels: eeeeeeeeeeee, not dddddddddddd"),
        (Identity(MINE.recipe, "panecho", "d" * 64, fold=3), "fold: 3, not None"),
    ],
)
def test_another_run_is_refused_by_what_differs(begun, other, told):
    with RunFolder(begun) as folder:
        with pytest.raises(SettingsMismatchError) as caught:
            folder.claim(other)
        assert told in str(caught.value)
        assert folder.claim(other, overwrite=True) == "fresh"


def test_other_weights_are_refused(begun):
    with RunFolder(begun) as folder:
        folder.begin(MINE, {"weights": {"sha256": "a" * 64}})
        folder.check_weights("a" * 64)
        with pytest.raises(SettingsMismatchError, match="begun from other weights: sha256 aaaaaaaaaaaa"):
            folder.check_weights("b" * 64)


def test_a_damaged_run_is_named_and_can_be_discarded(begun):
    (begun / "run.json").write_text('{"status": "runn')
    with RunFolder(begun) as folder:
        with pytest.raises(StoreError, match="--overwrite"):
            folder.claim(MINE)
        assert folder.claim(MINE, overwrite=True) == "fresh"


def test_two_at_once_are_refused_unless_they_wait(begun):
    with RunFolder(begun) as first:
        with pytest.raises(StoreError, match="another run is writing"), RunFolder(begun):
            pass
        entered = threading.Event()
        waiting = threading.Thread(target=_enter, args=(begun, entered))
        waiting.start()
        assert first.claim(MINE) == "begun"
    assert entered.wait(30)
    waiting.join()


def _enter(path, entered):
    with RunFolder(path, patience_seconds=30):
        entered.set()
