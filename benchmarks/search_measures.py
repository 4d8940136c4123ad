"""How well the ways to compare studies find a patient's study of another day, and patients of a like ejection fraction.

    python benchmarks/search_measures.py --patients 32

Phantom patients, each filmed on two days: the body and the heart stay, the machine is set again, the probe's place is
found again, every loop is another take. With random weights (the default) the figures compare the measures, not models.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from panecho_embed import ClipPlan, extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.phantoms import make_patients, render
from panecho_embed.phantoms.patients import View
from panecho_embed.retrieval import Collection, Measure
from panecho_embed.retrieval.evaluate import Retrieval, evaluate


def film(folder: Path, patients: int, takes: int, frames: int, seed: int) -> Path:
    """A table of loops: every patient on two days, four views a day, some takes a view."""
    lines = []
    for patient in make_patients(patients, seed):
        for study in (1, 2):
            for view in get_args(View):
                for take in range(takes):
                    name = f"{patient.patient_id}-S{study}-{view}-{take}"
                    film = render(patient, view, frames, size=112, take=take, study=study)
                    np.save(folder / f"{name}.npy", film.pixels)
                    lines.append({"path": f"{name}.npy", "video_id": name, "study_id": name.rsplit("-", 2)[0],
                                  "patient_id": patient.patient_id, "view": view, "fps": film.fps,
                                  "EF": round(patient.ef_percent, 2)})  # fmt: skip
    pd.DataFrame(lines).to_csv(folder / "films.csv", index=False)
    return folder / "films.csv"


def row(name: str, patient: Retrieval, fraction: Retrieval) -> str:
    top, precision, apart = patient.scores["top1"], patient.scores["map"], fraction.scores["difference1"]
    cells = [
        f"{top.value:.2f} ({top.low:.2f}-{top.high:.2f}), chance {patient.chance['top1']:.2f}",
        f"{precision.value:.2f} ({precision.low:.2f}-{precision.high:.2f}), chance {patient.chance['map']:.2f}",
        f"{apart.value:.1f} ({apart.low:.1f}-{apart.high:.1f}), chance {fraction.chance['difference1']:.1f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=32)
    parser.add_argument("--takes", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--backbone", default="random")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = film(folder, options.patients, options.takes, options.frames, options.seed)
        clips = folder / "clips.h5"
        extract(
            films,
            clips,
            backbone=load_backbone(options.backbone, image_size=options.image_size),
            clips=ClipPlan(frames_per_clip=options.frames // 2, num_clips=2),
            workers=0,
        )
        collection = Collection(clips)
        print(
            "| items, similarity | same patient, top-1 | same patient, mAP | EF of the nearest other patient, points |"
        )
        print("| --- | --- | --- | --- |")
        print(row("videos, cosine", evaluate(collection, "patient_id"), evaluate(collection, "EF")))
        for measure in get_args(Measure):
            both = [evaluate(collection, column, level="study", similarity=measure) for column in ("patient_id", "EF")]
            print(row(f"studies, `{measure}`", both[0], both[1]), flush=True)


if __name__ == "__main__":
    main()
