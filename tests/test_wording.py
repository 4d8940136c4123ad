from __future__ import annotations

import pytest

from panecho_embed.core.wording import ManyNames, nearest

NAMES = [f"PHANTOM-{i:05d}-S1" for i in range(100_000)]


@pytest.mark.parametrize("asked", ["PHANTOM-04242-S", "phantom-04242-s1", "HANTOM-04242-S1", "PHANTXM-04242-S1"])
def test_a_mistyped_name_is_found_among_many(asked):
    assert "PHANTOM-04242-S1" in ManyNames(NAMES).nearest(asked)


def test_what_resembles_nothing_has_no_nearest():
    assert ManyNames(NAMES).nearest("/etc/passwd") == ManyNames([]).nearest("x") == ""


def test_few_names_are_all_compared():
    names = ["EF", "age", "sex", "view"]
    assert all(ManyNames(names).nearest(asked) == nearest(asked, names) for asked in ("EFF", "agee", "viewer", "zzz"))


def test_few_names_alone_are_compared_by_letters(monkeypatch):
    compared = []
    monkeypatch.setattr("panecho_embed.core.wording.nearest", lambda _, names: str(compared.extend(names)))
    ManyNames(NAMES).nearest("PHANTOM-04242-S2")
    assert 0 < len(compared) <= 4 * ManyNames._COMPARED
