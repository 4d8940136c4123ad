from __future__ import annotations

import numpy as np

from panecho_embed.retrieval import Collection
from tests.search.conftest import vectors_file


def test_a_label_called_as_a_column_of_ours_is_kept_under_another_name(tmp_path, monkeypatch):
    collection = Collection(vectors_file(tmp_path / "emb.h5"))
    ef = collection.file.labels["EF"]
    monkeypatch.setitem(vars(collection.file), "labels", {"fps": ef, "x": ef})
    np.testing.assert_array_equal(collection.videos.columns["label_fps"], ef)
    assert set(collection.videos.columns["fps"]) == {30}
    assert "label_x" in collection.studies.columns
    assert collection.notes[0] == "the label 'fps' is called 'label_fps' here"


def test_a_renamed_label_takes_no_other_labels_name(tmp_path, monkeypatch):
    collection = Collection(vectors_file(tmp_path / "emb.h5"))
    labels = {"label_fps": collection.file.labels["EF"], "fps": -collection.file.labels["EF"]}
    monkeypatch.setitem(vars(collection.file), "labels", labels)
    assert collection.renamed == {"fps": "label_label_fps"}
    np.testing.assert_array_equal(collection.videos.columns["label_fps"], labels["label_fps"])
    np.testing.assert_array_equal(collection.videos.columns["label_label_fps"], labels["fps"])
