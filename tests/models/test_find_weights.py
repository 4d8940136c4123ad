from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from panecho_embed.core.digests import recorded_sha256
from panecho_embed.core.errors import ArgumentError, WeightsError, WeightsNotFoundError
from panecho_embed.models.weights import (
    KNOWN,
    MIRROR_VARIABLE,
    PLACE_VARIABLE,
    cache_folder,
    fetch,
    find_weights,
    known,
    locate,
    weights_info,
)

from .server import Behaviour, serve


def put(path: Path, text: str = "weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with serve(Behaviour(b"from the mirror")) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, f"{server.url}/weights/")
        yield server


def test_the_places_are_looked_through_in_order(tmp_path, monkeypatch, mirror):
    given = put(tmp_path / "mine.pt")
    folder = put(tmp_path / "folder" / "panecho.pt").parent
    cached = put(cache_folder() / "panecho.pt")
    monkeypatch.setenv(PLACE_VARIABLE, str(folder))
    assert find_weights("panecho", given) == given
    assert find_weights("panecho") == folder / "panecho.pt"
    (folder / "panecho.pt").unlink()
    assert find_weights("panecho") == cached
    cached.unlink()
    assert locate("panecho") is None
    assert mirror.requests == []
    assert find_weights("panecho").read_bytes() == b"from the mirror"
    assert [path for path, _ in mirror.requests] == ["/weights/panecho.pt"]
    assert locate("panecho") == cached


def test_one_file_in_the_environment_is_panechos_unless_named_otherwise(tmp_path, monkeypatch):
    monkeypatch.setenv(PLACE_VARIABLE, str(put(tmp_path / "finetuned.pt")))
    assert locate("panecho") == locate("panecho-image") == tmp_path / "finetuned.pt"
    assert locate("imagenet") is None
    monkeypatch.setenv(PLACE_VARIABLE, str(put(tmp_path / "convnext_tiny-983f1562.pth")))
    assert locate("imagenet") == tmp_path / "convnext_tiny-983f1562.pth"
    assert locate("panecho") is None


def test_what_the_user_named_must_be_there(tmp_path, monkeypatch):
    with pytest.raises(WeightsNotFoundError, match=r"gone\.pt is not there.*weights file of panecho \(--weights\)"):
        find_weights("panecho", tmp_path / "gone.pt")
    with pytest.raises(WeightsNotFoundError, match=r"is a folder; give the file in it, such as panecho\.pt"):
        find_weights("panecho", tmp_path)
    monkeypatch.setenv(PLACE_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(WeightsNotFoundError, match=r"gone, given as \$PANECHO_EMBED_WEIGHTS, is not there"):
        find_weights("imagenet")


def test_the_message_says_where_was_looked_and_what_to_do(tmp_path, monkeypatch, mirror):
    mirror.status[:] = [404]
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv(PLACE_VARIABLE, str(tmp_path / "folder"))
    with pytest.raises(WeightsNotFoundError) as caught:
        find_weights("panecho")
    message = str(caught.value)
    for part in (
        "the weights of panecho (panecho.pt) are not here and could not be fetched",
        f"{mirror.url}/weights/panecho.pt: HTTP 404 Not Found",
        f"$PANECHO_EMBED_WEIGHTS: {tmp_path / 'folder' / 'panecho.pt'}",
        f"torch hub cache: {cache_folder() / 'panecho.pt'}",
        "get https://github.com/CarDS-Yale/PanEcho/releases/download/v1.0/panecho.pt",
        "--weights FILE",
        "--backbone random",
    ):
        assert part in message
    assert isinstance(caught.value, FileNotFoundError)


def test_fetch_keeps_a_whole_file_and_refuses_a_changed_one(tmp_path, mirror):
    path = fetch("panecho", tmp_path)
    assert fetch("panecho", tmp_path) == path
    assert len(mirror.requests) == 1
    path.write_text("changed")
    with pytest.raises(WeightsError, match="has changed since it was written"):
        fetch("panecho", tmp_path)
    with pytest.raises(WeightsError, match="has changed since it was written"):
        weights_info("panecho", path)


def test_fetch_checks_the_digits_in_a_published_name(tmp_path, mirror):
    with pytest.raises(WeightsError, match="the published file's begins with 983f1562"):
        fetch("imagenet", tmp_path)


def test_weights_info_holds_the_hash_and_the_licence(tmp_path):
    info = weights_info("panecho", put(tmp_path / "panecho.pt"))
    assert info.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert (info.source, info.licence, info.pretrained) == ("panecho.pt", "CC BY-NC-SA 4.0", True)


def test_a_file_of_one_s_own_has_the_licence_that_it_states(tmp_path):
    path = put(tmp_path / "mine.pt")
    assert weights_info("panecho", path).licence == "not stated"
    assert weights_info("panecho", path, "MIT").licence == "MIT"


def test_where_the_publisher_names_a_digest_the_name_is_not_enough(tmp_path):
    assert weights_info("imagenet", put(tmp_path / "convnext_tiny-983f1562.pth")).licence == "not stated"


def test_every_published_file_has_a_licence_and_a_way_to_it():
    assert len({file.file_name for file in KNOWN}) == len(KNOWN)
    for file in KNOWN:
        assert file.licence
        assert file.url.startswith("https://") or file.hub_repo or "https://" in file.notes
        assert not file.url or file.url.endswith(f"/{file.file_name}")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        ArgumentError, match=r"called 'panechoo'; nearest: panecho, .*known: panecho, imagenet, echoclip"
    ):
        known("panechoo")


def test_echoprime_says_that_it_is_in_an_archive():
    with pytest.raises(WeightsNotFoundError, match=r"inside model_data\.zip of https://github\.com/echonet"):
        fetch("echoprime")


def test_gated_weights_without_a_token_say_how_to_get_one():
    with pytest.raises(WeightsNotFoundError, match=r"gated and there is no token: accept the terms.*HF_TOKEN"):
        fetch("echoclip")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    headers = {"X-Repo-Commit": "0" * 40}
    with serve(Behaviour(b"echoclip's weights", etag='"abc"', headers=headers)) as server:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server


def test_gated_weights_come_with_the_token(tmp_path, hub):
    path = fetch("echoclip", tmp_path / "new")
    assert path == tmp_path / "new" / "open_clip_pytorch_model.bin"
    assert path.read_bytes() == b"echoclip's weights"
    assert recorded_sha256(path) == hashlib.sha256(b"echoclip's weights").hexdigest()
    asked, headers = hub.requests[-1]
    assert asked == "/mkaichristensen/echo-clip/resolve/main/open_clip_pytorch_model.bin"
    assert {name.lower(): value for name, value in headers.items()}["authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_without_access_says_how_to_get_it(tmp_path, hub, status):
    hub.status[:] = [status] * 10
    hub.headers["X-Error-Code"] = "GatedRepo"
    with pytest.raises(WeightsNotFoundError, match=rf"HTTP {status}: the token gives no access: accept the terms"):
        fetch("echoclip", tmp_path)


def test_gated_weights_in_the_hubs_own_cache_are_found(tmp_path):
    repo = tmp_path / "hub" / "models--mkaichristensen--echo-clip"
    put(repo / "refs" / "main", "0" * 40)
    file = put(repo / "snapshots" / ("0" * 40) / "open_clip_pytorch_model.bin")
    assert locate("echoclip") == file
