"""From phantom videos with a known EF to an interval: a signal is found, and with shuffled labels it is not."""

from __future__ import annotations

import pytest

from panecho_embed.extraction.run import extract
from panecho_embed.phantom import write_studies
from probes.linear import LinearProbe
from probes.plans import RunSettings
from probes.problem import Problem, load_problem
from probes.run import evaluate, shuffled_label_control
from tests.tiny import tiny


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    folder = tmp_path_factory.mktemp("phantoms")
    write_studies(folder / "studies", "echonet-dynamic", 30, num_frames=24, size=48)
    extract(folder / "studies", folder / "frames.h5", backbone=tiny(), level="frame", workers=0)
    return load_problem(folder / "frames.h5", "EF", pooling="mean+std")


def test_ef_from_frozen_features_beats_the_mean(problem: Problem) -> None:
    result = evaluate(problem, LinearProbe(), RunSettings(folds=5, trainings=1, draws=1000))
    assert result.scored.gain["mae"].high < 0


def test_shuffled_labels_do_not(problem: Problem) -> None:
    settings = RunSettings(folds=5, trainings=1, draws=10)
    result = evaluate(problem, LinearProbe(), settings)
    control = shuffled_label_control(problem, LinearProbe(), result.plans[0], settings, repeats=10)
    assert control["mae"].mean() > 0.97 * result.scored.baseline["mae"].value
