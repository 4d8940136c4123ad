from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.cli.printable import escape_controls, printable_streams
from panecho_embed.cli.search import print_table
from panecho_embed.core.records import VideoRef
from panecho_embed.models import backbones
from tests.test_extraction import moving
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("over\rwritten\x9b8m", r"over\rwritten\x9b8m"),
        ("right to left \u202e", r"right to left \u202e"),
        ("two\nlines\tand\r\nµ é 心 🫀 \xa0", "two\nlines\tand\r\nµ é 心 🫀 \xa0"),
    ],
)
def test_what_can_not_be_printed_is_an_escape(text, shown):
    assert escape_controls(text) == shown


def test_progress_bars_may_go_back_and_up_but_no_more():
    assert escape_controls("\r 50% \x1b[31m", bars=True) == "\r 50% \\x1b[31m"
    assert escape_controls("\x1b[A\x1b[A", bars=True) == "\x1b[A\x1b[A"


def test_a_message_does_not_pass_for_a_bar():
    message = "Error: nothere\rok: 5 of 5 videos done\x1b[A.csv is not there\n"
    assert escape_controls(message, bars=True) == escape_controls(message)


def test_the_streams_are_as_before_afterwards(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with printable_streams():
        print("a\x1b")
    print("b\x1b")
    stream.seek(0)
    assert stream.read() == "a\\x1b\nb\x1b\n"


def test_ids_and_messages_of_a_file_do_not_reach_the_terminal_as_they_are(make_file):
    video = VideoRef("v\x1b]0;title\x07", "s", "p", "v.avi")
    path = make_file("x.h5", [video], rows=[0])
    result = CliRunner().invoke(main, ["info", str(path), "--failures"])
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output
    assert r"v\x1b]0;title\x07: [decode]" in result.output


FORGED = "v.npy\n20 of 20 videos done\t\u2028ok"


def test_a_line_end_in_a_name_forges_no_line(tmp_path, monkeypatch):
    monkeypatch.setitem(backbones._factories, "tiny", lambda weights, seed: tiny())
    studies = tmp_path / "studies"
    studies.mkdir()
    np.save(studies / "a.npy", moving(20))
    (studies / f"{FORGED}.npy").write_bytes(b"no array")
    (studies / f"notes.{FORGED}").write_bytes(b"text")
    out, table = tmp_path / "out.h5", tmp_path / "manifest.csv"
    for arguments, code in (
        (["extract", str(studies), "-o", str(out), "--backbone", "tiny", "--workers", "0"], 3),
        (["info", str(out), "--failures"], 0),
        (["manifest", str(studies), "-o", str(table)], 0),
        (["verify", str(out)], 0),
        (["search", str(out), "--video", "a.npy"], 0),
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == code, result.output
        assert not [line for line in result.output.splitlines() if line.startswith(("20 of 20", "ok"))], result.output
        if arguments[0] in ("extract", "info"):
            assert r"v.npy\n20 of 20 videos done\t\u2028ok.npy: " in result.output


def test_a_table_has_a_line_per_row(capsys):
    print_table([{"video_id": FORGED, "rank": 1}], ["rank", "video_id"])
    assert len(capsys.readouterr().out.splitlines()) == 2
