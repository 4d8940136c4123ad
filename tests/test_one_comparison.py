"""A probe, a fine-tuned model, PanEcho's head and another toolkit's table are compared by one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.evaluation.predictions import read_predictions
from panecho_embed.extraction import extract
from panecho_embed.prediction.run import predict
from probes.linear import LinearProbe
from probes.outputs import RunInfo, write_run
from probes.problem import load_problem
from probes.run import RunSettings, run_target
from tests.finetune.conftest import NARROW, dynamic, finetune  # noqa: F401  (a fixture)
from tests.prediction.conftest import weights  # noqa: F401  (a fixture)
from tests.tiny import tiny


@pytest.fixture(scope="module")
def runs(dynamic: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A run of each kind on the same phantoms, and a minimal table of the same test videos."""
    place = tmp_path_factory.mktemp("runs")
    extract(dynamic, place / "frames.h5", backbone=tiny(), level="frame", workers=0)
    result = run_target(load_problem(place / "frames.h5", "EF"), LinearProbe(), RunSettings(draws=20))
    write_run([result], RunInfo("frames.h5", "probe linear"), place / "probe")
    finetune("echonet-dynamic", "--data", dynamic, "-o", place / "tuned", "--init", "random", model__width=NARROW)
    predict(dynamic, place / "heads", weights=weights, image_size=32, workers=0)
    test = result.evaluation.predictions.of_split("test")
    columns = {"patient_id": test.patient, "video_id": test.ids["video_id"], "truth": test.truth, "prediction": 55.0}
    pd.DataFrame({"target": "EF", **columns}).to_csv(place / "theirs.csv", index=False)
    return place


def test_every_kind_of_run_is_compared_on_the_same_patients(runs: Path) -> None:
    words = [str(runs / "probe"), f"fine-tuned={runs / 'tuned'}", f"PanEcho={runs / 'heads'}", str(runs / "theirs.csv")]
    result = CliRunner().invoke(main, ["compare", *words, "--draws", "20", "-o", str(runs / "compared")])
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(runs / "compared" / "scores.csv").query("metric == 'mae'").set_index("candidate")
    assert set(scores.index) == {"probe", "fine-tuned", "PanEcho", "theirs"}
    assert scores["n_patients"].nunique() == scores["n"].nunique() == 1
    differences = pd.read_csv(runs / "compared" / "differences.csv")
    assert len(differences) == 6
    assert differences["n_patients"].nunique() == 1
    tables = [read_predictions(path)[0] for path in sorted((runs / "compared" / "predictions").iterdir())]
    for table in tables[1:]:
        assert table.ids["video_id"].tolist() == tables[0].ids["video_id"].tolist()
        np.testing.assert_allclose(table.truth, tables[0].truth)
    assert "baseline" in result.output
    assert "What can't be concluded" in result.output
