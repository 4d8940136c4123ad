"""Batches: what memory allows, what a GPU computes ahead, and what the profile counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panecho_embed.core.errors import NoMemoryError
from panecho_embed.core.records import VideoFacts
from panecho_embed.extraction.decode import DecodedVideo
from panecho_embed.extraction.encode import Encoder
from panecho_embed.extraction.image_engine import EagerEngine
from panecho_embed.models.backbones import Backbone, MeanOverFrames
from tests.tiny import FEEDING, INFO, Patches, tiny

OUT_OF_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")


def videos(*lengths):
    generator = np.random.default_rng(0)
    for i, length in enumerate(lengths):
        pixels = generator.integers(0, 256, (length, 3, 32, 32), dtype=np.uint8)
        clips = np.stack([np.arange(length // 2), np.arange(length // 2) + 1])
        yield i, DecodedVideo(f"v{i}", f"v{i}.avi", pixels, (clips,), VideoFacts("done"))


def encoded(encoder, *lengths):
    done = [one for position, video in videos(*lengths) for one in encoder.add(position, video)]
    done += encoder.flush()
    assert [position for position, _ in done] == list(range(len(lengths)))
    return np.concatenate([video.values[0] for _, video in done])


class Small(Patches):
    """Memory for so many frames and no more."""

    def __init__(self, room: int, error: Exception = OUT_OF_MEMORY) -> None:
        super().__init__()
        self.room, self.error, self.batches = room, error, []

    def forward(self, frames):
        if len(frames) > self.room:
            raise self.error
        self.batches.append(len(frames))
        return super().forward(frames)


class SmallClips(MeanOverFrames):
    """Memory for one clip."""

    def forward(self, frames):
        if len(frames) > 1:
            raise MemoryError
        return super().forward(frames)


def backbone(encoder, clips=None):
    return Backbone("small", encoder, clips or MeanOverFrames(), 12, 12, FEEDING, INFO)


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_batches_are_halved_until_memory_suffices(error):
    encoder, said = Small(5, error), []
    values = encoded(Encoder(backbone(encoder), batch_pictures=16, announce=said.append), 9, 20, 7)
    np.testing.assert_allclose(values, encoded(Encoder(tiny(), batch_pictures=16), 9, 20, 7), atol=1e-5)
    assert max(encoder.batches) == 4
    assert [text.split(" from now on")[0] for text in said] == [
        "memory does not suffice for 16 pictures at once: 8",
        "memory does not suffice for 8 pictures at once: 4",
    ]


def test_an_engine_for_which_memory_does_not_suffice_is_chosen_again_by_fewer_frames(monkeypatch):
    asked = []

    def choose(backbone, backend, precision, batch_pictures, batch, expected, announce):
        asked.append((batch_pictures, len(batch)))
        if len(batch) > 5:
            raise OUT_OF_MEMORY
        return EagerEngine(backbone, precision)

    monkeypatch.setattr("panecho_embed.extraction.encode.choose_engine", choose)
    encoder = Encoder(tiny(), batch_pictures=16, engine="auto")
    np.testing.assert_allclose(encoded(encoder, 9, 8), encoded(Encoder(tiny(), batch_pictures=16), 9, 8), atol=1e-5)
    assert asked[:3] == [(16, 16), (8, 8), (4, 4)]


def test_clips_are_halved_until_memory_suffices():
    said = []
    values = encoded(Encoder(backbone(Patches(), SmallClips()), batch_pictures=16, announce=said.append), 9, 8)
    np.testing.assert_allclose(values, encoded(Encoder(tiny(), batch_pictures=16), 9, 8), atol=1e-5)
    assert said == ["memory does not suffice for the clips at once: 1 from now on"]


def test_not_even_one_frame_fits():
    with pytest.raises(NoMemoryError, match=r"a single picture on cpu.*--image-size"):
        encoded(Encoder(backbone(Small(0)), batch_pictures=4), 9)


def test_an_error_that_is_not_about_memory_stays_what_it_is():
    with pytest.raises(RuntimeError, match="broken"):
        encoded(Encoder(backbone(Small(0, RuntimeError("broken"))), batch_pictures=4), 9)


def test_an_engine_of_one_batch_size_gives_way_to_eager(monkeypatch):
    class Fixed(EagerEngine):
        name, batch_pictures = "compiled", 16

        def __call__(self, batch):
            raise MemoryError

    monkeypatch.setattr("panecho_embed.extraction.encode.choose_engine", lambda *_: Fixed(tiny(), "fp32"))
    encoder = Encoder(tiny(), batch_pictures=16, engine="auto")
    np.testing.assert_allclose(encoded(encoder, 9, 8), encoded(Encoder(tiny(), batch_pictures=16), 9, 8), atol=1e-5)
    assert (encoder.engines, encoder.batch_pictures) == (["compiled", "eager"], 8)


@pytest.mark.parametrize("ahead", [1, 3])
def test_computing_ahead_changes_no_value(ahead):
    values = encoded(Encoder(tiny(), batch_pictures=4, ahead=ahead), 9, 2, 20, 7)
    np.testing.assert_array_equal(values, encoded(Encoder(tiny(), batch_pictures=4), 9, 2, 20, 7))


def test_work_that_is_no_longer_wanted_ends_before_the_next_run_of_an_encoder():
    asked = []

    def go_on():
        asked.append(1)
        if len(asked) == 4:
            raise KeyError("not wanted")

    small = Small(99)
    with pytest.raises(KeyError):
        encoded(Encoder(backbone(small), batch_pictures=4, clip_batch=1, go_on=go_on), 8)
    # Two runs over frames, of which the first was tried out, and one over clips.
    assert (small.batches, len(asked)) == ([4, 4], 4)
