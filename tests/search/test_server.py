from __future__ import annotations

import io
import re
import shutil
import socket
import time

import av
import numpy as np
import pytest
from starlette.testclient import TestClient

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.media.pictures import Picture
from panecho_embed.retrieval import Collection, search, study_query
from panecho_embed.retrieval.index import build_index
from panecho_embed.retrieval.server.app import ServeSettings, create_app
from panecho_embed.retrieval.server.cache import PictureCache
from panecho_embed.retrieval.server.listen import listening
from panecho_embed.retrieval.server.picture_workers import PictureWorkers
from panecho_embed.retrieval.server.upload import UploadLimits
from panecho_embed.store import EmbeddingFile, EmbeddingWriter
from tests.search.conftest import VIEWS, vectors_file

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def client(film_emb):
    app = create_app(film_emb, ServeSettings(limits=UploadLimits(megabytes=0.5, seconds=30)))
    with TestClient(app, base_url=LOCAL) as client:
        yield client


@pytest.fixture
def moved(emb):
    """Vectors whose videos are nowhere."""
    with TestClient(create_app(emb), base_url=LOCAL) as client:
        yield client


def upload(client, content, **parameters):
    headers = {"content-type": "application/octet-stream"}
    return client.post("/api/search", params=parameters, content=content, headers=headers)


def test_it_says_what_is_served(client):
    facts = client.get("/api/info").json()
    assert (facts["studies"], facts["videos"], facts["patients"]) == (5, 15, 5)
    assert facts["pretrained"] is False
    assert "path" not in {column["name"] for column in facts["columns"]}


def test_the_api_finds_what_the_library_finds(client, film_emb):
    collection = Collection(film_emb)
    study = str(collection.studies.ids[2])
    for similarity in ("mean", "best", "view"):
        answer = client.get("/api/search", params={"study": study, "similarity": similarity, "k": 3}).json()
        found = search(collection, study_query(collection, study), 3, similarity=similarity)
        assert [hit["item"]["id"] for hit in answer["hits"]] == [r["study_id"] for r in found.records()]
        assert [hit["similarity"] for hit in answer["hits"]] == [r["similarity"] for r in found.records()]


def test_studies_are_searched_filtered_sorted_and_paged(client):
    everything = client.get("/api/studies", params={"sort": "EF", "descending": True}).json()
    efs = [item["labels"]["EF"] for item in everything["items"]]
    assert efs == sorted(efs, reverse=True)
    page = client.get("/api/studies", params={"sort": "EF", "descending": True, "offset": 3, "limit": 1}).json()
    assert page["total"] == 5
    assert page["items"] == everything["items"][3:4]
    one = client.get("/api/studies", params={"q": everything["items"][0]["id"].lower()}).json()
    assert one["total"] == 1
    low = client.get("/api/studies", params={"where": f"EF < {efs[1]}"}).json()
    assert low["total"] == 3


@pytest.mark.parametrize(
    ("path", "parameters", "status", "says"),
    [
        ("/api/study", {"id": "PHANTOM-0001-S"}, 404, "nearest: PHANTOM-0001-S1"),
        ("/api/study", {"id": "../../etc/passwd"}, 404, "no study is called"),
        ("/api/thumbnail", {"video": "/etc/passwd"}, 404, "no video is called"),
        ("/api/clip", {"video": "PHANTOM-0001-A4C-0.npy"}, 404, "no video is called"),
        ("/api/still", {"video": "\x00"}, 404, "no video is called"),
        ("/api/studies", {"where": "EFF < 3"}, 400, "nearest: EF"),
        ("/api/studies", {"sort": "EFF"}, 400, "nearest: EF"),
        ("/api/studies", {"limit": 100000}, 422, "limit: "),
        ("/api/search", {}, 400, "give one of study, video and upload"),
        ("/api/search", {"study": "PHANTOM-0001-S1", "similarity": "x"}, 422, "similarity: "),
        ("/api/map/values", {"column": "EFF"}, 400, "nearest: EF"),
        ("/static/../app.py", {}, 404, "Not Found"),
    ],
)
def test_what_can_not_be_answered_says_why(client, path, parameters, status, says):
    answer = client.get(path, params=parameters)
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert "(--" not in answer.json()["detail"]


def test_no_path_and_no_server_folder_is_ever_shown(client, film_emb):
    study = client.get("/api/studies").json()["items"][0]["id"]
    texts = [client.get(p).text for p in ("/api/info", "/api/studies", f"/api/study?id={study}", "/api/map",
                                          f"/api/search?study={study}", "/api/study?id=x")]  # fmt: skip
    assert not any(str(film_emb.parent) in text or ".npy" in text for text in texts)


def test_pictures_and_clips_play(client):
    video = "PHANTOM-0001-S1/A4C-0"
    moving = client.get("/api/thumbnail", params={"video": video})
    assert moving.content[:4] == b"RIFF"
    assert client.get("/api/still", params={"video": video}).content[:2] == b"\xff\xd8"
    clip = client.get("/api/clip", params={"video": video})
    with av.open(io.BytesIO(clip.content)) as container:
        frames = list(container.decode(video=0))
        assert (len(frames), frames[0].width, frames[0].height) == (6, 96, 96)
        assert container.streams.video[0].average_rate == 30


def test_a_video_comes_with_its_own_labels(tmp_path):
    client = TestClient(create_app(vectors_file(tmp_path / "emb.h5")), base_url=LOCAL)
    sexes = [client.get("/api/video", params={"id": f"P1/S0/{view}"}).json()["labels"]["sex"] for view in VIEWS]
    assert sexes == ["F", "M", "F"]
    assert client.get("/api/video", params={"id": "P1/S0/A2C"}).json()["study_id"] == "P1-S0"


def test_a_page_of_another_file_gets_no_picture(emb, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(emb, tmp_path / "other")
    stamps = []
    for path in (emb, other):
        with TestClient(create_app(path), base_url=LOCAL) as client:
            stamps.append(re.search('data-of="([0-9a-f]+)"', client.get("/study").text)[1])
            # Its own: only that the video is not there.
            asked = [client.get("/api/still", params={"video": "P0/S0/A4C", "of": one}) for one in stamps]
    assert stamps[0] != stamps[1]
    assert [answer.status_code for answer in asked] == [409, 404]


def test_only_what_is_asked_for_by_the_files_stamp_is_kept(client):
    stamp = re.search('data-of="([0-9a-f]+)"', client.get("/").text)[1]
    asked = {"video": "PHANTOM-0001-S1/A4C-0"}
    assert client.get("/api/still", params=asked).headers["cache-control"] == "no-store"
    assert client.get("/api/still", params=asked | {"of": stamp}).headers["cache-control"] == "private, max-age=600"


def test_a_study_says_how_many_of_its_videos_have_no_embedding(tmp_path, make_file):
    from tests.conftest import refs

    client = TestClient(create_app(make_file("f.h5", refs("p/s/a", "p/s/b", "q/t/c"), rows=[1, 0, 2])), base_url=LOCAL)
    assert [item["num_failed"] for item in client.get("/api/studies").json()["items"]] == [1, 0]


def test_ranges_of_a_clip(client):
    def get(wanted=None):
        headers = {"range": wanted} if wanted else {}
        return client.get("/api/clip", params={"video": "PHANTOM-0001-S1/A4C-0"}, headers=headers)

    whole = get().content
    for wanted, expected in (("bytes=0-9", whole[:10]), ("bytes=-7", whole[-7:]), ("bytes=100-", whole[100:])):
        part = get(wanted)
        assert part.status_code == 206
        assert part.content == expected
    assert get(f"bytes={len(whole)}-").status_code == 416
    assert get("bytes=0-1,4-5").content == whole


def test_a_video_that_has_moved_says_so_and_search_works(moved):
    assert "no such file" in moved.get("/api/thumbnail", params={"video": "P0/S0/A4C"}).json()["detail"]
    assert moved.get("/api/clip", params={"video": "P0/S0/A4C"}).status_code == 404
    assert len(moved.get("/api/search", params={"study": "P0-S0"}).json()["hits"]) == 5


def test_a_map_is_made_once_and_kept(film_emb, client):
    points = client.get("/api/map").json()
    values = client.get("/api/map/values", params={"column": "EF"}).json()["values"]
    assert len(points["x"]) == len(points["y"]) == len(values) == 15
    assert film_emb.with_name(film_emb.name + ".map.npz").exists()
    again = TestClient(create_app(film_emb), base_url=LOCAL)
    assert again.get("/api/map").json()["x"] == points["x"]


@pytest.mark.slow
def test_umap_is_computed_beside_and_shown_when_it_is_there(emb):
    client = TestClient(create_app(emb), base_url=LOCAL)
    assert client.get("/api/map", params={"method": "umap"}).json()["state"] == "computing"
    for _ in range(120):
        answer = client.get("/api/map", params={"method": "umap"}).json()
        if answer["state"] != "computing":
            break
        time.sleep(0.5)
    assert answer["state"] == "ready", answer["message"]
    assert len(set(answer["x"])) > 12


def test_a_file_of_one_video_has_a_map(tmp_path):
    path = vectors_file(tmp_path / "one.h5", patients=1, views=("A4C",))
    client = TestClient(create_app(path), base_url=LOCAL)
    assert client.get("/api/map").json()["x"] == [0.0]
    assert client.get("/api/search", params={"study": "P0-S0"}).json()["hits"] == []


def test_ids_that_are_no_utf8_can_be_shown_and_asked_for(tmp_path, make_file):
    from tests.conftest import refs

    path = make_file("odd.h5", refs("p\udcff/s\udcff/v\udcff", "q/t/w"), rows=[1, 2])
    client = TestClient(create_app(path), base_url=LOCAL)
    shown = client.get("/api/studies").json()["items"][0]["id"]
    assert shown == "s\\xff"
    assert client.get("/api/study", params={"id": shown}).json()["patient_id"] == "p\\xff"


def test_the_page_uses_the_index_that_is_there(emb, tmp_path):
    shutil.copy(emb, tmp_path / "copy.h5")
    build_index(Collection(tmp_path / "copy.h5"), "ivf")
    client = TestClient(create_app(tmp_path / "copy.h5"), base_url=LOCAL)
    assert client.get("/api/info").json()["index"] == "ivf"
    assert len(client.get("/api/search", params={"study": "P0-S0", "k": 3}).json()["hits"]) == 3


def test_pictures_are_made_once_and_the_oldest_forgotten():
    made = []

    def make(name):
        def run():
            made.append(name)
            return Picture(b"x" * 40, "image/webp")

        return run

    cache = PictureCache(limit_bytes=100)
    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(("thumbnail", name), make(name))
    assert made == ["a", "b", "c", "b"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """100,000 videos of 25,000 patients, 64 numbers each; not one of the videos exists."""
    count = 100_000
    refs = tuple(
        VideoRef(f"v{i}", f"S{i // 4}", f"P{i // 4}", f"/nowhere/{i}.avi", "ABCD"[i % 4]) for i in range(count)
    )
    weights = WeightsInfo("random (seed 0)", "ab" * 32, "none", pretrained=False)
    provenance = Provenance("random", weights, Feeding(), ClipPlan(), "clip", dim=64)
    values = np.random.default_rng(0).normal(size=(count, 64)).astype(np.float32)
    path = tmp_path_factory.mktemp("large") / "large.h5"
    with EmbeddingWriter(path, provenance) as writer:
        writer.add(np.arange(count), values, np.zeros(count, dtype=int), 1, 16)
        writer.finish(Manifest(refs), [VideoFacts("done")] * count, [])
    return TestClient(create_app(path), base_url=LOCAL)


@pytest.mark.parametrize(
    ("level", "similarity"), [("video", "mean"), ("study", "mean"), ("study", "best"), ("study", "view")]
)
def test_a_query_over_a_hundred_thousand_videos_reads_no_video_and_no_embedding(large, monkeypatch, level, similarity):
    monkeypatch.setattr(EmbeddingFile, "read", lambda *_: pytest.fail("embeddings were read"))
    monkeypatch.setattr(PictureWorkers, "make", lambda *_: pytest.fail("a video was read"))
    ask = {"study": "S77", "level": level, "k": 20, "similarity": similarity}
    assert len(large.get("/api/search", params=ask).json()["hits"]) == 20


def test_an_answer_is_not_held_up_by_nagles_delay():
    with listening("127.0.0.1", 0) as (bound, _):
        assert bound.proto == socket.IPPROTO_TCP


def test_views_are_compared_only_where_there_are_some(tmp_path):
    path = vectors_file(tmp_path / "emb.h5", views=("",))
    facts = TestClient(create_app(path), base_url="http://127.0.0.1").get("/api/info").json()
    assert facts["similarities"] == ["mean", "best"]
