"""A run's folder: whose it is, whether its work is done, and that one process at a time writes it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from panecho_embed._version import __version__
from panecho_embed.core.digests import SUMS, read_checked
from panecho_embed.core.errors import (
    EARLIER_ORDER,
    EarlierReleaseError,
    PanEchoEmbedError,
    SettingsMismatchError,
    StoreError,
)
from panecho_embed.core.outputs import (
    explain_os_error,
    refuse_to_replace_run,
    settle,
    settled,
    sweep,
    without_nan,
    write_json,
    write_text,
    written_run,
)
from panecho_embed.core.records import Failure
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.recipe_files import parse_recipe, recipe_differences, to_toml
from panecho_embed.store.layout import FAILURE_COLUMNS

SCHEMA_VERSION = 6
_ORDER_OF_PLANES = 2  # from this schema on, runs record which pictures the encoder saw
Status = Literal["fresh", "begun", "done"]

_CONTENT = (
    *(SUMS, "recipe.toml", "tasks.csv", "history.csv", "history.svg", "model.pt", "metrics.json", "failures.csv"),
    *("predictions.csv", "report.html", "run.json"),
)
_GROWN = ("recipe.toml", "history.csv", "history.svg")  # written while it runs
_LOCK = ".lock"
_FOLDERS = ("checkpoints", "tensorboard", "plots")


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two runs the same. data: the data digest (ids, splits, labels)."""

    recipe: Recipe
    init: str
    data: str
    fold: int | None = None


class RunFolder:
    """A run's folder, to be used in a `with` block by the one process that writes it.

    patience_seconds: how long to wait for another one to leave it.
    """

    def __init__(self, path: str | Path, patience_seconds: float = 0.0) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path / _LOCK, timeout=patience_seconds)

    def __enter__(self) -> Self:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise StoreError(f"another run is writing {self.path}; wait for it, or take another folder (-o)") from None
        except OSError as error:
            raise StoreError(f"{self.path}: the folder can't be made ({error.strerror or error}) (-o)") from error
        try:
            settle(self.path)
            sweep(self.path)
        except OSError as error:
            raise StoreError(f"can't write {self.path}: {explain_os_error(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        # What failed before it began leaves nothing behind.
        if {entry.name for entry in self.path.iterdir()} <= {_LOCK}:
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def claim(self, identity: Identity, *, overwrite: bool = False) -> Status:
        """Whose the folder is: nobody's, or this run's, begun or done.

        overwrite: clear what another run left. Raises SettingsMismatchError naming every setting that differs, and
        StoreError if the folder holds anything else.
        """
        refuse_to_replace_run(self.path, True, "fine-tuning run")
        if overwrite:
            self._clear()
        info = self.info()
        # Alone, run.json is of a run that was killed before it wrote its recipe.
        if info and self._content() != {"run.json"}:
            if differ := self.differences(identity, info):
                listed = "\n  ".join(differ)
                raise SettingsMismatchError(
                    f"{self.path} holds a run of other settings than asked for now:\n  {listed}\n"
                    "Take another folder (-o), or begin anew (--overwrite)"
                )
            return "done" if info["status"] == "done" else "begun"
        if strangers := sorted(self._content() - {"run.json"}):
            raise StoreError(f"{self.path} holds {', '.join(strangers[:3])} and no run; take another folder (-o)")
        return "fresh"

    def info(self) -> dict[str, Any]:
        """What run.json says; {} if there is none. Raises StoreError if it is damaged."""
        path = settled(self.path) / "run.json"
        if not path.is_file():
            return {}
        try:
            info: dict[str, Any] = json.loads(read_checked(path))
            if info.get("schema_version") != SCHEMA_VERSION:
                return info
            digest = info.pop("sha256")
        except (StoreError, ValueError, KeyError, AttributeError) as error:
            raise StoreError(f"{path} is damaged ({error}); begin anew with --overwrite") from error
        if digest != _digest(info):
            raise StoreError(f"{path} is damaged, or was changed by hand; begin anew with --overwrite")
        return info

    def begin(self, identity: Identity, facts: Mapping[str, Any]) -> None:
        """Write recipe.toml and run.json of a run that begins or goes on. Raises StoreError."""
        created = self.info().get("created_utc", _now())
        info = {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "created_utc": created,
            "finished_utc": None,
            "status": "running",
            "init": identity.init,
            "fold": identity.fold,
            **facts,
        }
        # In this order, so that a kill between the two is distinguished from a recipe of the user's.
        write_info(info, self.path)
        write_text(self.path / "recipe.toml", to_toml(identity.recipe))

    def check_weights(self, sha256: str) -> None:
        """Raise SettingsMismatchError if the run began from other weights than these."""
        begun = self.info().get("weights", {}).get("sha256", sha256)
        if begun != sha256:
            raise SettingsMismatchError(
                f"{self.path} was begun from other weights: sha256 {begun[:12]}..., not {sha256[:12]}...; give those "
                "(--weights), take another folder (-o), or begin anew (--overwrite)"
            )

    def fail(self, message: str) -> None:
        """Write that the run failed. Raises StoreError."""
        write_info(self.info() | {"status": "failed", "finished_utc": _now(), "message": message}, self.path)

    @contextmanager
    def finished(self, facts: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to write the results into, which appear in the run's all at once: the run is done then.

        facts: of run.json. Raises StoreError.
        """
        grown = [name for name in _GROWN if (self.path / name).is_file()]
        with written_run(self.path, also=grown) as new:
            yield new
            write_info(self.info() | {"status": "done", "finished_utc": _now()} | dict(facts), new)
        # What is only needed to go on: several times the size of the model.
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)

    def _content(self) -> set[str]:
        """What is in the folder, except hidden files."""
        return {entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")}

    def differences(self, identity: Identity, info: Mapping[str, Any]) -> list[str]:
        """Every setting in which the run of the folder is another one; info: of its run.json.

        Raises StoreError if it is damaged, EarlierReleaseError if it is of an earlier release.
        """
        check_release(info, self.path)
        file = self.path / "recipe.toml"
        try:
            theirs = parse_recipe(read_checked(file).decode("utf-8"), str(file))
        except (UnicodeDecodeError, PanEchoEmbedError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"{file} can't be read ({reason}); begin anew with --overwrite") from error
        differ = recipe_differences(identity.recipe, theirs)
        for name, mine, other in (
            ("init", identity.init, info.get("init")),
            ("fold", identity.fold, info.get("fold")),
            ("the data's ids, splits and labels", identity.data[:12], info.get("data", {}).get("digest", "")[:12]),
        ):
            if mine != other:
                differ.append(f"{name}: {mine}, not {other}")
        return differ

    def _clear(self) -> None:
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for fold in self.path.glob("fold-*"):
            shutil.rmtree(fold, ignore_errors=True)
        for name in _CONTENT:
            (self.path / name).unlink(missing_ok=True)


def check_release(info: Mapping[str, Any], folder: Path) -> None:
    """Raise EarlierReleaseError if a run is of an earlier release; info: of its run.json."""
    version = info.get("schema_version") or 0
    if version < _ORDER_OF_PLANES:
        raise EarlierReleaseError(f"{folder}: {EARLIER_ORDER}")
    if version != SCHEMA_VERSION:
        raise EarlierReleaseError(
            f"{folder}: a run of another release (schema {version}, not {SCHEMA_VERSION}), made otherwise "
            "(feeding, averages, digests or columns). Run it again in another folder (-o), or --overwrite"
        )


def write_info(info: Mapping[str, Any], folder: Path) -> None:
    """run.json, with a digest of what it says: it is rewritten while the run goes on. Raises OSError, StoreError."""
    content: dict[str, Any] = without_nan(info)
    write_json(folder / "run.json", {**content, "sha256": _digest(content)})


def _digest(info: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(without_nan(info), sort_keys=True).encode()).hexdigest()


def write_failures(failures: Sequence[Failure], folder: Path) -> None:
    """failures.csv, with its header where there is none. Raises OSError."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FAILURE_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(failure) for failure in failures)
    write_text(folder / "failures.csv", text.getvalue())


def read_failures(folder: Path) -> tuple[Failure, ...]:
    """What `write_failures` wrote. Raises StoreError."""
    path = folder / "failures.csv"
    try:
        rows = csv.DictReader(io.StringIO(read_checked(path).decode("utf-8", "surrogateescape"), newline=""))
        return tuple(Failure(row["video_id"], row["path"], row["stage"], row["message"]) for row in rows)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise StoreError(f"{path} can't be read ({str(error).splitlines()[0]}); begin anew with --overwrite") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
