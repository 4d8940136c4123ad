"""`panecho-embed recipes`: what can be fine-tuned, and how."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def recipes() -> None:
    """List, show and copy the recipes of `panecho-embed finetune`."""


@recipes.command("list")
def list_() -> None:
    """Name every recipe, with what it is for."""
    from panecho_embed.finetuning.recipe_files import recipes as table

    for name, description in table().itertuples(index=False):
        click.echo(f"{name:<18} {description}")


@recipes.command()
@click.argument("name", metavar="RECIPE")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Show the recipe with a setting changed, and all defaults; repeatable.",
)
@click.option("--all", "everything", is_flag=True, help="Show all settings, including defaults, without comments.")
def show(name: str, settings: tuple[str, ...], everything: bool) -> None:
    """Print a recipe: its command, what it reproduces, what to expect, its settings."""
    from panecho_embed.finetuning.recipe_files import load_recipe, recipe_text, to_toml

    recipe = load_recipe(name, settings)
    click.echo(to_toml(recipe) if settings or everything else recipe_text(name), nl=False)


@recipes.command()
@click.argument("name", metavar="RECIPE")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="File to write.  [default: RECIPE.toml here]")
def copy(name: str, out: Path | None) -> None:
    """Write a recipe to a file, to be edited and given to `finetune`."""
    from panecho_embed.finetuning.recipe_files import copy_recipe

    path = copy_recipe(name, out)
    click.echo(f"{path}: edit it, then `panecho-embed finetune {path} --init panecho --data DIR -o RUN`")
