"""Who is answered, and what no answer holds."""

from __future__ import annotations

import pydicom
import pytest
from starlette.testclient import TestClient

from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.phantoms import write_studies
from panecho_embed.retrieval.server import guard
from panecho_embed.retrieval.server.app import ServeSettings, create_app
from panecho_embed.retrieval.server.picture_workers import PictureWorkers
from panecho_embed.store import EmbeddingFile
from tests.search.conftest import PLAN

LOCAL = "http://127.0.0.1"
BYTES = {"content-type": "application/octet-stream"}
ID_ROUTES = (
    ("/api/study", "id"),
    ("/api/video", "id"),
    ("/api/search", "study"),
    ("/api/search", "video"),
    ("/api/thumbnail", "video"),
    ("/api/still", "video"),
    ("/api/clip", "video"),
)


@pytest.fixture(scope="module")
def client(film_emb):
    with TestClient(create_app(film_emb), base_url=LOCAL) as client:
        yield client


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "localhost@evil.example"])
def test_another_name_than_localhost_is_refused(client, host):
    assert client.get("/api/info", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8600", "127.0.0.1", "[::1]:8600", "LOCALHOST"])
def test_this_computers_own_names_are_answered(client, host):
    assert client.get("/api/info", headers={"host": host}).status_code == 200


def test_another_host_needs_the_token(emb):
    app = create_app(emb, ServeSettings(token="s3cret"))
    client = TestClient(app, base_url="http://echo.example")
    assert client.get("/").status_code == 401
    assert client.get("/static/style.css").status_code == 401
    assert client.get("/api/info", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/api/info", headers={"authorization": "Bearer s3cret"}).status_code == 200
    opened = client.get("/study?id=P0-S0&token=s3cret", follow_redirects=False)
    assert opened.headers["location"] == "/study?id=P0-S0"
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert "SameSite=lax" in opened.headers["set-cookie"]
    assert client.get("/api/info").status_code == 200
    client.cookies.clear()
    away = client.get("http://echo.example//evil.example/?token=s3cret", follow_redirects=False)
    assert away.headers["location"] == "/evil.example/"


def test_servers_on_two_ports_keep_their_tokens_apart(emb):
    client = TestClient(create_app(emb, ServeSettings(token="s3cret")), base_url="http://echo.example:8601")
    assert client.get("/api/info", headers={"cookie": f"{guard.COOKIE}_8600=s3cret"}).status_code == 401
    assert client.get("/api/info", headers={"cookie": f"{guard.COOKIE}_8601=s3cret"}).status_code == 200


def test_pages_load_nothing_from_elsewhere(client):
    for path in ("/", "/study", "/map", "/upload"):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http" not in answer.text.replace("http-equiv", "")


def test_tokens_are_compared_in_constant_time(emb, monkeypatch):
    compared = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: bool(compared.append(a)))
    client = TestClient(create_app(emb, ServeSettings(token="s3cret")), base_url=LOCAL)
    client.get(
        "/api/info?token=third", headers={"authorization": "Bearer first", "cookie": f"{guard.COOKIE}_80=second"}
    )
    assert compared == [b"first", b"second", b"third"]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {"origin": "https://evil.example"}),
        ("POST", {"origin": "null"}),
        ("POST", {"origin": "http://127.0.0.1:9999"}),
        ("POST", {"origin": "http://[::1"}),
        ("POST", {"sec-fetch-site": "cross-site"}),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),
        ("POST", {"sec-fetch-site": "same-site"}),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}),
    ],
)
def test_what_another_page_asks_for_is_refused(client, method, headers):
    answer = client.request(method, "/api/search", params={"study": "PHANTOM-0001-S1"}, headers=BYTES | headers)
    assert answer.status_code == 403


def test_the_page_itself_may_ask_and_links_may_lead_to_it(client):
    own = {"origin": LOCAL, "sec-fetch-site": "same-origin"}
    assert client.post("/api/search", content=b"", headers=BYTES | own).status_code == 422
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/study?id=PHANTOM-0001-S1", headers=link).status_code == 200


@pytest.mark.parametrize(
    "asked",
    ["../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "/etc/passwd", "\x00", "a\x00b", "..\\..\\x", "file:///etc/passwd"],
)
@pytest.mark.parametrize(("path", "parameter"), ID_ROUTES)
def test_a_path_is_no_id(client, monkeypatch, path, parameter, asked):
    monkeypatch.setattr(PictureWorkers, "make", lambda *_: pytest.fail("a file was opened"))
    answer = client.get(path, params={parameter: asked})
    assert answer.status_code == 404
    assert "is called" in answer.json()["detail"]


def test_the_path_of_a_video_of_the_file_is_no_id_either(client, film_emb):
    for path in EmbeddingFile(film_emb).video_columns["path"][:2]:
        assert all(client.get(route, params={name: path}).status_code == 404 for route, name in ID_ROUTES)


@pytest.mark.parametrize("name", ["..%2fserver%2fapp.py", "%2e%2e/server/app.py", "%00", "%2fetc%2fpasswd", "a" * 5000])
def test_nothing_but_the_pages_own_files_is_static(client, name):
    assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/static/common.js", {}, 200),
        ("/api/info", {}, 200),
        ("/api/clip?video=PHANTOM-0001-S1/A4C-0", {}, 200),
        ("/api/study?id=x", {}, 404),
        ("/api/studies?limit=x", {}, 422),
        ("/nowhere", {}, 404),
        ("/", {"host": "evil.example"}, 421),
        ("/api/info", {"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_every_answer_ties_the_browsers_hands(client, path, headers, status):
    answer = client.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


def test_no_identifier_of_a_header_is_in_any_answer(tmp_path):
    secrets = {"PatientName": "Doe^Joan", "PatientID": "MRN424242", "PatientBirthDate": "19310203",
               "AccessionNumber": "ACC7788", "ReferringPhysicianName": "Roe^Richard"}  # fmt: skip
    write_studies(tmp_path / "echos", "dicom", 1, num_frames=4, fps=30, size=(96, 128))
    for path in (tmp_path / "echos").rglob("IM_*"):
        dataset = pydicom.dcmread(path)
        for name, value in secrets.items():
            setattr(dataset, name, value)
        dataset.save_as(path)
    secrets["StudyInstanceUID"] = str(dataset.StudyInstanceUID)
    backbone = load_backbone("random", image_size=32)
    extract(tmp_path / "echos", tmp_path / "echos.h5", backbone=backbone, clips=PLAN, workers=0)
    with TestClient(create_app(tmp_path / "echos.h5"), base_url=LOCAL) as client:
        study = client.get("/api/studies").json()["items"][0]
        video = study["videos"][0]["video_id"]
        whole = path.read_bytes()
        answers = [
            *(client.get(path) for path in ("/", "/study", "/map", "/upload", "/api/info", "/api/studies", "/api/map")),
            *(
                client.get("/api/map/values", params={"column": column["name"]})
                for column in client.get("/api/info").json()["columns"]
            ),
            *(client.get(path, params={name: study["id"]}) for path, name in ID_ROUTES),
            *(client.get(path, params={name: video}) for path, name in ID_ROUTES),
            *(client.post("/api/search", content=body, headers=BYTES) for body in (whole, whole[: len(whole) // 2])),
        ]
    assert [answer.status_code for answer in answers[-2:]] == [200, 422]
    for answer in answers:
        said = answer.content + str(answer.headers).encode()
        assert [name for name, value in secrets.items() if value.encode() in said] == []


@pytest.mark.parametrize(
    ("path", "host", "status", "says"),
    [("/", "evil.example", 421, "127.0.0.1 and localhost only"), ("/no", "127.0.0.1", 404, "no such page")],
)
def test_a_browser_is_told_in_words_and_a_script_in_json(client, path, host, status, says):
    page = client.get(path, headers={"host": host, "accept": "text/html,*/*"})
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert says in page.text
    script = client.get(f"/api{path}", headers={"host": host, "accept": "text/html"})
    assert script.status_code == status
    assert script.json()["detail"]
