"""The whole checkup, with a backbone that costs nothing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from panecho_embed.checkup import run, speed
from panecho_embed.checkup.findings import DecodingSpeed, EncodingSpeed, Forecast
from panecho_embed.checkup.speed import forecast
from panecho_embed.cli.main import main
from panecho_embed.core.errors import ArgumentError, MediaError
from tests.tiny import tiny


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("caches")
    monkeypatch.setattr(run, "load_backbone", lambda name: tiny())
    # Too little work for a trial of engines.
    monkeypatch.setattr(speed, "_expected_videos", lambda *arguments: 1)
    monkeypatch.delenv("PANECHO_EMBED_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(elsewhere))
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(elsewhere))


def test_it_measures_and_forecasts(tmp_path):
    told = []
    found = run.doctor(tmp_path, videos=10, seconds=0.2, told=told.append)
    assert tuple(told) == found.checks
    assert found.exit_code == 0
    assert {speed.kind for speed in found.decoding} == {"AVI", "DICOM"}
    assert found.encoding[0].precision == "fp32"
    assert all(speed.frames_per_second > 0 for speed in (*found.decoding, *found.encoding))
    assert len(found.forecasts) == len(found.decoding) * len(found.encoding)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_json_alone(tmp_path):
    result = CliRunner().invoke(main, ["doctor", "-o", str(tmp_path), "--seconds", "0.2", "--json", "--videos", "7"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["forecasts"][0]["videos"] == 7
    assert {check["status"] for check in found["checks"]} <= {"ok", "warning"}


def test_a_problem_makes_the_exit_code_1_and_comes_with_what_mends_it(tmp_path):
    result = CliRunner().invoke(main, ["doctor", "-o", str(tmp_path / "no" / "out.h5"), "--seconds", "0"])
    assert result.exit_code == 1
    assert "PROBLEM" in result.output
    assert "-> mkdir -p" in result.output
    assert "extract can't run here; problems: 1" in result.output


def test_decoders_that_fail_on_everything_are_a_problem(monkeypatch, tmp_path):
    def broken(*arguments):
        raise MediaError("no decoder")

    monkeypatch.setattr(run, "decoding_speed", broken)
    found = run.doctor(tmp_path, seconds=0.2)
    assert [check.topic for check in found.problems] == ["speed", "speed"]
    assert found.forecasts == ()


def test_no_room_for_the_trial_is_a_warning(monkeypatch, tmp_path):
    def full(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "phantom_videos", full)
    found = run.doctor(tmp_path, seconds=0.2)
    assert found.exit_code == 0
    assert "No space left" in next(check.text for check in found.checks if check.topic == "speed")


def test_a_file_that_no_decoder_reads_is_named(tmp_path):
    (tmp_path / "broken.avi").write_bytes(b"RIFF")
    with pytest.raises(MediaError):
        speed.decoding_speed("AVI", tmp_path / "broken.avi", tiny(), 0.1)


@pytest.mark.parametrize("options", [{"videos": 0}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_numbers_that_are_not_allowed(options, tmp_path):
    with pytest.raises(ArgumentError):
        run.doctor(tmp_path, **options)


def test_on_a_cpu_decoding_takes_its_share_and_beside_a_gpu_it_overlaps():
    encoding, decoding = EncodingSpeed("fp32", "eager", 224, 64.0), DecodingSpeed("AVI", 112, 112, 32.0)
    assert forecast(10, encoding, decoding, 768, 2, "cpu").seconds == pytest.approx(20)
    assert forecast(10, encoding, decoding, 768, 4, "cuda").seconds == pytest.approx(10)


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (720, "12 min"), (5.1 * 3600, "5.1 h"), (3.2 * 86400, "3.2 days")]
)
def test_times_for_people(seconds, text):
    (_, check) = speed.forecast_checks([Forecast(1, "AVI", "fp32", seconds, 10**6)])
    assert check.text == f"AVI, fp32: {text}"
