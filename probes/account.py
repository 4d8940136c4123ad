"""What the report of a probe run says beside its scores: the question, the data, the grid of settings, the methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.patients import encoder_caution
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.wording import counted, interval, number, plural
from panecho_embed.evaluation.comparison_report import methods_of
from panecho_embed.evaluation.metrics import CALIBRATION_BINS, display_name
from panecho_embed.evaluation.page import Block, Facts, Section, Table, Text
from panecho_embed.evaluation.report import Account, interval_sentence, subgroup_blocks
from panecho_embed.evaluation.scores import FEWEST_PATIENTS
from panecho_embed.evaluation.splits import leaking_patients
from panecho_embed.extraction.summary import Sampling
from panecho_embed.store import EmbeddingFile
from probes.comparison import Compared
from probes.problem import Problem, data_digest
from probes.run import Evaluation, LabelEfficiency, TargetResult, subgroup_values

CLAIM = "can be read from these embeddings"


def account_of(
    results: Sequence[TargetResult],
    *,
    source: str,
    command: str,
    not_evaluated: dict[str, str] | None = None,
    digest: str = "",
) -> Account:
    """The account of a run for its report.

    Parameters
    ----------
    results : sequence of TargetResult
    source : str
        The embedding file.
    command : str
        To repeat the run.
    not_evaluated : dict, optional
        Target -> why, of those that could not be evaluated.
    digest : str
        Data digest of the rows used.
    """
    first = results[0]
    problem, probe = first.problem, first.probe
    names = [result.problem.target.name for result in results]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    asked = names[0] if len(names) == 1 else f"{len(names)} targets"
    refused = not_evaluated or {}
    sampling = _sampling(problem.provenance, source)
    sampled = {"Clips taken": sampling.describe()} if sampling else {}
    padding = [sampling.warning.split(":")[0] + "."] if sampling and sampling.warning else []
    by_kind: dict[str, list[TargetResult]] = {}
    for result in results:
        by_kind.setdefault(result.problem.target.kind, []).append(result)
    return Account(
        title=f"{probe.name}: {listed}",
        subtitle=f"Embeddings of {problem.provenance.model}, {problem.level} level, from {Path(source).name}",
        question=f"Can {asked} be read from embeddings of {problem.provenance.model}, per {problem.level}? "
        f"Probe: {probe.name}.",
        claim=CLAIM,
        doubts={result.problem.target.name: doubts_of(result) for result in results},
        facts=_facts(results, list(refused)),
        warnings=[
            *_warnings(results),
            *padding,
            *(f"{name} was not evaluated: {why}" for name, why in refused.items()),
        ],
        baseline=_baseline_words(results),
        extra={result.problem.target.name: _blocks(result) for result in results},
        columns={result.problem.target.name: further_columns(result) for result in results},
        sections=[
            Section("Data and splits", _data(results)),
            Section("Embeddings", [Facts(_provenance_facts(problem.provenance, source, digest) | sampled)]),
        ],
        methods=[_methods_paragraph(alike) for alike in by_kind.values()],
        command=command,
    )


def comparison_account(compared: Compared, reference: str | None, command: str) -> Account:
    """The account of a comparison of embeddings for its report."""
    evaluations = next(iter(compared.evaluations.values()))
    first = next(iter(evaluations.values()))
    targets = ", ".join(compared.evaluations)
    facts = {"Reference": reference} if reference else {}
    facts |= {"Probe": first.probes[0].name, "Candidates": ", ".join(evaluations)}
    digests = {
        name: data_digest([of_target[name].problem for of_target in compared.evaluations.values()])
        for name in evaluations
    }
    shared = {name: _provenance_facts(one.problem.provenance, name, digests[name]) for name, one in evaluations.items()}
    common = {
        key: value
        for key, value in next(iter(shared.values())).items()
        if all(facts_of.get(key) == value for facts_of in shared.values())
    }
    common.pop("File", None)
    apart = [key for key in next(iter(shared.values())) if key not in common and key != "File"]
    cells = [[name, *(_short(own.get(key, "-")) for key in apart)] for name, own in shared.items()]
    blocks: list[Block] = [Facts(common)] if common else []
    caption = "What differs between the candidates; ids by their first 16 digits, in full in comparison.json."
    if apart:
        blocks.append(Table(["Candidate", *apart], cells, caption, wrapped=True))
    sections = [Section("Embeddings", blocks)]
    notes = {name: note for name, one in evaluations.items() for note in _untrained_warning(one.problem.provenance)}
    alike = len(notes) == len(evaluations) and len(set(notes.values())) == 1
    warnings = list(set(notes.values())) if alike else [f"{name}: {note}" for name, note in notes.items()]
    fed = {name: one.problem.provenance.overrides for name, one in evaluations.items()}
    warnings += [f"{name} was fed otherwise: {'; '.join(lines)}" for name, lines in fed.items() if lines]
    warnings += [f"{name} was not compared: {why}" for name, why in compared.refused.items()]
    warnings += encoder_notes(compared)
    warnings += list(dict.fromkeys(note for one in evaluations.values() for note in cautions_of(one)))
    methods = (
        "The same probe was trained and tested on the same patients, splits and draws for every candidate. "
        f"{_probe_sentence(first)} The setting was chosen for each candidate by itself. {_plan_sentence(first)} "
        f"{methods_of(compared.comparisons)}"
    )
    return Account(
        title=f"Comparison: {targets}",
        subtitle=f"{len(evaluations)} embeddings on the same patients",
        facts=facts,
        warnings=warnings,
        sections=sections,
        inputs={
            name: {"settings_id": one.problem.provenance.settings_id, "data_digest": digests[name]}
            for name, one in evaluations.items()
        },
        methods=[methods],
        command=command,
    )


def _sampling(provenance: Provenance, source: str) -> Sampling | None:
    """What the clips of the file take from its videos; None for rows that are not of clips, or without the file."""
    if provenance.clips is None or not Path(source).is_file():
        return None
    with EmbeddingFile(source) as file:
        return Sampling.of(file, provenance.clips)


def _short(value: str) -> str:
    """A cell of a table; of a SHA-256 its first digits."""
    return value[:16] if re.fullmatch(r"[0-9a-f]{64}", value) else value


def recording_notes(result: TargetResult) -> list[str]:
    """What the recording-only baseline is, with a warning where it does as well as the probe; [] for few patients."""
    problem, scored = result.problem, result.evaluation.scored
    metric = display_name(scored.metric, problem.target.unit)
    if not result.recording or scored.primary.n_patients < FEWEST_PATIENTS:
        return []
    facts, value = ", ".join(problem.recording), number(result.recording[scored.metric])
    if not result.recording_suffices:
        return [f"Recording only (a linear probe on {facts}, no image, same folds): {metric} {value}."]
    return [
        f"Warning: the recordings alone ({facts}; no image) reach {metric} {value}, within the interval of the probe "
        f"({interval(scored.primary)}) or better. It is not shown that the embeddings tell more than how the patients "
        "were recorded."
    ]


def further_columns(result: TargetResult) -> dict[str, dict[str, str]]:
    """Columns of the table of metrics beside the baseline: recording only, and shuffled labels."""
    alone = {name: number(value) for name, value in result.recording.items()}
    found = {"Recording only": alone} if alone else {}
    if result.control is not None:
        found["Shuffled labels"] = {
            name: f"{number(values.mean())} ({number(values.min())} to {number(values.max())})"
            for name, values in result.control.items()
        }
    return found


def cautions_of(evaluation: Evaluation) -> list[str]:
    """What keeps the figures of one target from being trusted as they stand, apart from few patients."""
    problem, notes = evaluation.problem, []
    if leaking := leaking_patients(evaluation.folds, problem.patient):
        was = "patient was" if len(leaking) == 1 else "patients were"
        notes.append(
            f"{len(leaking)} {was} on two sides of a fold (--allow-leakage): what is measured is partly memory."
        )
    if problem.note:
        notes.append(f"{problem.note}.")
    if far := _far_patients(evaluation):
        shown = ", ".join(far[:5]) + (f" and {len(far) - 5} more" if len(far) > 5 else "")
        notes.append(
            f"{counted(len(far), 'test patient')} {'is' if len(far) == 1 else 'are'} far outside what was trained on "
            f"(many features were cut at the bound): {shown}. Their predictions are extrapolations."
        )
    if problem.target.kind == "binary" and not np.isfinite(evaluation.thresholds).all():
        notes.append(
            "No decision threshold was chosen, as nothing was held out to choose it on: there are no sensitivity and "
            "specificity."
        )
    return notes


def encoder_note(evaluation: Evaluation) -> str:
    """Warning that tested patients trained the encoder of the embeddings, or may have; "" where none did."""
    problem = evaluation.problem
    return encoder_caution(problem.provenance.patients, evaluation.scored.predictions.patient, problem.patient)


def encoder_notes(compared: Compared) -> list[str]:
    """`encoder_note` of each candidate of a comparison that has one, named; once where its targets agree."""
    notes = [
        f"{name}: {note}"
        for evaluations in compared.evaluations.values()
        for name, evaluation in evaluations.items()
        if (note := encoder_note(evaluation))
    ]
    return list(dict.fromkeys(notes))


def _far_patients(evaluation: Evaluation) -> list[str]:
    """Test patients whose embeddings are unlike all training rows, by the probes of the first training."""
    problem, far = evaluation.problem, set()
    for fold, probe in zip(evaluation.folds, evaluation.probes, strict=True):
        rows = problem.rows_of(fold.test)
        outside = probe.far_outside(problem.values_of(rows))
        far |= set(problem.patient[problem.unit[rows[outside]]].astype(str).tolist())
    return sorted(far)


def _provenance_facts(provenance: Provenance, source: str, digest: str) -> dict[str, str]:
    """How embeddings were made, and which of them were used, for people."""
    weights, clips = provenance.weights, provenance.clips
    facts = {
        "File": source,
        "Backbone": provenance.model,
        "Weights": weights.source if weights.pretrained else f"{weights.source}: untrained",
        "Weights SHA-256": weights.sha256,
        "Licence of the weights": weights.licence,
        "Patients that trained them": _encoder_patients(provenance),
        "Pixels": provenance.feeding.describe(),
        "Not the model's own feeding": "; ".join(provenance.overrides) or "nothing",
    }
    if clips is not None:
        facts["Clips"] = clips.describe()
    return facts | {
        "Level, pooling": f"{provenance.level}, {provenance.pooling or 'none'}",
        "Precision": provenance.precision,
        "Settings id": provenance.settings_id,
        "Data digest": digest or "-",
        "Versions": ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items())) or "-",
    }


def _encoder_patients(provenance: Provenance) -> str:
    patients = provenance.patients
    if not patients.known:
        return "not recorded" if provenance.weights.pretrained else "none"
    before = f"; those of {patients.before} are not" if patients.before else ""
    return f"recorded for {counted(len(patients.trainings or ()), 'training')}{before}"


def _untrained_warning(provenance: Provenance) -> list[str]:
    """A warning when the weights were random."""
    if provenance.weights.pretrained:
        return []
    return [
        f"These embeddings come from random, untrained weights ({provenance.weights.source}). They test the pipeline."
    ]


def _baseline_words(results: Sequence[TargetResult]) -> str:
    """What the baseline is."""
    kinds = {result.problem.target.kind for result in results}
    numbers = "predicts the mean of the training labels" if "regression" in kinds else ""
    classes = "predicts the class frequencies of the training labels" if kinds - {"regression"} else ""
    facts = dict.fromkeys(name for result in results for name in result.problem.recording)
    alone = (
        f" Recording only: a linear probe on what the file knows of the recordings ({', '.join(facts)}), without any "
        "image, on the same patients."
    )
    return f"The baseline {' or '.join(filter(None, (numbers, classes)))}.{alone if facts else ''}"


def _methods_paragraph(results: Sequence[TargetResult]) -> str:
    """How results of one kind of target were obtained, in the words of a methods section."""
    first = results[0]
    evaluation, problem = first.evaluation, first.problem
    provenance = problem.provenance
    weights = provenance.weights
    origin = weights.source if weights.pretrained else f"random, untrained weights ({weights.source})"
    pieces = [
        f"Embeddings ({provenance.dim} dimensions per {provenance.level}) were computed with the {provenance.backbone} "
        f"encoder ({origin}; weights SHA-256 {weights.sha256[:12]}).",
        _level_sentence(results),
        _probe_sentence(evaluation),
        _plan_sentence(evaluation),
        _tested(results),
        interval_sentence([result.evaluation.scored for result in results]),
        _baseline_words(results),
    ]
    if problem.target.kind == "binary" and np.isfinite(evaluation.thresholds).any():
        pieces.append(first.settings.threshold.sentence("held-out training data"))
    if problem.target.kind in ("binary", "multiclass"):
        pieces.append(
            "Sensitivity at 90% specificity is that of the ROC curve of the tested patients. "
            f"The expected calibration error used {CALIBRATION_BINS} bins of equal width."
        )
    if first.control is not None:
        shuffles = len(next(iter(first.control.values())))
        pieces.append(f"As a control, the training labels were shuffled between patients {shuffles} times.")
    pieces.append(f"The random seed was {first.settings.seed}.")
    return " ".join(pieces)


def _probe_sentence(evaluation: Evaluation) -> str:
    """What was trained, and how its setting was chosen."""
    probe, fold = evaluation.probes[0], evaluation.folds[0]
    trained, chosen = probe.methods_sentence(), probe.selection()
    if not chosen:
        return f"{trained}."
    if not len(fold.validation):
        return f"{trained}; {chosen} in {probe.folds} inner folds over the training patients."
    whose = "the validation patients" if len(evaluation.folds) == 1 else "each fold's validation patients"
    return f"{trained}; {chosen} on {whose}, after which it was fitted to training and validation patients together."


def _plan_sentence(evaluation: Evaluation) -> str:
    """Who was trained on and who was tested."""
    folds, count, drawn = evaluation.folds, len(evaluation.plans), evaluation.plans[0].drawn
    if len(folds) == 1:
        split = "The given split was used."
    elif len(folds[0].validation):
        split = f"The {len(folds)} given folds were each tested once."
    else:
        split = f"Each of {len(folds)} folds over patients was tested once by what was trained on the others"
        split += f", for {count} partitions into folds." if count > 1 and not drawn else "."
    if leaking := leaking_patients(folds, evaluation.problem.patient):
        split += f" {len(leaking)} of the patients were on two sides of a fold."
    if drawn:
        size = int(drawn[0].size)
        of_each = "" if evaluation.problem.target.kind == "regression" else " of each class"
        times = f", {count} times" if count > 1 else ""
        were = "was" if size == 1 else "were"
        split += f" {size} {plural('patient', size)}{of_each} {were} drawn at random from the training patients{times}."
    return split


def _facts(results: Sequence[TargetResult], refused: Sequence[str]) -> dict[str, str]:
    first = results[0]
    scored = first.evaluation.scored
    names = [result.problem.target.name for result in results]
    facts = {
        "Targets": ", ".join([*names, *refused]),
        "Rows to predictions": _fusion(first),
        "Patients": _patients(first),
        "Intervals": f"95 %, {scored.draws:,} bootstraps over patients, seed {scored.seed}",
    }
    if any(result.problem.target.kind == "binary" for result in results):
        facts["Decision threshold"] = str(first.settings.threshold)
    if first.settings.cutoffs:
        facts["Cut-offs"] = ", ".join(f"{cutoff:g}" for cutoff in first.settings.cutoffs)
    return facts


def _fusion(result: TargetResult) -> str:
    problem = result.problem
    if result.probe.pools:
        return f"the rows of a {problem.level} pooled by learned attention"
    if problem.fusion == "late":
        return f"the predictions of a {problem.level}'s rows averaged (late fusion)"
    return f"embeddings pooled: {problem.provenance.pooling} (early fusion)" if problem.provenance.pooling else "as is"


def _patients(result: TargetResult) -> str:
    evaluation = result.evaluation
    folds, count = evaluation.folds, len(evaluation.plans)
    split = "the given split" if len(folds) == 1 else f"{len(folds)} folds, each tested once"
    if result.settings.k_shot is not None:
        return f"{split}; trained on {result.settings.k_shot} shots, {counted(count, 'draw')}"
    return f"{split}; {counted(count, 'partition')}" if count > 1 else split


def _warnings(results: Sequence[TargetResult]) -> list[str]:
    notes = _untrained_warning(results[0].problem.provenance)
    by_target = {
        result.problem.target.name: [*filter(None, [encoder_note(result.evaluation)])]
        + cautions_of(result.evaluation)
        + (recording_notes(result) if result.recording_suffices else [])
        for result in results
    }
    same = set(map(tuple, by_target.values()))
    if len(same) == 1:
        return [*notes, *same.pop()]
    return [*notes, *(f"{name}: {note}" for name, found in by_target.items() for note in found)]


def doubts_of(result: TargetResult) -> list[str]:
    """Clauses that say why good figures of a target do not show that it can be read from these embeddings."""
    evaluation, doubts = result.evaluation, []
    if leaking_patients(evaluation.folds, evaluation.problem.patient):
        doubts.append("patients are on two sides of a fold, so part of this is memory")
    if result.recording_suffices:
        doubts.append("a probe on the recordings' settings, without any image, does as well")
    return doubts


def _blocks(result: TargetResult) -> list[Block]:
    evaluation = result.evaluation
    blocks: list[Block] = []
    if result.no_control:
        blocks.append(Text(result.no_control, "warning"))
    if result.efficiency is not None:
        blocks += [_efficiency_table(result.efficiency), result.efficiency.figure()]
    for column, groups in result.subgroups.items():
        blocks += subgroup_blocks(evaluation.scored, column, groups, subgroup_values(evaluation, column))
    return [*blocks, *_grid(evaluation)]


def _efficiency_table(curve: LabelEfficiency) -> Table:
    rows = [
        [f"{row[curve.unit]:g}", f"{row['n_patients']:.0f}", *(number(row[c]) for c in ("mean", "low", "high"))]
        for row in curve.band().to_dict("records")
    ]
    return Table([curve.unit, "Patients", display_name(curve.metric), "low", "high"], rows, curve.caption)


def _grid(evaluation: Evaluation) -> list[Block]:
    """One row a setting, one column a fold."""
    rows = evaluation.grid_rows()
    if not rows:
        return []
    settings = [name for name in rows[0] if name not in ("target", "fold", "loss", "chosen")]

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(f"{row[name]:g}" if isinstance(row[name], int | float) else str(row[name]) for name in settings)

    shown = {
        (row["fold"], key(row)): f"{row['loss']:.5g}{' *' if row['chosen'] else ''}"
        for row in rows
        if np.isfinite(row["loss"])
    }
    folds = list(dict.fromkeys(row["fold"] for row in rows))
    lines = [[*value, *(shown.get((fold, value), "-") for fold in folds)] for value in dict.fromkeys(map(key, rows))]
    return [Table([*settings, *folds], lines, "All settings tried: held-out loss; * chosen", folded=True)]


def _data(results: Sequence[TargetResult]) -> list[Block]:
    rows = []
    for result in results:
        problem = result.problem
        for fold in result.evaluation.folds:
            sizes = [
                f"{len(units)} ({len(set(problem.patient[units]))})"
                for units in (fold.train, fold.validation, fold.test)
            ]
            rows.append([problem.target.name, fold.name, *sizes, str(problem.n_missing)])
    level = plural(results[0].problem.level, 2)
    columns = ["Target", "Fold", "Train", "Validation", "Test", "Without label"]
    leaking = any(leaking_patients(r.evaluation.folds, r.problem.patient) for r in results)
    crossing = "Patients are on two sides of a fold." if leaking else "No patient is on two sides of a fold."
    first = " Of the first training." if len(results[0].evaluation.plans) > 1 else ""
    return [Table(columns, rows, f"Number of {level} (and patients). {crossing}{first}")]


def _tested(results: Sequence[TargetResult]) -> str:
    if len(results) > 1:
        return "How many patients were assessed for each is given in the tables."
    score = results[0].evaluation.scored.primary
    level = results[0].problem.level
    return f"Performance was assessed on {score.n} {plural(level, score.n)} of {score.n_patients} patients."


def _level_sentence(results: Sequence[TargetResult]) -> str:
    problem: Problem = results[0].problem
    *most, last = (result.problem.target.name for result in results)
    what = f"{', '.join(most)} and {last} were" if most else f"{last} was"
    what = f"{what} predicted per {problem.level}"
    if results[0].probe.pools:
        return f"{what}; the rows of a {problem.level} were pooled by learned attention."
    if problem.fusion == "late" and len(problem.unit) > len(problem):
        return f"{what}, as the mean of the predictions of its rows (late fusion)."
    pooling = problem.provenance.pooling
    return f"{what}, from embeddings pooled by {pooling} (early fusion)." if pooling else f"{what}."
