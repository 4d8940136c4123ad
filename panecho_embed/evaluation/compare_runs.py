"""Compare finished runs: read them, compare their predictions, and write the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from panecho_embed.core.outputs import refuse_to_replace_run
from panecho_embed.evaluation.candidates import Candidate, read_candidates
from panecho_embed.evaluation.comparison import Comparison, compare_candidates, difference_table, score_table
from panecho_embed.evaluation.comparison_report import methods_of, write_comparison
from panecho_embed.evaluation.page import Section, Table
from panecho_embed.evaluation.report import Account

if TYPE_CHECKING:
    import pandas as pd


Runs = Mapping[str, str | Path | Sequence[str | Path]] | Sequence[str | Path | tuple[str, str | Path]]


@dataclass(frozen=True, slots=True, eq=False)
class ComparedRuns:
    """Runs compared on the same test patients.

    Parameters
    ----------
    comparisons : tuple of Comparison
        One per target; the means over several targets come first.
    refused : mapping of str to str
        Target -> why it was not compared.
    fed : tuple of str
        Candidates whose backbone was fed otherwise than published.
    reference : str or None
        The candidate that differences are to; None for all pairs.
    """

    comparisons: tuple[Comparison, ...]
    refused: Mapping[str, str]
    fed: tuple[str, ...]
    reference: str | None

    def scores(self) -> pd.DataFrame:
        """One row per target, candidate and metric, with 95 % intervals over patients."""
        return score_table(self.comparisons)

    def differences(self) -> pd.DataFrame:
        """One row per target and pair: difference, 95 % interval, corrected p-value, and verdict on the first."""
        return difference_table(self.comparisons)

    def _repr_html_(self) -> str:
        return str(self.differences().to_html(index=False))


def compare(
    runs: Runs,
    out: str | Path | None = None,
    *,
    target: str = "",
    level: str | None = None,
    reference: str | None = None,
    margin: str = "",
    draws: int = 10_000,
    seed: int = 0,
    overwrite: bool = False,
    command: str = "",
) -> ComparedRuns:
    """Compare finished runs on the same test patients: which is better, and how sure that is.

    Parameters
    ----------
    runs : sequence of (path or pair of name and path), or mapping of str to (path or sequence of path)
        Folders of `probe`, `finetune` or `predict` runs, or tables of predictions (docs/statistics.md describes their
        columns). Several runs of one name are trainings of one model; a run without a name is called by its path.
    out : str or Path, optional
        Folder of the comparison: report, tables and plots. By default nothing is written.
    target : str
        Targets to compare, such as "EF,ESV". Default: all that every run has.
    level : {"study", "video", "clip", "frame"}, optional
        What one prediction is for. Default: the highest level that all runs have.
    reference : str, optional
        Differences to this candidate only. Default: all pairs.
    margin : str
        Differences below this do not matter: "0.5", or with the metric's unit "0.5 %".
    draws : int
        Number of bootstrap samples over patients.
    seed : int
        Seed for the bootstrap.
    overwrite : bool
        Replace a comparison in `out`.
    command : str
        Command to record in the report.

    Returns
    -------
    ComparedRuns
        `.scores()` and `.differences()` are DataFrames.

    Raises
    ------
    ArgumentError
        For fewer than two runs, no target or no test patients in common, and runs that contradict each other.
    StoreError
        If a run can't be read, or `out` holds something else.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        refuse_to_replace_run(folder, overwrite, "comparison")
    candidates = read_candidates(_named(runs), level)
    wanted = [name.strip() for name in target.split(",") if name.strip()]
    refused: dict[str, str] = {}
    comparisons = compare_candidates(
        candidates, reference=reference, margin=margin, targets=wanted, refused=refused, draws=draws, seed=seed
    )
    fed = tuple(f"{one.name} was fed otherwise: {'; '.join(one.overrides)}" for one in candidates if one.overrides)
    if folder is not None:
        facts = {"Reference": reference} if reference else {}
        facts |= {"Margin": margin} if margin else {}
        facts |= {f"Candidate {one.name}": one.made_by or "a table of predictions" for one in candidates}
        account = Account(
            title=f"Comparison: {', '.join(c.name for c in comparisons[:4])}",
            subtitle=f"{len(candidates)} candidates on the same test patients",
            facts=facts,
            inputs={one.name: _ids(one) for one in candidates if one.inputs},
            sections=_inputs(candidates),
            warnings=[*fed, *(f"{name} was not compared: {why}" for name, why in refused.items())],
            methods=[methods_of(comparisons)],
            command=command,
        )
        write_comparison(folder, "compare", comparisons, account, overwrite=overwrite)
    return ComparedRuns(tuple(comparisons), refused, fed, reference)


def _ids(one: Candidate) -> dict[str, str]:
    """Settings ids and data digests of a candidate's runs."""
    settings, data = zip(*one.inputs, strict=True)
    return {"settings_id": ", ".join(dict.fromkeys(settings)), "data_digest": ", ".join(dict.fromkeys(data))}


def _inputs(candidates: Sequence[Candidate]) -> list[Section]:
    """A table of the candidates' settings ids and data digests; none where no run is known."""
    rows = [
        [one.name, *(", ".join(text[:16] for text in dict.fromkeys(texts)) for texts in zip(*one.inputs, strict=True))]
        for one in candidates
        if one.inputs
    ]
    caption = "First 16 digits; comparison.json has them in full."
    return [Section("Inputs", [Table(["Candidate", "Settings id", "Data digest"], rows, caption)])] if rows else []


def _named(runs: Runs) -> list[tuple[str, str | Path]]:
    if isinstance(runs, Mapping):
        several = {name: [run] if isinstance(run, str | Path) else run for name, run in runs.items()}
        return [(name, run) for name, of_name in several.items() for run in of_name]
    return [run if isinstance(run, tuple) else ("", run) for run in runs]
