"""Which runs a comparison is made of, where each lies, and whether it can be used as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from panecho_embed.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.finetune.folder import check_release
from panecho_embed.finetune.recipe import Recipe
from panecho_embed.finetune.recipe_files import parse_recipe, recipe_differences
from panecho_embed.finetune.starts import RANDOM

State = Literal["done", "begun", "missing"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: a start, a fraction of the training patients, a seed. recipe: with these two in it."""

    init: str
    fraction: float
    seed: int
    folder: Path
    recipe: Recipe

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.init}, fraction {self.fraction:g}, seed {self.seed}"


def plan_trials(
    recipe: Recipe, inits: Sequence[str], out: Path, *, seeds: int, fractions: Sequence[float]
) -> tuple[Trial, ...]:
    """Every run of a comparison, in the order in which to do them: seed by seed, so that all starts have one early.

    seeds: how many, from the recipe's on. Raises ArgumentError for twins and values out of range.
    """
    if not inits or len(set(inits)) < len(inits):
        raise ArgumentError(f"starts are {', '.join(inits) or 'none'}; name each once (--inits panecho,random)")
    if seeds < 1:
        raise ArgumentError(f"seeds is {seeds}; it must be 1 or more (--seeds)")
    if not fractions or len(set(fractions)) < len(fractions) or any(not 0 < f <= 1 for f in fractions):
        raise ArgumentError(f"fractions are {list(fractions)}; each above 0, at most 1, and once (--fractions 0.1,1)")
    folders = {init: folder_name(init) for init in inits}
    if len(set(folders.values())) < len(folders):
        raise ArgumentError(f"the starts {', '.join(inits)} would share a folder; compare them in two runs")
    return tuple(
        Trial(
            init,
            fraction,
            seed,
            out / "runs" / folders[init] / f"fraction-{fraction:g}" / f"seed-{seed}",
            replace(_recipe_of(init, inits, recipe), seed=seed, data=replace(recipe.data, fraction=fraction)),
        )
        for seed in range(recipe.seed, recipe.seed + seeds)
        for fraction in sorted(fractions, reverse=True)
        for init in inits
    )


def _recipe_of(init: str, inits: Sequence[str], recipe: Recipe) -> Recipe:
    """A width is for random weights alone; the starts beside them have their own."""
    if init == RANDOM or RANDOM not in inits:
        return recipe
    return replace(recipe, model=replace(recipe.model, width=1.0))


def folder_name(init: str) -> str:
    """A start's name with nothing in it that a folder's name can't hold."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in init)


def trial_state(trial: Trial, fingerprint: str) -> State:
    """Whether a run is done, begun or not there yet; fingerprint: of the data.

    Raises SettingsMismatchError if what lies in its folder was made with another recipe, start or data set,
    EarlierReleaseError if by a release whose runs are others.
    """
    try:
        info = json.loads((trial.folder / "run.json").read_text(encoding="utf-8"))
        theirs = parse_recipe((trial.folder / "recipe.toml").read_text(encoding="utf-8"), "recipe.toml")
        start, data, status = info["init"], info["data"]["fingerprint"], info["status"]
    except FileNotFoundError:
        return "missing"
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(
            f"{trial.folder}: no run can be read there ({error}); move it away, or take another -o"
        ) from error
    check_release(info, trial.folder)
    differ = recipe_differences(theirs, trial.recipe)
    differ += [f"init: {start}, not {trial.init}"] if start != trial.init else []
    differ += [f"data: {data[:12]}, not {fingerprint[:12]}"] if data != fingerprint else []
    if differ:
        raise SettingsMismatchError(
            f"{trial.folder} was made with other settings than asked for now: {'; '.join(differ)}; take another -o"
        )
    return "done" if status == "done" else "begun"
