"""Comparisons of finished runs: who is lined up with whom, which chance a difference holds, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.evaluation.candidates import Candidate, Chance, line_up, read_candidates
from panecho_embed.evaluation.comparison import (
    Comparison,
    _parse_margin,
    _replicates_of,
    compare_candidates,
    corrected,
    difference_table,
    score_table,
)
from panecho_embed.evaluation.comparison_report import (
    contrast_rows,
    overview_rows,
    score_rows,
    verdict_text,
    write_comparison,
)
from panecho_embed.evaluation.inference import holm
from panecho_embed.evaluation.predictions import Predictions, concatenated, write_predictions
from panecho_embed.evaluation.report import Account
from panecho_embed.evaluation.scores import score, write_metrics
from panecho_embed.evaluation.targets import Target
from tests.evaluation.made import EF, GRADE, LOW, VIEW, made, texts

DRAWS = 50


def candidate(name: str, *rows: Predictions, chance: Chance | None = None, made_by: str = "probe linear") -> Candidate:
    found = {one.target.name: one for one in rows}
    return Candidate(name, found, made_by, dict.fromkeys(found, chance) if chance else {})


def runs(noise: float, count: int, kind: str, target: Target = EF, seed: int = 0) -> Predictions:
    """Trainings told apart by "run" or "draw"; they share most of their error."""
    parts = []
    for i in range(count):
        shared = made(target, noise, seed=seed)
        jitter = np.random.default_rng(100 * seed + i).normal(0, 0.3, shared.prediction.shape)
        parts.append(replace(shared, prediction=shared.prediction + jitter, **{kind: texts(*[i] * len(shared))}))
    return concatenated(parts)


def compare(*candidates: Candidate, **options: Any) -> list[Comparison]:
    return compare_candidates(candidates, draws=DRAWS, **options)


# --- lining up


def test_common_rows_stand_in_the_same_order_in_every_training() -> None:
    order = np.random.default_rng(0).permutation(60)[:50]
    one, other = runs(5, 2, "run"), runs(6, 3, "draw").take(np.r_[order, order + 60, order[::-1] + 120])
    lined_up, left_out = line_up({"one": one, "other": other})
    assert left_out == 10
    each = [part for rows in lined_up.values() for part in rows.replicates().values()]
    assert [len(part) for part in each] == [50] * 5
    assert all(part.keys() == each[0].keys() for part in each)
    assert set(each[0].ids["video_id"]) == set(one.ids["video_id"][order])
    np.testing.assert_array_equal(each[0].truth, each[4].truth)


def test_only_labelled_test_rows_are_lined_up() -> None:
    one = made(EF, split=np.where(np.arange(60) < 20, "train", "test").astype(object))
    truth = made(EF).truth.copy()
    truth[:25] = np.nan
    lined_up, left_out = line_up({"one": one, "other": made(EF, truth=truth)})
    assert (len(lined_up["one"]), left_out) == (35, 5)


def test_runs_of_other_patients_say_how_many_are_shared() -> None:
    other = made(EF, ids={"video_id": texts(*(f"w{i}" for i in range(60)))})
    with pytest.raises(ArgumentError, match=r"EF: .* no row \(video\) in common, and 60 patients: a has 60 rows"):
        line_up({"a": made(EF), "b": other})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"truth": made(EF).truth + np.eye(60)[3]},
            r"a and b disagree on the EF of 1 rows, first v3: ",
        ),
        ({"patient": texts(*["x"] * 60)}, r"disagree on the patient of 60 rows, first v0: p0 and x"),
    ],
)
def test_runs_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{message}.*give one table of labels to both"):
        line_up({"a": made(EF), "b": made(EF, **change)})


def test_labels_that_were_read_otherwise_are_refused() -> None:
    turned = made(Target("LowEF", "binary", ("yes", "no")))
    with pytest.raises(ArgumentError, match=r"LowEF is binary \(no, yes\) in a and binary \(yes, no\) in b; make both"):
        line_up({"a": made(LOW), "b": turned})


def test_strain_labels_of_either_sign_are_the_same_truth() -> None:
    # The sign is that of the label column; a table of predictions holds the values that are reported.
    flipped = made(replace(EF, sign=-1))
    assert line_up({"a": flipped, "b": made(EF)})[1] == 0


# --- margins


@pytest.mark.parametrize(
    ("text", "metric", "unit", "value"),
    [("", "mae", "%", None), ("0.5", "mae", "%", 0.5), (" 0.5 % ", "mae", "%", 0.5), ("0.02", "auroc", "", 0.02)],
)
def test_a_margin_is_in_the_unit_of_the_metric(text: str, metric: str, unit: str, value: float | None) -> None:
    assert _parse_margin(text, metric, unit) == value


@pytest.mark.parametrize(
    ("text", "metric", "unit", "message"),
    [
        ("0.5 ml", "mae", "%", r"the margin is '0.5 ml', and MAE is in %: give it such as \"0.5 %\""),
        ("2 %", "auroc", "", r"the margin is '2 %', and AUROC is without a unit: give it such as 0.02"),
        ("2", "auroc", "", r"the margin is '2', and AUROC lies between 0 and 1: such as 0.02 \(--margin\)"),
        ("-1", "mae", "%", r"the margin is '-1'; a number above 0 is needed, such as \"0.5 %\" \(--margin\)"),
        ("0", "mae", "", r"a number above 0 is needed, such as 0.02"),
        ("half", "mae", "%", r"a number above 0 is needed"),
        ("1.2.3", "mae", "%", r"a number above 0 is needed"),
    ],
)
def test_other_margins_say_what_is_wrong(text: str, metric: str, unit: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        _parse_margin(text, metric, unit)


# --- verdicts


def test_the_better_of_two_comes_first_and_is_called_better() -> None:
    (found,) = compare(
        candidate("rough", made(EF, 9.0, seed=1), chance=Chance(0.5, 1, (8.0, 8.1, 7.9))),
        candidate("sharp", made(EF, 2.0, seed=2), chance=Chance(0.5, 1, (2.0, 2.1, 2.2))),
    )
    (contrast,) = found.contrasts
    assert found.ranked == ["sharp", "rough"]
    assert (contrast.first, contrast.second, contrast.verdict) == ("sharp", "rough", "better")
    assert set(contrast.difference.variances) == {"patients", "training"}


def test_a_margin_tells_equivalent_from_undecided() -> None:
    same = [candidate(name, runs(5, 4, "draw", seed=1), chance=Chance(0.1)) for name in "ab"]
    assert compare(*same, margin="1 %")[0].contrasts[0].verdict == "equivalent"
    assert compare(*same)[0].contrasts[0].verdict == "undecided"


def test_one_run_with_a_seed_decides_nothing() -> None:
    one, other = (candidate(name, made(EF, noise, run="7")) for name, noise in (("a", 1.0), ("b", 20.0)))
    (contrast,) = compare(one, other)[0].contrasts
    assert contrast.verdict == "undecided"
    assert contrast.difference.unknown == ("seeds", "training")


def test_heads_that_were_never_trained_here_have_nothing_unknown() -> None:
    heads = [candidate(name, made(EF, noise), made_by="predict") for name, noise in (("a", 1.0), ("b", 20.0))]
    (contrast,) = compare(*heads)[0].contrasts
    assert (contrast.difference.unknown, contrast.verdict) == ((), "better")


def test_every_way_to_train_brings_its_own_chance() -> None:
    folded = runs(5, 3, "draw")
    folded = replace(folded, fold=texts(*(f"fold {i % 5}" for i in range(180))))
    found = {
        "seeds": compare(candidate("a", runs(5, 3, "run")), candidate("b", runs(6, 2, "run", seed=1))),
        "draws": compare(*(candidate(n, runs(5, 3, "draw", seed=i), chance=Chance(0.1)) for i, n in enumerate("ab"))),
        "folds": compare(*(candidate(name, folded, chance=Chance(0.8)) for name in "ab")),
    }
    variances = {kind: set(c[0].contrasts[0].difference.variances) for kind, c in found.items()}
    assert variances == {
        "seeds": {"patients", "seeds"},
        "draws": {"patients", "draws", "training"},
        "folds": {"patients", "folds", "training"},
    }


def test_draws_are_paired_only_where_they_are_the_same() -> None:
    a, b = runs(5, 3, "draw"), runs(6, 3, "draw", seed=1)
    other = replace(b, draw=texts(*(int(i) + 10 for i in b.draw)))
    paired = compare(candidate("a", a), candidate("b", b))[0].contrasts[0].difference
    unpaired = compare(candidate("a", a), candidate("b", other))[0].contrasts[0].difference
    assert "draws" in paired.variances
    assert "seeds" in unpaired.variances


def test_a_model_without_a_seed_is_compared_with_seeds() -> None:
    (found,) = compare(candidate("probe", made(EF, 5.0)), candidate("tuned", runs(2, 3, "run", seed=1)))
    assert set(found.contrasts[0].difference.variances) == {"patients", "seeds"}
    assert found.contrasts[0].difference.unknown == ("training",)


def test_refits_on_other_rows_are_not_used() -> None:
    chance = Chance(0.5, 1, (5.0, 5.1, 5.2))
    some = made(EF, 6.0, seed=1).take(np.arange(50))
    (found,) = compare(candidate("a", made(EF, 5.0), chance=chance), candidate("b", some, chance=chance))
    assert found.n_left_out == 10
    assert found.contrasts[0].difference.unknown == ("training set",)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "none"),
        ({"run": texts(*[0] * 60)}, "seeds"),
        ({"draw": texts(*[0] * 60)}, "draws"),
        ({"draw": texts(*[0] * 60), "fold": texts(*(i % 5 for i in range(60)))}, "folds"),
        ({"fold": texts(*(i % 5 for i in range(60)))}, "none"),
    ],
)
def test_what_tells_trainings_apart(changes: dict[str, Any], kind: str) -> None:
    assert _replicates_of(made(EF, **changes)) == kind


# --- several targets and candidates


def test_a_reference_leaves_one_difference_a_candidate() -> None:
    three = [candidate(name, made(EF, noise)) for name, noise in (("a", 2.0), ("b", 5.0), ("c", 9.0))]
    assert [(c.first, c.second) for c in compare(*three)[0].contrasts] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {(c.first, c.second) for c in compare(*three, reference="b")[0].contrasts} == {("a", "b"), ("c", "b")}


def test_means_over_targets_come_first() -> None:
    targets = [EF, replace(EF, name="LVEDV", unit="mL"), LOW, VIEW, GRADE]
    two = [
        candidate(name, *(made(target, noise, seed=i) for target in targets))
        for i, (name, noise) in enumerate((("a", 3.0), ("b", 9.0)))
    ]
    found = compare(*two)
    assert [c.name for c in found] == [
        "Mean over 3 class targets",
        "Mean over 2 regressions",
        *("EF", "LVEDV", "LowEF", "View", "Grade"),
    ]
    aurocs = [c.standings["a"].scores["auroc"].value for c in found[4:]]
    assert found[0].means["a"] == pytest.approx(np.mean(aurocs))
    assert found[0].contrasts[0].difference.value == pytest.approx(found[0].means["a"] - found[0].means["b"])


def test_p_values_are_corrected_over_everything_in_a_report() -> None:
    three = [
        candidate(name, made(EF, noise, seed=i), made(LOW, noise, seed=i))
        for i, (name, noise) in enumerate((("a", 2.0), ("b", 5.0), ("c", 9.0)))
    ]
    found = compare(*three)
    contrasts = [one for comparison in found for one in comparison.contrasts]
    assert len(contrasts) == 6
    raw = [one.difference.p_value for one in contrasts]
    assert [one.p_holm for one in contrasts] == holm(raw).tolist()
    assert all(np.isnan(one.p_equivalent) for one in contrasts)
    twice = corrected([*found, *found])
    assert [one.p_holm for c in twice for one in c.contrasts] == holm(raw + raw).tolist()


def test_targets_can_be_named() -> None:
    two = [candidate(name, made(EF), made(LOW)) for name in "ab"]
    assert [c.name for c in compare(*two, targets=["LowEF"])] == ["LowEF"]
    only = candidate("c", made(EF))
    assert [c.name for c in compare(two[0], only)] == ["EF"]
    with pytest.raises(ArgumentError, match=r"no target 'LowEF' in c; in common are EF \(--target\)"):
        compare(two[0], only, targets=["LowEF"])


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ([candidate("a", made(EF))], {}, r"a comparison needs two candidates or more; there is a"),
        ([candidate("a", made(EF)), candidate("b", made(LOW))], {}, r"no target in common: a has EF; b has LowEF"),
        (
            [candidate("a", made(EF)), candidate("b", made(EF))],
            {"reference": "c"},
            r"the reference is 'c'; the candidates are a, b \(--reference\)",
        ),
        (
            [candidate("a", made(EF)), candidate("b", made(EF))],
            {"margin": "1 mL"},
            r"the margin is '1 mL', and MAE is in %",
        ),
        (
            [candidate("a", made(LOW, truth=np.zeros(60))), candidate("b", made(LOW))],
            {},
            r"LowEF: the test set has only one class, 'no'",
        ),
    ],
)
def test_unusable_comparisons_are_refused(
    candidates: Sequence[Candidate], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        compare(*candidates, **options)


# --- runs on disk


def run_folder(
    folder: Path,
    *rows: Predictions,
    made_by: str = "probe linear",
    chance: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> Path:
    folder.mkdir()
    write_predictions(rows, folder / "predictions.csv")
    of_target = {one.target.name: {"chance": chance} for one in rows}
    write_metrics(folder, made_by, [score(one, draws=10) for one in rows[:1]], about=about or {}, of_target=of_target)
    return folder


def test_a_candidate_says_how_it_was_fed_otherwise(tmp_path: Path) -> None:
    line = "frame_step 1 (echoprime's own: 2)"
    probe = run_folder(tmp_path / "probe", made(EF), about={"embeddings": {"overrides": [line]}})
    tuned = run_folder(tmp_path / "tuned", made(EF), made_by="finetune", about={"overrides": [line]})
    plain = run_folder(tmp_path / "plain", made(EF))
    found = read_candidates([("", probe), ("", tuned), ("", plain), ("both", probe), ("both", plain)])
    assert [one.overrides for one in found] == [(line,), (line,), (), (line,)]
    said = CliRunner().invoke(main, ["compare", str(probe), str(plain), "-o", str(tmp_path / "out"), "--draws", "10"])
    assert said.exit_code == 0, said.output
    assert f"probe was fed otherwise: {line}" in said.output
    assert "plain was fed" not in said.output


def test_runs_of_every_kind_and_tables_of_others_are_read(tmp_path: Path) -> None:
    probe = run_folder(tmp_path / "probe", made(EF), chance={"share": 0.5, "sets": 2, "refits": [1.0, 2.0]})
    heads = run_folder(tmp_path / "heads", made(EF), made_by="predict")
    table = write_predictions([made(EF)], tmp_path / "theirs.csv")
    found = read_candidates([("", probe), ("PanEcho", heads), ("", table)])
    assert [(one.name, one.made_by) for one in found] == [
        ("probe", "probe linear"),
        ("PanEcho", "predict"),
        ("theirs", ""),
    ]
    assert found[0].chance == {"EF": Chance(0.5, 2, (1.0, 2.0))}
    assert found[1].chance["EF"] == Chance()


def test_several_runs_of_a_name_are_trainings(tmp_path: Path) -> None:
    paths = [run_folder(tmp_path / f"seed-{i}", made(EF, seed=i, run=str(i))) for i in range(3)]
    unnamed = [write_predictions([made(EF, seed=i)], tmp_path / f"{i}.csv") for i in range(2)]
    tuned, other = read_candidates([*(("tuned", path) for path in paths), *(("other", path) for path in unnamed)])
    assert list(tuned.predictions["EF"].replicates()) == [("0", ""), ("1", ""), ("2", "")]
    assert list(other.predictions["EF"].replicates()) == [("0", ""), ("1", "")]


def test_names_that_nobody_gave_do_not_make_trainings_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("linear", "knn"):
        (tmp_path / name).mkdir()
        run_folder(tmp_path / name / "run", made(EF))
    linear, knn = (tmp_path / name / "run" for name in ("linear", "knn"))
    with pytest.raises(
        ArgumentError, match=r"2 runs are called run: .*linear/run, .*knn/run. Give each a name \(NAME="
    ):
        read_candidates([("", linear), ("", knn)])
    with pytest.raises(ArgumentError, match=r"a has the same run twice"):
        read_candidates([("a", linear), ("a", linear), ("b", knn)])
    monkeypatch.chdir(linear)
    assert [one.name for one in read_candidates([("", "."), ("knn", knn)])] == ["run", "knn"]


def test_the_highest_level_that_all_have_is_compared(tmp_path: Path) -> None:
    videos = made(EF, videos=2)
    both = run_folder(tmp_path / "both", videos, videos.by_study())
    only = write_predictions([videos], tmp_path / "videos.csv")
    studies = write_predictions([videos.by_study()], tmp_path / "studies.csv")
    assert read_candidates([("", both), ("", only)])[0].predictions["EF"].level == "video"
    assert read_candidates([("", both), ("", studies)])[0].predictions["EF"].level == "study"
    assert read_candidates([("", both), ("x", both)], "video")[0].predictions["EF"].level == "video"
    with pytest.raises(
        ArgumentError, match=r"no rows of level that all of them have: videos has video; studies has st"
    ):
        read_candidates([("", only), ("", studies)])
    with pytest.raises(ArgumentError, match=r"no rows of level study: both has study, video; videos has video \(--lev"):
        read_candidates([("", both), ("", only)], "study")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing: no such run; name a folder with predictions.csv, or a table"):
        read_candidates([("", tmp_path / "nothing")])
    with pytest.raises(StoreError, match=r"holds no predictions.csv; a run of `probe`, `finetune` or `predict`"):
        read_candidates([("", tmp_path)])
    write_predictions([made(EF)], tmp_path / "predictions.csv")
    (tmp_path / "metrics.json").write_text('{"schema_version": 1}')
    with pytest.raises(StoreError, match=r"of schema version 1, not 2: run the command again"):
        read_candidates([("", tmp_path)])


# --- what a reader sees


@pytest.fixture(scope="module")
def found() -> list[Comparison]:
    return compare_candidates(
        [candidate("probe", made(EF, 5.0)), candidate("tuned", runs(2, 3, "run", seed=1))], draws=DRAWS
    )


def test_tables_have_a_row_a_score_and_a_row_a_difference(found: list[Comparison]) -> None:
    scores = score_table(found)
    assert set(scores["candidate"]) == {"probe", "tuned"}
    mae = scores[scores["metric"] == "mae"].set_index("candidate")
    assert mae["trainings"].to_dict() == {"probe": 1, "tuned": 3}
    assert np.isnan(mae.loc["probe", "sd_over_trainings"])
    (row,) = difference_table(found).to_dict("records")
    assert (row["first"], row["second"], row["verdict"], row["unknown"]) == ("tuned", "probe", "better", "training")
    assert {"variance_patients", "variance_seeds", "p_holm", "se", "df", "low", "high"} <= set(row)


def test_a_table_for_people_ends_with_the_baseline(found: list[Comparison]) -> None:
    columns, rows = score_rows(found[0])
    assert columns[:2] == ["", "MAE, %"]
    assert [row[0] for row in rows] == ["tuned", "probe", "baseline"]
    assert contrast_rows(found[0])[1][0][0] == "tuned - probe"


def test_a_verdict_says_who_is_best_and_what_is_not_known(found: list[Comparison]) -> None:
    text = verdict_text(found[0], None)
    assert text.startswith("EF: tuned has the lowest mean error, ")
    assert "Better: tuned than probe." in text
    assert "What can't be concluded: what other training patients would give is not known." in text
    against = verdict_text(
        compare(candidate("a", made(EF, 2.0), made_by="predict"), candidate("b", made(EF, 9.0), made_by="predict"))[0],
        "b",
    )
    assert "Better than b: a." in against


def test_no_difference_is_called_none_with_its_p(found: list[Comparison]) -> None:
    one = compare(
        candidate("a", made(EF, 5.0), made_by="predict"), candidate("b", made(EF, 5.0, seed=1), made_by="predict")
    )
    p = one[0].contrasts[0].p_holm
    assert p > 0.05
    assert f"Undecided, no difference is shown: b and a (p = {p:.3f})." in verdict_text(one[0], None)
    lost = compare(candidate("a", made(EF, 60.0)), candidate("b", made(EF, 90.0)))[0]
    assert "Even a is not shown to be better than guessing (worse than guessing)." in verdict_text(lost, None)


def test_a_comparison_of_few_patients_withholds_its_statistics(tmp_path: Path) -> None:
    few = compare(candidate("a", made(EF, 2.0, patients=8)), candidate("b", made(EF, 9.0, patients=8)))
    assert verdict_text(few[0], None).startswith(
        "EF: it can't be told which is better: 8 patients were tested, and statistics are reported from 10 on."
    )
    assert score_rows(few[0])[1] == [["a", "withheld"], ["b", "withheld"]]
    assert contrast_rows(few[0])[1] == [["a - b", "withheld", "-", "-", "undecided"]]
    account = Account(title="EF", subtitle="two")
    assert "<svg" not in write_comparison(tmp_path, "compare", few, account).read_text()


@pytest.mark.parametrize(("patients", "withheld"), [(9, True), (10, False)])
def test_the_overview_withholds_what_few_patients_give_and_names_the_unit(patients: int, withheld: bool) -> None:
    found = compare(
        *(candidate(name, made(noise=noise, patients=patients)) for name, noise in (("a", 2.0), ("b", 6.0)))
    )
    columns, ((target, metric, *values),) = overview_rows(found)
    assert (columns[:2], target, metric) == (["Target", "Metric"], "EF", "MAE, %")
    assert [value == "withheld" for value in values] == [withheld] * 2


def test_a_comparison_leaves_tables_figures_and_a_report(found: list[Comparison], tmp_path: Path) -> None:
    account = Account(title="EF", subtitle="two", command="panecho-embed compare a b", methods=["How."])
    report = write_comparison(tmp_path, "compare", found, account).read_text()
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        *("report.html", "comparison.json", "scores.csv", "differences.csv", "SHA256SUMS"),
        *("plots/EF-candidates.svg", "plots/EF-differences.svg", "predictions/probe.csv", "predictions/tuned.csv"),
    }
    assert verdict_text(found[0], None).partition(".")[0] in report
    again = read_candidates([("", tmp_path / "predictions" / f"{name}.csv") for name in ("probe", "tuned")])
    assert compare(*again)[0].means == {}
    assert list(again[1].predictions["EF"].replicates()) == [("0", ""), ("1", ""), ("2", "")]


def test_equivalence_is_corrected_for_the_number_of_its_tests() -> None:
    same = [candidate(name, made(EF, 2.0, seed=i)) for i, name in enumerate("abcd")]
    (found,) = compare(*same, margin="1.5")
    alone = [one.difference.p_equivalent(1.5) for one in found.contrasts]
    assert len(alone) == 6
    assert [one.p_equivalent for one in found.contrasts] == holm(alone).tolist()
