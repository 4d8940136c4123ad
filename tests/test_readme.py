"""The README names every command; docs/commands.md shows their help, and `python -m tests.test_readme` renews it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from panecho_embed.cli.main import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
HEAD = """# Every command, with its options

What `panecho-embed COMMAND --help` prints. Most commands are functions of the same name in Python, whose arguments are
the options: see [the Python interface](api/index.md). `panecho-embed --version --json` prints the versions of this
package, of Python and of the main dependencies.

Shell completion: put `eval "$(_PANECHO_EMBED_COMPLETE=bash_source panecho-embed)"` into `~/.bashrc` (`zsh_source` into
`~/.zshrc`), or `_PANECHO_EMBED_COMPLETE=fish_source panecho-embed | source` into fish's `config.fish`.
"""


def help_block(words: list[str]) -> str:
    result = CliRunner().invoke(
        main, [*words, "--help"], prog_name="panecho-embed", terminal_width=100, env={"COLUMNS": "100"}
    )
    return f"```text\n{result.output.rstrip()}\n```"


def commands_below(group: click.Command, words: list[str]) -> Iterator[list[str]]:
    """The words of every command, of a group's after its own."""
    if not isinstance(group, click.Group):
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        yield [*words, name]
        found = group.get_command(context, name)
        assert found is not None
        yield from commands_below(found, [*words, name])


def commands_page() -> str:
    pieces = [
        f"{'#' * (len(words) + 1)} {' '.join(words)}\n\n{help_block(words)}" for words in commands_below(main, [])
    ]
    return "\n\n".join([HEAD.rstrip(), help_block([]), *pieces]) + "\n"


def test_the_page_of_commands_shows_the_commands_own_help():
    # In a process of its own: click keeps the help option that a command was first asked with.
    command = [sys.executable, "-m", "tests.test_readme", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_command_is_named_in_the_readme():
    text = README.read_text()
    names = main.list_commands(click.Context(main))
    assert [name for name in names if not re.search(rf"(`|panecho-embed ){name}\b", text)] == []


def test_every_command_is_in_the_table_of_the_first_page():
    text = (ROOT / "docs" / "index.md").read_text()
    assert [name for name in main.list_commands(click.Context(main)) if f"`{name}`" not in text] == []


def test_the_commands_of_continuous_integration_stand_in_the_readme():
    text = README.read_text()
    assert [name for name in ("make test", "make check", "make demo") if name not in text] == []


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []


def test_every_file_that_the_readme_names_is_there():
    named = r"[`(]((?:benchmarks|notebooks|docs|panecho_embed|probes)(?:/[\w./-]+)?)[`)]"
    for name in re.findall(named, README.read_text()):
        assert (ROOT / name).exists(), name


def test_every_section_that_the_readme_links_to_is_there():
    text = README.read_text()
    headings = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors


if __name__ == "__main__":
    if "--check" in sys.argv:
        old = COMMANDS.read_text() != commands_page()
        sys.exit("renew docs/commands.md: python -m tests.test_readme" if old else None)
    COMMANDS.write_text(commands_page())
