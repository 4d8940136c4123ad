"""What would make a result too good to be true: looked for in an embedding file before anybody trains on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Texts
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.datasets import LocalIds
from panecho_embed.evaluation.targets import as_text
from panecho_embed.extraction.pooling import pool_table
from panecho_embed.store import EmbeddingFile
from probes.knn import ExactNeighbours
from probes.label_table import join_labels
from probes.problem import check_finite
from probes.shortcuts import Shortcuts

_Severity = Literal["leak", "warning"]

_NEAR = 0.995  # cosine of embeddings after centring
_GIVEN_AWAY = 0.99
_MAX_CLASSES = 20
_ROWS_OF_A_CLASS = 5  # on average; with fewer, values in order look like classes of a number
_NEIGHBOURS = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """severity: "leak", the test is not independent of the training; "warning", to be looked at by a person.

    kind: stable name. message: what was found. examples: the first of what it was found in.
    """

    severity: _Severity
    kind: str
    message: str
    examples: tuple[str, ...]


def audit(
    source: str | Path | EmbeddingTable, *, labels: str | Path | None = None, near: float = _NEAR
) -> list[Finding]:
    """All findings, leaks first. labels: a CSV of labels, joined by id. Of shortcuts see `shortcut_findings`.

    Patients or studies in more than one split; videos that are the same file, or have the same or nearly the same
    embedding (cosine of the centred embeddings at least `near`), in different splits or under two ids; labels that
    another column gives away. Raises ArgumentError for embeddings that are not finite.
    """
    if not 0 < near <= 1:
        raise ArgumentError(f"near is {near}; it must be above 0 and at most 1 (--near)")
    table = source if isinstance(source, EmbeddingTable) else EmbeddingFile(source).table()
    if labels is not None:
        known = None if isinstance(source, EmbeddingTable) else LocalIds.beside(source)
        table = join_labels(table, labels, known)
    check_finite(table, "the table" if isinstance(source, EmbeddingTable) else str(source))
    sha = {} if isinstance(source, EmbeddingTable) else _checksums(EmbeddingFile(source))
    videos = table if table.level in ("video", "study") else pool_table(table, "video")
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _across_splits(table),
        lambda: _same_files(videos, sha),
        lambda: _same_embeddings(videos, near),
        lambda: _given_away(videos),
    ]
    findings = [finding for check in checks for finding in check()]
    return sorted(findings, key=lambda finding: finding.severity)


def shortcut_findings(shortcuts: Shortcuts) -> list[Finding]:
    """A warning for each fact that the embedding gives away and that predicts a target."""
    return [
        Finding(
            "warning",
            "shortcut",
            f"{fact.name} is a shortcut to {target}: the embedding gives {fact.name} away ({fact.given_away}), and it "
            f"predicts {target} without an image ({found})",
            (fact.name, target),
        )
        for fact in shortcuts.facts
        for target, found in fact.predicts.items()
        if fact.is_one_of(target)
    ]


def _checksums(file: EmbeddingFile) -> dict[str, str]:
    columns = file.video_columns
    return {str(name): str(sha) for name, sha in zip(columns["video_id"], columns["sha256"], strict=True) if sha}


def _across_splits(table: EmbeddingTable) -> Iterator[Finding]:
    for noun, ids in (("patient", table.patient_id), ("study", table.study_id)):
        splits: dict[str, set[str]] = defaultdict(set)
        for name, split in zip(ids, table.split, strict=True):
            if split:
                splits[str(name)].add(str(split))
        crossing = [f"{name} ({', '.join(sorted(where))})" for name, where in splits.items() if len(where) > 1]
        if crossing:
            yield _finding("leak", f"{noun}_across_splits", f"{noun} ids in more than one split", crossing)


def _same_files(videos: EmbeddingTable, sha: dict[str, str]) -> Iterator[Finding]:
    by_content: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(videos.video_id):
        if str(name) in sha:
            by_content[sha[str(name)]].append(i)
    pairs = [pair for same in by_content.values() for pair in combinations(same, 2)]
    yield from _pair_findings(videos, pairs, "same_file", "videos are the very same file under two ids")


def _same_embeddings(videos: EmbeddingTable, near: float) -> Iterator[Finding]:
    if len(videos) < 3:
        return
    values = videos.values.astype(np.float64)
    centred = values - values.mean(axis=0)
    distance, index = ExactNeighbours(centred.astype(np.float32), "cosine").search(
        centred.astype(np.float32), min(_NEIGHBOURS, len(videos))
    )
    rows, columns = np.nonzero(distance <= 1 - near)
    pairs = np.sort(np.column_stack([rows, index[rows, columns]]), axis=1)
    close = sorted({(i, j) for i, j in pairs.tolist() if i != j})
    scale = np.abs(centred).max()
    same = [pair for pair in close if np.abs(values[pair[0]] - values[pair[1]]).max() <= 1e-5 * scale]
    yield from _pair_findings(videos, same, "same_embedding", "videos have the same embedding")
    known = set(same)
    rest = [pair for pair in close if pair not in known]
    apart = [pair for pair in rest if _apart(videos, pair)]
    if apart:
        text = f"pairs of videos in different splits have nearly the same embedding (cosine at least {near:g})"
        yield _finding("warning", "near_embedding_across_splits", text, _named(videos, apart))


def _apart(videos: EmbeddingTable, pair: tuple[int, int]) -> bool:
    one, other = (videos.split[i] for i in pair)
    return bool(one and other and one != other)


def _pair_findings(videos: EmbeddingTable, pairs: Sequence[tuple[int, int]], kind: str, text: str) -> Iterator[Finding]:
    crossing = [pair for pair in pairs if _apart(videos, pair)]
    if crossing:
        yield _finding(
            "leak", f"{kind}_across_splits", f"pairs of {text}, in different splits", _named(videos, crossing)
        )
    within = [pair for pair in pairs if not _apart(videos, pair)]
    if within:
        yield _finding("warning", kind, f"pairs of {text}", _named(videos, within))


def _given_away(videos: EmbeddingTable) -> Iterator[Finding]:
    columns = {"view": videos.view, **videos.labels}
    for a, b in combinations(columns, 2):
        reason = _relation(columns[a], columns[b])
        if reason:
            yield Finding("warning", "label_given_away", f"{a} and {b} give each other away: {reason}", (a, b))


def _relation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> str:
    """Why one column nearly fixes the other, "" if it doesn't."""
    from scipy.stats import rankdata

    both = (as_text(a) != "") & (as_text(b) != "")
    a, b = a[both], b[both]
    if len(a) < 10:
        return ""
    numbers = [column.dtype.kind in "fiu" for column in (a, b)]
    few = [len(set(as_text(column).tolist())) for column in (a, b)]
    if min(few) < 2:
        return ""
    if all(numbers) and min(few) > 2:
        correlation = abs(float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]))
        if correlation >= _GIVEN_AWAY:
            return f"rank correlation {correlation:.3f}"
    for column, other, is_number, classes in ((a, b, numbers[0], few[1]), (b, a, numbers[1], few[0])):
        if is_number and (classes == 2 or classes <= min(_MAX_CLASSES, len(a) // _ROWS_OF_A_CLASS)):
            separation = _separation(column, as_text(other))
            if separation >= _GIVEN_AWAY:
                return f"one separates the classes of the other, AUROC {separation:.3f}"
    if max(few) <= _MAX_CLASSES:
        share = max(_majority_share(a, b), _majority_share(b, a))
        return f"one fixes the other in {100 * share:.1f} % of videos" if share >= _GIVEN_AWAY else ""
    return ""


def _separation(number: npt.NDArray[Any], classes: Texts) -> float:
    """The smallest AUROC by which a number tells two classes that are neighbours in the order of their mean ranks."""
    from scipy.stats import rankdata

    ranks = rankdata(number)
    ordered = sorted(set(classes.tolist()), key=lambda name: float(ranks[classes == name].mean()))
    found = []
    for lower, upper in pairwise(ordered):
        both = np.isin(classes, (lower, upper))
        second, rank = classes[both] == upper, rankdata(number[both])
        found.append((rank[second].mean() - (second.sum() + 1) / 2) / (~second).sum())
    return float(min(found))


def _majority_share(known: npt.NDArray[Any], target: npt.NDArray[Any]) -> float:
    """How often the commonest value of `target` among rows with the same `known` is right; 0 where guessing does it."""
    _, left = np.unique(as_text(known).astype(str), return_inverse=True)
    _, right = np.unique(as_text(target).astype(str), return_inverse=True)
    counts = np.zeros((left.max() + 1, right.max() + 1))
    np.add.at(counts, (left, right), 1)
    guess = counts.sum(axis=0).max() / len(left)
    return float(counts.max(axis=1).sum() / len(left)) if guess < 1 - 2 * (1 - _GIVEN_AWAY) else 0.0


def _named(videos: EmbeddingTable, pairs: Sequence[tuple[int, int]]) -> list[str]:
    ids = videos.study_id if videos.level == "study" else videos.video_id
    return [f"{ids[i]} and {ids[j]}" for i, j in pairs]


def _finding(severity: _Severity, kind: str, text: str, examples: Sequence[str]) -> Finding:
    return Finding(severity, kind, f"{len(examples)} {text}", tuple(examples[:10]))
