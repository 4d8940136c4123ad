"""The README and docs/commands.md show the commands' own help; `python -m tests.test_readme` renews them."""

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
BLOCK = re.compile(r"<!-- help: panecho-embed(?P<command>[^>]*?) -->\n.*?<!-- end -->", re.DOTALL)
HEAD = """# Every command, with its options

What `panecho-embed COMMAND --help` prints. `doctor`, `extract`, `merge`, `pool`, `predict` and
`reclip` are functions of `panecho_embed` too, whose arguments are the options.
"""


def help_block(words: list[str]) -> str:
    result = CliRunner().invoke(
        main, [*words, "--help"], prog_name="panecho-embed", terminal_width=100, env={"COLUMNS": "100"}
    )
    return f"```text\n{result.output.rstrip()}\n```"


def renewed(text: str) -> str:
    def block(match: re.Match[str]) -> str:
        return f"<!-- help: panecho-embed{match['command']} -->\n{help_block(match['command'].split())}\n<!-- end -->"

    return BLOCK.sub(block, text)


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
    return "\n\n".join([HEAD.rstrip(), *pieces]) + "\n"


def as_they_should_be() -> dict[Path, str]:
    return {README: renewed(README.read_text()), COMMANDS: commands_page()}


def test_the_readme_and_the_page_of_commands_show_the_commands_own_help():
    assert BLOCK.search(README.read_text())
    # In a process of its own: click keeps the help option that a command was first asked with.
    command = [sys.executable, "-m", "tests.test_readme", "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_command_has_a_line_in_the_readme():
    text = README.read_text().partition("## Commands")[0]
    assert [name for name in main.list_commands(click.Context(main)) if f"`{name}`" not in text] == []


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
    made = as_they_should_be()
    if "--check" in sys.argv:
        old = [path.name for path, text in made.items() if path.read_text() != text]
        sys.exit(f"renew {' and '.join(old)}: python -m tests.test_readme" if old else None)
    for path, text in made.items():
        path.write_text(text)
