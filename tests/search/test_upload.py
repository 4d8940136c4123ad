"""What comes in by an upload: taken within limits, and gone with the answer."""

from __future__ import annotations

import asyncio
import tempfile

import cv2
import numpy as np
import pydicom
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from panecho_embed.core.errors import MediaError
from panecho_embed.phantoms import write_studies
from panecho_embed.retrieval.collection import UnknownIdError
from panecho_embed.retrieval.embed_new import NewVideos
from panecho_embed.retrieval.server import preview
from panecho_embed.retrieval.server.app import ServeSettings, create_app
from panecho_embed.retrieval.server.upload import KeptUploads, UploadError, UploadLimits, Uploads
from tests.search import stubs

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def client(film_emb):
    app = create_app(film_emb, ServeSettings(limits=UploadLimits(megabytes=0.5, seconds=30)))
    return TestClient(app, base_url=LOCAL)


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """Fails a test after which a file of an upload is still there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def upload(client, content, **parameters):
    headers = {"content-type": "application/octet-stream"}
    return client.post("/api/search", params=parameters, content=content, headers=headers)


@pytest.fixture(scope="module")
def avi(films):
    """A video of the collection as AVI."""
    path = films.with_name("upload.avi")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 96))
    for picture in np.load(films.with_name("PHANTOM-0002-A4C-0.npy")):
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path.read_bytes()


def test_an_upload_is_embedded_compared_and_forgotten(client, avi):
    answer = upload(client, avi, name="../../evil.avi", level="video", k=4)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["hits"][0]["item"]["id"] == "PHANTOM-0002-S1/A4C-0"
    assert body["preview"].startswith("data:image/webp;base64,")


def test_an_upload_is_asked_about_again_without_sending_it(client, avi):
    first = upload(client, avi, name="a.avi", level="video", k=4).json()
    asked = {"upload": first["upload"], "level": "video", "k": 4}
    assert client.get("/api/search", params=asked).json()["hits"] == first["hits"]
    plax = client.get("/api/search", params=asked | {"where": "view == 'PLAX'"}).json()
    assert {hit["item"]["view"] for hit in plax["hits"]} == {"PLAX"}
    assert client.get("/api/search", params=asked | {"study": "PHANTOM-0002-S1"}).status_code == 400
    assert client.get("/api/search", params={"upload": "x"}).status_code == 404


def test_embeddings_of_uploads_are_forgotten_in_time_and_the_oldest_first():
    new = NewVideos(np.ones((1, 4), np.float32), ("",), (), ())
    few, brief = KeptUploads(at_most=2), KeptUploads(seconds=0)
    names = [few.keep(new) for _ in range(3)]
    assert few.get(names[1]) is few.get(names[2]) is new
    for kept, name in ((few, names[0]), (brief, brief.keep(new))):
        with pytest.raises(UnknownIdError, match="send it again"):
            kept.get(name)


@pytest.mark.parametrize(
    ("content", "name", "status", "says"),
    [
        (b"", "a.avi", 422, "0 bytes"),
        (b"RIFF\x00\x00\x00\x00AVI nonsense" * 40, "a.avi", 422, "no video could be read"),
        (b"\x00" * 128 + b"DICM" + b"\xff" * 300, "a", 422, "no video could be read"),
        (b"x" * (2**19 + 1), "a.avi", 413, "larger than 0.5 MB"),
    ],
)
def test_an_upload_that_is_no_video_is_refused(client, content, name, status, says):
    answer = upload(client, content, name=name)
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert tempfile.gettempdir() not in answer.json()["detail"]


def test_an_upload_that_only_claims_to_be_huge_is_refused_before_it_comes(client):
    headers = {"content-type": "application/octet-stream", "content-length": str(2 * 2**30)}
    answer = client.post("/api/search", content=b"x", headers=headers)
    assert answer.status_code == 413


def test_an_upload_without_its_length_is_cut_off(client):
    def endless():
        for _ in range(100):
            yield b"x" * 65536

    assert upload(client, endless()).status_code == 413


def test_a_foreign_pages_form_can_not_upload(client):
    assert client.post("/api/search", content=b"x", headers={"content-type": "text/plain"}).status_code == 415


def test_uploads_need_the_files_own_weights(emb):
    answer = upload(TestClient(create_app(emb), base_url=LOCAL), b"x" * 100, name="a.avi")
    assert answer.status_code == 503
    assert "can't be compared" in answer.json()["detail"]


def take(receive, limits, embedder=lambda: pytest.fail("embedded")):
    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    return asyncio.run(Uploads(embedder, limits).take(request, "a.avi"))


async def a_drop_a_second():
    await asyncio.sleep(0.04)
    return {"type": "http.request", "body": b"x", "more_body": True}


def test_an_upload_that_trickles_in_is_given_up(kept):
    with pytest.raises(UploadError, match=r"longer than 0\.2 s to arrive.* `serve --max-upload-seconds`") as error:
        take(a_drop_a_second, UploadLimits(seconds=0.2))
    assert error.value.status == 408


def test_an_upload_that_breaks_off_leaves_nothing(kept):
    sent = []

    async def breaks_off():
        sent.append(len(list(kept.iterdir())))
        if len(sent) == 1:
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}
        return {"type": "http.disconnect"}

    with pytest.raises(UploadError, match="broke off"):
        take(breaks_off, UploadLimits())
    assert sent == [1, 1]


def test_a_model_that_fails_leaves_nothing(kept):
    class Broken:
        def embed(self, path, **limits):
            assert path.read_bytes() == b"video"
            raise RuntimeError("out of memory")

    async def whole():
        return {"type": "http.request", "body": b"video", "more_body": False}

    with pytest.raises(RuntimeError):
        take(whole, UploadLimits(), Broken)


@pytest.mark.parametrize(
    "claims", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 2**31 - 1}, {"Rows": 8000, "Columns": 8000}]
)
def test_claims_beyond_the_files_bytes_are_refused(client, tmp_path, claims):
    write_studies(tmp_path / "d", "dicom", 1, num_frames=4, fps=30, size=(96, 128), videos_per_study=1)
    path = next((tmp_path / "d").rglob("IM_0001*"))
    dataset = pydicom.dcmread(path)
    for name, value in claims.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    answer = upload(client, path.read_bytes())
    assert answer.status_code == 422
    assert "no video could be read" in answer.json()["detail"]


def test_a_picture_of_too_many_pixels_is_refused(client):
    # A few kilobytes that would unpack to a gigabyte.
    header = b"GIF89a" + (16384).to_bytes(2, "little") * 2 + b"\x80\x00\x00" + b"\x00" * 3 + b"\xff" * 3
    frame = b"," + b"\x00" * 4 + (16384).to_bytes(2, "little") * 2 + b"\x00" + b"\x02\x02\x44\x01\x00"
    answer = upload(client, header + frame * 20 + b";", name="a.gif")
    assert answer.status_code == 422


def test_a_video_of_too_many_frames_is_refused_before_it_is_encoded(film_emb, avi):
    app = create_app(film_emb, ServeSettings(limits=UploadLimits(frames=3)))
    answer = upload(TestClient(app, base_url=LOCAL), avi, name="a.avi")
    assert answer.status_code == 413
    assert answer.json()["detail"] == (
        "the upload is too long: more than 3 of its frames would have to be encoded; cut it, or let "
        "`serve --max-upload-frames` take more"
    )


def test_a_video_that_takes_too_long_is_given_up(film_emb, avi):
    settings = ServeSettings(limits=UploadLimits(seconds=0.3))
    answer = upload(TestClient(create_app(film_emb, settings, stubs.Endless()), base_url=LOCAL), avi, name="a.avi")
    assert answer.status_code == 408
    assert "longer than 0.3 s, the most that is allowed" in answer.json()["detail"]
    assert "`serve --max-upload-seconds`" in answer.json()["detail"]


def test_a_video_whose_client_has_gone_is_given_up():
    sent = []

    async def then_gone():
        sent.append(1)
        if len(sent) == 1:
            return {"type": "http.request", "body": b"video", "more_body": False}
        return {"type": "http.disconnect"}

    with pytest.raises(UploadError, match="broke off"):
        take(then_gone, UploadLimits(), stubs.Endless)


@pytest.mark.parametrize(
    ("does", "says"), [(stubs.hang, "its picture took longer than 1 s"), (stubs.die, "its decoder's process died")]
)
def test_a_picture_that_hangs_or_crashes_its_decoder_is_no_video(monkeypatch, does, says):
    monkeypatch.setattr(preview, "preview", does)
    with pytest.raises(MediaError, match=says), preview.previewed("x", 1.0, lambda: None) as picture:
        picture()


def test_a_fourth_upload_at_once_is_refused():
    async def all_at_once():
        uploads = Uploads(lambda: pytest.fail("embedded"), UploadLimits(seconds=0.2))
        requests = [Request({"type": "http", "method": "POST", "headers": []}, a_drop_a_second) for _ in range(4)]
        return await asyncio.gather(*(uploads.take(one, "a.avi") for one in requests), return_exceptions=True)

    assert [error.status for error in asyncio.run(all_at_once())] == [408, 408, 408, 503]


def test_an_upload_whose_picture_can_not_be_made_is_no_video(film_emb):
    class Blind:
        def embed(self, path, **limits):
            return None

    answer = upload(TestClient(create_app(film_emb, ServeSettings(), Blind()), base_url=LOCAL), b"video", name="a.avi")
    assert answer.status_code == 422
