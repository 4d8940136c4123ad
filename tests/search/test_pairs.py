"""The order in which a neighbour's videos are shown beside the query's."""

from __future__ import annotations

import numpy as np

from panecho_embed.retrieval.collection import Items
from panecho_embed.retrieval.find import Query
from panecho_embed.retrieval.server.library import paired


def at(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def views(*names):
    return np.array(names, dtype=object)


def order(video_views, video_angles, query_views, query_angles):
    items = Items("video", views(*"abcdef"[: len(video_views)]), at(*video_angles), {"view": views(*video_views)})
    query = Query("q", at(*query_angles), views(*query_views), "study")
    rows, match = paired(items, np.arange(len(video_views)), query)
    return "".join(items.ids[rows]), np.degrees(np.arccos(np.clip(match, -1, 1))).round()


def test_the_best_of_every_shared_view_comes_first_and_what_has_no_counterpart_last():
    names, angles = order(["A4C", "A4C", "PLAX", "SAX"], [10, 5, 60, 0], ["A4C", "PLAX"], [0, 90])
    assert names == "bcad"
    assert angles.tolist() == [5, 30, 10, 0]


def test_a_video_is_compared_with_the_querys_of_its_view():
    names, angles = order(["PLAX"], [0], ["A4C", "PLAX"], [0, 90])
    assert (names, angles.tolist()) == ("a", [90])


def test_without_views_the_nearest_comes_first():
    names, angles = order(["", "", ""], [50, 10, 30], ["", ""], [0, 90])
    assert names == "bca"
    assert angles.tolist() == [10, 30, 40]
