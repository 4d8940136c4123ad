"""Write synthetic studies as a public data set, DICOM or image folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.phantom.filming import check_format
from panecho_embed.phantom.layouts import LAYOUTS, PLANS, Row
from panecho_embed.phantom.patients import make_patients
from panecho_embed.phantom.video import Video

_MARK = ".phantom.json"


def write_studies(
    out: str | Path,
    layout: str = "echonet-dynamic",
    patients: int = 60,
    videos_per_study: int | None = None,
    seed: int = 0,
    *,
    num_frames: int = 64,
    fps: float | None = None,
    size: int | tuple[int, int] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> list[Path]:
    """Write synthetic studies, one a patient, as a public data set, DICOM or image folders; returns the videos' paths.

    layout: echonet-dynamic (A4C), echonet-pediatric (A4C and PSAX, children), echonet-lvh (PLAX), dicom (four views and
    a still) or folders (four views). videos_per_study: the first so many views, or, above four, takes of the same views
    again; for dicom and folders alone. num_frames, fps, size: as in `render`; None: each patient's own rate, and the
    layout's size (600x800 for DICOM, otherwise 112x112). progress: called with videos done and in all.

    The same arguments give the same bytes. Raises ArgumentError for a folder that holds anything else, or phantoms of
    other settings, and StoreError if it can't be written.
    """
    if layout not in PLANS:
        raise ArgumentError(f"layout is {layout!r}; allowed are {', '.join(LAYOUTS)} (--layout)")
    plan = PLANS[layout]
    pixels = plan.size if size is None else (size, size) if isinstance(size, int) else size
    check_format(num_frames, fps, pixels)
    count = len(plan.views) if videos_per_study is None else videos_per_study
    if count < 1 or (count != len(plan.views) and not plan.many_takes):
        allowed = "1 or more" if plan.many_takes else f"{len(plan.views)}, which the data set sets"
        raise ArgumentError(f"videos_per_study is {count}; for {layout} it must be {allowed}")
    splits = _splits(patients, seed)
    videos = [
        Video(
            plan.place(p, view, take), p, view, take, splits[p.number - 1], num_frames, fps or p.frame_rate_hz, pixels
        )
        for p in make_patients(patients, seed, pediatric=plan.pediatric)
        for take, view in ((i // len(plan.views), plan.views[i % len(plan.views)]) for i in range(count))
    ]
    settings = [layout, patients, count, seed, num_frames, fps, list(pixels)]
    root = Path(out)
    try:
        _claim(root, settings)
        for done, video in enumerate(videos, start=1):
            path = root / video.path
            path.parent.mkdir(parents=True, exist_ok=True)
            plan.save(path, video)
            if progress is not None:
                progress(done, len(videos))
        _write_tables(root, [row for video in videos for row in plan.rows(video)])
    except OSError as error:
        raise StoreError(f"can't write {error.filename or root}: {error.strerror or error}") from error
    return [root / video.path for video in videos]


def _splits(count: int, seed: int) -> list[str]:
    """About 75 / 12.5 / 12.5 %, by chance, at least one patient each (two: train and test; one: train)."""
    eighth = max(1, round(count / 8))
    names = ["test"] * (eighth if count > 1 else 0) + ["val"] * (eighth if count > 2 else 0)
    names += ["train"] * (count - len(names))
    return [names[i] for i in np.random.default_rng([seed, count]).permutation(count)]


def _claim(root: Path, settings: list[Any]) -> None:
    """Make the folder ours, or raise ArgumentError if it is another's."""
    names = ("layout", "patients", "videos_per_study", "seed", "num_frames", "fps", "size")
    mine = dict(zip(names, settings, strict=True))
    mark = root / _MARK
    if mark.is_file():
        theirs = _read_mark(mark)
        differ = [
            f"{name} {theirs.get(name)}, not {value}" for name, value in mine.items() if theirs.get(name) != value
        ]
        if differ:
            raise ArgumentError(f"{root} holds phantoms of other settings: {'; '.join(differ)}; choose another folder")
    elif root.is_dir() and any(root.iterdir()):
        raise ArgumentError(f"{root} is not empty and was not written by this command; choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    mark.write_text(json.dumps(mine) + "\n", encoding="utf-8")


def _read_mark(mark: Path) -> dict[str, object]:
    try:
        return dict(json.loads(mark.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ArgumentError(f"{mark} is damaged ({error}); choose another folder, or remove this one") from error


def _write_tables(root: Path, lines: Sequence[tuple[str, Row]]) -> None:
    for name in dict.fromkeys(name for name, _ in lines):
        rows = [row for table, row in lines if table == name]
        with (root / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def extract_input(out: str | Path, layout: str) -> Path:
    """What `panecho-embed extract` takes to read the studies that `write_studies` wrote, ids and splits included."""
    return Path(out) / PLANS[layout].input
