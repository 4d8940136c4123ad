"""Where the time of a run goes: seconds by stage, what ran when, and a picture of it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from panecho_embed.core.outputs import written_whole

_MainStage = Literal["start", "wait", "transfer", "choose", "encode", "clip", "write"]
MAIN_STAGES: tuple[_MainStage, ...] = get_args(_MainStage)
_WORKER_STAGES = ("decode", "resize")
# Okabe and Ito's colours, which all kinds of sight tell apart.
_COLOURS = dict(
    zip(
        (*MAIN_STAGES, *_WORKER_STAGES),
        ("#bbbbbb", "#eeeeee", "#cc79a7", "#000000", "#0072b2", "#e69f00", "#d55e00", "#009e73", "#56b4e9"),
        strict=True,
    )
)

# A timeline of more spans could be drawn, but not read.
_MOST_SPANS = 20_000


@dataclass(frozen=True, slots=True)
class DecodeTimes:
    """When and how long a worker had a video. started, stopped: `time.perf_counter`, the same clock in all processes.

    resize_seconds: the share of it that went into resizing; process: the worker's id.
    """

    started: float
    stopped: float
    resize_seconds: float
    process: int


@dataclass(frozen=True, slots=True)
class _Span:
    """One stage at work on one thing. started, stopped: seconds by `time.perf_counter`; process: its id."""

    stage: str
    started: float
    stopped: float
    process: int


class Profile:
    """Gathers the stages' times. `spans` are the first 20,000 spans; `seconds` counts all of them."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.process = os.getpid()
        self.seconds: dict[str, float] = defaultdict(float)
        self.spans: list[_Span] = []
        self.workers: set[int] = set()

    def begin(self) -> None:
        """Count what has passed since this was made as the start; of several jobs, before the first."""
        if "start" not in self.seconds:
            self._count(_Span("start", self.started, time.perf_counter(), self.process))

    @contextmanager
    def measure(self, stage: _MainStage) -> Iterator[None]:
        """Count what happens inside as that stage of this process."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._count(_Span(stage, started, time.perf_counter(), self.process))

    def decoded(self, times: DecodeTimes) -> None:
        """Count a video that a worker, or this process itself, has decoded."""
        self.workers.add(times.process)
        self.seconds["resize"] += times.resize_seconds
        self.seconds["decode"] -= times.resize_seconds
        self._count(_Span("decode", times.started, times.stopped, times.process))
        if times.process == self.process:
            # It was this process that was waited for.
            self.seconds["wait"] -= times.stopped - times.started

    def table(self) -> str:
        """The stages as lines of text: seconds until now, and their share of the wall time.

        Decoding and resizing by workers run beside the other stages; "other" is what no stage of this process counts.
        """
        wall_seconds = time.perf_counter() - self.started
        within: list[str] = [*MAIN_STAGES]
        beside: list[str] = [*_WORKER_STAGES]
        if self.process in self.workers:
            within, beside = [*beside, *within], []
        rows = [(stage, self.seconds[stage]) for stage in within]
        rows.append(("other", wall_seconds - sum(seconds for _, seconds in rows)))
        lines = [f"{name:<10}{seconds:>9.2f} s{100 * seconds / wall_seconds:>7.1f} %" for name, seconds in rows]
        lines.append(f"{'wall':<10}{wall_seconds:>9.2f} s{100:>7.1f} %")
        workers = f"in {len(self.workers)} workers beside it" if len(self.workers) != 1 else "in 1 worker beside it"
        lines += [f"{stage:<10}{self.seconds[stage]:>9.2f} s  {workers}" for stage in beside]
        return "\n".join(lines)

    def _count(self, span: _Span) -> None:
        self.seconds[span.stage] += span.stopped - span.started
        if len(self.spans) < _MOST_SPANS:
            self.spans.append(span)


def draw_timeline(profile: Profile, path: str | Path) -> None:
    """Draw a profile's spans as a PNG file; seconds since the profile began from left to right."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = [profile.process, *sorted(profile.workers - {profile.process})]
    figure = Figure(figsize=(11, 1.2 + 0.45 * len(lanes)), layout="constrained")
    axes = figure.add_subplot()
    for height, process in enumerate(lanes):
        for stage, colour in _COLOURS.items():
            spans = [
                (span.started - profile.started, span.stopped - span.started)
                for span in profile.spans
                if span.process == process and span.stage == stage
            ]
            # The edges' width would hide what is short.
            axes.broken_barh(spans, (height - 0.4, 0.8), facecolors=colour, linewidth=0)
    axes.set_yticks(range(len(lanes)), ["encoder", *(f"worker {i}" for i in range(1, len(lanes)))])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.set_xlim(0, max((span.stopped for span in profile.spans), default=profile.started + 1) - profile.started)
    seen = {span.stage for span in profile.spans}
    handles = [Patch(color=colour, label=stage) for stage, colour in _COLOURS.items() if stage in seen]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(_COLOURS), frameon=False)
    with written_whole(path, "") as temporary:
        figure.savefig(temporary, format="png", dpi=120)
