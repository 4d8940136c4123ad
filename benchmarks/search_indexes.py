"""Build time, memory, time per query and recall of an index, against exact search, on one core.

    OMP_NUM_THREADS=1 python benchmarks/search_indexes.py --videos 1000000 --folder KEPT/   # 8 GB of memory, 10 of disk
    OMP_NUM_THREADS=1 python benchmarks/search_indexes.py --spread even      # neighbours that lists can't hold together
    python benchmarks/search_indexes.py --ask filtered --queries 10          # --where, and what it leaves
    python benchmarks/search_indexes.py --ask studies --kinds exact          # studies by best match and view by view

The vectors are synthetic. "clustered": views, patients around them who differ in 64 directions of which the k-th has
the variance 1/k (as embeddings fall off), and noise of a twentieth of all variance. "even": directions drawn at random.
Queries are videos of the file, their patients' own left out, as in `search --video`. Each kind runs in a process of its
own, so that its memory is its own. With --folder the files stay there, and with them what every build took: stopped at
any moment, the same call again goes on with the kind it was at. Seconds and milliseconds are of processor time, so that
they hold on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.feeding import Feeding
from panecho_embed.core.provenance import Provenance, WeightsInfo
from panecho_embed.core.records import Manifest, VideoFacts, VideoRef
from panecho_embed.retrieval import Collection, search, study_query, video_query
from panecho_embed.retrieval.find import study_scores
from panecho_embed.retrieval.index import build_index, index_path, open_collection
from panecho_embed.retrieval.similarity import closest, top, unit
from panecho_embed.store import EmbeddingFile, EmbeddingWriter

VIEWS = 8
KINDS = ("exact", "ivf")
SHARES = (0.01, 0.1, 0.5)


def write_vectors(path: Path, videos: int, dim: int, spread: str, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    weights = WeightsInfo("synthetic", "0" * 64, "none", pretrained=False)
    provenance = Provenance("synthetic", weights, Feeding(), ClipPlan(), "video", dim=dim)
    centres = rng.standard_normal((VIEWS, dim), dtype=np.float32)
    # Directions along which patients differ: the first ones much, the later ones less. The variance is 0.92 in all.
    variance = 0.92 / np.arange(1, 65) / (1 / np.arange(1, 65)).sum()
    directions = rng.standard_normal((64, dim), dtype=np.float32) * np.sqrt(variance)[:, None].astype(np.float32)
    with EmbeddingWriter(path, provenance) as writer:
        for start in range(0, videos, 65_536):
            rows = np.arange(start, min(start + 65_536, videos))
            values = rng.standard_normal((len(rows), dim), dtype=np.float32)
            if spread == "clustered":
                patients = np.random.default_rng([seed, start]).standard_normal((65_536 // VIEWS, 64), dtype=np.float32)
                values = 0.3 * values + centres[rows % VIEWS] + (patients @ directions)[(rows - start) // VIEWS]
            writer.add(rows, values, np.zeros(len(rows), dtype=int), 1, 16)
        refs = tuple(
            VideoRef(f"v{i}", f"S{i // VIEWS}", f"P{i // VIEWS}", f"{i}.avi", str(i % VIEWS)) for i in range(videos)
        )
        writer.finish(Manifest(refs), [VideoFacts("done")] * videos, [])


def build(path: Path, kind: str, recall: float) -> dict[str, object]:
    record = path.with_name("build.json")
    if record.exists():
        built: dict[str, object] = json.loads(record.read_text())
        return built
    collection = Collection(path)
    len(collection.videos)
    before, cpu = peak_gb(), time.process_time()
    info = build_index(collection, kind, recall=recall, overwrite=True)  # type: ignore[arg-type]
    index = index_path(path) / "index.faiss"
    built = {
        "lists": info.lists,
        "candidates": info.candidates,
        "recall_asked": info.recall_asked,
        "recall_found_at_build": info.recall,
        "worthwhile": info.worthwhile,
        "build_cpu_seconds": time.process_time() - cpu,
        "index_gb": index.stat().st_size / 2**30 if index.exists() else 0.0,
        "read_peak_gb": before,
        "build_peak_gb": peak_gb(),
    }
    _share_vectors(path)
    record.write_text(json.dumps(built))
    return built


def _share_vectors(path: Path) -> None:
    """The vectors are the same for every kind: on the disk, and in its cache, once."""
    for own in index_path(path).glob("*.npy"):
        shared = path.parent.with_name(f"{own.stem}-{path.stem}.npy")
        if shared.exists():
            own.unlink()
            os.link(shared, own)
        else:
            os.link(own, shared)


def ask(path: Path, rows: np.ndarray) -> dict[str, object]:
    collection, index = open_collection(path, True)
    queries = [video_query(collection, f"v{row}") for row in rows]
    search(collection, queries[0], 10, index=index)
    cpu, found = [], []
    for query in queries:
        started = time.process_time()
        found.append(search(collection, query, 10, index=index).positions.tolist())
        cpu.append(time.process_time() - started)
    return {
        "query_cpu_ms": 1000 * float(np.median(cpu)),
        "query_cpu_ms_95_percent": 1000 * float(np.percentile(cpu, 95)),
        "query_peak_gb": peak_gb(),
        "found": found,
    }


def ask_filtered(path: Path, rows: np.ndarray, vectors: np.ndarray) -> list[dict[str, object]]:
    """CPU time and recall for the videos that a filter leaves, against comparing all and keeping those."""
    collection, index = open_collection(path, True)
    if index is None:
        return []
    units = collection.videos.units
    views, draws = np.arange(len(units)) % VIEWS, np.random.default_rng(3).random(len(units))
    lines = []
    for place, share in itertools.product(("near", "far", "both"), SHARES):
        times, exact, hits = [], [], []
        for row, vector in zip(rows, unit(vectors), strict=True):
            allowed = left(place, share, (views - views[row]) % VIEWS, draws)
            query = vector[None]
            index.nearest(query, 10, allowed)
            started = time.process_time()
            near, cosines = index.nearest(query, 10, allowed)
            found = near[top(cosines, 10)]
            times.append(time.process_time() - started)
            started = time.process_time()
            truth = top(closest(units, query), 10, allowed)
            exact.append(time.process_time() - started)
            hits.append(len(set(found) & set(truth)) / len(truth))
        lines.append({
            "filter": place, "leaves": share, "query_cpu_ms": 1000 * float(np.median(times)),
            "exact_by_it": float(np.median(exact) / np.median(times)), "recall_at_10": float(np.mean(hits)),
        })  # fmt: skip
    return lines


def left(place: str, share: float, apart: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """What a filter leaves: of the query's view and the next ones, of those farthest in order, or of all alike.

    apart: (N,) how many views a video's is after the query's. draws: (N,) uniform, 0 to 1.
    """
    if place == "both":
        return draws < share
    views = max(1, round(VIEWS * share))
    some = apart < views if place == "near" else apart >= VIEWS - views
    return some & (draws < share * VIEWS / views)


def ask_studies(path: Path, rows: np.ndarray, _vectors: np.ndarray) -> list[dict[str, object]]:
    """Studies by the measures that compare videos, asked for by a video and by a study, against comparing all."""
    collection, index = open_collection(path, True)
    lines = []
    for similarity, asks in itertools.product(("best", "view"), ("video", "study")):
        times, exact, hits = [], [], []
        for row in rows:
            name = f"v{row}" if asks == "video" else f"S{row // VIEWS}"
            query = (video_query if asks == "video" else study_query)(collection, name)
            settings = {"level": "study", "similarity": similarity, "index": index, "include_same_patient": True}
            search(collection, query, 10, **settings)  # type: ignore[arg-type]
            started = time.process_time()
            found = search(collection, query, 10, **settings)  # type: ignore[arg-type]
            times.append(time.process_time() - started)
            # Made once: they are not a part of what a query costs.
            _ = collection.view_means if similarity == "view" else collection.pointing
            started = time.process_time()
            others = collection.studies.ids != query.studies[0]
            truth = top(study_scores(collection, query, similarity), 10, others)  # type: ignore[arg-type]
            exact.append(time.process_time() - started)
            hits.append(len(set(found.positions) & set(truth)) / len(truth))
        lines.append({
            "similarity": similarity, "asks": asks, "query_cpu_ms": 1000 * float(np.median(times)),
            "exact_by_it": float(np.median(exact) / np.median(times)), "recall_at_10": float(np.mean(hits)),
        })  # fmt: skip
    return lines


ASKS = {"filtered": ask_filtered, "studies": ask_studies}


def show(result: dict[str, object]) -> None:
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}), flush=True)


def peak_gb() -> float:
    """Most memory that this process has had, mapped files that were read included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--spread", choices=("clustered", "even"), default="clustered")
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--ask", choices=("videos", *ASKS), default="videos")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    keep = nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory()
    with keep as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{options.spread}-{options.videos}-{options.dim}.h5"
        if not path.exists():
            with context.Pool(1) as pool:
                pool.apply(write_vectors, (path, options.videos, options.dim, options.spread))
        file = EmbeddingFile(path)
        rng = np.random.default_rng(7)
        rows = rng.choice(options.videos, options.queries, replace=False)
        vectors = np.stack([file.read(int(row), int(row) + 1)[0] for row in rows])
        vectors += 0.2 * rng.normal(size=vectors.shape).astype(np.float32)
        truth: list[list[int]] = []
        exact_ms = 0.0
        wanted = options.kinds if options.ask != "videos" else ("exact", *(k for k in options.kinds if k != "exact"))
        for kind in wanted:
            result: dict[str, object] = {"kind": kind, "spread": options.spread, "videos": options.videos}
            own = folder / f"{kind}-{path.stem}" / path.name
            own.parent.mkdir(exist_ok=True)
            if not own.exists():
                os.link(path, own)
            with context.Pool(1) as pool:
                built = pool.apply(build, (own, kind, options.recall))
            if options.ask != "videos":
                with context.Pool(1) as pool:
                    for line in pool.apply(ASKS[options.ask], (own, rows, vectors)):
                        show(result | line)
                continue
            with context.Pool(1) as pool:
                result |= built | pool.apply(ask, (own, rows))
            found: list[list[int]] = result.pop("found")  # type: ignore[assignment]
            truth, exact_ms = truth or found, exact_ms or float(result["query_cpu_ms"])  # type: ignore[arg-type]
            result["exact_by_it"] = exact_ms / float(result["query_cpu_ms"])  # type: ignore[arg-type]
            hits = [len(set(a) & set(b)) for a, b in zip(found, truth, strict=True)]
            result["recall_at_10"] = float(np.mean(hits)) / 10
            show(result)


if __name__ == "__main__":
    main()
