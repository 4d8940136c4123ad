from __future__ import annotations

import hashlib

import cv2
import pytest
import torch
from pydicom.uid import JPEG2000

from panecho_embed.checkup import machine
from panecho_embed.checkup.machine import check_weights
from panecho_embed.core.digests import record_sha256

CPU = torch.device("cpu")


@pytest.fixture
def flags(monkeypatch):
    def set_flags(*names):
        lines = ["model name\t: A CPU", f"flags\t\t: fpu {' '.join(names)}"]
        monkeypatch.setattr(machine, "_cpuinfo", lambda: iter(lines))

    return set_flags


def test_half_precision_is_fast_where_the_cpu_has_instructions_for_it(flags):
    flags("avx2", "avx512_bf16")
    assert machine.fast_precisions(CPU) == {"fp32": "exact", "bf16": "the CPU has avx512_bf16"}
    texts = [check.text for check in machine.check_precisions(CPU)]
    assert any(text.startswith("fp16 is no faster") for text in texts)


def test_a_cpu_without_vectors_is_a_warning(flags):
    flags("sse2")
    assert "warning" in {check.status for check in machine.check_precisions(CPU)}


def test_an_engine_for_many_machines_that_is_not_here_is_named_with_what_installs_it(monkeypatch):
    def missing(name):
        raise machine.metadata.PackageNotFoundError

    monkeypatch.setattr(machine.metadata, "version", missing)
    last = machine.check_engines(CPU)[-1]
    assert last.status == "ok"
    assert "panecho-embed[ray]" in last.text


def test_a_device_that_is_not_there_is_a_problem():
    device, (check,) = machine.check_device("cuda:77")
    assert device is None
    assert check.status == "problem"
    assert "--device" in check.mend


def test_a_driver_that_torch_does_not_use_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_DRIVER", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, checks = machine.check_device("auto")
    assert checks[-1].status == "warning"
    assert "NVIDIA" in checks[-1].text


class Missing:
    """What pydicom gives for a transfer syntax without a plug-in."""

    is_available = False
    available_plugins = ()
    UID = JPEG2000


def test_all_decoders_of_this_installation_are_there():
    checks = machine.check_decoders()
    assert {check.status for check in checks} == {"ok"}
    assert any("FFmpeg" in check.text for check in checks)
    assert any("JPEG 2000: pydicom 3" in check.text and "pylibjpeg 2" in check.text for check in checks)


def test_a_missing_plug_in_is_named_with_what_installs_it(monkeypatch):
    real = machine.get_decoder
    monkeypatch.setattr(machine, "get_decoder", lambda uid: Missing() if uid == JPEG2000 else real(uid))
    (warning,) = (check for check in machine.check_decoders() if check.status != "ok")
    assert warning.status == "warning"
    assert "can't decode JPEG 2000" in warning.text
    assert "pylibjpeg" in warning.mend


def test_opencv_without_ffmpeg(monkeypatch):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    check = machine.check_decoders()[0]
    assert check.status == "warning"
    assert "no AVI" in check.text
    assert "opencv-python-headless" in check.mend


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
