"""The image encoder compiled ahead of time for this CPU, kept on the disk: compiled once, loaded in a moment after.

TorchInductor freezes the weights into the program, packed for oneDNN, for one batch shape. Programs lie in `programs`
of the cache (see `cache_folder`), under a name that everything they depend on goes into. They are code: the folder is
the user's own.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from panecho_embed.cache import CACHE_VARIABLE, cache_folder
from panecho_embed.engines.image_engine import WEIGHTS_DTYPES, PictureBatch
from panecho_embed.errors import EngineError
from panecho_embed.models.backbone import Backbone
from panecho_embed.models.checkpoint import tensors_sha256
from panecho_embed.models.rearranged import PixelEncoder, rearranged
from panecho_embed.provenance import Precision

# Raise it with every change of what is compiled, here or in `rearranged`.
_REVISION = 2
_KEPT = 8
# Compiling takes a minute.
_STALE_SECONDS = 86_400.0
_LOCK_SECONDS = 600.0


class CompiledEngine:
    """Runs the compiled image encoder, compiling it first if it is not in the cache (10 to 40 seconds).

    In bf16 and fp16 the weights are rounded too. Raises EngineError where it can't be compiled.
    """

    name = "compiled"

    def __init__(self, backbone: Backbone, precision: Precision, batch_pictures: int) -> None:
        self.batch_pictures: int | None = batch_pictures
        program = compiled_path(backbone, precision, batch_pictures)
        try:
            program.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(program.parent)
            # Loading is inside too: another process may be forgetting the oldest programs.
            with FileLock(program.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                _sweep(program)
                if not program.exists():
                    _compile(backbone, precision, batch_pictures, program)
                self._run = _load(program)
        except Timeout as error:
            raise EngineError(
                f"another process has been compiling or loading this program for {_LOCK_SECONDS / 60:.0f} minutes; if "
                f"none is at work, remove {error.lock_file} (--engine-backend rearranged does without)"
            ) from error
        except OSError as error:
            raise EngineError(
                f"the compiled program can't be kept in {program.parent}: {error.strerror or error} "
                f"(${CACHE_VARIABLE} names another folder)"
            ) from error

    @torch.inference_mode()
    def __call__(self, batch: PictureBatch) -> Tensor:
        """See ImageEngine."""
        assert self.batch_pictures is not None
        whole = batch.filled(self.batch_pictures)
        encoded: Tensor = self._run(whole.pixels, whole.channels)
        return encoded[: len(batch)]


def compiled_path(backbone: Backbone, precision: Precision, batch_pictures: int) -> Path:
    """Where the program lies, or will: its name changes with everything that it depends on."""
    depends_on = (
        _REVISION,
        torch.__version__,
        metadata.version("timm"),
        tensors_sha256(backbone.image_encoder.state_dict()),
        str(backbone.image_encoder),
        backbone.preprocess,
        precision,
        batch_pictures,
        torch.get_num_threads(),
        torch.backends.cpu.get_cpu_capability(),
        _processor(),
    )
    return cache_folder("programs") / f"{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]}.pt2"


def has_compiler() -> bool:
    """Is there a C++ compiler that TorchInductor would use?"""
    named = os.environ.get("CXX")
    names = (
        [named] if named else ["cl"] if os.name == "nt" else ["clang++"] if platform.system() == "Darwin" else ["g++"]
    )
    return any(shutil.which(name) for name in names)


def _processor() -> str:
    """What code for this CPU may not run on another: its model and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(backbone: Backbone, precision: Precision, batch_pictures: int, program: Path) -> None:
    if not has_compiler():
        raise EngineError(
            "compiling needs a C++ compiler, and there is none: install g++ (Linux), the Xcode tools (macOS) or the "
            "Visual Studio build tools (Windows), or take --engine-backend rearranged"
        )
    encoder, _ = rearranged(backbone.image_encoder)
    model = PixelEncoder(backbone, encoder, WEIGHTS_DTYPES[precision]).eval()
    side = backbone.preprocess.crop
    example = (
        torch.zeros(batch_pictures, 3, side, side, dtype=torch.uint8),
        torch.zeros(batch_pictures, 3, dtype=torch.int64),
    )
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=f"compiling-{program.stem}-") as folder:
        written = Path(folder) / program.name
        try:
            _compile_into(model, example, written)
        except Exception as error:
            # Whatever a compiler stumbles over, the way on is the same.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(
                f"{backbone.name} can't be compiled on this machine: {reason} (--engine-backend eager)"
            ) from error
        written.replace(program)
    _forget_the_oldest(program.parent)


def _compile_into(model: nn.Module, example: tuple[Tensor, Tensor], written: Path) -> None:
    options: dict[str, Any] = {"freezing": True, "compile_threads": 1}
    with _temporary(written.parent, "TORCHINDUCTOR_CACHE_DIR"), torch.no_grad(), warnings.catch_warnings():
        # PyTorch's own parts warn of each other.
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, example)
        torch._inductor.aoti_compile_and_package(exported, package_path=str(written), inductor_configs=options)


def _load(program: Path) -> Any:
    os.utime(program)
    # PyTorch unpacks the program into a temporary folder; once it is loaded, the files are not needed.
    prefix = f"loading-{program.stem}-"
    with tempfile.TemporaryDirectory(dir=program.parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        try:
            with _temporary(Path(folder), "TMPDIR"):
                return torch._inductor.aoti_load_package(str(program))
        except RuntimeError as error:
            raise EngineError(
                f"the compiled program {program} can't be loaded ({str(error).splitlines()[0]}); remove it, and it is "
                "compiled anew"
            ) from error


def _check_owner(folder: Path) -> None:
    """Programs are code: what others may have put there is not run."""
    found = folder.stat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise EngineError(
            f"others can write to {folder}, and compiled programs are code: chmod go-w makes it yours alone, and "
            f"${CACHE_VARIABLE} names another folder"
        )


def _sweep(program: Path) -> None:
    """Remove what killed processes left: who holds the program's lock is alone with it; the rest goes by age."""
    for folder in (*program.parent.glob("compiling-*"), *program.parent.glob("loading-*")):
        with suppress(FileNotFoundError):
            if program.stem in folder.name or time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _temporary(folder: Path, variable: str) -> Iterator[None]:
    before = os.environ.get(variable)
    os.environ[variable] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _forget_the_oldest(folder: Path) -> None:
    """Keep the programs used last; each takes about as much room as the weights."""
    used: list[tuple[float, Path]] = []
    for path in folder.glob("*.pt2"):
        # Another process may be forgetting too.
        with suppress(FileNotFoundError):
            used.append((path.stat().st_mtime, path))
    for _, path in sorted(used, reverse=True)[_KEPT:]:
        # The lock stays: whoever waits for it holds the same file as who comes later.
        with suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=0):
            path.unlink(missing_ok=True)
