"""The commands `probe`, `probe compare`, `probe apply` and `audit` as functions."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.outputs import refuse_to_replace, refuse_to_replace_run, written_whole
from panecho_embed.core.provenance import Level
from panecho_embed.core.records import PoolHow
from panecho_embed.evaluation.conclusions import sentence
from panecho_embed.evaluation.page import figure, picture_file
from panecho_embed.evaluation.plots import target_figures
from panecho_embed.evaluation.targets import Reading
from probes.account import CLAIM, doubts_of
from probes.base import BaseProbe, accepts
from probes.comparison import Compared, compare_problems
from probes.leakage import Finding, shortcut_findings
from probes.leakage import audit as leaks
from probes.outputs import RunInfo, apply_probes, write_run
from probes.plans import RunSettings
from probes.problem import Fusion, Problem, load_problems
from probes.registry import probe_class
from probes.run import TargetResult, run_targets
from probes.shortcuts import Shortcuts, find_shortcuts

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator


@dataclass(frozen=True, slots=True, eq=False)
class ProbeRun:
    """The results of a probe; a notebook shows the answer and the main figure of each target.

    Parameters
    ----------
    results : tuple of TargetResult
        One per target.
    refused : mapping of str to str
        Target -> why it was not evaluated.
    folder : Path or None
        The written run; None where nothing was written.
    """

    results: tuple[TargetResult, ...]
    refused: Mapping[str, str]
    folder: Path | None = None

    def table(self) -> pd.DataFrame:
        """One row per target and metric: value, 95 % interval over patients, baseline."""
        import pandas as pd

        rows = []
        for result in self.results:
            scored = result.evaluation.scored
            for name, score in scored.scores.items():
                baseline = scored.baseline[name].value if name in scored.baseline else float("nan")
                rows.append({"target": scored.target.name, **asdict(score), "baseline": baseline})
        return pd.DataFrame(rows)

    def answers(self) -> list[str]:
        """One sentence per target: whether it can be read from the embeddings, with the figures."""
        return [sentence(result.evaluation.scored, CLAIM, doubts_of(result)) for result in self.results]

    def _repr_html_(self) -> str:
        pieces = []
        for text, result in zip(self.answers(), self.results, strict=True):
            drawing, caption = next(iter(target_figures(result.evaluation.scored).values()))
            pieces.append(f"<p>{html.escape(text)}</p>{picture_file(figure(drawing, caption))}")
        return "".join(pieces) + str(self.table().to_html(index=False))


def make_probe(name: str, problem: Problem, seed: int = 0, settings: Mapping[str, Any] | None = None) -> BaseProbe:
    """A probe by its name, with the run's seed where it has one. Raises ArgumentError for a name or setting unknown."""
    kind, task = probe_class(name), problem.target.kind
    own = {"task": task, **(settings or {})}
    if task == "regression" and "class_weight" in own:
        own["class_weight"] = None
    own |= {"random_state": seed} if accepts(kind.__init__, "random_state") else {}
    try:
        return kind(**own)
    except TypeError as error:
        raise ArgumentError(f"the probe {name} does not take {settings}: {error} (--set)") from error


def probe(
    embeddings: str | Path,
    target: str,
    out: str | Path | None = None,
    *,
    probe: str | BaseEstimator = "linear",
    labels: str | Path | None = None,
    level: Level | None = None,
    pooling: PoolHow = "mean",
    fusion: Fusion = "early",
    reading: Reading | None = None,
    settings: RunSettings | None = None,
    overwrite: bool = False,
    **parameters: Any,
) -> ProbeRun:
    """Learn whether a task can be read from embeddings.

    Parameters
    ----------
    embeddings : str or Path
        Embedding file.
    target : str
        Label column; several as "EF,ESV", or "all".
    out : str or Path, optional
        Folder of the run: report, metrics, predictions, plots and the probe. By default nothing is written.
    probe : str or scikit-learn estimator
        "linear", "knn", "faiss", "attentive", a registered name, or any regressor or classifier.
    labels : str or Path, optional
        CSV of labels, joined by id.
    level : {"frame", "clip", "video", "study"}, optional
        What one prediction is for. Default: video, or study for a file at study level.
    pooling : {"mean", "mean+std", "max"}
        How the rows of a video or study are combined.
    fusion : {"early", "late"}
        Pool embeddings, or average the predictions of rows.
    reading : Reading, optional
        How label columns are read: kind of task, positive class, order of grades.
    settings : RunSettings, optional
        Folds, few-shot draws, threshold, cutoffs, subgroups, controls, label efficiency, bootstrap, seed.
    overwrite : bool
        Replace a run in `out`.
    **parameters
        Parameters of the named probe, such as strengths=(1, 10).

    Returns
    -------
    ProbeRun
        `.table()` is a DataFrame of metrics, `.answers()` says each result in a sentence.

    Raises
    ------
    ArgumentError
        For an unknown target, probe or parameter, labels that make no task, and patients on both sides of a split.
    StoreError
        If the embedding file is damaged, or `out` holds something else.
    """
    run = settings or RunSettings()
    if out is not None:
        refuse_to_replace_run(Path(out), overwrite, "probe run")
    if not isinstance(probe, str) and parameters:
        raise ArgumentError(f"{', '.join(parameters)} are parameters of a named probe; the estimator has its own")
    refused: dict[str, str] = {}
    # The attentive probe combines the rows by itself.
    pools = isinstance(probe, str) and probe_class(probe).pools
    problems = load_problems(
        embeddings,
        target,
        labels=labels,
        level=level,
        pooling="mean" if pools else pooling,
        fusion="late" if pools else fusion,
        reading=reading,
        refused=refused,
    )

    def made(problem: Problem) -> BaseProbe | BaseEstimator:
        return make_probe(probe, problem, run.seed, parameters) if isinstance(probe, str) else probe

    several = len(problems) + len(refused) > 1
    results = tuple(run_targets(problems, made, run, refused=refused if several else None))
    if not results:
        name, why = next(iter(refused.items()))
        raise ArgumentError(f"none of {len(refused)} targets can be evaluated; {name}: {why}")
    folder = None
    if out is not None:
        name = probe if isinstance(probe, str) else type(probe).__name__
        info = RunInfo(str(embeddings), f"probe {name}", not_evaluated=refused)
        folder = write_run(results, info, out, overwrite=overwrite)
    return ProbeRun(results, refused, folder)


def compare(
    embeddings: Mapping[str, str | Path] | Sequence[str | Path],
    target: str,
    *,
    probe: str = "linear",
    labels: str | Path | None = None,
    level: Level | None = None,
    pooling: PoolHow = "mean",
    fusion: Fusion = "early",
    reading: Reading | None = None,
    settings: RunSettings | None = None,
    reference: str | None = None,
    margin: str = "",
) -> Compared:
    """Train the same probe on several embedding files, on the same patients, splits and draws, and compare.

    Parameters
    ----------
    embeddings : mapping of str to path, or sequence of path
        Candidates: models, samplings or poolings. In a sequence a candidate is called by its file's name.
    target : str
        Label column; several as "EF,ESV", or "all".
    probe : str
        Name of the probe that reads every candidate.
    labels, level, pooling, fusion, reading, settings
        As for `probe`.
    reference : str, optional
        Differences to this candidate only. Default: all pairs.
    margin : str
        Differences below this do not matter: "0.5", or with the metric's unit "0.5 %".

    Returns
    -------
    Compared
        `.comparisons` per target; `panecho_embed.evaluation.comparison.difference_table` makes a table of them.

    Raises
    ------
    ArgumentError
        For fewer than two candidates, and when no target can be compared.
    """
    named = embeddings if isinstance(embeddings, Mapping) else {Path(path).stem: path for path in embeddings}
    if len(named) < len(embeddings):
        raise ArgumentError("two files have the same name; give names to them: {name: path}")
    run = settings or RunSettings()
    refused: dict[str, str] = {}
    pools = probe_class(probe).pools
    problems = {
        name: load_problems(
            path,
            target,
            labels=labels,
            level=level,
            pooling=pooling,
            fusion="late" if pools else fusion,
            reading=reading,
            refused=refused,
        )
        for name, path in named.items()
    }
    return compare_problems(
        problems,
        lambda problem: make_probe(probe, problem, run.seed),
        run,
        reference=reference,
        margin=margin,
        refused=refused,
    )


def apply(
    run: str | Path, embeddings: str | Path, out: str | Path | None = None, *, overwrite: bool = False
) -> pd.DataFrame:
    """Predict with the probes of a run for embeddings that were made in the same way.

    Parameters
    ----------
    run : str or Path
        Folder of a `probe` run.
    embeddings : str or Path
        Embedding file.
    out : str or Path, optional
        CSV to write. By default nothing is written.
    overwrite : bool
        Replace `out`.

    Returns
    -------
    DataFrame
        One row per video or study: ids, and a prediction per target (for classes a probability each).

    Raises
    ------
    SettingsMismatchError
        For embeddings that were made in another way.
    StoreError
        If the run or the embedding file is damaged, or `out` exists (unless `overwrite`).
    """
    if out is not None:
        refuse_to_replace(Path(out), overwrite, embeddings)
    frame = apply_probes(run, embeddings)
    if out is not None:
        with written_whole(Path(out)) as temporary:
            frame.to_csv(temporary, index=False)
    return frame


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """What `audit` found.

    Parameters
    ----------
    findings : tuple of Finding
        Leaks first, then warnings.
    shortcuts : Shortcuts or None
        What can be read from the embeddings beside the target; None where `no_shortcuts` says why.
    no_shortcuts : str
        Why shortcuts were not looked for.
    """

    findings: tuple[Finding, ...]
    shortcuts: Shortcuts | None
    no_shortcuts: str = ""

    def table(self) -> pd.DataFrame:
        """One row per finding: severity, kind, message, examples."""
        import pandas as pd

        columns = ["severity", "kind", "message", "examples"]
        return pd.DataFrame([asdict(finding) for finding in self.findings], columns=columns)

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False))


def audit(
    embeddings: str | Path,
    target: str = "",
    *,
    labels: str | Path | None = None,
    near: float = 0.995,
    columns: Sequence[str] = (),
    reading: Reading | None = None,
) -> Audit:
    """Look for leakage and shortcuts in embeddings before training on them.

    Parameters
    ----------
    embeddings : str or Path
        Embedding file.
    target : str
        Label column that shortcuts are looked for; several as "EF,ESV"; "" for none.
    labels : str or Path, optional
        CSV of labels, joined by id.
    near : float
        Cosine (0 to 1) from which two videos count as near-identical.
    columns : sequence of str
        Label columns to check as shortcuts besides those of text.
    reading : Reading, optional
        How the targets are read.

    Returns
    -------
    Audit
        `.table()` is a DataFrame of findings.

    Raises
    ------
    ArgumentError
        For unknown columns, and embeddings that are not finite.
    """
    findings = leaks(embeddings, labels=labels, near=near)
    try:
        shortcuts = find_shortcuts(embeddings, target, labels=labels, columns=columns, reading=reading)
    except ArgumentError as error:
        # A leak that was found must not be lost to what can't be computed.
        if not any(finding.severity == "leak" for finding in findings):
            raise
        return Audit(tuple(findings), None, str(error))
    return Audit((*findings, *shortcut_findings(shortcuts)), shortcuts)
