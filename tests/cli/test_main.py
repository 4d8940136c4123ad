from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from panecho_embed._version import __version__
from panecho_embed.cli.main import main

HEAVY = (
    "torch",
    "sklearn",
    "faiss",
    "timm",
    "cv2",
    "pandas",
    "h5py",
    "matplotlib",
    "fastapi",
    "uvicorn",
    "PIL",
    "umap",
)


def commands(group: click.Group = main, path: tuple[str, ...] = ()):
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("path", "command"), [pytest.param(p, c, id=" ".join(p)) for p, c in commands()])
def test_every_command_and_every_option_has_help(path, command):
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{' '.join(path)} {option.opts[0]} has no help"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from panecho_embed.cli.main import main; main(['--help'], standalone_mode=False); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_commands_of_other_packages_join():
    result = CliRunner().invoke(main, ["--help"])
    assert "probe" in result.output
    assert CliRunner().invoke(main, ["probe", "--help"]).exit_code == 0


def test_an_unknown_command_is_wrong_usage():
    result = CliRunner().invoke(main, ["extrct"])
    assert result.exit_code == 2
    assert "No such command 'extrct'; nearest: extract" in result.output


def test_python_dash_m_is_the_same_command():
    result = subprocess.run(
        [sys.executable, "-m", "panecho_embed", "--version"], capture_output=True, text=True, check=True
    )
    assert "panecho-embed, version" in result.stdout


def test_versions_as_json_import_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from panecho_embed.cli.main import main\n"
        "print(CliRunner().invoke(main, ['--version', '--json']).output, file=sys.stderr)\n"
        "print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    versions = json.loads(done.stderr)
    assert versions["panecho-embed"] == __version__
    assert versions["numpy"]


def test_json_belongs_to_version():
    done = CliRunner().invoke(main, ["--json"])
    assert done.exit_code == 2
    assert "--json belongs to --version" in done.output
