from __future__ import annotations

import pytest
import torch

from panecho_embed.checkup import hardware

CPU = torch.device("cpu")


@pytest.fixture
def flags(monkeypatch):
    def set_flags(*names):
        lines = ["model name\t: A CPU", f"flags\t\t: fpu {' '.join(names)}"]
        monkeypatch.setattr(hardware, "_cpuinfo", lambda: iter(lines))

    return set_flags


def test_half_precision_is_fast_where_the_cpu_has_instructions_for_it(flags):
    flags("avx2", "avx512_bf16")
    assert hardware.fast_precisions(CPU) == {"fp32": "exact", "bf16": "the CPU has avx512_bf16"}
    texts = [check.text for check in hardware.check_precisions(CPU)]
    assert any(text.startswith("fp16 is no faster") for text in texts)


def test_a_cpu_without_vectors_is_a_warning(flags):
    flags("sse2")
    assert "warning" in {check.status for check in hardware.check_precisions(CPU)}


def test_an_engine_for_many_machines_that_is_not_here_is_named_with_what_installs_it(monkeypatch):
    def missing(name):
        raise hardware.metadata.PackageNotFoundError

    monkeypatch.setattr(hardware.metadata, "version", missing)
    last = hardware.check_engines(CPU)[-1]
    assert last.status == "ok"
    assert "panecho-embed[ray]" in last.text


def test_a_device_that_is_not_there_is_a_problem():
    device, (check,) = hardware.check_device("cuda:77")
    assert device is None
    assert check.status == "problem"
    assert "--device" in check.mend


def test_a_driver_that_torch_does_not_use_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "_DRIVER", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, checks = hardware.check_device("auto")
    assert checks[-1].status == "warning"
    assert "NVIDIA" in checks[-1].text
