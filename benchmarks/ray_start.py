"""How long a Ray cluster of this machine takes to the first result, with few videos to do and with very many.

The cluster runs before the clock does, and nothing more than the first result is waited for. All videos name one small
file, so that only their number differs.

    python benchmarks/ray_start.py --videos 1000 1000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path


def main() -> None:
    from panecho_embed.core.clips import ClipPlan
    from panecho_embed.core.provenance import Provenance, package_versions
    from panecho_embed.core.records import Manifest, VideoRef
    from panecho_embed.extraction.decode import DecodeSettings
    from panecho_embed.extraction.encode import EncodeSettings
    from panecho_embed.extraction.job import Job, Output
    from panecho_embed.extraction.ray_cluster import ray_cluster
    from panecho_embed.extraction.ray_engine import embed_on_ray
    from panecho_embed.models.backbones import load_backbone
    from panecho_embed.phantoms import write_studies
    from panecho_embed.store import Parts

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[1_000, 1_000_000])
    arguments = parser.parse_args()
    model = load_backbone("random", image_size=32)
    plan = ClipPlan(num_clips=1)
    provenance = Provenance(
        model.name, model.weights, model.feeding, plan, "clip", dim=model.dim, versions=package_versions()
    )
    with tempfile.TemporaryDirectory() as name, ray_cluster(None):
        folder = Path(name)
        (video,) = write_studies(folder / "studies", layout="echonet-dynamic", patients=1, num_frames=16)
        print(
            "| videos | seconds to the first result | peak of memory of the command |\n| --- | --- | --- |", flush=True
        )
        for count in arguments.videos:
            videos = (
                VideoRef(f"p{i // 20:06}/v{i:07}.avi", f"s{i // 10}", f"p{i // 20}", str(video)) for i in range(count)
            )
            manifest = Manifest(tuple(videos))
            with Parts(folder / f"{count}.h5") as parts:
                parts.begin(manifest, provenance)
                job = Job(
                    [Output(parts, provenance)],
                    manifest,
                    range(count),
                    model,
                    DecodeSettings(provenance.feeding, (plan,)),
                    EncodeSettings("fp32", "float32", "eager", None),
                    "cpu",
                    None,
                    60.0,
                    lambda message: None,
                )
                started = time.perf_counter()
                at_work = embed_on_ray(job, None)
                next(at_work)
                seconds = time.perf_counter() - started
                at_work.close()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {count} | {seconds:.1f} | {peak:.2f} GiB |", flush=True)


if __name__ == "__main__":
    main()
