"""Units of labels: from a data set's layout through the file and all that is made of it into the results of probes."""

from __future__ import annotations

import pytest

from panecho_embed.core.shards import Shard
from panecho_embed.datasets import read_manifest
from panecho_embed.extraction.merging import merge
from panecho_embed.extraction.pooling import pool, pool_table
from panecho_embed.extraction.run import extract
from panecho_embed.store import EmbeddingFile
from probes.label_table import join_labels
from probes.problem import make_problem
from tests.datasets.trees import dynamic
from tests.media.builders import numbered_frames, write_avi
from tests.tiny import tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tree of EchoNet-Dynamic whose videos can be read."""
    root = tmp_path_factory.mktemp("units") / "EchoNet-Dynamic"
    dynamic(root)
    for video in root.rglob("*.avi"):
        write_avi(video, numbered_frames(20, 32, 32))
    return root


def test_units_reach_the_file_and_what_is_made_of_it(data, tmp_path):
    wanted = read_manifest(data).units
    assert wanted["EF"] == "%"
    out = extract(data, tmp_path / "x.h5", backbone=tiny(), workers=0).out
    assert EmbeddingFile(out).units == wanted
    for by in ("video", "study"):
        assert EmbeddingFile(pool(out, by, tmp_path / f"{by}.h5")).units == wanted
    for index in (1, 2):
        extract(data, tmp_path / "s.h5", backbone=tiny(), workers=0, shard=Shard(index, 2))
    assert EmbeddingFile(merge(tmp_path / "s.h5").out).units == wanted


def test_a_probe_names_the_unit_of_its_target_unless_a_table_replaces_the_label(data, tmp_path):
    table = pool_table(EmbeddingFile(extract(data, tmp_path / "x.h5", backbone=tiny(), workers=0).out).table(), "video")
    assert make_problem(table, table, "EDV").target.title == "EDV, mL"
    (tmp_path / "labels.csv").write_text(
        "video_id,EDV\n" + "".join(f"{name},0.{i + 1}\n" for i, name in enumerate(dict.fromkeys(table.video_id)))
    )
    joined = join_labels(table, tmp_path / "labels.csv")
    assert make_problem(joined, joined, "EDV").target.title == "EDV"
