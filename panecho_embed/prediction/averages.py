"""Predictions of clips -> of videos -> of studies, with how far they lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import FloatArray, Ints, Texts
from panecho_embed.core.records import EmbeddingTable
from panecho_embed.core.tasks import Task
from panecho_embed.extraction.pooling import pool_table


@dataclass(frozen=True, slots=True)
class Output:
    """One column of predictions.

    label: the class whose probability it is, "" for a regression; of a binary task the clinically positive class.
    """

    task: Task
    label: str = ""

    @property
    def column(self) -> str:
        """Its name in tables: "EF", "AVStenosis:Severe"."""
        return f"{self.task.name}:{self.label}" if self.label else self.task.name

    @property
    def unit(self) -> str:
        """The regression's unit, or "probability"."""
        return "probability" if self.label else self.task.unit


def outputs_of(tasks: Iterable[Task]) -> tuple[Output, ...]:
    """The columns of some tasks, in their order; a multiclass task's in the order of its classes."""
    labels = ((task, task.classes if task.type == "multiclass" else (task.positive_class,)) for task in tasks)
    return tuple(Output(task, label) for task, own in labels for label in own)


def reported(outputs: FloatArray, tasks: Sequence[Task]) -> FloatArray:
    """Turn raw outputs (N, K) of heads into the reported values (N, K) of the same columns.

    Multiclass: the softmax. Binary: the probability of the clinically positive class. Regression: the value in its
    unit, with its sign (Task.sign).
    """
    parts = np.split(outputs, np.cumsum([task.num_outputs for task in tasks])[:-1], axis=1)
    return np.concatenate([_reported(raw, task) for raw, task in zip(parts, tasks, strict=True)], axis=1)


def _reported(raw: FloatArray, task: Task) -> FloatArray:
    from scipy.special import expit, softmax

    if task.type == "multiclass":
        return np.asarray(softmax(raw, axis=1))
    if task.type == "binary":
        # The logit is the log-odds of index 1, and expit(-x) = 1 - expit(x) without the cancellation.
        return np.asarray(expit(raw if task.positive_class_index == 1 else -raw))
    return raw * task.sign


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """How far the members of a group lie apart: (G, K) each, `count` (G,).

    sd: standard deviation with n - 1 in the denominator; low, high: smallest and largest. All NaN for one member.
    """

    count: Ints
    sd: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Reported values of clips, videos and studies: tables with values (N, K), one column per output.

    over_clips: spread of the clips' reported values within each video. over_videos: spread of the videos' values within
    each study. within_videos: (studies, K), the standard deviation of the clips' reported values within a video: the
    root of the mean variance of a study's videos. videos_of: for every study, the rows of `videos` that belong to it.

    A video's class probabilities come from its mean logits, so they differ from the mean of its clips' probabilities.
    With three classes or more, one of them can even lie outside the range of the clips' (`over_clips.low` to `high`).
    """

    outputs: tuple[Output, ...]
    clips: EmbeddingTable
    videos: EmbeddingTable
    studies: EmbeddingTable
    over_clips: Spread
    over_videos: Spread
    within_videos: FloatArray
    videos_of: tuple[npt.NDArray[np.intp], ...]


def average(tasks: Sequence[Task], clips: EmbeddingTable) -> Predictions:
    """Average predictions over the clips of a video, then over the videos of a study, as the published evaluation does.

    Over clips, the raw outputs (logits) are averaged, and then turned into probabilities. Over the videos of a study,
    these probabilities are averaged. Regressions are plain means in both steps. Every video counts the same, however
    many clips it has.

    clips: raw outputs (N, K) of the heads of `tasks`, as `read_heads` returns them.
    """
    import pandas as pd

    videos = pool_table(clips, "video")
    clips, videos = (replace(table, values=reported(table.values, tasks)) for table in (clips, videos))
    studies = pool_table(videos, "study")
    over_clips = _spread(clips.values, _groups(clips.video_id, videos.video_id))
    study = _groups(videos.study_id, studies.study_id)
    variance = pd.DataFrame(over_clips.sd**2).groupby(study).mean()  # of the videos that have one
    return Predictions(
        outputs_of(tasks),
        clips,
        videos,
        studies,
        over_clips,
        _spread(videos.values, study),
        np.sqrt(variance.to_numpy()),
        tuple(map(np.asarray, pd.Series(study).groupby(study).indices.values())),
    )


def _groups(ids: Texts, order: Texts) -> Any:
    """A number for each row: the place of its id in `order`."""
    import pandas as pd

    return pd.Index(order).get_indexer(pd.Index(ids))


def _spread(values: FloatArray, group: Any) -> Spread:
    import pandas as pd

    grouped = pd.DataFrame(values.astype(np.float64)).groupby(group)
    count: Ints = np.asarray(grouped.size(), dtype=np.int64)
    ends = (np.where((count > 1)[:, None], end, np.nan) for end in (grouped.min(), grouped.max()))
    return Spread(count, grouped.std().to_numpy(), *ends)
