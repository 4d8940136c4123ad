"""Predictions: one table, written and read here, whoever made it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.evaluation.metrics import point_values
from panecho_embed.evaluation.predictions import (
    COLUMNS,
    Predictions,
    concatenated,
    read_predictions,
    trivial_prediction,
    write_predictions,
)
from panecho_embed.evaluation.targets import Target

TARGETS = [
    Target("EF", "regression", unit="%"),
    Target("Low EF", "binary", ("no", "yes")),
    Target("View", "multiclass", ("A4C", "PLAX", "PSAX, base")),
    Target("Stenosis", "ordinal", ("none", "mild", "severe")),
]
COLUMNS_OF_ROWS = ("patient", "split", "fold", "run", "draw", "truth", "prediction", "threshold", "baseline")
MINIMAL = "target,patient_id,video_id,truth,prediction\nEF,p1,v1,55,50\nEF,p2,v2,,45.5\n"


def texts(*values: object) -> np.ndarray:
    return np.array([str(value) for value in values], dtype=object)


def predictions(target: Target, n: int = 6, seed: int = 0, **changes: Any) -> Predictions:
    """n videos, two a study, one patient a study."""
    rng = np.random.default_rng(seed)
    values = rng.random((n, max(target.outputs, 1)))
    if target.outputs > 1:
        values /= values.sum(axis=1, keepdims=True)
    shaped = values if target.outputs > 1 else values[:, 0]
    truth = rng.integers(0, len(target.classes), n).astype(float) if target.classes else rng.normal(55, 10, n)
    given: dict[str, Any] = {
        "target": target,
        "level": "video",
        "ids": {"video_id": texts(*(f"v{i}" for i in range(n))), "study_id": texts(*(f"s{i // 2}" for i in range(n)))},
        "patient": texts(*(f"p{i // 2}" for i in range(n))),
        "split": np.full(n, "test", dtype=object),
        "truth": truth,
        "prediction": shaped if target.classes else 55 + 10 * shaped,
    }
    return Predictions(**(given | changes))


def assert_same(one: Predictions, other: Predictions) -> None:
    assert (one.target, one.level, set(one.ids)) == (other.target, other.level, set(other.ids))
    for name in one.ids:
        assert one.ids[name].tolist() == other.ids[name].tolist()
    for name in COLUMNS_OF_ROWS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(
    st.sampled_from(TARGETS),
    st.integers(1, 8),
    st.integers(0, 1000),
    st.sampled_from(["study", "video", "clip", "frame"]),
    st.booleans(),
)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, target: Target, n: int, seed: int, level: str, whole: bool
) -> None:
    rng = np.random.default_rng(seed)
    made = predictions(target, n, seed, level=level)
    ids = {"study_id": made.ids["study_id"]} if level == "study" else dict(made.ids)
    if level in ("clip", "frame"):
        ids["first_frame"] = texts(*range(n))
    further: dict[str, Any] = {"ids": ids}
    if level == "study":
        further["draw"] = texts(*range(n))
    if whole:
        further |= {
            "split": rng.choice(texts("train", "val", "test"), n),
            "fold": texts(*(f"fold {i % 3}" for i in range(n))),
            "run": texts(*range(n)),
            "truth": np.where(rng.random(n) < 0.3, np.nan, made.truth),
            "baseline": made.prediction[::-1],
            "threshold": rng.random(n) if target.kind == "binary" else np.full(n, np.nan),
        }
    made = replace(made, **further)
    path = write_predictions([made], tmp_path_factory.mktemp("table") / "predictions.csv")
    (read,) = read_predictions(path)
    assert_same(made, read)


def test_a_table_holds_several_targets_and_levels(tmp_path: Path) -> None:
    made = [predictions(target) for target in TARGETS]
    made += [one.by_study() for one in made if one.target.kind == "regression"]
    read = read_predictions(write_predictions(made, tmp_path / "p.csv"))
    assert [(one.target, one.level) for one in read] == [(one.target, one.level) for one in made]
    assert (tmp_path / "p.csv").read_text().partition("\n")[0] == ",".join(COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_nan_and_na_are_names_like_others(tmp_path: Path) -> None:
    made = predictions(Target("X", "binary", ("NA", "nan")), patient=texts(*["NA"] * 6))
    (read,) = read_predictions(write_predictions([made], tmp_path / "p.csv"))
    assert_same(made, read)


def test_class_names_may_hold_the_separator(tmp_path: Path) -> None:
    made = predictions(Target("X", "multiclass", ("mild; early", "late\\", 'a "b", c')))
    (read,) = read_predictions(write_predictions([made], tmp_path / "p.csv"))
    assert_same(made, read)


def test_the_call_stands_in_the_table_by_name() -> None:
    low = replace(predictions(TARGETS[1]), prediction=np.array([0.1, 0.6, 0.4, 0.9, 0.5, 0.2]))
    assert set(low.frame()["prediction"]) == {""}
    decided = replace(low, threshold=np.full(6, 0.5))
    assert decided.frame()["prediction"].tolist() == ["no", "yes", "no", "yes", "yes", "no"]
    view = predictions(TARGETS[2])
    assert view.called().tolist() == [TARGETS[2].classes[i] for i in view.prediction.argmax(axis=1)]


def test_studies_are_the_mean_of_their_videos() -> None:
    made = predictions(TARGETS[0], truth=np.array([50, 60, np.nan, 40, np.nan, np.nan]))
    studies = made.by_study()
    assert (studies.level, studies.ids["study_id"].tolist()) == ("study", ["s0", "s1", "s2"])
    np.testing.assert_array_equal(studies.truth, [55, 40, np.nan])
    np.testing.assert_allclose(studies.prediction, made.prediction.reshape(3, 2).mean(axis=1))


def test_a_class_that_the_videos_of_a_study_do_not_share_is_no_truth() -> None:
    made = predictions(TARGETS[3], truth=np.array([0, 0, 1, 2, np.nan, 2]))
    studies = made.by_study()
    np.testing.assert_array_equal(studies.truth, [0, np.nan, 2])
    np.testing.assert_allclose(studies.prediction, made.prediction.reshape(3, 2, 3).mean(axis=1))


def test_a_study_has_a_row_for_each_patient_split_and_training_but_one_for_all_folds() -> None:
    one = predictions(TARGETS[0], 4, ids={"video_id": texts(*range(4)), "study_id": texts(*["s"] * 4)})
    same = replace(one, patient=texts(*["p"] * 4))
    assert len(one.by_study()) == 2
    assert len(same.by_study()) == 1
    assert len(replace(same, split=texts("train", "test", "test", "test")).by_study()) == 2
    assert len(replace(same, draw=texts(0, 0, 1, 1)).by_study()) == 2
    assert replace(same, fold=texts("b", "a", "a", "a")).by_study().fold.tolist() == ["b"]


def test_trainings_are_told_apart_by_run_and_draw() -> None:
    parts = [predictions(TARGETS[0], seed=i, run=texts(*[i // 2] * 6), draw=texts(*[i % 2] * 6)) for i in range(4)]
    whole = concatenated(parts)
    assert list(whole.replicates()) == [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    for part, found in zip(parts, whole.replicates().values(), strict=True):
        assert_same(part, found)
    with pytest.raises(ArgumentError, match="trainings of one model predicted"):
        concatenated([parts[0], predictions(TARGETS[1])])


def test_only_labelled_rows_of_a_split_are_taken() -> None:
    made = predictions(TARGETS[0], split=texts("train", "val", "test", "test", "test", "val"))
    made.truth[3] = np.nan
    assert made.of_split("test").ids["video_id"].tolist() == ["v2", "v4"]


def test_a_baseline_that_differs_between_folds_orders_nothing() -> None:
    base = np.repeat([50.0, 60.0, 55.0], 2)
    made = predictions(TARGETS[0], baseline=base)
    found = made.baseline_metrics(cutoffs=(50,))
    assert found is not None
    values = point_values(found)
    assert values["mae"] == pytest.approx(np.abs(made.truth - base).mean())
    assert np.isnan(values["pearson"])
    assert values["auroc_below_50"] == 0.5
    assert predictions(TARGETS[0]).baseline_metrics() is None


# --- tables of other toolkits


def test_a_minimal_table_is_of_test_videos(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(MINIMAL)
    (read,) = read_predictions(tmp_path / "p.csv")
    assert (read.target, read.level) == (Target("EF", "regression"), "video")
    assert set(read.split) == {"test"}
    assert len(read.of_split("test")) == 1
    assert read.baseline_metrics() is None


@pytest.mark.parametrize("column", ["target", "patient_id", "video_id", "truth", "prediction"])
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, column: str) -> None:
    (tmp_path / "p.csv").write_text(MINIMAL.replace(f"{column}", "other", 1))
    wanted = {"video_id": "video_id or study_id", "prediction": r"prediction \(numbers\) or probability \(classes\)"}
    message = rf"p.csv: no column {wanted.get(column, column)}; it has .*other.*docs/statistics.md"
    with pytest.raises(ArgumentError, match=message):
        read_predictions(tmp_path / "p.csv")


def test_a_table_of_studies_without_a_level_is_of_studies(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(MINIMAL.replace("video_id", "study_id"))
    assert [one.level for one in read_predictions(tmp_path / "p.csv")] == ["study"]


def test_yes_and_no_are_told_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(
        "target,patient_id,video_id,truth,probability\nX,p1,v1,Present,0.9\nX,p2,v2,None,0.2\nX,p3,v3,,0.4\n"
    )
    (read,) = read_predictions(tmp_path / "p.csv")
    assert read.target == Target("X", "binary", ("None", "Present"))
    np.testing.assert_array_equal(read.truth, [1, 0, np.nan])


def test_splits_may_be_called_otherwise(tmp_path: Path) -> None:
    lines = "".join(f"EF,p{i},v{i},{i},{i},{name}\n" for i, name in enumerate(("Training", "validation", "TEST", "")))
    (tmp_path / "p.csv").write_text(f"target,patient_id,video_id,truth,prediction,split\n{lines}")
    assert read_predictions(tmp_path / "p.csv")[0].split.tolist() == ["train", "val", "test", "test"]


CLASSES = "target,patient_id,video_id,truth,probability,classes\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (MINIMAL.replace("50", "high"), r"EF: prediction has a cell that is no number \(could not convert.*'high'\)"),
        (MINIMAL.replace("55", "n/a"), r"EF: truth has a cell that is no number"),
        (MINIMAL.replace("45.5", ""), r"EF: 1 predictions are NaN or infinite"),
        (MINIMAL.replace("v2", "v1"), r"EF: v1 stands more than once; a row is one video, and several trainings are"),
        (MINIMAL.replace("p2", ""), r"EF: a row has no patient_id"),
        (MINIMAL.partition("\n")[0], r"the table of predictions has no rows"),
        (
            "target,patient_id,video_id,truth,prediction,split\nEF,p1,v1,55,50,holdout\n",
            r"EF: split has 'holdout'; allowed are train, val, test",
        ),
        (
            "target,patient_id,video_id,truth,prediction,task\nEF,p1,v1,55,50,ranking\n",
            r"EF: task is 'ranking'; allowed are regression, binary, multiclass, ordinal",
        ),
        (
            "target,patient_id,video_id,truth,prediction,task\nEF,p1,v1,55,50,binary\n",
            r"EF: binary predictions need the column probability",
        ),
        (
            "target,patient_id,video_id,truth,prediction,unit\nEF,p1,v1,55,50,%\nEF,p2,v2,55,50,ml\n",
            r"EF: the column unit has '%', 'ml'; a target has one",
        ),
        (CLASSES + "X,p1,v1,b,0.2;0.8,\n", r"X: the column classes is needed.*\"none;mild;severe\""),
        (CLASSES + "X,p1,v1,b,0.2,\n", r"X: truth has 'b', and which class the probability is of is not known"),
        (CLASSES + "X,p1,v1,d,0.2;0.3;0.5,a;b;c\n", r"X: truth is 'd'; the classes are a, b, c"),
        (CLASSES + "X,p1,v1,c,0.2;0.8,a;b;c\n", r"X: probability needs 3 numbers, joined by \";\""),
        (CLASSES + "X,p1,v1,c,0.2;0.8;7,a;b;c\n", r"X: probabilities must lie between 0 and 1"),
    ],
)
def test_unusable_tables_say_what_and_where(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(ArgumentError, match=rf"(?s)p.csv: {message}"):
        read_predictions(tmp_path / "p.csv")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("")
    for name, told in (("p.csv", "no readable table of predictions"), ("nothing.csv", "can't be read: No such file")):
        with pytest.raises(StoreError, match=f"{name}: {told}"):
            read_predictions(tmp_path / name)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the folder does not exist"):
        write_predictions([predictions(TARGETS[0])], tmp_path / "no" / "p.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": "patient"}, r"level is 'patient'; allowed are study, video, clip, frame"),
        ({"ids": {}}, r"rows of level video need the column video_id"),
        ({"patient": texts("a")}, r"patient_id has 1 rows and truth has 6"),
        ({"prediction": np.zeros((6, 2))}, r"predictions have shape \(6, 2\), not \(6,\)"),
        ({"prediction": np.full(6, 1.5)}, r"probabilities must lie between 0 and 1"),
        ({"truth": np.full(6, 2.0)}, r"truth is no index of the classes no, yes"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        predictions(TARGETS[1], **changes)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target("X", "regression"), [0.5, 0.5]),
        (Target("X", "binary", ("no", "yes")), [0.5, 0.5]),
        (Target("X", "ordinal", ("a", "b", "c")), [[0.5, 0.5, 0]] * 2),
    ],
)
def test_what_training_labels_alone_predict(target: Target, expected: object) -> None:
    assert trivial_prediction(target, np.array([0, 1, np.nan, 1, 0]), 2).tolist() == expected
