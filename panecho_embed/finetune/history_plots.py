"""Figures of how a run's training went."""

from __future__ import annotations

from matplotlib.figure import Figure

from panecho_embed.evaluation.plots import histories, history
from panecho_embed.finetune.outcome import Outcome

_MOST_LINES = 6


def history_figures(outcome: Outcome) -> dict[str, tuple[Figure, str]]:
    """Loss and score per epoch with a caption each, by file name without suffix; of every fold, if there are folds."""
    if "" not in outcome.histories:
        return _of_folds(outcome)
    table = outcome.histories[""]
    epochs = table["epoch"].to_numpy()
    best = outcome.info["best_epoch"]
    losses = {"training": table["train_loss"].to_numpy(), "validation": table["val_loss"].to_numpy()}
    made = {"loss": (history(epochs, losses, "loss", best=best), "Loss per epoch; dashed: the epoch that was kept.")}
    scores = {"mean": table["val_score"].to_numpy()}
    single = [name for name in table if str(name).startswith(("val_r2:", "val_auroc:"))]
    if 1 < len(single) < _MOST_LINES:
        scores |= {str(name).partition(":")[2]: table[name].to_numpy() for name in single}
    elif len(single) == 1:
        scores = {"validation": scores["mean"]}
    caption = "Validation score per epoch: R² of regressions, AUROC of classes, and their mean."
    made["score"] = (history(epochs, scores, "validation score", best=best), caption)
    return made


def _of_folds(outcome: Outcome) -> dict[str, tuple[Figure, str]]:
    made = {}
    for name, column in (("loss", "val_loss"), ("score", "val_score")):
        runs = [
            (f"fold {fold}" if len(outcome.histories) <= _MOST_LINES else "folds", table["epoch"].to_numpy(), values)
            for fold, table in outcome.histories.items()
            for values in (table[column].to_numpy(),)
        ]
        made[name] = (histories(runs, f"validation {name}"), f"Validation {name} per epoch, one line a fold.")
    return made
