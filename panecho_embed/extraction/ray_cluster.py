"""A Ray cluster to work on: one that runs already, or one of only this machine for as long as the work takes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panecho_embed.core.cores import usable_cores
from panecho_embed.core.errors import ArgumentError, EngineError, NotInstalledError

_CONNECT_SECONDS = 5.0
_HTTP2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2_SETTINGS
# Of a cluster of only this machine: decoded videos on their way to the encoders.
_OBJECT_STORE_BYTES = 1 << 30


@contextmanager
def ray_cluster(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected.

    address: HOST:PORT of a cluster's head, or "auto" for the one that this machine belongs to; None for $RAY_ADDRESS,
    and without that for a cluster of only this machine, which ends with the block. Where the caller is connected
    already, that connection is used and stays. Raises ArgumentError if Ray is not installed, EngineError if no cluster
    answers.
    """
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        _connect(ray, address)
        yield ray
    finally:
        ray.shutdown()


def _imported() -> Any:
    # Ray reports its use to its makers unless told otherwise, and its C++ side prints what users can do nothing about.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # As `ray start` does: where there is a token, it is asked for.
    if "RAY_AUTH_TOKEN" in os.environ or _token_file().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise NotInstalledError(error.name or "ray", "ray", "--engine ray") from error
    return ray


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(
            "local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, num_cpus=usable_cores(), **quiet
        )
        return
    # Behind TLS, nobody answers without a certificate.
    if address != "auto" and os.environ.get("RAY_USE_TLS", "0") in ("0", "false"):
        _check_answers(address)
    try:
        ray.init(address, **quiet)
    except Exception as error:
        # Ray raises what it likes: ConnectionError, RuntimeError, ValueError, its own AuthenticationError.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(
            f"can't join the Ray cluster at {address}: {reason} (--ray-address; a token that the cluster was started "
            f"with must be in {_token_file()} or $RAY_AUTH_TOKEN here too)"
        ) from error


def _check_answers(address: str) -> None:
    """Ask for a gRPC server (HTTP/2, RFC 9113, 3.4) at the address; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ArgumentError(
            f"the address of a Ray cluster is HOST:PORT, as `ray start --head` prints it, or auto; not {address!r} "
            "(--ray-address)"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            connection.sendall(_HTTP2_HELLO)
            if connection.recv(len(_HTTP2_SETTINGS), socket.MSG_WAITALL)[3:4] != _HTTP2_SETTINGS[3:4]:
                raise OSError("what answers there is no Ray cluster")
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"no Ray cluster answers at {address}: {error}. Start one by `ray start --head` (--ray-address)"
        ) from error


@dataclass(frozen=True, slots=True)
class Shares:
    """How a run uses a cluster: how many encoders and decoders, and of how many CPUs and GPUs each.

    More encoders start where machines join; more decoders, if `more_decoders`.
    """

    encoders: int
    encoder_cpus: float
    encoder_gpus: float
    decoders: int
    decoder_cpus: float
    more_decoders: bool = False

    @property
    def device(self) -> str:
        """What encoders run on."""
        return "cuda" if self.encoder_gpus else "cpu"


def shares(resources: Mapping[str, float], device: str, workers: int | None) -> Shares:
    """Share out what a cluster has: an encoder for every GPU and decoders on the CPUs; without GPUs, one a CPU.

    resources: "CPU" and "GPU", as Ray counts them. device: "auto", "cpu" or "cuda". workers: decoders; None for as many
    as there are CPUs left, and beside encoders on CPUs for one to four of them. Raises ArgumentError.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device is {device!r}; with --engine ray it is auto, cpu or cuda, and Ray gives out which")
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if device == "cuda" and not gpus:
        raise ArgumentError("device is cuda, but the Ray cluster has no GPU (--device)")
    on_gpus = bool(gpus) and device != "cpu"
    if cpus < 1:
        raise ArgumentError(f"the Ray cluster has {cpus} CPUs and {gpus} GPUs; needed is one CPU at least, to decode")
    wanted = workers if workers is not None else max(1, cpus - gpus if on_gpus else cpus // 4)
    if not 1 <= wanted <= cpus:
        raise ArgumentError(f"workers is {wanted}; this Ray cluster has room for 1 to {cpus} (--workers)")
    if on_gpus:
        # An encoder needs its GPU; were it to need a CPU too, decoders could take all of a machine that joins.
        return Shares(gpus, 0.0, 1.0, wanted, 1.0, more_decoders=workers is None)
    # An encoder on a CPU keeps it busy; a decoder beside it takes what the encoder leaves.
    return Shares(cpus, 0.99, 0.0, wanted, 0.01)
