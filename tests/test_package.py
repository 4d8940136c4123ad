"""What `import panecho_embed` offers: every command as a function of its name, documented, and nothing heavy."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import types

import click
import pytest

import panecho_embed
import probes
from panecho_embed.cli.main import main
from tests.test_readme import commands_below

NO_FUNCTION = {
    "demo": "runs other commands on a terminal",
    "serve": "runs a server until it is stopped",
    "recipes copy": "copies one file",
}
"""Commands that have no function, and why."""

CALLED = {
    "weights list": "weights",
    "weights fetch": "fetch_weights",
    "weights verify": "verify_weights",
    "recipes list": "recipes",
    "recipes show": "load_recipe",
}
"""Functions of commands in a group; those of `probe` are in `probes`."""


def function_of(words: list[str]) -> object:
    name = " ".join(words)
    if words[0] == "probe" and len(words) == 2:
        return getattr(probes, words[1]) if words[1] in ("compare", "apply") else probes.probe
    if words[0] in ("probe", "audit", "benchmark"):
        return getattr(probes, name)
    return getattr(panecho_embed, CALLED.get(name, name))


@pytest.mark.parametrize("words", list(commands_below(main, [])), ids=" ".join)
def test_every_command_has_a_function(words):
    if " ".join(words) not in NO_FUNCTION:
        assert inspect.isfunction(function_of(words))


@pytest.mark.parametrize("name", NO_FUNCTION)
def test_the_exceptions_are_commands_without_a_function(name):
    assert name.split() in list(commands_below(main, []))
    assert name not in panecho_embed.__all__


def test_no_room_or_module_hides_a_name():
    for module in (panecho_embed, probes):
        for name in module.__all__:
            assert importlib.util.find_spec(f"{module.__name__}.{name}") is None, name
            assert not isinstance(getattr(module, name), types.ModuleType)


PUBLIC = [name for name in panecho_embed.__all__ if name != "__version__"]
PROBING = ("probe", "compare", "apply", "audit")
DOCUMENTED = [*((panecho_embed, name) for name in PUBLIC), *((probes, name) for name in PROBING)]


@pytest.mark.parametrize(("module", "name"), DOCUMENTED, ids=lambda value: getattr(value, "__name__", value))
def test_every_argument_of_a_public_name_is_documented(module, name):
    thing = getattr(module, name)
    text = inspect.getdoc(thing) or ""
    arguments = [argument for argument in inspect.signature(thing).parameters if not argument.startswith("_")]
    section = re.split(r"\n(?:Returns|Attributes|Raises)\n", text.partition("Parameters\n----------\n")[2])[0]
    # A line that is not indented names one argument, or several that share a description.
    documented = {
        word.strip("* ")
        for line in section.splitlines()
        if line[:1].strip()
        for word in line.partition(" : ")[0].split(",")
    }
    assert [argument for argument in arguments if argument not in documented] == []
    if inspect.isfunction(thing) and name != "register_backbone":
        assert "Returns\n-------" in text


def test_functions_stay_functions_once_their_modules_are_loaded():
    for home in panecho_embed._HOME.values():
        importlib.import_module(f"panecho_embed.{home.partition(':')[0]}")
    for name in panecho_embed._HOME:
        assert callable(getattr(panecho_embed, name))


def test_importing_the_package_costs_nothing():
    code = "import sys, panecho_embed, probes; print([m for m in ('torch', 'numpy', 'h5py') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serve'"):
        panecho_embed.serve  # noqa: B018
    assert isinstance(main, click.Group)


def test_results_have_tables_and_are_shown_in_notebooks(tmp_path):
    from tests.search.conftest import vectors_file

    path = vectors_file(tmp_path / "x.h5")
    file = panecho_embed.EmbeddingFile(path)
    found = panecho_embed.search(path, study=str(file.videos["study_id"][0]), k=2)
    assert list(found.table()["rank"]) == [1, 2]
    assert found._repr_html_().startswith("<iframe srcdoc=")
    assert f"<td>{file.provenance.backbone}</td>" in file._repr_html_()
    assert panecho_embed.verify(path)
    assert panecho_embed.info(path)["rows"] == len(file)
