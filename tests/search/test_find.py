from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.extraction.pooling import pool
from panecho_embed.retrieval import Collection, search, study_query, vector_query, video_query
from panecho_embed.retrieval.vectors import read_query
from panecho_embed.store import EmbeddingWriter
from tests.search.conftest import vectors_file


def one_video_file(path, video_id, patient_id, vector, same_bytes):
    """An embedding file of one video; same_bytes: of the file that is P2/S0/A4C in `emb`."""
    template = Collection(vectors_file(path.with_name("template.h5"))).file
    digest = str(template.video_columns["sha256"][6]) if same_bytes else "f" * 64
    with EmbeddingWriter(path, template.provenance) as writer:
        writer.add(0, vector[None], np.zeros(1, dtype=int), 1, 4)
        ref = VideoRef(video_id, f"{patient_id}-S9", patient_id, "/nowhere/one.avi", "A4C")
        return writer.finish(Manifest((ref,)), [VideoFacts("done", digest, 40, 30.0, "test")], [])


@pytest.fixture
def collection(emb):
    return Collection(emb)


def test_the_nearest_study_by_hand(collection):
    found = search(collection, study_query(collection, "P2-S0"), 3)
    means = {}
    table = collection.videos
    for study in set(table.studies):
        means[study] = table.units[table.studies == study].mean(axis=0)
        means[study] /= np.linalg.norm(means[study])
    expected = sorted((s for s in means if s != "P2-S0"), key=lambda s: -(means[s] @ means["P2-S0"]))[:3]
    assert [record["study_id"] for record in found.records()] == expected
    assert found.similarity[0] == pytest.approx(means[expected[0]] @ means["P2-S0"], abs=1e-6)


@pytest.mark.parametrize("similarity", ["mean", "best", "view"])
def test_the_query_and_its_patient_are_left_out(tmp_path, similarity):
    collection = Collection(vectors_file(tmp_path / "two.h5", studies=2))
    query = study_query(collection, "P1-S0")
    without = search(collection, query, 99, similarity=similarity)
    assert "P1" not in {record["patient_id"] for record in without.records()}
    kept = search(collection, query, 99, similarity=similarity, include_same_patient=True)
    assert kept.records()[0]["study_id"] == "P1-S1"
    assert "P1-S0" not in {record["study_id"] for record in kept.records()}


def test_a_video_finds_videos_and_studies(collection):
    query = video_query(collection, "P1/S0/A4C")
    videos = search(collection, query, 3, include_same_patient=True)
    assert {record["patient_id"] for record in videos.records()[:2]} == {"P1"}
    assert "P1/S0/A4C" not in {record["video_id"] for record in videos.records()}
    studies = search(collection, query, 9, level="study", include_same_patient=True)
    assert {record["study_id"] for record in studies.records()} == {f"P{i}-S0" for i in (0, 2, 3, 4, 5)}


def test_an_items_own_vector_finds_it_with_similarity_one(collection):
    for i, vector in enumerate(collection.videos.units * 7):
        found = search(collection, vector_query(collection, vector, "q"), 1)
        assert found.positions.tolist() == [i]
        assert found.similarity[0] == pytest.approx(1, abs=1e-6)


def test_a_filter_picks_videos_and_so_studies(collection):
    query = video_query(collection, "P1/S0/A4C")
    found = search(collection, query, 99, where="view == 'PLAX' and EF > 20")
    assert {(r["view"], r["patient_id"]) for r in found.records()} == {("PLAX", p) for p in ("P3", "P4", "P5")}
    studies = search(collection, query, 99, level="study", where="view == 'PLAX' and EF > 20")
    assert {r["study_id"] for r in studies.records()} == {"P3-S0", "P4-S0", "P5-S0"}


def test_more_than_there_are_gives_what_there_is_and_says_so(collection):
    found = search(collection, study_query(collection, "P0-S0"), 100)
    assert len(found) == 5
    assert "5 instead of 100" in found.note
    nothing = search(collection, study_query(collection, "P0-S0"), 3, where="EF > 1000")
    assert len(nothing) == 0
    assert nothing.table().empty


def test_missing_values_are_none_in_records(collection):
    records = search(collection, study_query(collection, "P1-S0"), 9).records()
    assert next(r for r in records if r["patient_id"] == "P0")["EF"] is None


def test_unknown_ids_offer_the_nearest(collection):
    with pytest.raises(ArgumentError, match=r"no study is called 'P2S0'.*nearest: P2-S0"):
        study_query(collection, "P2S0")
    with pytest.raises(ArgumentError, match=r"no video is called '/etc/passwd'"):
        video_query(collection, "/etc/passwd")


def test_a_failed_video_says_that_it_has_no_embedding(make_file):
    from tests.conftest import refs

    collection = Collection(make_file("some.h5", refs("a", "b"), rows=[1, 0]))
    with pytest.raises(ArgumentError, match="'b' has no embedding"):
        video_query(collection, "b")


def test_a_video_of_zeros_can_not_be_asked_for_but_harms_no_one(tmp_path):
    values = np.eye(3)
    values[1] = 0
    path = vectors_file(tmp_path / "zero.h5", patients=3, views=("A4C",), dim=3, rows=1, values=values)
    collection = Collection(path)
    with pytest.raises(ArgumentError, match="zeros"):
        video_query(collection, "P1/S0/A4C")
    assert search(collection, video_query(collection, "P0/S0/A4C"), 5).similarity.tolist() == [0, 0]


@pytest.mark.parametrize("similarity", ["mean", "best", "view"])
def test_one_video_of_zeros_is_as_if_it_were_not_there(tmp_path, similarity):
    values = np.random.default_rng(0).normal(size=(60, 6))
    values[[3, 30, 31, 32]] = 0
    studies = {"patients": 20, "dim": 6, "rows": 1}
    with_zeros = Collection(vectors_file(tmp_path / "with.h5", **studies, values=values))
    query = study_query(with_zeros, "P1-S0")
    assert query.note == "left out of study P1-S0: 1 of 3 videos, for their embeddings are zeros"
    found = search(with_zeros, query, 99, similarity=similarity)
    assert query.note in found.note
    score = dict(zip(found.items.ids[found.positions], found.similarity.tolist(), strict=True))
    for study in range(2, 20):
        own = values[3 * study : 3 * study + 3]
        assert score.get(f"P{study}-S0", 0) == pytest.approx(compared(values[4:6], own, similarity), abs=1e-6)
    back = search(with_zeros, study_query(with_zeros, "P2-S0"), 99, similarity=similarity)
    assert dict(zip(back.items.ids[back.positions], back.similarity.tolist(), strict=True))["P1-S0"] == pytest.approx(
        score["P2-S0"], abs=1e-6
    )


def compared(query, study, similarity):
    """The similarity of a study's A2C and PLAX with another study, by loops over videos."""
    if not study.any():
        return 0
    if similarity == "mean":
        return cosine(sum(v / np.linalg.norm(v) for v in query), sum(v / np.linalg.norm(v) for v in study))
    pairs = np.array([[cosine(a, b) for b in study] for a in query])
    if similarity == "view":
        return (pairs[0, 1] + pairs[1, 2]) / 2
    return (pairs.max(axis=1).mean() + pairs.max(axis=0).mean()) / 2


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_a_study_of_nothing_but_zeros_can_not_be_asked_for(tmp_path):
    values = np.eye(9)
    values[3:6] = 0
    collection = Collection(vectors_file(tmp_path / "zeros.h5", patients=3, dim=9, rows=1, values=values))
    with pytest.raises(ArgumentError, match="study P1-S0 has an embedding of zeros"):
        study_query(collection, "P1-S0")


def test_vectors_of_zeros_among_others_are_left_out_with_a_note(collection):
    vectors = np.stack([collection.videos.units[6], np.zeros(8), collection.videos.units[7]])
    query = vector_query(collection, vectors, "q.npy", ["A4C", "A2C", "PLAX"])
    assert query.views.tolist() == ["A4C", "PLAX"]
    assert "left out of q.npy: 1 of 3 videos" in query.note
    with pytest.raises(ArgumentError, match=r"q\.npy has an embedding of zeros"):
        vector_query(collection, np.zeros((2, 8)), "q.npy")


@pytest.mark.parametrize("level", ["video", "clip"])
@pytest.mark.parametrize("similarity", ["mean", "best"])
def test_a_measure_of_studies_is_refused_for_what_is_none(collection, level, similarity):
    with pytest.raises(ArgumentError, match=f"'{similarity}' compares studies; {level}s are compared by their cosine"):
        search(collection, video_query(collection, "P1/S0/A4C"), 3, level=level, similarity=similarity)


@pytest.mark.parametrize(("k", "similarity", "says"), [(0, "mean", "k is 0"), (3, "median", "'median'; allowed")])
def test_bad_arguments_are_refused(collection, k, similarity, says):
    with pytest.raises(ArgumentError, match=says):
        search(collection, study_query(collection, "P0-S0"), k, similarity=similarity)


def test_pooled_files_are_searched_the_same(emb, tmp_path):
    pooled = Collection(pool(emb, "video", tmp_path / "videos.h5"))
    whole = Collection(emb)
    a = search(whole, study_query(whole, "P1-S0"), 4, similarity="best")
    b = search(pooled, study_query(pooled, "P1-S0"), 4, similarity="best")
    assert a.records() == b.records()


def test_a_study_level_file_knows_studies_alone(emb, tmp_path):
    studies = Collection(pool(emb, "study", tmp_path / "studies.h5"))
    assert len(search(studies, study_query(studies, "P1-S0"), 4)) == 4
    with pytest.raises(ArgumentError, match="stands at study level"):
        video_query(studies, "P1/S0/A4C")
    with pytest.raises(ArgumentError, match="--similarity mean alone"):
        search(studies, study_query(studies, "P1-S0"), 4, similarity="best")


def test_an_empty_file_can_not_be_searched(make_file):
    from tests.conftest import refs

    with pytest.raises(StoreError, match="no embedding in it"):
        Collection(make_file("none.h5", refs("a"), rows=[0]))


def test_vectors_come_from_numpy_and_embedding_files(emb, tmp_path, collection):
    np.save(tmp_path / "q.npy", collection.videos.units[4])
    assert search(collection, read_query(collection, tmp_path / "q.npy"), 1).positions.tolist() == [4]
    bag = read_query(collection, emb, "P1-S0")
    assert bag.units.shape == (3, 8)
    assert bag.level == "study"
    assert bag.patients == ("P1",)


def test_several_studies_are_not_asked_with_as_one(emb, collection):
    with pytest.raises(ArgumentError, match=r"holds 6 studies \(P0-S0, P1-S0, P2-S0 and 3 more\).*--query-study"):
        read_query(collection, emb)
    with pytest.raises(ArgumentError, match=r"no study .* is called 'P1-S9'; nearest: P"):
        read_query(collection, emb, "P1-S9")


def test_vectors_are_pooled_as_the_collection_is(emb, tmp_path):
    for how in ("max", "mean+std", "mean"):
        pooled = Collection(pool(emb, "video", tmp_path / f"{how}.h5", how))
        query = read_query(pooled, emb, "P1-S0")
        assert query.units == pytest.approx(pooled.videos.units[3:6], abs=1e-6)
    with pytest.raises(SettingsMismatchError, match=r"pooled by max by video, .*emb\.h5 by mean by video"):
        read_query(Collection(emb), tmp_path / "max.h5", "P1-S0")
    with pytest.raises(SettingsMismatchError, match=r"pooled by mean by video, .*max\.h5 by max by video"):
        read_query(Collection(tmp_path / "max.h5"), tmp_path / "mean.h5", "P1-S0")
    assert len(read_query(Collection(emb), tmp_path / "mean.h5", "P1-S0").units) == 3
    studies = Collection(pool(emb, "study", tmp_path / "studies.h5", "max"))
    assert read_query(studies, emb, "P1-S0").units == pytest.approx(studies.studies.units[1:2], abs=1e-6)


def test_vectors_of_videos_that_the_file_has_count_as_their_patients(tmp_path, collection):
    """Three videos of the file, in a file of their own: by their ids, by their files' bytes, by their patient."""
    whole = collection.videos
    for name, ids, patient in (("ids", ["P2/S0/A4C"], ""), ("bytes", ["other"], ""), ("patient", ["new"], "P2")):
        path = one_video_file(tmp_path / f"{name}.h5", ids[0], patient or "someone", whole.units[6], name == "bytes")
        query = read_query(collection, path)
        assert query.patients == ("P2",)
        assert query.videos == (() if name == "patient" else ("P2/S0/A4C",))
        assert f"{path} shows " in query.note
        assert "counts as patient P2" in query.note
        found = search(collection, query, 99, level="video")
        assert "P2" not in {record["patient_id"] for record in found.records()}
        assert query.note in found.note
        kept = search(collection, query, 99, level="video", include_same_patient=True)
        assert ("P2/S0/A4C" in {r["video_id"] for r in kept.records()}) == (name == "patient")
        assert "P2/S0/A2C" in {r["video_id"] for r in kept.records()}


def test_vectors_of_strangers_count_as_nobodys(tmp_path, collection):
    path = one_video_file(tmp_path / "new.h5", "new", "someone", collection.videos.units[6], same_bytes=False)
    query = read_query(collection, path)
    assert (query.patients, query.studies, query.videos, query.note) == ((), (), (), "")


def test_an_embedding_file_of_another_model_is_refused(collection, tmp_path, make_file):
    from tests.conftest import refs

    with pytest.raises(SettingsMismatchError, match=r"can't be compared: clips\."):
        read_query(collection, make_file("other.h5", refs("a"), rows=[1]))


def test_a_file_that_is_no_array_is_refused(collection, tmp_path):
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY nonsense")
    with pytest.raises(ArgumentError, match="can't be read as an array"):
        read_query(collection, tmp_path / "bad.npy")
