"""Recipes as TOML: those of the package, a user's own, single settings changed, written back as run."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from panecho_embed.core.errors import RecipeError
from panecho_embed.core.wording import brief, nearest
from panecho_embed.finetuning.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

_SUFFIX = ".toml"
_ORDER = ("echonet-dynamic", "echonet-pediatric", "echonet-lvh", "multitask", "custom")

# A hundred times the longest recipe; TOML takes ever longer to read.
_MOST_CHARACTERS = 256 * 1024
# Names joined by dots, of which tomllib makes a list for every dot; settings have one dot.
_LONG_NAME = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){20}""")
_LISTED = 10

_Settings = Mapping[str, Any]


def recipes() -> pd.DataFrame:
    """List the recipes that come with the package.

    Returns
    -------
    DataFrame
        Columns name and description. `load_recipe(name)` gives the settings.
    """
    import pandas as pd

    return pd.DataFrame({"name": _ORDER, "description": [load_recipe(name).description for name in _ORDER]})


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return list(_ORDER)


def recipe_text(name: str) -> str:
    """A recipe's file, word for word: a packaged one by name, or your own file. Raises RecipeError."""
    if name in _ORDER:
        return resources.files("panecho_embed.finetuning").joinpath("recipes", name + _SUFFIX).read_text("utf-8")
    path = Path(name).expanduser()
    if path.suffix != _SUFFIX and not path.is_file():
        raise RecipeError(
            f"no recipe is called {name!r}{nearest(name, _ORDER)}; allowed: {', '.join(_ORDER)}, or a file.toml"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no UTF-8 text"
        raise RecipeError(f"{path}: the recipe can't be read: {reason}") from error


def load_recipe(name: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Load a recipe for `finetune` by name or from a file, with settings changed.

    Parameters
    ----------
    name : str or Path
        One of `recipes()`, or a TOML file.
    settings : sequence of str
        Changes, such as ["optimizer.lr=3e-5", "data.targets=EF,ESV"].

    Returns
    -------
    Recipe
        Labels, clips, model and training.

    Raises
    ------
    RecipeError
        For unknown keys, with the nearest ones, and for values of another type or out of range.
    """
    return parse_recipe(recipe_text(str(name)), str(name), settings)


def parse_recipe(text: str, source: str, settings: Sequence[str] = ()) -> Recipe:
    """A recipe from TOML; source: what to call it in messages."""
    if len(text) > _MOST_CHARACTERS:
        raise RecipeError(f"{source}: {len(text):,} characters; a recipe has at most {_MOST_CHARACTERS:,}")
    if _LONG_NAME.search(text):
        raise RecipeError(f"{source}: a name of more than 20 parts; settings have two, such as optimizer.lr")
    try:
        raw = tomllib.loads(text)
    # A number of too many digits is a plain ValueError.
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{source}: no TOML: {brief(error)}") from error
    flat = dict(_flattened(raw))
    _check_keys(flat, source)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise RecipeError(f"--set {setting}: allowed is KEY=VALUE, such as optimizer.lr=3e-5")
        key = key.strip()
        _check_keys([key], "--set")
        flat[key] = _from_text(key, value.strip())
    values = {key: _typed(key, value, source) for key, value in flat.items()}
    if missing := [key for key in ("description",) if key not in values]:
        raise RecipeError(f"{source}: {missing[0]} is missing; a recipe says in one line what it is for")
    recipe: Recipe = _built(Recipe, values, "")
    return recipe


def to_toml(recipe: Recipe) -> str:
    """All settings of a recipe, to be read back by `parse_recipe` as the same recipe."""
    lines, sections = [], []
    for name, value in asdict(recipe).items():
        if isinstance(value, dict):
            sections += ["", f"[{name}]", *(f"{key} = {_written(item)}" for key, item in value.items())]
        else:
            lines.append(f"{name} = {_written(value)}")
    return "\n".join([*lines, *sections]) + "\n"


def recipe_differences(mine: Recipe, theirs: Recipe) -> list[str]:
    """Every setting that differs, as "optimizer.lr: mine, not theirs"; descriptions do not count."""
    a, b = (dict(_flattened(asdict(recipe))) for recipe in (mine, theirs))
    return [
        f"{key}: {_written(a[key])}, not {_written(b[key])}" for key in a if key != "description" and a[key] != b[key]
    ]


def copy_recipe(name: str, out: str | Path | None = None) -> Path:
    """Write a recipe's file, comments and all, to `out` (its name, here). Raises RecipeError if that is there."""
    path = Path(out or Path(name).stem + _SUFFIX)
    text = recipe_text(name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        reason = "it is there already" if isinstance(error, FileExistsError) else error.strerror or error
        raise RecipeError(f"{path}: the recipe can't be written: {reason}; name another file (-o)") from error
    return path


def _flattened(raw: _Settings) -> Iterable[tuple[str, Any]]:
    for name, value in raw.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


@cache
def _kinds() -> dict[str, Any]:
    """The type of every setting by its dotted key."""
    kinds: dict[str, Any] = {}
    for name, kind in get_type_hints(Recipe).items():
        if is_dataclass(kind):
            kinds |= {f"{name}.{key}": inner for key, inner in get_type_hints(kind).items()}
        else:
            kinds[name] = kind
    return kinds


def _check_keys(keys: Iterable[str], source: str) -> None:
    known = _kinds()
    unknown = [key for key in keys if key not in known]
    if not unknown:
        return
    hints = [f"  {key}{_nearest(key, known)}" for key in map(brief, unknown[:_LISTED])]
    if len(unknown) > _LISTED:
        hints.append(f"  and {len(unknown) - _LISTED} more")
    raise RecipeError(
        f"{source}: no such setting:\n" + "\n".join(hints) + "\n`panecho-embed recipes show NAME` has all of them"
    )


def _nearest(key: str, known: Iterable[str]) -> str:
    return nearest(key, known) or nearest(key.rpartition(".")[2], [name.rpartition(".")[2] for name in known])


def _from_text(key: str, text: str) -> Any:
    """A value of the command line: TOML where it is some, else the text itself; "a,b" where a list is wanted."""
    if get_origin(_kinds()[key]) is tuple and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if _kinds()[key] is str:
        return text.strip("\"'")
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _typed(key: str, value: Any, source: str) -> Any:
    kind = _kinds()[key]
    if get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        wanted = 'a list of texts, such as ["EF"]'
    elif get_args(kind):
        if value in get_args(kind):
            return value
        wanted = ", ".join(get_args(kind)) + nearest(brief(value), get_args(kind))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
        wanted = "a number below 1.8e308"
    elif type(value) is kind:
        return value
    else:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    raise RecipeError(f"{source}: {key} is {brief(repr(value))}; allowed: {wanted} (--set {key}=...)")


def _built(kind: type[Any], values: _Settings, prefix: str) -> Any:
    given: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for part in fields(kind):
        key = f"{prefix}{part.name}"
        if is_dataclass(hints[part.name]):
            given[part.name] = _built(hints[part.name], values, f"{key}.")
        elif key in values:
            given[part.name] = values[key]
    return kind(**given)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
