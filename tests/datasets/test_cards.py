"""docs/datasets.md has the card of every layout, as the code says it, and a join that works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from panecho_embed import EmbeddingFile, extract
from panecho_embed.datasets.layouts import Layout, known_layouts
from panecho_embed.phantoms import write_studies
from tests.datasets.trees import WRITERS
from tests.tiny import tiny

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
MARK = "<!-- cards: python -m tests.datasets.test_cards renews what follows -->\n"


def section(layout: Layout) -> str:
    units = ", ".join(f"{name} [{unit}]" for name, unit in layout.units.items()) or "none"
    flaws = "".join(f"\n- {flaw}" for flaw in layout.card.flaws)
    return f"""### {layout.title}

`--layout {layout.name}`

| | |
| --- | --- |
| Recognised by | {layout.looks_like} |
| Read | {layout.reads} |
| Ids | {layout.identity} |
| Units | {units} |
| Cite | {layout.card.citation} |
| Licence | {layout.card.licence} |
| Passing on | {layout.card.passing_on} |

Known flaws:
{flaws}
"""


def renewed(text: str) -> str:
    return text.split(MARK)[0] + MARK + "\n" + "\n".join(map(section, known_layouts().values()))


def test_the_page_has_every_card_as_the_code_says_it():
    text = PAGE.read_text()
    assert MARK in text
    assert text == renewed(text)
    assert all(layout.card.citation and layout.card.licence for layout in known_layouts().values())


def test_a_file_joins_its_table_as_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_studies(tmp_path / "EchoNet-Dynamic", layout="echonet-dynamic", patients=3, num_frames=4, size=48)
    extract("EchoNet-Dynamic", "dynamic.h5", backbone=tiny(), workers=0, clips={"frames_per_clip": 2, "num_clips": 2})
    (code,) = re.findall(r"```python\n(import pandas.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    namespace: dict[str, object] = {}
    exec(code, namespace)
    joined = namespace["joined"]
    assert len(joined) == 6
    assert (joined["EF"] == joined["EF_of_table"]).all()
    assert (joined["NumberOfFrames_of_table"] == 4).all()


def test_a_warning_comes_before_the_work(tmp_path):
    said: list[str] = []
    for number in range(20):
        np.save(tmp_path / f"{number}.npy", np.full((2, 32, 32), number, np.uint8))
    (tmp_path / "labels.csv").write_text("EF\n50\n")
    extract(tmp_path, tmp_path / "o.h5", backbone=tiny(), workers=0, clips={"frames_per_clip": 2}, announce=said.append)
    assert said[0] == "WARNING: 1 table found and not used: labels.csv (columns EF)"


def test_nifti_and_the_frames_of_ed_and_es_reach_the_file(tmp_path):
    WRITERS["camus"](tmp_path / "CAMUS", None)
    extract(tmp_path / "CAMUS", tmp_path / "c.h5", backbone=tiny(), workers=0, clips={"frames_per_clip": 2})
    videos = EmbeddingFile(tmp_path / "c.h5").videos.set_index("video_id")
    assert videos["status"].to_dict() == {
        "patient0001_2CH_half_sequence": "done",
        "patient0001_4CH_half_sequence": "done",
        "patient0002_2CH_half_sequence": "done",
        "patient0002_4CH_half_sequence": "failed",
    }
    row = videos.loc["patient0002_2CH_half_sequence"]
    assert row[["patient_id", "view", "split", "fps", "frame_height"]].tolist() == [
        "patient0002",
        "A2C",
        "train",
        41.5,
        60,
    ]
    assert row[["EF", "ed_frame", "es_frame"]].tolist() == [38, 3, 0]
    assert np.isnan(videos["ed_frame"]).sum() == 0


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
