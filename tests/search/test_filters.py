from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ArgumentError
from panecho_embed.retrieval import matches

COLUMNS = {
    "view": np.array(["A4C", "A2C", "", "PLAX"], dtype=object),
    "EF": np.array([30.0, 55.0, np.nan, 62.0]),
    "LV mass": np.array([100.0, 200.0, 300.0, np.nan]),
    "class": np.array(["a", "b", "class", ""], dtype=object),
    "in": np.array([1.0, 2.0, 3.0, 4.0]),
}


@pytest.mark.parametrize(
    ("where", "picked"),
    [
        ("view == 'A4C'", [0]),
        ("view == 'A4C' or EF > 60", [0, 3]),
        ("not EF < 40", [1, 2, 3]),
        ("EF != 30", [1, 3]),
        ("view != 'A4C'", [1, 3]),
        ("30 < EF <= 55", [1]),
        ("40 > EF", [0]),
        ("view in ['A4C', 'PLAX']", [0, 3]),
        ("view not in ('A4C', 'PLAX')", [1]),
        ("EF is None", [2]),
        ("EF is not None and view is not None", [0, 1, 3]),
        ("EF == None", [2]),
        ("`LV mass` >= 200", [1, 2]),
        ("(view == 'A2C' or view == 'PLAX') and EF > 60", [3]),
        ("EF > -1e3", [0, 1, 3]),
        ("view == '`A4C`'", []),
        ("class == 'a' or class == 'class'", [0, 2]),
        ("EF<60 and class in ['b']", [1]),
        ("`class` is None", [3]),
        ("`in` >= 2 and view in ['A2C', 'PLAX']", [1, 3]),
    ],
)
def test_a_filter_picks_the_rows_that_match(where, picked):
    assert np.flatnonzero(matches(where, COLUMNS)).tolist() == picked


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("", "empty"),
        ("EEF < 40", "'EEF', which is no column; nearest: EF"),
        ("view == A4C", "a text stands in quotes, 'A4C'"),
        ("view = 'A4C'", "equality is =="),
        ("view < ", "can't be read near character"),
        ("EF < 'low'", "which holds numbers, with 'low'"),
        ("view > 3", "which holds texts, with 3"),
        ("EF", "can't be read at 'EF'"),
        ("EF < 40 +", "can't be read"),
        ("__import__('os').system('id') == 0", "can't be read at"),
        ("EF.real < 3", "can't be read at 'EF.real'"),
        ("EF < [1][0]", "can't be read at"),
        ("EF in []", "can't be read at"),
        ("EF < (lambda: 1)()", "can't be read at"),
        ("`no such` == 1", "'no such', which is no column"),
        ("(" * 300 + "EF" + ")" * 300, "can't be read"),
        ("EF < 1" * 400, "2400 characters"),
        ("EF < 1\x00", "can't be read"),
        ("class > 3", "class, which holds texts, with 3"),
        ("lambda == 3", "names 'lambda', which is no column"),
        ("in == 3", "can't be read near"),
    ],
)
def test_what_can_not_be_read_says_why(where, says):
    with pytest.raises(ArgumentError) as error:
        matches(where, COLUMNS)
    assert says in str(error.value)


@given(st.text(st.sampled_from("EF view'A4C<>=!()[]`andornotinis0123456789. ,-#\\\n\x00é"), max_size=40))
def test_any_text_is_a_filter_or_an_argument_error(where):
    with contextlib.suppress(ArgumentError):
        assert matches(where, COLUMNS).shape == (4,)


def test_a_number_beyond_all_floats_is_only_large():
    assert matches("EF < 1" + "0" * 400, COLUMNS).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("(EF > 30) & (EF < 50)", "'and' joins, not &"),
        ("EF > 30 | EF < 20", "'or' joins, not |"),
        ("EF > 30 AND EF < 50", "and, or, not, in and is are written small"),
        ("~(EF > 30)", "'not' turns a comparison round"),
        ("LV mass > 3", "names of several words in backticks"),
    ],
)
def test_what_other_languages_write_gets_a_hint(where, says):
    with pytest.raises(ArgumentError) as error:
        matches(where, {"EF": np.array([10.0, 40.0]), "LV mass": np.array([1.0, 4.0])})
    assert says in str(error.value)


def test_a_sign_within_a_text_is_no_hint():
    with pytest.raises(ArgumentError) as error:
        matches("view == 'A & B' +", {"view": np.array(["A"], dtype=object)})
    assert "joins, not" not in str(error.value)
