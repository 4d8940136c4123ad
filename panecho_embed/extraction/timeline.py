"""A picture of what ran when: a lane for the process that encodes, and one for each worker."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from panecho_embed.core.outputs import written_whole
from panecho_embed.extraction.profile import MAIN_STAGES, WORKER_STAGES, Profile

# Okabe and Ito's colours, which all kinds of sight tell apart.
_COLOURS = dict(
    zip(
        (*MAIN_STAGES, *WORKER_STAGES),
        ("#bbbbbb", "#eeeeee", "#cc79a7", "#000000", "#0072b2", "#e69f00", "#d55e00", "#009e73", "#56b4e9"),
        strict=True,
    )
)


def draw_timeline(profile: Profile, path: str | Path) -> None:
    """Draw a profile's spans as a PNG file; seconds since the profile began from left to right."""
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
