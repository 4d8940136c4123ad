"""Memory stays flat: ten times the videos need no more of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from panecho_embed.phantoms import write_studies

PEAK = """
import resource, sys
import torch
torch.set_num_threads(1)
from panecho_embed.extraction.run import extract
from tests.tiny import tiny
summary = extract(sys.argv[1], sys.argv[2], backbone=tiny(), workers=1)
assert summary.exit_code == 0
print(summary.done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_on_400_videos_is_within_15_percent_of_that_on_40(tmp_path):
    write_studies(tmp_path / "studies", layout="echonet-dynamic", patients=10, num_frames=24)
    videos = sorted((tmp_path / "studies" / "Videos").glob("*.avi"))
    peaks = {}
    for copies in (4, 40):
        folder = tmp_path / f"times{copies}"
        folder.mkdir()
        for i in range(copies):
            for video in videos:
                shutil.copy(video, folder / f"{i}-{video.name}")
        code = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / f"{copies}.h5")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(code, capture_output=True, text=True, check=True, env=environment)
        done, peak = map(int, result.stdout.split())
        peaks[done] = peak
    assert peaks[400] < 1.15 * peaks[40], peaks
