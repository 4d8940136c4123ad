"""The device that encodes, the precisions that it is fast in, and the engines that it can run."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from panecho_embed.checkup.findings import Check
from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.provenance import Precision
from panecho_embed.models.devices import resolve_device

# Instruction sets that multiply in half precision, as /proc/cpuinfo calls them on x86 and Arm.
_HALF_FLAGS: dict[Precision, tuple[str, ...]] = {
    "bf16": ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16", "svebf16"),
    "fp16": ("amx_fp16", "avx512_fp16", "asimdhp"),
}
# Compute capability from which a GPU's matrix units take the type.
_HALF_CAPABILITIES: dict[Precision, tuple[int, int]] = {"bf16": (8, 0), "fp16": (7, 0)}
_DRIVER = Path("/proc/driver/nvidia/version")


def check_device(name: str) -> tuple[torch.device | None, list[Check]]:
    """The device of that name, None if it is not to be had; and what there is to say of it."""
    try:
        device = resolve_device(name)
    except ArgumentError as error:
        return None, [Check("device", "problem", str(error), "take another --device, such as --device cpu")]
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device)
        return device, [Check("device", "ok", f"{device}: {there.name}, {there.total_memory / 1e9:.0f} GB")]
    if device.type != "cpu":
        return device, [Check("device", "ok", str(device))]
    found = [Check("device", "ok", f"cpu: {_processor()}, {usable_cores()} cores")]
    if name == "auto" and (_DRIVER.exists() or shutil.which("nvidia-smi")) and not torch.cuda.is_available():
        reason = "is built without CUDA" if torch.version.cuda is None else "can't use it"
        found.append(
            Check(
                "device",
                "warning",
                f"there is an NVIDIA driver, but torch {torch.__version__} {reason}; the CPU encodes",
                "install the torch for your driver: https://pytorch.org/get-started/locally/",
            )
        )
    return device, found


def fast_precisions(device: torch.device) -> dict[Precision, str]:
    """Precisions that are fast on a device, each with the reason."""
    fast: dict[Precision, str] = {"fp32": "exact"}
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        for precision, least in _HALF_CAPABILITIES.items():
            if capability >= least:
                fast[precision] = "compute capability {}.{}".format(*capability)
        return fast
    if device.type == "cpu":
        flags = cpu_flags()
        for precision, names in _HALF_FLAGS.items():
            if here := [name for name in names if name in flags]:
                fast[precision] = f"the CPU has {', '.join(here)}"
    return fast


def check_precisions(device: torch.device) -> list[Check]:
    """Which of them are fast, and why."""
    fast = fast_precisions(device)
    checks = [Check("precision", "ok", f"{precision} is fast: {why}") for precision, why in fast.items()]
    if device.type == "cpu" and not cpu_flags() & {"avx2", "asimd", "neon"} and cpu_flags():
        checks.append(
            Check(
                "precision",
                "warning",
                "the CPU has no AVX2: everything is several times slower",
                "use a newer machine; on a virtual one, let it see its host's CPU (host-passthrough)",
            )
        )
    slow = [precision for precision in _HALF_FLAGS if precision not in fast]
    if slow:
        why = "no instructions for it are known of" if device.type == "cpu" else f"not known of {device}"
        checks.append(Check("precision", "ok", f"{' and '.join(slow)} is no faster than fp32 here: {why}"))
    return checks


def check_engines(device: torch.device) -> list[Check]:
    """What can run the image encoder, on this machine and on many."""
    names = "eager, rearranged" if device.type == "cpu" else "eager, compiled"
    return [Check("engine", "ok", f"{names} (--engine-backend auto takes the fastest)"), _cluster()]


def _cluster() -> Check:
    try:
        return Check("engine", "ok", f"many machines: Ray {metadata.version('ray')} (--engine ray)")
    except metadata.PackageNotFoundError:
        how = "pip install 'panecho-embed[ray]'"
        return Check("engine", "ok", f"many machines: Ray is not here, and only needed with --engine ray ({how})")


def cpu_flags() -> frozenset[str]:
    """Instruction sets of this CPU by their names in /proc/cpuinfo; empty where there is no such file."""
    lines = (line.partition(":") for line in _cpuinfo())
    return frozenset(flag for key, _, value in lines if key.strip() in ("flags", "Features") for flag in value.split())


def _processor() -> str:
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _cpuinfo() -> Iterator[str]:
    try:
        yield from Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return
