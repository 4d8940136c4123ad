from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, StoreError
from panecho_embed.retrieval import Collection, search, study_query, vector_query, video_query
from panecho_embed.retrieval.approximate import Effort, Tuned
from panecho_embed.retrieval.index import build_index, index_path, open_collection
from panecho_embed.retrieval.similarity import Groups
from tests.search.conftest import vectors_file

KINDS = ("exact", "ivf")
RECALL = {"exact": 1.0, "ivf": 0.95}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """3000 videos of 250 patients in 16 dimensions."""
    path = tmp_path_factory.mktemp("many") / "emb.h5"
    return vectors_file(path, patients=250, views=("A4C", "A2C", "PLAX", "PSAX"), studies=3, dim=16, rows=1)


@pytest.fixture(scope="module", params=KINDS)
def indexed(request, many):
    build_index(Collection(many), request.param, overwrite=True)
    return request.param, Collection(many), *open_collection(many, True)


def test_an_index_agrees_with_exact_search(indexed):
    kind, exact, collection, index = indexed
    rng = np.random.default_rng(0)
    found, wanted = 0, 0
    for vector in exact.videos.units[rng.choice(3000, 60, replace=False)] + 0.05 * rng.normal(size=(60, 16)):
        query = vector_query(collection, vector, "q")
        truth, near = search(exact, query, 10), search(collection, query, 10, index=index)
        score = dict(zip(truth.positions.tolist(), truth.similarity, strict=True))
        shared = [i for i in near.positions.tolist() if i in score]
        values = [near.similarity[near.positions.tolist().index(i)] for i in shared]
        assert values == pytest.approx([score[i] for i in shared], abs=1e-6)
        found, wanted = found + len(shared), wanted + len(truth)
    assert found / wanted >= RECALL[kind]


def test_an_items_similarity_to_itself_is_one(indexed):
    _, exact, collection, index = indexed
    for position in (0, 17, 2999):
        found = search(collection, vector_query(collection, exact.videos.units[position], "q"), 1, index=index)
        assert found.similarity[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("similarity", ["mean", "best", "view"])
@pytest.mark.parametrize("asked", ["study", "video"])
def test_no_study_is_missed_with_an_index_of_any_kind(indexed, similarity, asked):
    _, exact, collection, index = indexed
    for patient in range(0, 250, 25):
        own = study_query(exact, f"P{patient}-S1") if asked == "study" else video_query(exact, f"P{patient}/S1/A2C")
        for where in (None, "view == 'PLAX' and EF > 900"):
            truth, near = (
                search(one, own, 10, level="study", similarity=similarity, where=where, index=its)
                for one, its in ((exact, None), (collection, index))
            )
            assert near.positions.tolist() == truth.positions.tolist()
            assert near.similarity == pytest.approx(truth.similarity, abs=1e-6)
            assert (near.candidates, near.note) == (truth.candidates, truth.note)


def test_studies_are_found_without_reading_every_video(many, monkeypatch):
    build_index(Collection(many), "ivf", overwrite=True)
    collection, index = open_collection(many, True)
    means = Groups.mean

    def of_few(groups, units):
        assert len(units) < 2000, "the means of all videos were made again"
        return means(groups, units)

    monkeypatch.setattr(Groups, "mean", of_few)
    # By view, the means of each study's views are made once a collection.
    for similarity in ("mean", "best"):
        query = video_query(collection, "P3/S0/A4C")
        assert len(search(collection, query, 5, level="study", similarity=similarity, index=index)) == 5


def test_filters_hold_through_an_index(indexed):
    _, _, collection, index = indexed
    query = video_query(collection, "P3/S0/A4C")
    for where in ("view == 'PLAX'", "view == 'PLAX' and EF == 40"):
        found = search(collection, query, 5, where=where, index=index)
        assert len(found) == (5 if "EF" not in where else 3)
        assert {record["view"] for record in found.records()} == {"PLAX"}
        assert "P3" not in {record["patient_id"] for record in found.records()}


def test_the_embeddings_are_not_read_when_there_is_an_index(many, monkeypatch):
    build_index(Collection(many), "exact", overwrite=True)
    collection, index = open_collection(many)
    monkeypatch.setattr(type(collection.file), "embeddings", property(lambda self: pytest.fail("read")))
    assert len(search(collection, video_query(collection, "P3/S0/A4C"), 5, index=index)) == 5


def test_an_index_of_another_state_of_the_file_is_refused_with_the_command(tmp_path):
    path = vectors_file(tmp_path / "emb.h5")
    build_index(Collection(path))
    vectors_file(path, seed=1)
    with pytest.raises(StoreError, match=r"another state of .*panecho-embed index .*emb.h5"):
        open_collection(path)
    collection, index = open_collection(path, False)
    assert index is None
    build_index(collection, "ivf")
    assert open_collection(path)[1] is not None


def test_an_index_that_fits_is_not_replaced_unasked(emb):
    build_index(Collection(emb))
    with pytest.raises(StoreError, match="--overwrite"):
        build_index(Collection(emb))


@pytest.mark.parametrize(("move", "moves_before", "seed"), [("rename", 0, 0), ("replace", 2, 1)])
def test_a_build_that_is_stopped_half_way_leaves_a_whole_index(emb, monkeypatch, move, moves_before, seed):
    build_index(Collection(emb), "ivf")
    moved, moves = [], getattr(Path, move)

    def stopped(self, target):
        moved.append(self)
        if len(moved) > moves_before:
            raise KeyboardInterrupt
        return moves(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, move, stopped)
        with pytest.raises(KeyboardInterrupt):
            build_index(Collection(emb), "ivf", seed=1, overwrite=True)
    collection, index = open_collection(emb)
    assert index.info.seed == seed
    assert len(search(collection, video_query(collection, "P0/S0/A4C"), 3, index=index)) == 3
    with pytest.raises(StoreError, match="--overwrite"):
        build_index(Collection(emb))
    build_index(Collection(emb), "ivf", seed=1, overwrite=True)
    assert open_collection(emb)[1].info.seed == 1
    assert sorted(path.name for path in emb.parent.iterdir()) == ["emb.h5", "emb.h5.index"]


def test_no_index_is_refused_only_if_one_is_asked_for(emb):
    assert open_collection(emb)[1] is None
    with pytest.raises(StoreError, match="has no index; build one: panecho-embed index"):
        open_collection(emb, True)


@pytest.mark.parametrize("name", ["index.json", "units.npy", "studies.npy", "index.faiss"])
def test_a_damaged_index_says_how_to_renew_it(tmp_path, name):
    path = vectors_file(tmp_path / "emb.h5", patients=40)
    build_index(Collection(path), "ivf")
    (index_path(path) / name).write_bytes(b"{broken")
    collection = Collection(path)
    with pytest.raises(StoreError, match=r"is damaged.*; renew it: .*--overwrite"):
        open_collection(path)[1].nearest(collection.videos.units[:1], 3, np.ones(120, dtype=bool))


def test_an_index_that_is_renewed_before_it_is_first_asked_is_not_mixed_with_the_former(tmp_path):
    path = vectors_file(tmp_path / "emb.h5", patients=40)
    build_index(Collection(path), "ivf")
    _, index = open_collection(path)
    vectors_file(path, patients=40, seed=1)
    build_index(Collection(path), "ivf", overwrite=True)
    with pytest.raises(StoreError, match=r"index\.faiss is not what was written"):
        index.nearest(np.array(index.units[:1]), 3, np.ones(120, dtype=bool))


_CUT_WHILE_IT_IS_SEARCHED = """
import sys
from panecho_embed.core.errors import StoreError
from panecho_embed.retrieval import Collection, search, video_query
from panecho_embed.retrieval.index import build_index, index_path, open_collection

for kind in ("exact", "ivf"):
    build_index(Collection(sys.argv[1]), kind, overwrite=True)
    collection, index = open_collection(sys.argv[1], True)
    for name in ("units.npy", "studies.npy"):
        (index_path(sys.argv[1]) / name).open("r+b").truncate(200)
    for level in ("video", "study"):
        try:
            found = search(collection, video_query(collection, "P1/S0/A4C"), 3, level=level, index=index)
            print(kind, level, len(found))
        except StoreError as error:
            print(kind, level, error)
"""


def test_an_index_that_is_cut_while_it_is_searched_is_an_error_not_the_end_of_the_process(tmp_path):
    path = vectors_file(tmp_path / "emb.h5", patients=400)
    done = subprocess.run(
        [sys.executable, "-c", _CUT_WHILE_IT_IS_SEARCHED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    videos, *others = done.stdout.splitlines()
    # Kind "exact" has read its vectors already.
    assert videos == "exact video 3"
    names = [("exact study", "studies"), ("ivf video", "units"), ("ivf study", "units")]
    for line, (asked, name) in zip(others, names, strict=True):
        assert line.startswith(f"{asked} {index_path(path) / name}.npy is damaged: it ends at byte "), line
        assert f"; renew it: panecho-embed index {path} --overwrite" in line


def test_what_an_index_is_stands_beside_it(emb):
    info = build_index(Collection(emb), "ivf", recall=0.9, seed=3)
    told = json.loads((index_path(emb) / "index.json").read_text())
    assert set(told.pop("crc32")) == {"units.npy", "studies.npy", "index.faiss"}
    assert told == asdict(info)
    assert (info.kind, info.videos, info.dim, info.factory) == ("ivf", 18, 8, "IVF1,PQ4x4fsr")
    assert (info.recall_asked, info.recall, info.lists, info.candidates, info.seed) == (0.9, 1.0, 1, 18, 3)


def test_an_index_of_an_earlier_version_is_refused_in_a_line(emb, monkeypatch):
    build_index(Collection(emb), "ivf")
    monkeypatch.setattr("panecho_embed.retrieval.index.SCHEMA_VERSION", 4)
    with pytest.raises(StoreError, match=r"another version of panecho-embed \(schema 3, read is 4\); renew it"):
        open_collection(emb)


def test_auto_compares_all_of_a_few_videos(emb):
    assert build_index(Collection(emb)).kind == "exact"


@pytest.mark.parametrize(("worthwhile", "kind"), [(True, "ivf"), (False, "exact")])
def test_auto_takes_lists_of_many_videos_where_it_is_worth_it(apart, monkeypatch, worthwhile, kind):
    monkeypatch.setattr("panecho_embed.retrieval.index.EXACT_BELOW", 1000)
    monkeypatch.setattr("panecho_embed.retrieval.index.tune", lambda *_: Tuned(Effort(4, 64), 0.95, 0.1, worthwhile))
    info = build_index(Collection(apart), recall=0.9, overwrite=True)
    assert (info.kind, info.recall, info.recall_asked, info.lists) == (kind, 0.95, 0.9, 4)
    assert (open_collection(apart, True)[1] is None) == (kind == "exact")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"kind": "hnsw"}, "allowed are auto, exact, ivf"), ({"recall": 0.0}, "above 0"), ({"recall": 1.1}, "at most 1")],
)
def test_an_unknown_kind_or_recall_is_refused(emb, options, message):
    with pytest.raises(ArgumentError, match=message):
        build_index(Collection(emb), **options)


def test_too_few_videos_for_lists_are_refused(tmp_path):
    path = vectors_file(tmp_path / "emb.h5", patients=5)
    with pytest.raises(ArgumentError, match=r"takes 16 videos or more; there are 15 \(--kind exact\)"):
        build_index(Collection(path), "ivf")


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """4000 videos of 1000 patients whose four views are clusters far from each other, in 32 dimensions."""
    rng = np.random.default_rng(0)
    centres, patients = rng.normal(size=(4, 32)), rng.normal(size=(1000, 32))
    values = centres + 0.2 * patients[:, None] + 0.1 * rng.normal(size=(1000, 4, 32))
    path = tmp_path_factory.mktemp("apart") / "emb.h5"
    views = ("A4C", "A2C", "PLAX", "PSAX")
    return vectors_file(path, patients=1000, dim=32, rows=1, views=views, values=values.reshape(-1, 32))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_filter_far_from_the_query_is_answered_as_without_an_index(apart, kind):
    build_index(Collection(apart), kind, overwrite=True)
    collection, index = open_collection(apart)
    shared = 0
    for patient in range(0, 1000, 50):
        query = video_query(collection, f"P{patient}/S0/A4C")
        near = search(collection, query, 10, where="view == 'PLAX'", index=index)
        truth = search(collection, query, 10, where="view == 'PLAX'")
        score = dict(zip(truth.positions.tolist(), truth.similarity.tolist(), strict=True))
        hits = dict(zip(near.positions.tolist(), near.similarity.tolist(), strict=True))
        both = score.keys() & hits.keys()
        assert [hits[i] for i in both] == pytest.approx([score[i] for i in both], abs=1e-6)
        assert (len(near), near.note) == (10, "")
        shared += len(both)
    assert shared / 200 >= RECALL[kind]


@pytest.mark.parametrize("where", [None, "EF > 8000", "view == 'PLAX'"])
def test_a_video_finds_the_studies_whose_means_are_nearest(apart, where):
    build_index(Collection(apart), "ivf", overwrite=True)
    collection, index = open_collection(apart)
    for patient in range(0, 1000, 250):
        query = video_query(collection, f"P{patient}/S0/A4C")
        near = search(collection, query, 10, level="study", where=where, index=index)
        assert near.records() == search(collection, query, 10, level="study", where=where).records()


@pytest.mark.parametrize("similarity", ["mean", "best", "view"])
def test_a_video_finds_as_many_studies_as_are_asked_for(apart, similarity):
    build_index(Collection(apart), "ivf", overwrite=True)
    collection, index = open_collection(apart)
    found = search(
        collection, video_query(collection, "P3/S0/A4C"), 900, level="study", similarity=similarity, index=index
    )
    assert (len(found), found.note) == (900, "")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_index_is_never_removed(tmp_path, overwrite):
    collection = Collection(vectors_file(tmp_path / "emb.h5"))
    notes = index_path(collection.path) / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    with pytest.raises(StoreError, match=r"is no index: it holds notes\.txt"):
        build_index(collection, "exact", overwrite=overwrite)
    assert notes.read_text() == "mine"


def test_an_index_that_can_not_be_read_is_replaced_when_asked(tmp_path):
    collection = Collection(vectors_file(tmp_path / "my emb.h5"))
    build_index(collection, "exact")
    (index_path(collection.path) / "index.json").unlink()
    with pytest.raises(StoreError, match=r"no index\.json in it.*index '.*my emb\.h5' --overwrite"):
        build_index(collection, "exact")
    build_index(collection, "exact", overwrite=True)
    assert open_collection(collection.path, True)[1] is None
