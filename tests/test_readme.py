"""The README shows the commands' own help; `python -m tests.test_readme` renews it."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from panecho_embed.cli.main import main

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"<!-- help: panecho-embed(?P<command>[^>]*?) -->\n.*?<!-- end -->", re.DOTALL)


def renewed(text: str) -> str:
    def block(match: re.Match[str]) -> str:
        command = match["command"]
        result = CliRunner().invoke(
            main, [*command.split(), "--help"], prog_name="panecho-embed", terminal_width=100, env={"COLUMNS": "100"}
        )
        return f"<!-- help: panecho-embed{command} -->\n```text\n{result.output.rstrip()}\n```\n<!-- end -->"

    return BLOCK.sub(block, text)


def test_the_readme_shows_the_commands_own_help():
    text = README.read_text()
    assert len(BLOCK.findall(text)) >= 2
    assert renewed(text) == text, "renew it: python -m tests.test_readme"


def test_every_file_that_the_readme_names_is_there():
    for name in re.findall(r"`((?:benchmarks|notebooks|docs|panecho_embed|probes)/[\w./-]+)`", README.read_text()):
        assert (README.parent / name).exists(), name


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
