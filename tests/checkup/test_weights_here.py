from __future__ import annotations

import hashlib

import pytest

from panecho_embed.checkup.weights_here import check_weights
from panecho_embed.core.digests import record_sha256


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.delenv("PANECHO_EMBED_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_weights_that_are_not_here_are_a_warning_with_the_command_that_fetches_them(cache):
    first, *others = check_weights()
    assert first.status == "warning"
    assert "panecho is not here" in first.text
    assert first.mend.startswith("panecho-embed weights fetch panecho")
    assert {check.status for check in others} == {"ok"}


def test_damaged_panecho_weights_are_a_problem(cache):
    (cache / "panecho.pt").write_bytes(b"PK\x03\x04 and no more")
    check = check_weights()[0]
    assert check.status == "problem"
    assert "panecho.pt" in check.text
    assert "\n" not in check.text
    assert "weights fetch panecho" in check.mend


def test_weights_that_changed_since_they_were_fetched(cache):
    path = cache / "panecho.pt"
    path.write_bytes(b"other bytes")
    record_sha256(path, hashlib.sha256(b"fetched bytes").hexdigest())
    check = check_weights()[0]
    assert check.status == "problem"
    assert "has changed since it was written" in check.text


def test_damaged_weights_of_another_backbone_are_a_warning(cache):
    (cache / "r3d_18-b3b3357e.pth").write_bytes(b"not what was published")
    kinetics = next(check for check in check_weights() if check.text.startswith("kinetics"))
    assert kinetics.status == "warning"
    assert "b3b3357e" in kinetics.text


def test_a_wrong_variable_is_a_problem(cache, monkeypatch):
    monkeypatch.setenv("PANECHO_EMBED_WEIGHTS", str(cache / "nowhere"))
    (check,) = check_weights()
    assert check.status == "problem"
    assert "PANECHO_EMBED_WEIGHTS" in check.mend
