"""What this machine has for `extract`: device, precisions, engines, decoders, weights, room on the disks."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import cv2
import torch
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from panecho_embed.checkup.findings import CLIPS_PER_VIDEO, Check, Status
from panecho_embed.core.cores import usable_cores
from panecho_embed.core.digests import checked_sha256, recorded_sha256
from panecho_embed.core.errors import ArgumentError, PanEchoEmbedError, WeightsNotFoundError
from panecho_embed.core.outputs import explain_os_error
from panecho_embed.core.provenance import Precision
from panecho_embed.core.remote import CACHE_VARIABLE, cache_folder, client, is_url
from panecho_embed.models.backbone import resolve_device
from panecho_embed.models.verify import verify_weights
from panecho_embed.models.weights import KNOWN, PLACE_VARIABLE, WeightsFile, locate
from panecho_embed.models.weights import cache_folder as weights_folder

# Ids, path, digest and facts of a video.
_VIDEO_BYTES = 240
_ROW_BYTES = 20
# The HDF5 headers and the table of contents.
_LEAST_BYTES = 30_000
# The largest of the published weights.
_CACHE_BYTES = 500_000_000
_TEMPORARY_BYTES = 500_000_000
# What `extract` takes when it is not told otherwise.
_DEFAULT = "panecho"
_PLUG_INS = "python-gdcm pyjpegls pylibjpeg pylibjpeg-openjpeg pylibjpeg-rle"

_COMPRESSIONS = {
    "JPEG": (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1),
    "JPEG-LS": (JPEGLSLossless, JPEGLSNearLossless),
    "JPEG 2000": (JPEG2000Lossless, JPEG2000),
    "RLE": (RLELossless,),
}

# Instruction sets that multiply in half precision, as /proc/cpuinfo calls them on x86 and Arm.
_HALF_FLAGS: dict[Precision, tuple[str, ...]] = {
    "bf16": ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16", "svebf16"),
    "fp16": ("amx_fp16", "avx512_fp16", "asimdhp"),
}
# Compute capability from which a GPU's matrix units take the type.
_HALF_CAPABILITIES: dict[Precision, tuple[int, int]] = {"bf16": (8, 0), "fp16": (7, 0)}
_DRIVER = Path("/proc/driver/nvidia/version")


def check_device(name: str) -> tuple[torch.device | None, list[Check]]:
    """The device of that name, None if it is not available; and what there is to say of it."""
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
        flags = _cpu_flags()
        for precision, names in _HALF_FLAGS.items():
            if here := [name for name in names if name in flags]:
                fast[precision] = f"the CPU has {', '.join(here)}"
    return fast


def check_precisions(device: torch.device) -> list[Check]:
    """Which of them are fast, and why."""
    fast = fast_precisions(device)
    checks = [Check("precision", "ok", f"{precision} is fast: {why}") for precision, why in fast.items()]
    if device.type == "cpu" and not _cpu_flags() & {"avx2", "asimd", "neon"} and _cpu_flags():
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


def _cpu_flags() -> frozenset[str]:
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


def check_decoders() -> list[Check]:
    """Video files by OpenCV's FFmpeg, DICOM by pydicom and its plug-ins."""
    return [_video(), *_dicom()]


def _video() -> Check:
    name = f"OpenCV {cv2.__version__}"
    if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        return Check("decoder", "ok", f"video files: {name} with FFmpeg")
    return Check(
        "decoder",
        "warning",
        f"{name} has no FFmpeg: no AVI, MP4 or other video file can be read",
        "pip uninstall opencv-python; pip install --force-reinstall --no-deps opencv-python-headless",
    )


def _dicom() -> list[Check]:
    versions = f"pydicom {metadata.version('pydicom')}"
    checks = []
    for name, syntaxes in _COMPRESSIONS.items():
        decoders = [get_decoder(syntax) for syntax in syntaxes]
        if missing := [decoder.UID.name for decoder in decoders if not decoder.is_available]:
            text = f"{versions} can't decode {name}: {', '.join(missing)}"
            checks.append(Check("decoder", "warning", text, f"pip install {_PLUG_INS}"))
            continue
        plugins = sorted({plugin for decoder in decoders for plugin in decoder.available_plugins} - {"pydicom"})
        by = ", ".join(_with_version(plugin) for plugin in plugins) or "itself"
        checks.append(Check("decoder", "ok", f"DICOM, {name}: {versions} with {by}"))
    return checks


def _with_version(plugin: str) -> str:
    try:
        return f"{plugin} {metadata.version('python-gdcm' if plugin == 'gdcm' else plugin)}"
    except metadata.PackageNotFoundError:
        return plugin


def check_weights() -> list[Check]:
    """PanEcho's are loaded as strictly as `extract` does; the others' SHA-256 is compared where one is known."""
    checks, absent = [], []
    for file in KNOWN:
        try:
            path = locate(file.name)
            if path is not None:
                checks.append(Check("weights", "ok", _whole(file)))
                continue
        except WeightsNotFoundError as error:
            # The variable is wrong, for all of them.
            return [Check("weights", "problem", str(error), f"set ${PLACE_VARIABLE} right, or unset it")]
        except PanEchoEmbedError as error:
            checks.append(_damaged(file, error))
            continue
        absent.append(file.name)
    if _DEFAULT in absent:
        absent.remove(_DEFAULT)
        checks.insert(
            0,
            Check(
                "weights",
                "warning",
                f"{_DEFAULT} is not here; `extract` would download it to {weights_folder()}",
                f"panecho-embed weights fetch {_DEFAULT} (without a network: see `panecho-embed weights --help`)",
            ),
        )
    if absent:
        checks.append(Check("weights", "ok", f"not here, and only needed with their --backbone: {', '.join(absent)}"))
    return checks


def _whole(file: WeightsFile) -> str:
    path = locate(file.name)
    assert path is not None
    checked_sha256(path, file.sha256)
    if file.name == _DEFAULT:
        verify_weights(file.name)
    known = "sha256 as published" if file.sha256 else "sha256 as fetched" if recorded_sha256(path) else ""
    loads = "loads" if file.name == _DEFAULT else ""
    how = ", ".join(filter(None, (known, loads))) or "no sha256 to compare with; panecho-embed weights verify loads it"
    return f"{file.name}: {path}, {path.stat().st_size / 1e6:.0f} MB, {how}"


def _damaged(file: WeightsFile, error: PanEchoEmbedError) -> Check:
    first = str(error).splitlines()[0]
    return Check(
        "weights",
        "problem" if file.name == _DEFAULT else "warning",
        f"{file.name}: {first}",
        f"delete that file, then: panecho-embed weights fetch {file.name}",
    )


def file_bytes(videos: int, dim: int) -> int:
    """About the size of an embedding file with float32 rows."""
    return _LEAST_BYTES + videos * (_VIDEO_BYTES + CLIPS_PER_VIDEO * (4 * dim + _ROW_BYTES))


def check_space(out: str | Path, needed_bytes: int) -> list[Check]:
    """The folder of the output, which must take parts and then all of them once more; the caches; temporary files.

    out: a folder, or the file to write; for one at a URL, it is the cache that must take both, and what is at the URL,
    only extract itself finds out. needed_bytes: of the output.
    """
    checks = list(_at_url(str(out), needed_bytes)) if is_url(out) else [_output(out, needed_bytes)]
    move = "set $TORCH_HOME to another folder"
    room = f"free some space, or {move}"
    checks.append(_check("cache of weights", weights_folder(), _CACHE_BYTES, "warning", room, move))
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError as error:
        checks.append(Check("space", "warning", f"no folder for temporary files: {error}", "set $TMPDIR"))
    else:
        move = "set $TMPDIR to another folder"
        checks.append(
            _check("temporary files", temporary, _TEMPORARY_BYTES, "warning", f"free some space, or {move}", move)
        )
    return checks


def _at_url(url: str, needed_bytes: int) -> Iterator[Check]:
    try:
        client(url)
    except ArgumentError as error:
        yield Check("space", "problem", f"output: {error}", "choose another place with -o, or install what is missing")
        return
    yield Check("space", "ok", f"output: {url} is not asked; extract does so before it begins")
    move = f"set ${CACHE_VARIABLE} to another folder"
    what = "cache, where the output is put together"
    yield _check(what, cache_folder("written"), 2 * needed_bytes, "problem", f"free some space, or {move}", move)


def _output(out: str | Path, needed_bytes: int) -> Check:
    path = Path(out).expanduser()
    folder = path.resolve() if path.is_dir() else path.absolute().parent
    elsewhere = "choose another place with -o"
    return _check("output", folder, 2 * needed_bytes, "problem", f"free some space, or {elsewhere}", elsewhere)


def _check(what: str, folder: Path, needed: int, worst: Status, mend_room: str, mend_right: str) -> Check:
    existing = next((place for place in (folder, *folder.parents) if place.is_dir()), Path("/"))
    if what == "output" and existing != folder:
        return Check("space", worst, f"{what}: the folder {folder} does not exist", f"mkdir -p {folder}")
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".panecho-embed-") as file:
            file.write(b"room")
            file.flush()
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(
            "space",
            worst,
            f"{what}: nothing can be written to {existing}: {explain_os_error(error).partition(';')[0]}",
            mend_right,
        )
    if free < needed:
        text = f"{what}: {gigabytes(free)} free in {folder}, {gigabytes(needed)} needed"
        return Check("space", worst, text, mend_room)
    return Check("space", "ok", f"{what}: {gigabytes(free)} free in {folder}")


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
