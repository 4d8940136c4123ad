"""From finished runs to the comparison: entries, lined-up rows, statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from panecho_embed.comparison.gather import Entry, line_up
from panecho_embed.comparison.plan import Trial
from panecho_embed.comparison.statistics import Comparison, compare_candidates
from panecho_embed.finetune.outcome import Outcome, baseline_rows, read_targets

BASELINE = "training mean or frequencies"


def compare_outcomes(
    outcomes: Mapping[Trial, Outcome],
    frozen: Sequence[Entry],
    reference: str | None,
    *,
    draws: int,
    seed: int,
) -> tuple[tuple[Comparison, ...], int]:
    """The comparisons of all targets, and how many test rows not every run had.

    frozen: entries of frozen probes. The trivial baseline is that of the first run of each fraction.
    """
    entries: list[Entry] = []
    for trial in outcomes:
        key = (trial.init, trial.fraction)
        if key in [(entry.name, entry.fraction) for entry in entries]:
            continue
        runs = tuple(read_targets(o) for t, o in outcomes.items() if (t.init, t.fraction) == key)
        entries.append(Entry(trial.init, trial.fraction, runs, start=trial.init))
    targets, candidates, left_out = line_up([*entries, *frozen, *_baselines(outcomes)])
    return compare_candidates(targets, candidates, reference, draws=draws, seed=seed), left_out


def _baselines(outcomes: Mapping[Trial, Outcome]) -> list[Entry]:
    first = {trial.fraction: outcome for trial, outcome in reversed(list(outcomes.items()))}
    return [
        Entry(
            BASELINE,
            fraction,
            ({name: baseline_rows(outcome, rows) for name, rows in read_targets(outcome).items()},),
            random=False,
            contrasted=False,
        )
        for fraction, outcome in first.items()
    ]
