"""A comparison on the terminal, in files and as a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from panecho_embed._version import __version__
from panecho_embed.core.outputs import refuse_to_replace_run, write_json, written_run
from panecho_embed.core.wording import counted, file_stem, interval, number, p_value, plural
from panecho_embed.evaluation.comparison import Comparison, Contrast, difference_table, score_table
from panecho_embed.evaluation.conclusions import LABELS, advantage_of, conclude, metric_words, value_words
from panecho_embed.evaluation.metrics import SHORT, display_name, higher_is_better
from panecho_embed.evaluation.page import Block, Figure, Figures, Lead, Section, Table, figure
from panecho_embed.evaluation.predictions import write_predictions
from panecho_embed.evaluation.report import FEW_TARGETS, Account, cautions, interval_sentence, write_figures, write_page
from panecho_embed.evaluation.scores import FEWEST_PATIENTS, Scored, recording_suffices

_SCHEMA_VERSION = 2
LONG = 20  # rows of a table that are folded away, or left to the report
_LEVEL = 0.05  # of the corrected p-values
_BASELINE = "baseline"
_RECORDING = "recording only"

_Rows = list[list[str]]

_UNKNOWN = {
    "seeds": "one training of a model says nothing of what other seeds would give",
    "draws": "one draw of training patients says nothing of what other draws would give",
    "folds": "one partition into folds says nothing of what other partitions would give",
    "training": "what other training patients would give is not known",
    "training set": "one training set says nothing of what other training patients would give (run the probes with "
    "--refits 10, or compare the embeddings by `probe compare`)",
    "patients": "too few patients were tested for an interval",
}


def score_rows(comparison: Comparison) -> tuple[list[str], _Rows]:
    """Columns and rows: the metrics of every candidate, best first, with the baselines at the end."""
    if not comparison.standings:
        return ["", display_name(comparison.metric)], [
            [name, number(value)] for name, value in comparison.means.items()
        ]
    first = next(iter(comparison.standings.values()))
    if first.primary.n_patients < FEWEST_PATIENTS:
        return ["", display_name(comparison.metric, comparison.unit)], [
            [name, "withheld"] for name in comparison.ranked
        ]
    others = [name for name in SHORT[first.target.kind] if name != comparison.metric]
    shown = (comparison.metric, *others)
    rows = []
    for name, scored in comparison.standings.items():
        values = scored.by_run[comparison.metric]
        spread = number(float(values.std(ddof=1))) if len(values) > 1 else "-"
        cells = [number(scored.scores[other].value) for other in others]
        rows.append([name, number(scored.primary.value), interval(scored.primary), str(len(values)), spread, *cells])
    if first.baseline:
        cells = [number(first.baseline[other].value) for other in others]
        rows.append([_BASELINE, number(first.baseline[comparison.metric].value), "-", "-", "-", *cells])
    for name, values_alone in _recording_rows(comparison).items():
        primary, *rest = (number(values_alone.get(metric, np.nan)) for metric in shown)
        rows.append([name, primary, "-", "-", "-", *rest])
    titles = [display_name(name, comparison.unit) for name in shown]
    return ["", titles[0], "95 % interval", "Trainings", "SD over trainings", *titles[1:]], rows


def _recording_rows(comparison: Comparison) -> dict[str, Mapping[str, float]]:
    """The recording-only baseline by the name of its line: one for all candidates if they agree, else one for each."""
    values = list(comparison.recording.values())
    metric = comparison.metric
    same = all(np.isclose(one.get(metric, np.nan), values[0].get(metric, np.nan)) for one in values)
    if len(values) == len(comparison.standings) and same and not comparison.n_left_out:
        return {_RECORDING: values[0]} if values else {}
    own = ", its own test rows" if comparison.n_left_out else ""
    return {f"{_RECORDING} ({name}{own})": one for name, one in comparison.recording.items()}


def contrast_rows(comparison: Comparison) -> tuple[list[str], _Rows]:
    """Columns and rows: the differences, with their corrected p-values and verdicts."""
    rows = [
        [
            f"{one.first} - {one.second}",
            number(one.difference.value),
            interval(one.difference),
            p_value(one.p_holm),
            one.verdict,
        ]
        if one.difference.n_patients >= FEWEST_PATIENTS
        else [f"{one.first} - {one.second}", "withheld", "-", "-", "undecided"]
        for one in comparison.contrasts
    ]
    metric = display_name(comparison.metric, comparison.unit)
    return ["Difference", metric, "95 % interval", "p, corrected", "Verdict on the first"], rows


def overview_rows(comparisons: Sequence[Comparison]) -> tuple[list[str], _Rows]:
    """Columns and rows: the primary metric of every candidate, one row per target."""
    names = comparisons[0].ranked
    rows = []
    for comparison in comparisons:
        values = {
            name: number(one.primary.value) if one.primary.n_patients >= FEWEST_PATIENTS else "withheld"
            for name, one in comparison.standings.items()
        }
        values |= {name: number(value) for name, value in comparison.means.items()}
        rows.append(
            [
                comparison.name,
                display_name(comparison.metric, comparison.unit),
                *(values.get(name, "-") for name in names),
            ]
        )
    return ["Target", "Metric", *names], rows


def verdict_text(comparison: Comparison, reference: str | None) -> str:
    """In a few sentences: who is best, who can be distinguished, and what these runs can't show."""
    best = comparison.ranked[0]
    most = "highest" if higher_is_better(comparison.metric) else "lowest"
    metric = metric_words(comparison.metric)
    if not comparison.standings:
        value = number(comparison.means[best])
        text = f"{comparison.name}: {best} has the {most} {metric}, {value}."
    else:
        one = comparison.standings[best]
        n_patients = one.primary.n_patients
        if n_patients < FEWEST_PATIENTS:
            text = (
                f"{comparison.name}: it can't be told which is better: {counted(n_patients, 'patient')} "
                f"{'was' if n_patients == 1 else 'were'} tested, and statistics are reported from {FEWEST_PATIENTS} on."
            )
            return text + _unknown_text(comparison.contrasts)
        advantage = advantage_of(one)
        guess = f"; {advantage.guess}" if one.gain else ""
        text = f"{comparison.name}: {best} has the {most} {metric}, {value_words(one)}{guess}."
        if (found := conclude(advantage, n_patients)) != "yes":
            text += f" Even {best} is not shown to be better than guessing ({LABELS[found].lower()})."
    return " ".join([text, *_told(comparison, reference)]) + _unknown_text(comparison.contrasts)


def _unknown_text(contrasts: Sequence[Contrast]) -> str:
    """What the differences can't know of chance; "" where they hold all of it."""
    sources = dict.fromkeys(source for one in contrasts for source in one.difference.unknown)
    notes = [_UNKNOWN.get(source, source) for source in sources]
    return f" What can't be concluded: {'; '.join(notes)}." if notes else ""


def _difference_sentence(comparisons: Sequence[Comparison]) -> str:
    """How differences and p-values were obtained, for a methods section."""
    count = sum(len(comparison.contrasts) for comparison in comparisons)
    sources = dict.fromkeys(
        source for comparison in comparisons for one in comparison.contrasts for source in one.difference.variances
    )
    margin = next((c.margin for c in comparisons if c.margin is not None), None)
    equivalence = (
        f" Candidates were called equivalent where two one-sided tests showed the difference to be within {margin:g} "
        "of 0; these p-values were corrected for their number by Holm's method as well."
        if margin is not None
        else ""
    )
    return (
        f"Differences are paired by patient. Their variance is the sum of that over {' and '.join(sources)}, and "
        "p-values are two-sided from the t distribution with Satterthwaite's degrees of freedom, corrected for the "
        f"{counted(count, 'difference')} of this report by Holm's method.{equivalence}"
    )


def write_comparison(
    folder: Path, made_by: str, comparisons: Sequence[Comparison], account: Account, *, overwrite: bool = False
) -> Path:
    """Write comparison.json, scores.csv, differences.csv, the predictions of each candidate, plots and report.html.

    All of them or none. Raises StoreError, also if the folder holds a comparison (unless `overwrite`) or a run.
    """
    refuse_to_replace_run(folder, overwrite, "comparison")
    with written_run(folder) as new:
        fill_comparison(new, made_by, comparisons, account)
    return folder / "report.html"


def fill_comparison(folder: Path, made_by: str, comparisons: Sequence[Comparison], account: Account) -> Path:
    """Write the files of `write_comparison` into a folder that is being made. Raises OSError."""
    targets = [comparison for comparison in comparisons if comparison.standings]
    stems = _stems(list(targets[0].standings))
    score_table(comparisons).to_csv(folder / "scores.csv", index=False)
    difference_table(comparisons).to_csv(folder / "differences.csv", index=False)
    place = folder / "predictions"
    place.mkdir()
    for name in targets[0].standings:
        parts = [comparison.standings[name].predictions for comparison in targets if name in comparison.standings]
        write_predictions(parts, place / f"{stems[name]}.csv")
    document = {
        "schema_version": _SCHEMA_VERSION,
        "made_by": made_by,
        "version": __version__,
        "command": account.command,
        "facts": dict(account.facts),
        "inputs": {name: dict(one) for name, one in account.inputs.items()},
        "warnings": list(account.warnings),
        "targets": {
            c.name: {
                "metric": c.metric,
                "margin": c.margin,
                "n_left_out": c.n_left_out,
                "recording_only": {name: dict(metrics) for name, metrics in c.recording.items()},
            }
            for c in comparisons
        },
        "scores": score_table(comparisons).to_dict("records"),
        "differences": difference_table(comparisons).to_dict("records"),
    }
    drawn = {comparison.name: _figures(comparison) for comparison in comparisons}
    write_figures(folder, drawn)
    write_json(folder / "comparison.json", document)
    main = _lead_figure(comparisons, drawn)
    below = {name: [made for made in figures.values() if made is not main] for name, figures in drawn.items()}
    details = {c.name: _blocks(c, below[c.name]) for c in comparisons}
    one_target = [(c.name, details[c.name]) for c in comparisons if c.standings]
    means = [Section(c.name, details[c.name]) for c in comparisons if not c.standings]
    return write_page(folder, account, _answer(comparisons, account, main), one_target, "comparison", means)


def _stems(names: Sequence[str]) -> dict[str, str]:
    """A name for the file of each candidate, each once whatever their case."""
    stems: dict[str, str] = {}
    for name in names:
        stem, number = file_stem(name), 1
        while stem.casefold() in {taken.casefold() for taken in stems.values()}:
            number += 1
            stem = f"{file_stem(name)}-{number}"
        stems[name] = stem
    return stems


def _standing_figure(comparison: Comparison) -> Figure:
    """The primary metric of every candidate with its interval, best first; strokes: single trainings."""
    from panecho_embed.evaluation.plots import intervals

    scores = {name: scored.primary for name, scored in comparison.standings.items()}
    rows = [(name, one.value, one.low, one.high) for name, one in scores.items()]
    first = next(iter(comparison.standings.values()))
    baseline = first.baseline[comparison.metric].value if first.baseline else None
    singles = [
        scored.by_run[comparison.metric].tolist() if len(scored.by_run[comparison.metric]) > 1 else []
        for scored in comparison.standings.values()
    ]
    label = f"{comparison.name}: {display_name(comparison.metric, comparison.unit)}"
    drawing = intervals(rows, label, reference=baseline, singles=singles)
    dashed = "; dashed: the baseline" if baseline is not None else ""
    strokes = "; strokes: single trainings" if any(singles) else ""
    return figure(drawing, f"{label}, with 95 % intervals{strokes}{dashed}.")


def _difference_figure(comparison: Comparison) -> Figure:
    """Every difference with its interval; dashed: no difference."""
    from panecho_embed.evaluation.plots import intervals

    found = _shown_contrasts(comparison)
    rows = [
        (f"{one.first} - {one.second}", one.difference.value, one.difference.low, one.difference.high) for one in found
    ]
    better = "above" if higher_is_better(comparison.metric) else "below"
    label = f"{comparison.name}: difference in {display_name(comparison.metric, comparison.unit)}"
    drawing = intervals(rows, label, reference=0, verdicts=[one.verdict for one in found])
    return figure(drawing, f"{label}, with 95 % intervals; {better} 0 the first is better.")


def _shown_contrasts(comparison: Comparison) -> list[Contrast]:
    """The differences of the figure: all, or of too many those to the best candidate; without what is withheld."""
    found = [
        one
        for one in comparison.contrasts
        if np.isfinite(one.difference.low) and one.difference.n_patients >= FEWEST_PATIENTS
    ]
    if len(found) > LONG:
        found = [one for one in found if comparison.ranked[0] in (one.first, one.second)]
    return found[:LONG]


def _told(comparison: Comparison, reference: str | None) -> list[str]:
    """The verdicts, a sentence for each with all pairs for which it holds."""
    pairs: dict[str, list[str]] = {}
    for one in comparison.contrasts:
        word = "and" if one.verdict in ("equivalent", "undecided") else "than"
        told = one.first if reference else f"{one.first} {word} {one.second}"
        if one.verdict == "undecided" and np.isfinite(one.p_holm):
            told += f" (p = {p_value(one.p_holm)})" if one.p_holm >= _LEVEL else ""
        pairs.setdefault(one.verdict, []).append(told)
    against = f" than {reference}" if reference else ""
    within = f" (within {comparison.margin:g})" if comparison.margin is not None else ""
    words = {
        "better": f"Better{against}: ",
        "worse": f"Worse{against}: ",
        "equivalent": f"Equivalent{f' to {reference}' if reference else ''}{within}: ",
        "undecided": f"Undecided, no difference{f' to {reference}' if reference else ''} is shown: ",
    }
    said = []
    for verdict, title in words.items():
        if names := pairs.get(verdict):
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            said.append(f"{title}{', '.join(names[:6])}{more}.")
    return said


def _lead_figure(comparisons: Sequence[Comparison], drawn: Mapping[str, Mapping[str, Figure]]) -> Figure | None:
    """The differences of the first comparison that has any, else its candidates."""
    for name in ("differences", "candidates"):
        for comparison in comparisons:
            if name in drawn[comparison.name]:
                return drawn[comparison.name][name]
    return None


def _answer(comparisons: Sequence[Comparison], account: Account, main: Figure | None) -> list[Block]:
    """The first screen: what each comparison says, and the differences of the first."""
    reference = account.facts.get("Reference") or None
    sentences = [verdict_text(comparison, reference) for comparison in comparisons[:FEW_TARGETS]]
    warnings = [*account.warnings, *comparison_cautions(comparisons)]
    blocks: list[Block] = [Lead(sentences, main, warnings)]
    if len(comparisons) > 1:
        blocks.append(Table(*overview_rows(comparisons), "The primary metric of each candidate.", wrapped=True))
    return blocks


def _blocks(comparison: Comparison, drawn: Sequence[Figure]) -> list[Block]:
    tested = ""
    if comparison.standings:
        first = next(iter(comparison.standings.values()))
        level = first.predictions.level
        tested = f"{first.primary.n} {plural(level, first.primary.n)} of {first.primary.n_patients} patients tested"
        left = f"; {comparison.n_left_out} that not every run has are excluded" if comparison.n_left_out else ""
        tested = f"{tested}{left}. Best first."
    blocks: list[Block] = [Figures(drawn)] if drawn else []
    blocks.append(Table(*score_rows(comparison), tested))
    if comparison.contrasts:
        rows = contrast_rows(comparison)
        blocks.append(Table(*rows, "Differences, paired by patient.", folded=len(rows[1]) > LONG))
    return blocks


def _figures(comparison: Comparison) -> dict[str, Figure]:
    figures = {"differences": _difference_figure(comparison)} if _shown_contrasts(comparison) else {}
    first = next(iter(comparison.standings.values()), None)
    if first is not None and first.primary.n_patients >= FEWEST_PATIENTS:
        figures["candidates"] = _standing_figure(comparison)
    return figures


def comparison_cautions(comparisons: Sequence[Comparison]) -> list[str]:
    """Warnings of few tested patients, and of few rows that the candidates share."""
    notes = cautions([next(iter(c.standings.values())) for c in comparisons if c.standings])
    for comparison in comparisons:
        alone = [n for n, one in comparison.recording.items() if recording_suffices(comparison.standings[n], one)]
        if alone:
            notes.append(
                f"{comparison.name}: a probe on the recordings' settings, without any image, does as well as "
                f"{', '.join(alone)}, within the interval or better. It is not shown that these embeddings tell more "
                "than how the patients were recorded."
            )
        first = next(iter(comparison.standings.values()), None)
        if first is not None and comparison.n_left_out > first.primary.n:
            notes.append(
                f"{comparison.name}: only {first.primary.n} test rows are shared, and {comparison.n_left_out} are not "
                "in every run."
            )
    return notes


def methods_of(comparisons: Sequence[Comparison]) -> str:
    """The intervals and differences of a comparison, in the words of a methods section."""
    scored: list[Scored] = [one for comparison in comparisons for one in comparison.standings.values()]
    return f"{interval_sentence(scored)} {_difference_sentence(comparisons)}"
