"""The API fuzzed against its own OpenAPI document: whatever comes, no answer is a 500, and each is a documented one."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from panecho_embed.media.pictures import Picture
from panecho_embed.retrieval.embed_new import NewVideos
from panecho_embed.retrieval.server import upload
from panecho_embed.retrieval.server.app import create_app
from panecho_embed.retrieval.server.models import UploadHits
from tests.search.conftest import vectors_file

HOST = {"host": "127.0.0.1"}
PATHS = (
    "/api/info",
    "/api/studies",
    "/api/study",
    "/api/video",
    "/api/search",
    "/api/map",
    "/api/map/values",
    "/api/thumbnail",
    "/api/still",
    "/api/clip",
)


class Steady:
    """A model for which all videos are alike. dim: of its vectors."""

    def __init__(self, dim):
        self._vectors = np.ones((1, dim), dtype=np.float32)

    def embed(self, path, timeout_seconds, most_frames, go_on):
        return NewVideos(self._vectors, ("",), (), ())


@contextmanager
def pictured(path, timeout_seconds, go_on):
    yield lambda: Picture(b"picture", "image/webp")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Every upload is embedded, for a video or not."""
    path = vectors_file(tmp_path_factory.mktemp("api") / "emb.h5", patients=3, dim=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upload, "previewed", pictured)
        made = create_app(path, embedder=Steady(8))
        with TestClient(made):
            yield made


@pytest.fixture(scope="module")
def schema(app):
    return schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=HOST)


def test_every_route_is_documented_and_fuzzed(app, schema):
    assert {found.ok().path for found in schema.get_all_operations()} == set(PATHS)
    # The others take no parameter.
    pages = {"/", "/study", "/map", "/upload", "/static", "/api/openapi.json"}
    assert {route.path for route in app.routes} == {*PATHS, *pages}


def test_everything_that_can_be_asked_is_described(app):
    document = app.openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (path, method)
            for parameter in operation.get("parameters", []):
                assert parameter["description"], (path, parameter["name"])
            for status, answer in operation["responses"].items():
                assert answer["description"], (path, status)
                if status[0] == "4" and status != "416":
                    assert answer["content"]["application/json"]["example"]["detail"], (path, status)


def test_the_parts_of_a_clip_are_described(app):
    answers = app.openapi()["paths"]["/api/clip"]["get"]["responses"]
    assert answers["206"]["content"].keys() == answers["200"]["content"].keys() == {"video/mp4"}
    assert "416" in answers


def test_an_upload_is_answered_as_documented(app):
    headers = HOST | {"content-type": "application/octet-stream"}
    answer = TestClient(app).post("/api/search", content=b"a video", headers=headers)
    assert answer.status_code == 200
    found = UploadHits.model_validate(answer.json(), strict=True)
    assert len(found.hits) == 3


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_whatever_is_asked_is_answered_as_documented(schema, path, mode):
    generation = schemathesis.GenerationMode(mode)
    for operation in (found.ok() for found in schema.get_all_operations()):
        if operation.path != path or (path == "/api/info" and mode == "negative"):
            continue

        @given(case=operation.as_strategy(generation_mode=generation))
        @settings(max_examples=8, suppress_health_check=list(HealthCheck), deadline=None, database=None)
        def ask(case):
            answer = case.call(headers=HOST)
            assert answer.status_code < 500, answer.text
            document = case.operation.definition.raw
            assert str(answer.status_code) in document["responses"], (answer.status_code, answer.text)

        ask()
