"""In which part of a sheet a task stands: by anatomy, in the order of an echo report."""

from __future__ import annotations

from collections.abc import Iterable

from panecho_embed.tasks import Task

_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Left ventricle",
        (
            "EF",
            "GLS",
            "LVSystolicFunction",
            "LVWallMotionAbnormalities",
            "LVSize",
            "LVIDd",
            "LVIDs",
            "LVEDV",
            "LVESV",
            "LVSV",
            "LVWallThickness-increased-any",
            "LVWallThickness-increased-modsev",
            "IVSd",
            "LVPWd",
            "LVOTDiam",
            "LVDiastolicFunction",
            "E|EAvg",
        ),
    ),
    ("Right ventricle", ("RVSystolicFunction", "TAPSE", "RVSVel", "RVSize", "RVIDd", "RVSP")),
    ("Atria", ("LASize", "LAVol", "LAIDs2D", "RASize", "RADimensionM-L(cm)", "RAP-8-or-higher")),
    ("Aortic valve and root", ("AVStructure", "AVStenosis", "AVPkVel(m|s)", "AVRegurg", "LVOT20mmHg", "AORoot")),
    ("Mitral and tricuspid valves", ("MVStenosis", "MVRegurgitation", "TVRegurgitation", "TVPkGrad")),
    ("Pericardium", ("pericardial-effusion",)),
)
_OTHERS = "Other tasks"


def grouped(tasks: Iterable[Task]) -> list[tuple[str, list[Task]]]:
    """The tasks by group, empty groups left out; a task that PanEcho does not have comes last, in the given order."""
    by_name = {task.name: task for task in tasks}
    groups = [(title, [by_name.pop(name) for name in names if name in by_name]) for title, names in _GROUPS]
    only = not any(members for _, members in groups)
    return [group for group in (*groups, ("Tasks" if only else _OTHERS, list(by_name.values()))) if group[1]]
