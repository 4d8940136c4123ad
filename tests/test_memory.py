"""Memory stays flat: ten times the videos need no more of it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from panecho_embed.phantom import write_studies

PEAK = """
import resource, sys
import torch
torch.set_num_threads(1)
from panecho_embed.extraction import extract
summary = extract(sys.argv[1], sys.argv[2], backbone="random", image_size=32, workers=1)
assert summary.exit_code == 0 and summary.done == int(sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_on_400_videos_is_within_15_percent_of_that_on_40(tmp_path):
    write_studies(tmp_path / "studies", layout="echonet-dynamic", patients=40, num_frames=40)
    videos = sorted((tmp_path / "studies" / "Videos").glob("*.avi"))
    peaks = {}
    for copies in (1, 10):
        folder = tmp_path / f"times{copies}"
        folder.mkdir()
        for i in range(copies):
            for video in videos:
                shutil.copy(video, folder / f"{i}-{video.name}")
        count = copies * len(videos)
        code = [sys.executable, "-c", PEAK, str(folder), str(tmp_path / f"{copies}.h5"), str(count)]
        result = subprocess.run(code, capture_output=True, text=True, check=True)
        peaks[count] = [int(number) / 1024 for number in result.stdout.split()]
    print(f"peak MiB (main, worker): {peaks}")
    for few, many in zip(peaks[40], peaks[400], strict=True):
        assert many < 1.15 * few
