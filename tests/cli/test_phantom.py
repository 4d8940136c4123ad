from __future__ import annotations

import subprocess
import sys

import cv2
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.cli.next_step import next_step
from panecho_embed.cli.phantom import phantom
from panecho_embed.models.weights import locate
from panecho_embed.phantoms import LAYOUTS


def run(*words, expect=0):
    result = CliRunner().invoke(main, ["phantom", *(str(word) for word in words)])
    assert result.exit_code == expect, result.output
    return result


def test_it_says_what_it_wrote_and_what_comes_next(tmp_path):
    out = tmp_path / "my studies"
    text = run(out, "--patients", "2", "--frames", "3", "--size", "48").stdout
    assert f"2 videos of 2 synthetic patients (echonet-dynamic) in {out}" in text
    # Random weights, if PanEcho's are not on this computer, so that it works without the network.
    chosen = "" if locate("panecho") else " --backbone random"
    assert f"next: {next_step('extract', out, '-o', f'{out}.h5')}{chosen}" in text.splitlines()


def test_options_reach_the_videos(tmp_path):
    run(tmp_path / "o", "--patients", "1", "--frames", "4", "--fps", "20", "--size", "48x64", "--seed", "3")
    video = cv2.VideoCapture(str(next((tmp_path / "o").rglob("*.avi"))))
    facts = (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
    assert [video.get(fact) for fact in facts] == [4, 20, 48, 64]
    video.release()


def test_image_folders_come_with_a_manifest_to_extract(tmp_path):
    text = run(tmp_path / "o", "--layout", "folders", "--patients", "1", "--frames", "1", "--size", "48").stdout
    assert f"extract {tmp_path / 'o' / 'manifest.csv'}" in text


def test_dicom_comes_with_labels(tmp_path):
    flags = ["--layout", "dicom", "--patients", "1", "--videos-per-study", "1", "--frames", "2", "--size", "150x200"]
    assert (
        f"labels, for --labels of `probe` and `audit`: {tmp_path / 'o' / 'labels.csv'}"
        in run(tmp_path / "o", *flags).stdout
    )


@pytest.mark.parametrize("size", ["big", "10x20x30", "-5", "112x"])
def test_a_size_that_is_none(tmp_path, size):
    assert "is neither a side (112) nor height x width (600x800)" in run(tmp_path, f"--size={size}", expect=2).stderr


def test_a_folder_of_somebody_else_is_wrong_usage(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "choose another folder" in run(tmp_path, "--patients", "1", expect=2).stderr


def test_every_layout_can_be_chosen():
    [layout] = [option for option in phantom.params if option.name == "layout"]
    assert tuple(layout.type.choices) == LAYOUTS


def test_help_loads_no_image_library():
    code = "import sys, panecho_embed.cli.phantom; sys.exit(any(m in sys.modules for m in ('cv2', 'pydicom', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
