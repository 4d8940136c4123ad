"""Videos that hang or crash their decoder cost their own picture alone."""

from __future__ import annotations

import pytest

from panecho_embed.core.errors import MediaError
from panecho_embed.retrieval.server.picture_workers import PictureWorkers, draw
from tests.search import stubs


@pytest.fixture(scope="module")
def picture_workers():
    made = PictureWorkers(seconds=8)
    yield made
    made.close()


def test_a_decoder_that_dies_or_hangs_is_not_tried_again_and_others_go_on(picture_workers, films):
    good = str(films.with_name("PHANTOM-0002-A4C-0.npy"))
    with pytest.raises(MediaError, match="process died"):
        picture_workers.make(stubs.die, "crashes.avi")
    assert picture_workers.make(draw, good, "still", 0.0).media_type == "image/jpeg"
    picture_workers._seconds = 0.5
    with pytest.raises(MediaError, match=r"longer than 0\.5 s"):
        picture_workers.make(stubs.hang, "hangs.avi")
    for name, why in (("crashes.avi", "process died"), ("hangs.avi", "longer than")):
        with pytest.raises(MediaError, match=why):
            picture_workers.make(draw, name, "still", 0.0)
    picture_workers._seconds = 8
    assert picture_workers.make(draw, good, "clip", 30.0).media_type == "video/mp4"


def test_a_file_that_is_no_video_says_so_each_time(picture_workers, tmp_path):
    for _ in range(2):
        with pytest.raises(MediaError, match="no such file"):
            picture_workers.make(draw, str(tmp_path / "none.avi"), "still", 0.0)
