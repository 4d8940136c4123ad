"""The documentation: links, navigation, API pages, and every code block, executed or checked for its options."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

import panecho_embed
import probes
from panecho_embed.cli.main import main
from probes.cli import probe
from probes.cli.probing import _registered_command
from tests.test_readme import commands_below

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)")

NOT_EXECUTED = {
    "README.md": "PanEcho's weights",
    "python.md": "PanEcho's weights",
    "models.md": "PanEcho's weights",
    "predict.md": "PanEcho's weights",
    "finetuning.md": "a run of hours",
    "mimic.md": "MIMIC-IV-ECHO",
    "datasets.md": "a public data set",
    "probing.md": "executed in tests/probes/test_package.py",
    "file-format.md": "executed on a small file below",
}
"""Pages whose Python needs weights or data of others, and which: their names and arguments are checked."""


def blocks(path: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(path.read_text(encoding="utf-8")) if language in languages]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors_of(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", re.sub(r"[`*]", "", heading).lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_link_inside_the_project_is_alive(path):
    dead = []
    for link in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors_of(target)):
            dead.append(link)
    assert dead == []


def test_the_navigation_names_every_page_once():
    nav = re.findall(r"^ +- (?:.+: )?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)


@pytest.mark.parametrize("module", [panecho_embed, probes], ids=lambda module: module.__name__)
def test_every_public_name_is_on_an_api_page(module):
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    public = [name for name in module.__all__ if name != "__version__"]
    assert [name for name in public if f"heading: {module.__name__}.{name}\n" not in text] == []


def test_every_name_on_an_api_page_exists():
    text = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    named = re.findall(r"^::: ([\w.]+)", text, re.MULTILINE)
    assert len(named) > 50
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


COMMANDS = {" ".join(words) for words in commands_below(main, [])}


def lines_of(block: str) -> list[list[str]]:
    """The words of every `panecho-embed` command of a block."""
    joined = re.sub(r"\\\n\s*", " ", block)
    found = []
    for line in joined.splitlines():
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if word == "panecho-embed"]
        starts += [i + 1 for i, word in enumerate(words[:-1]) if word == "-m" and words[i + 1] == "panecho_embed"]
        for start in starts:
            rest = words[start + 1 :]
            ends = [i for i, word in enumerate(rest) if word in ("&&", "|", ";", ">")]
            found.append(rest[: ends[0]] if ends else rest)
    return found


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None and command is probe:
            # One that the page's own entry point registers.
            found = _registered_command(words[0])
        assert found is not None, f"no command {words[0]!r}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_the_options_of_every_command_line_exist(path):
    for block in blocks(path, "sh", "bash", "console"):
        for words in lines_of(block):
            command, given = command_of(words)
            known = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts) if isinstance(p, click.Option)}
            for at, word in enumerate(given):
                # "-o", "--out", not the value "-0.5" nor "--clips 4", the plan of a --plan.
                if not re.fullmatch(r"-\w|--[\w-]+", word) or word in ("-h", "--help", "--version"):
                    continue
                assert word in known, f"{' '.join(words)}: no option {word}"
                choices = known[word].type
                if isinstance(choices, click.Choice) and given[at + 1].isidentifier():
                    assert given[at + 1] in choices.choices, f"{' '.join(words)}: {given[at + 1]!r} is not allowed"


@pytest.mark.parametrize("path", [path for path in TEXTS if blocks(path, "python")], ids=name_of)
def test_every_python_block_is_valid_and_imports_what_exists(path):
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("panecho_embed", "probes"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def run_page(path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks(path, "python"):
        exec(compile(block, name_of(path), "exec"), names)
    return names


def test_the_backbone_of_the_extension_page_works(monkeypatch):
    from panecho_embed.models import backbones

    monkeypatch.setattr(backbones, "_factories", dict(backbones._factories))
    assert run_page(DOCS / "extending.md")["load_backbone"]("tiny").dim == 8


def test_an_embedding_file_is_read_as_the_page_says(tmp_path, monkeypatch):
    from tests.search.conftest import vectors_file

    vectors_file(tmp_path / "echos.h5")
    monkeypatch.chdir(tmp_path)
    assert len(run_page(DOCS / "file-format.md")["patients"]) == len(panecho_embed.EmbeddingFile("echos.h5"))


@pytest.mark.slow
def test_the_python_of_the_other_pages_runs_on_phantoms(tmp_path, monkeypatch):
    """In a folder with the phantoms that the install page makes."""
    monkeypatch.chdir(tmp_path)
    found = run_page(DOCS / "api" / "index.md")
    assert len(found["found"].table()) == 3
    assert "EF" in found["run"].answers()[0]
    others = [p for p in PAGES if blocks(p, "python") and p.name not in (*NOT_EXECUTED, "extending.md", "index.md")]
    for path in others:
        run_page(path)


def test_pages_that_are_not_executed_have_python():
    by_name = {path.name: path for path in TEXTS}
    assert [name for name in NOT_EXECUTED if not blocks(by_name[name], "python")] == []


def _helps(command: click.Command) -> list[str]:
    return [parameter.help or "" for parameter in command.params if isinstance(parameter, click.Option)]


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_option_is_explained_in_a_sentence(words):
    """A capital, a full stop, at least two words; a default stands after it in brackets."""
    for text in _helps(command_of(words.split())[0]):
        sentence = re.sub(r"\s*\[default: .*\]$", "", text).strip()
        assert re.match(r"[A-Z]|--|\w+ is", sentence), text
        assert sentence.endswith((".", ")")), text
        assert len(sentence.split()) >= 2, text
