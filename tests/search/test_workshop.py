"""Videos that hang or crash their decoder cost their own picture alone."""

from __future__ import annotations

import pytest

from panecho_embed.core.errors import MediaError
from panecho_embed.search.server.workshop import Workshop, draw
from tests.search import stubs


@pytest.fixture(scope="module")
def workshop():
    made = Workshop(seconds=8)
    yield made
    made.close()


def test_a_decoder_that_dies_or_hangs_is_not_tried_again_and_others_go_on(workshop, films):
    good = str(films.with_name("PHANTOM-0002-A4C-0.npy"))
    with pytest.raises(MediaError, match="process died"):
        workshop.make(stubs.die, "crashes.avi")
    assert workshop.make(draw, good, "still", 0.0).media_type == "image/jpeg"
    workshop._seconds = 0.5
    with pytest.raises(MediaError, match=r"longer than 0\.5 s"):
        workshop.make(stubs.hang, "hangs.avi")
    for name, why in (("crashes.avi", "process died"), ("hangs.avi", "longer than")):
        with pytest.raises(MediaError, match=why):
            workshop.make(draw, name, "still", 0.0)
    workshop._seconds = 8
    assert workshop.make(draw, good, "clip", 30.0).media_type == "video/mp4"


def test_a_file_that_is_no_video_says_so_each_time(workshop, tmp_path):
    for _ in range(2):
        with pytest.raises(MediaError, match="no such file"):
            workshop.make(draw, str(tmp_path / "none.avi"), "still", 0.0)
