"""What every output says of itself: which model, how averaged, how uncertain, and what it is not for."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from panecho_embed._version import __version__
from panecho_embed.core.provenance import Provenance
from panecho_embed.core.tasks import Task
from panecho_embed.core.wording import counted
from panecho_embed.prediction.averages import Output, outputs_of
from panecho_embed.store import EmbeddingFile

DISCLAIMER = "For research only. Not a medical device: not for diagnosis or treatment."
RANDOM = "RANDOM WEIGHTS, NOT PRETRAINED: these predictions mean nothing; they show what the output looks like."
AVERAGING = (
    "Raw outputs are averaged over a video's clips: for measurements the values, for classes the logits, which are "
    "then turned into probabilities. Values and probabilities are averaged over a study's videos. Every video counts "
    "the same, whatever its view. This is the order of PanEcho's published evaluation."
)
SPREAD = (
    "SD is the standard deviation (n - 1) of the values or probabilities of a study's videos, or of its clips where "
    "there is one video. It tells how far the videos agree, not how far the model may err: it is not a confidence "
    "interval, and some findings cannot be seen in every view."
)


def about(
    file: EmbeddingFile, tasks: tuple[Task, ...], *, fine_tuned: bool, patients: Mapping[str, Any]
) -> dict[str, Any]:
    """The head of predictions.json and metrics.json; patients: how many of them the model was trained on."""
    provenance = file.provenance
    weights = provenance.weights
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "panecho_embed": __version__,
        "notice": DISCLAIMER if weights.pretrained else f"{RANDOM} {DISCLAIMER}",
        "model": {
            "backbone": provenance.backbone,
            "weights": weights.source,
            "sha256": weights.sha256,
            "licence": weights.licence,
            "pretrained": weights.pretrained,
            "fine_tuned": fine_tuned,
            "training_patients": dict(patients),
        },
        "embeddings": {
            "fingerprint": file.fingerprint,
            "clips": None if provenance.clips is None else dataclasses.asdict(provenance.clips),
            "feeding": dataclasses.asdict(provenance.feeding),
            "overrides": list(provenance.overrides),
            "plane_order": provenance.plane_order,
            "precision": provenance.precision,
        },
        "averaging": AVERAGING,
        "spread": SPREAD,
        "tasks": [_task(task) for task in tasks],
    }


def _task(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "type": task.type,
        "description": task.description,
        "classes": list(task.classes),
        "positive_class": task.positive_class or None,
        "unit": task.unit or None,
        "columns": [output.column for output in outputs_of([task])],
        "sign_flipped": task.sign < 0,
    }


def model_line(provenance: Provenance) -> str:
    """Which model, in a line for people."""
    weights = provenance.weights
    name = "PanEcho" if provenance.backbone == "panecho" else provenance.backbone
    return f"{name}, {weights.source} (sha256 {weights.sha256[:12]}), licence {weights.licence}"


def clips_line(provenance: Provenance) -> str:
    """Which clips, in a line for people."""
    plan = provenance.clips
    if plan is None:
        return ""
    many = (
        f"A clip every {plan.stride} frames" if plan.stride else f"Up to {counted(plan.num_clips or 1, 'clip')} a video"
    )
    if plan.uniform or plan.beats:
        which = f"{plan.frames_per_clip} frames {plan.spacing}"
    elif plan.target_fps:
        which = f"{plan.frames_per_clip} frames at {plan.target_fps:g} per second"
    elif plan.frame_step == 1:
        which = f"{plan.frames_per_clip} consecutive frames"
    else:
        which = f"{plan.frames_per_clip} frames, {plan.frame_step} apart"
    return f"{many}, of {which}, at {provenance.feeding.crop} x {provenance.feeding.crop} pixels"


def shown_class(label: str) -> str:
    """A class as people read it: "mild_mod_severe" is "Mild, mod or severe", a yes in numbers is "Yes"."""
    if label in ("0.0", "1.0", "0", "1"):
        return "Yes" if float(label) else "No"
    first, *others = re.split(r"[|_]", label)
    *others, last = [first[:1].upper() + first[1:], *(other[:1].lower() + other[1:] for other in others)]
    return f"{', '.join(others)} or {last}" if others else last


def shown_number(value: float) -> str:
    """Three digits, at most two decimals: 58.3, 115, 1.07."""
    return f"{value:.{_decimals(value)}f}".replace("-", "\u2212")


def shown_sd(value: float, sd: float, output: Output) -> str:
    """A standard deviation with as many decimals as its value is shown with; in per cent for probabilities."""
    if math.isnan(sd):
        return ""
    if not output.label:
        return f"{sd:.{_decimals(value)}f}"
    return f"{100 * sd:.0f}" if sd >= 0.01 else f"{100 * sd:.1f}"


def _decimals(value: float) -> int:
    return 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0


def shown_percent(probability: float) -> str:
    """A probability in per cent: "72", "0.4", "< 0.1"."""
    percent = 100 * probability
    if 0 < percent < 0.1:
        return "< 0.1"
    if 99.9 < percent < 100:
        return "> 99.9"
    return f"{percent:.1f}" if percent < 1 or percent > 99 else f"{percent:.0f}"
