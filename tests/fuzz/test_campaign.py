"""Damaged and hostile inputs of every kind end in a result, a failure row, or an error of the package's own."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import run
from tests.fuzz.seeds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_inputs(kind):
    report = run(kind, 40)
    assert not report.findings, str(report)
    assert report.outcomes.total() == 40


def test_guided_inputs_are_the_same_each_time():
    blind, guided, again = (run("recipe", 60, seed=3, traced=True, guided=guided) for guided in (False, True, True))
    assert not guided.findings, str(guided)
    assert (guided.arcs, guided.outcomes) == (again.arcs, again.outcomes)
    assert blind.arcs > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_guided_inputs(kind):
    report = run(kind, 2000, seed=1, guided=True)
    assert not report.findings, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_inputs(kind):
    report = run(kind, 2000, seed=1)
    assert not report.findings, str(report)
