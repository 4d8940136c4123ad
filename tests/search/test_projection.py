from __future__ import annotations

import numpy as np
import pytest

from panecho_embed.retrieval import Collection
from panecho_embed.retrieval.projection import Maps


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(bytes(whole))


def shorten(path):
    saved = dict(np.load(path))
    np.savez(path, bound_to=saved["bound_to"], pca=saved["pca"][:3])


@pytest.mark.parametrize("damage", [halve, flip, shorten])
def test_a_damaged_map_is_made_anew(emb, damage):
    whole = Maps(Collection(emb)).points("pca")
    damage(Maps(Collection(emb)).path)
    np.testing.assert_array_equal(Maps(Collection(emb)).points("pca"), whole)
