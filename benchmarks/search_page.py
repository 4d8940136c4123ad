"""Time per answer of the page over many videos, against the plain definition of each similarity in the same run.

    python benchmarks/search_page.py --videos 100000
    python benchmarks/search_page.py --videos 100000 --videos-per-study 50

The page is the real one, asked over HTTP; its videos do not exist, so none can be read. The vectors are those of
search_indexes.py. The plain definition is a few lines of numpy over all videos, with nothing prepared but unit vectors.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import uvicorn
from search_indexes import peak_gb, write_vectors

from panecho_embed.retrieval import Collection
from panecho_embed.retrieval.server.app import create_app
from panecho_embed.retrieval.server.listen import listening

K = 12
ASKED = (("study", "mean"), ("study", "best"), ("study", "view"), ("video", "cosine"))


@contextmanager
def served(path: Path) -> Iterator[Callable[[dict[str, object]], dict[str, object]]]:
    """The page of a file, as a function from a query's parameters to its answer."""
    with listening("127.0.0.1", 0) as (socket, address):
        server = uvicorn.Server(uvicorn.Config(create_app(path), log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        connection = HTTPConnection(address.split("/")[2])

        def ask(parameters: dict[str, object]) -> dict[str, object]:
            connection.request("GET", f"/api/search?{urlencode(parameters)}")
            answer = connection.getresponse()
            body: dict[str, object] = json.load(answer)
            assert answer.status == 200, body
            return body

        try:
            yield ask
        finally:
            connection.close()
            server.should_exit = True
            thread.join()


def plain(similarity: str, units: np.ndarray, codes: np.ndarray, views: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Similarity of every study (every video, for "cosine") with the study of some rows, as it is defined.

    codes: (N,) the study of each video, ascending.
    """
    count, query = codes[-1] + 1, units[rows]
    if similarity == "cosine":
        return (units @ query[0]).astype(float)
    if similarity == "best":
        pairs, starts = units @ query.T, np.flatnonzero(np.diff(codes, prepend=-1))
        there = np.maximum.reduceat(pairs, starts, axis=0).mean(axis=1)
        return (there + np.add.reduceat(pairs.max(axis=1), starts) / np.bincount(codes)) / 2
    total, shared = np.zeros(count), np.zeros(count)
    for some in (
        [np.arange(len(units))] if similarity == "mean" else [np.flatnonzero(views == v) for v in set(views[rows])]
    ):
        starts = np.flatnonzero(np.diff(codes[some], prepend=-1))
        sums, mine = np.add.reduceat(units[some], starts, axis=0), query[np.isin(rows, some)].sum(axis=0)
        total[codes[some][starts]] += sums @ mine / np.linalg.norm(sums, axis=1) / np.linalg.norm(mine)
        shared[codes[some][starts]] += 1
    return total / shared


def best(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    scores[own] = -np.inf
    return np.sort(scores)[::-1][:K]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "vectors.h5"
        write_vectors(path, options.videos, options.dim, "clustered")
        collection = Collection(path)
        units, codes, views = collection.videos.units, collection.groups.codes, collection.videos.columns["view"]
        asked = np.random.default_rng(7).choice(codes.max() + 1, options.queries, replace=False)
        started = time.perf_counter()
        with served(path) as ask:
            result = {"videos": options.videos, "studies": int(codes.max()) + 1, "dim": options.dim}
            print(json.dumps(result | {"start_seconds": round(time.perf_counter() - started, 1)}), flush=True)
            for level, similarity in ASKED:
                times, definition, difference = [], [], 0.0
                for number, study in enumerate(asked):
                    rows = collection.groups.members(int(study))
                    rows = rows if level == "study" else rows[:1]
                    who = {"study": f"S{study}"} if level == "study" else {"video": f"v{rows[0]}"}
                    wanted = {**who, "level": level, "k": K} | ({} if level == "video" else {"similarity": similarity})
                    started = time.perf_counter()
                    answer = ask(wanted)
                    times.append(time.perf_counter() - started)
                    # The definition in full takes long for some; a few of them tell its time and values.
                    if number < 5:
                        started = time.perf_counter()
                        scores = plain(similarity, units, codes, views, rows)
                        definition.append(time.perf_counter() - started)
                        own = study if level == "study" else np.flatnonzero(codes == study)
                        found = [hit["similarity"] for hit in answer["hits"]]  # type: ignore[attr-defined]
                        difference = max(difference, float(np.abs(best(scores, own) - found).max()))
                print(json.dumps({
                    "level": level, "similarity": similarity,
                    "median_ms": round(1000 * float(np.median(times)), 1), "worst_ms": round(1000 * max(times), 1),
                    "plain_ms": round(1000 * float(np.median(definition)), 1),
                    "plain_by_page": round(float(np.median(definition) / np.median(times)), 1),
                    "largest_difference": float(f"{difference:.1e}"),
                }), flush=True)  # fmt: skip
        print(json.dumps({"peak_gb": round(peak_gb(), 2)}))


if __name__ == "__main__":
    main()
