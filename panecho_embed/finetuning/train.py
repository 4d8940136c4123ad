"""The training loop: steps that no number of processes changes, epochs that a kill can interrupt anywhere."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from panecho_embed.core.arraytypes import Ints
from panecho_embed.core.errors import ManifestError, MediaError, NotInstalledError, TrainingError
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.outputs import write_text
from panecho_embed.core.progress import Announce, progress_bar, silent
from panecho_embed.core.records import Failure
from panecho_embed.finetuning.data import Fold
from panecho_embed.finetuning.evaluate import EvaluationClips, Predicted, predict_videos
from panecho_embed.finetuning.learner import Learner
from panecho_embed.finetuning.model import FineTuneModel
from panecho_embed.finetuning.outcome import epoch_scores
from panecho_embed.finetuning.processes import Processes
from panecho_embed.finetuning.recipe import Recipe
from panecho_embed.finetuning.sampling import Batch, Key, MicroBatches, TrainingClips, training_loader
from panecho_embed.finetuning.saved import read_checkpoint, write_checkpoint


@dataclass(slots=True)
class Progress:
    """How far a training is.

    epoch: the running one, from 1; step: how many of its steps are done; steps_done: of all epochs. loss_sum,
    loss_count: of the running epoch, over its clips that could be decoded. seconds: spent before this process began.
    best: the best monitored value, of epoch best_epoch; waited: epochs since. failures: videos that can't be decoded,
    by id. left_out: ids of those known when the running epoch began, which its steps do without.
    """

    epoch: int = 1
    step: int = 0
    steps_done: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    best: float = math.nan
    best_epoch: int = 0
    waited: int = 0
    history: list[_Row] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def epoch_ended(self, row: _Row, monitored: float, *, higher_is_better: bool) -> bool:
        """Take an epoch's numbers in and turn to the next one; returns whether it was the best so far."""
        better = math.isnan(self.best) or (monitored > self.best if higher_is_better else monitored < self.best)
        if better:
            self.best, self.best_epoch, self.waited = monitored, self.epoch, 0
        else:
            self.waited += 1
        self.history.append(row | {"best": float(better)})
        self.epoch, self.step, self.loss_sum, self.loss_count = self.epoch + 1, 0, 0.0, 0
        self.left_out = sorted(self.failures)
        return better

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Progress:
        """Read what `state` gave."""
        failures = {name: Failure(**fields) for name, fields in state["failures"].items()}
        return cls(**{**state, "failures": failures})


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What a training needs to know.

    folder: of the run; its checkpoints are below it. checkpoint_seconds: a checkpoint is written this often, and after
    every epoch. strict: a video that can't be decoded ends the training. progress: a bar; None on a terminal
    only. announce: called with a line per epoch.
    """

    fold: Fold
    recipe: Recipe
    feeding: Feeding
    processes: Processes
    folder: Path
    workers: int = 0
    checkpoint_seconds: float = 600.0
    strict: bool = False
    progress: bool | None = False
    announce: Announce = silent

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.folder / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        """The weights of the best epoch so far."""
        return self.folder / "checkpoints" / "best.pt"


class Trainer:
    """Trains a model, from the last checkpoint if there is one, and leaves it with the weights of the best epoch.

    A step's clips, their order, augmentation and dropout follow from the seed, the epoch and the step, so nothing else
    needs to be remembered to repeat them, and the number of processes changes only which of them encodes which clip
    (and, with dropout, its pattern).
    """

    def __init__(self, model: FineTuneModel, training: Training) -> None:
        self._training, self._recipe, self._fold = training, training.recipe, training.fold
        self._processes = training.processes
        self._learner = Learner(model, training.fold, training.recipe, training.processes, self._note)
        self._higher = self._recipe.early_stopping.monitor == "score"
        self._progress = Progress()
        self._begun = self._saved = time.monotonic()

    def run(self) -> Progress:
        """Train to the end. Raises TrainingError when the loss is not a number any more, MediaError if strict."""
        devices = [self._processes.device] if self._processes.on_cuda else []
        with torch.random.fork_rng(devices=devices):
            self._resume()
            self._epochs()
        self._processes.wait()
        self.model.load_state_dict(read_checkpoint(self._training.best)["model"])
        self._progress.seconds = self._seconds()
        return self._progress

    @property
    def model(self) -> FineTuneModel:
        """The model whose predictions count: after `run`, with the weights of the best epoch."""
        return self._learner.evaluated

    def predict(self, index: Ints, clips: int, each: Callable[[], object] = lambda: None) -> Predicted:
        """Predict videos of the data set, each from at most `clips` clips. Raises MediaError if strict."""
        training = self._training
        predicted = predict_videos(
            self.model,
            EvaluationClips(
                self._fold.dataset.videos, training.feeding, self._recipe.clips.plan(clips), self.model.plane_order
            ),
            index,
            self._fold.targets.values,
            self._fold.targets.tasks,
            self._learner.loss,
            self._processes,
            workers=training.workers,
            each=each,
        )
        self._note(predicted.failures)
        return predicted

    def _epochs(self) -> None:
        training, recipe, progress, processes = self._training, self._recipe, self._progress, self._processes
        clips = TrainingClips(
            self._fold.dataset.videos, training.feeding, recipe.clips.plan(1), recipe.augmentation, recipe.seed
        )
        batches = MicroBatches()
        loader = training_loader(clips, batches, training.workers, pin=processes.on_cuda)
        board = _Board(training.folder / "tensorboard", progress.steps_done) if processes.is_main else None
        show = training.progress if processes.is_main else False
        epochs = recipe.schedule.epochs
        with progress_bar("step", show, initial=progress.steps_done) as bar:
            while progress.epoch <= epochs and progress.waited < recipe.early_stopping.patience:
                # Later epochs have fewer steps where videos can't be decoded.
                bar.total = progress.steps_done - progress.step + len(self._steps()) * (epochs - progress.epoch + 1)
                bar.set_description(f"epoch {progress.epoch}/{epochs}")
                started = time.monotonic()
                self._epoch(loader, batches, bar, board)
                self._validate(started, board)
        if board is not None:
            board.close()

    def _epoch(self, loader: Any, batches: MicroBatches, bar: Any, board: _Board | None) -> None:
        progress, processes = self._progress, self._processes
        micro_batch = self._recipe.optimizer.micro_batch
        steps = self._steps()
        shares = [
            _share(step, progress.epoch, process=processes.index, processes=processes.count, micro_batch=micro_batch)
            for step in steps[progress.step :]
        ]
        batches.batches = [batch for mine in shares for batch in mine]
        stream: Iterator[Batch] = iter(loader)
        self._learner.begin_epoch()
        for step, mine in zip(steps[progress.step :], shares, strict=True):
            loss = self._step(step, len(steps), len(mine), stream)
            bar.update()
            bar.set_postfix_str(f"loss {loss:.4g}")
            if board is not None:
                board.step(progress.steps_done, loss, self._learner.heads_rate)

    def _steps(self) -> list[Ints]:
        """The videos of every step of the running epoch, each once, the last step perhaps smaller."""
        progress, videos, train = self._progress, self._fold.dataset.videos, self._fold.train
        left = np.array([i for i in train.tolist() if videos[i].video_id not in progress.left_out], dtype=np.int64)
        order = np.random.default_rng([self._recipe.seed, progress.epoch]).permutation(left)
        size = self._recipe.optimizer.batch_size
        steps: list[Ints] = [order[i : i + size] for i in range(0, len(order), size)]
        if not steps:
            first = progress.failures[progress.left_out[0]]
            raise ManifestError(
                f"none of the {len(train)} training videos can be decoded; {first.path}: {first.message}"
            )
        return steps

    def _step(self, step: Ints, steps: int, micro_batches: int, stream: Iterator[Batch]) -> float:
        """Learn from one batch of all processes; returns its loss, the mean over the videos that could be decoded."""
        progress, processes, learner = self._progress, self._processes, self._learner
        done = progress.epoch - 1 + (progress.step + 1) / steps
        learner.set_step(done, [self._recipe.seed, progress.epoch, progress.step], 1 / steps)
        mine = learner.gradients(step, micro_batches, stream)
        due = processes.is_main and time.monotonic() - self._saved >= self._training.checkpoint_seconds
        # One message for both: every process must know of the loss, and of the checkpoint that all take part in.
        loss, decoded, save = processes.summed(torch.cat([mine, mine.new_tensor([float(due)])])).tolist()
        self._check_finite(loss, step)
        learner.update()
        progress.step, progress.steps_done = progress.step + 1, progress.steps_done + 1
        progress.loss_sum += loss * len(step)
        progress.loss_count += round(decoded)
        if save and progress.step < steps:
            self._save()
        return float(loss) * len(step) / decoded if decoded else math.nan

    def _validate(self, started: float, board: _Board | None) -> None:
        """Close the epoch: validate, keep what is best, write down how it went."""
        progress, tasks = self._progress, self._fold.targets.tasks
        self._processes.share_statistics(self.model)
        predicted = self.predict(self._fold.val, self._recipe.clips.validation)
        if not math.isfinite(predicted.loss):
            raise TrainingError(self._undefined(predicted, "loss", predicted.loss))
        score, columns = epoch_scores(self._fold, predicted, self._recipe.evaluation.level)
        monitored = score if self._higher else predicted.loss
        if not math.isfinite(monitored):
            raise TrainingError(self._undefined(predicted, "score", monitored))
        row: _Row = {
            "epoch": float(progress.epoch),
            "lr": self._learner.heads_rate,
            "train_loss": progress.loss_sum / progress.loss_count if progress.loss_count else math.nan,
            "val_loss": predicted.loss,
            "val_score": score,
            "best": 0.0,
            "seconds": time.monotonic() - started,
        }
        losses = zip(tasks, predicted.task_losses.tolist(), strict=True)
        row |= {f"val_loss:{task.name}": loss for task, loss in losses} | columns
        self._share_failures()
        better = progress.epoch_ended(row, monitored, higher_is_better=self._higher)
        self._learner.rate.epoch_ended(monitored)
        self._keep(better, board)

    def _keep(self, better: bool, board: _Board | None) -> None:
        """Write the checkpoints and the history of an epoch that has ended."""
        training, row = self._training, self._progress.history[-1]
        if self._processes.is_main and better:
            write_checkpoint({"model": self.model.state_dict()}, training.best)
        # Before the checkpoint, from which nobody would come back to this epoch.
        if board is not None:
            _write_history(self._progress.history, training.folder)
        self._save()
        if board is not None:
            board.epoch(row, self._progress.steps_done)
        score = f"{row['val_score']:.4g}" if math.isfinite(row["val_score"]) else "undefined"
        training.announce(
            f"epoch {row['epoch']:.0f}/{self._recipe.schedule.epochs}: training loss {row['train_loss']:.4g}, "
            f"validation loss {row['val_loss']:.4g}, score {score}{' (best so far)' if better else ''}"
        )

    def _save(self) -> None:
        self._share_failures()
        self._saved = time.monotonic()
        if self._processes.is_main:
            progress = self._progress.state() | {"seconds": self._seconds()}
            write_checkpoint({**self._learner.state(), "progress": progress}, self._training.last)

    def _resume(self) -> None:
        path = self._training.last
        if not self._processes.on_main(path.is_file):
            return
        state = read_checkpoint(path)
        self._learner.restore(state)
        self._progress = Progress.from_state(state["progress"])
        at = f"epoch {self._progress.epoch}" + (f", step {self._progress.step + 1}" if self._progress.step else "")
        self._training.announce(f"going on at {at}")

    def _seconds(self) -> float:
        return self._progress.seconds + time.monotonic() - self._begun

    def _note(self, failures: Sequence[Failure]) -> None:
        if failures and self._training.strict:
            first = failures[0]
            raise MediaError(f"{first.path} can't be decoded: {first.message} (--strict)", stage=first.stage)
        self._progress.failures |= {failure.video_id: failure for failure in failures}

    def _share_failures(self) -> None:
        everybody = self._processes.gathered(list(self._progress.failures.values()))
        self._progress.failures = {failure.video_id: failure for failure in everybody}

    def _check_finite(self, loss: float, step: Ints) -> None:
        if not math.isfinite(loss):
            ids = ", ".join(self._fold.dataset.videos[i].video_id for i in step)
            raise TrainingError(
                f"the loss is {loss} in epoch {self._progress.epoch}, step {self._progress.step + 1}; a smaller "
                f"optimizer.lr, optimizer.clip_norm or precision=fp32 may help. The videos of the batch: {ids}"
            )

    def _undefined(self, predicted: Predicted, what: Literal["loss", "score"], value: float) -> str:
        rows = "videos" if self._recipe.evaluation.level == "video" else "studies"
        hints = {
            "loss": "a smaller optimizer.lr, optimizer.clip_norm or precision=fp32 may help",
            "score": f"a score needs {rows} of two classes, or two different values "
            "(--set early_stopping.monitor=loss)",
        }
        return (
            f"the validation {what} is {value} after epoch {self._progress.epoch}; {len(predicted.index)} of "
            f"{len(self._fold.val)} validation videos could be decoded; {hints[what]}"
        )


try:
    from tensorboardX import SummaryWriter
except ImportError as error:
    raise NotInstalledError("tensorboardX", "finetune") from error

_Row = dict[str, float]


def _history_text(rows: Sequence[_Row]) -> str:
    """The rows as CSV, numbers in full precision, empty where not defined."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if math.isnan(value) else value for name, value in row.items()} for row in rows)
    return text.getvalue()


def _write_history(rows: Sequence[_Row], folder: Path) -> None:
    """history.csv and history.svg of a run folder. Raises OSError."""
    from panecho_embed.evaluation.plots import history

    write_text(folder / "history.csv", _history_text(rows))
    columns = {name: np.array([row[name] for row in rows]) for name in ("epoch", "train_loss", "val_loss")}
    curves = {"training": columns["train_loss"], "validation": columns["val_loss"]}
    drawn = io.StringIO()
    history(columns["epoch"], curves, "loss").savefig(drawn, format="svg")
    write_text(folder / "history.svg", drawn.getvalue())


class _Board:
    """Scalars for TensorBoard; from a resumed step on, what was there is forgotten."""

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: SummaryWriter = SummaryWriter(str(folder), purge_step=step)

    def step(self, step: int, loss: float, rate: float) -> None:
        """The loss of one step, NaN where no video could be decoded, and its learning rate."""
        if math.isfinite(loss):
            self._writer.add_scalar("step/loss", loss, step)
        self._writer.add_scalar("step/lr", rate, step)

    def epoch(self, row: _Row, step: int) -> None:
        """The numbers of an epoch that ended at `step`."""
        for name, value in row.items():
            if name != "epoch" and np.isfinite(value):
                self._writer.add_scalar(f"epoch/{name.replace(':', '/')}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def _share(step: Ints, epoch: int, *, process: int, processes: int, micro_batch: int) -> list[list[Key]]:
    """The micro batches of a step that a process encodes.

    Every process gets as many, and as large ones, because they wait for each other in between: what is missing is
    filled up with clips that do not count.
    """
    each = -(-len(step) // processes)
    mine = [Key(epoch, int(index), 1.0) for index in step[process::processes]]
    mine += [Key(epoch, int(step[0]), 0.0)] * (each - len(mine))
    return [mine[i : i + micro_batch] for i in range(0, each, micro_batch)]
