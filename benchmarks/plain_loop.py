"""`panecho-embed extract` against the loop that one would write first: whole processes, on the same videos.

The plain loop: PanEcho's architecture and its published forward pass as PyTorch makes it, eager, fp32; a data set of
clips that OpenCV reads, behind a DataLoader. The command: as a user calls it.
Both have the same random weights, and their embeddings are compared. Results are kept in FOLDER/results.json, so that
the runs can be spread over several calls; those of one table belong to one sequence.

    python benchmarks/plain_loop.py --videos 100 --folder plain/
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# Heavy imports are inside the functions: a decoding worker imports this file again.
if TYPE_CHECKING:
    from panecho_embed.core.clips import ClipPlan

PLANS: dict[str, tuple[str, ...]] = {"4 clips": ("--clips", "4"), "windows": ("--stride", "4")}
RUNS = [f"{engine} {plan}" for plan in PLANS for engine in ("plain", "fp32", "bf16")]


def plan_of(name: str) -> ClipPlan:
    from panecho_embed.core.clips import ClipPlan

    return ClipPlan() if name == "4 clips" else ClipPlan(num_clips=None, stride=4)


def share_of(folder: Path, share: str) -> list[Path]:
    """The videos of a share, as 1/2."""
    number, shares = map(int, share.split("/"))
    paths = sorted((folder / "studies" / "Videos").glob("*.avi"))
    return paths[len(paths) * (number - 1) // shares : len(paths) * number // shares]


class Clips:
    """A data set: one clip of one video, (16, 3, S, S) float32, normalised, read until its last frame."""

    def __init__(self, paths: list[Path], plan: ClipPlan, feeding: Any, frames: int) -> None:
        self._feeding = feeding
        self._clips = [(path, indices) for path in paths for indices in plan.indices(frames)]

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, position: int) -> Any:
        import cv2
        import torch

        path, indices = self._clips[position]
        size, crop = self._feeding.resize, self._feeding.crop
        low = (size - crop) // 2
        capture = cv2.VideoCapture(str(path))
        frames = [capture.read()[1] for _ in range(int(indices.max()) + 1)]
        capture.release()
        resized = [cv2.resize(frames[i], (size, size), interpolation=cv2.INTER_AREA) for i in indices]
        clip = np.stack(resized)[:, low : low + crop, low : low + crop].transpose(0, 3, 1, 2)
        if self._feeding.channel_order == "rgb":
            clip = clip[:, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(clip)).float() * self._feeding.scale
        mean, std = (torch.tensor(values)[:, None, None] for values in (self._feeding.mean, self._feeding.std))
        return (pixels - mean) / std


def plain(folder: Path, plan: str, arguments: argparse.Namespace) -> None:
    """The plain loop over a share of the videos; writes the embeddings, and prints start and loop in seconds."""
    started = time.perf_counter()
    import torch

    from panecho_embed.models.backbones import load_backbone

    model = load_backbone("random", image_size=arguments.image_size)
    # As PyTorch makes it: the package itself arranges it channels-last.
    encoder = model.image_encoder.to(memory_format=torch.contiguous_format)
    some = share_of(folder, arguments.share)
    loaded = time.perf_counter()
    loader = torch.utils.data.DataLoader(
        Clips(some, plan_of(plan), model.feeding, arguments.frames), arguments.batch_clips, num_workers=1
    )
    rows = []
    with torch.inference_mode():
        for clips in loader:
            # The published reshape: (N, 3, L, H, W) to (N L, 3, H, W), the frame axis not moved in front.
            pictures = clips.transpose(1, 2).reshape(-1, 3, *clips.shape[3:])
            rows.append(model.clip_encoder(encoder(pictures).unflatten(0, clips.shape[:2])).numpy())
    np.save(folder / f"plain {plan} {arguments.share.replace('/', 'of')}.npy", np.concatenate(rows))
    print(json.dumps({"start": loaded - started, "loop": time.perf_counter() - loaded}))


def run_plain(folder: Path, plan: str, arguments: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--plain", plan, "--folder", str(folder), "--share", arguments.share]
    for name in ("frames", "image_size", "batch_clips"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    started = time.perf_counter()
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    whole = time.perf_counter() - started
    return {"whole": whole, **json.loads(told.splitlines()[-1])}


def run_extract(folder: Path, precision: str, plan: str, arguments: argparse.Namespace) -> dict[str, float]:
    out, cache = folder / f"{precision} {plan}.h5", folder / "cache"
    out.unlink(missing_ok=True)
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "panecho_embed", "extract", str(folder / "studies" / "Videos"), "-o", str(out)]
    command += ["--backbone", "random", "--image-size", str(arguments.image_size), "--precision", precision]
    started = time.perf_counter()
    subprocess.run([*command, *PLANS[plan]], check=True, env={**os.environ, "PANECHO_EMBED_CACHE": str(cache)})
    return {"whole": time.perf_counter() - started}


def table(folder: Path, results: dict[str, dict[str, dict[str, float]]]) -> str:
    from panecho_embed.store import EmbeddingFile

    lines = [
        "| clips | precision | rows | in the loop | plain loop | extract | ratio | least cosine | largest difference |"
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for plan in PLANS:
        shares = results.get(f"plain {plan}", {})
        if not shares:
            continue
        # A loop that was run in shares has started more often than one that is not; shares that were not run take as
        # long as those that were.
        parts = int(next(iter(shares)).split("/")[1])
        seconds = sum(share["loop"] for share in shares.values()) * parts / len(shares)
        seconds += sum(share["whole"] - share["loop"] for share in shares.values()) / len(shares)
        exact = np.concatenate([np.load(folder / f"plain {plan} {s.replace('/', 'of')}.npy") for s in sorted(shares)])
        for precision in ("fp32", "bf16"):
            if f"{precision} {plan}" in results:
                whole = results[f"{precision} {plan}"]["1/1"]["whole"]
                file = EmbeddingFile(folder / f"{precision} {plan}.h5")
                position = {str(name): i for i, name in enumerate(file.video_columns["video_id"])}
                videos = [position[path.name] for share in sorted(shares) for path in share_of(folder, share)]
                rows = [np.flatnonzero(file.row_columns["video"] == video) for video in videos]
                found = file.embeddings[np.concatenate(rows)]
                cosine = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
                lines.append(
                    f"| {plan} | {precision} | {len(file)} | {len(shares)}/{parts} | {seconds:.1f} s | {whole:.1f} s | "
                    f"{seconds / whole:.2f} | {cosine.min():.6f} | {np.abs(found - exact).max():.1e} |"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--frames", type=int, default=64, help="frames a video")
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-clips", type=int, default=1, help="of the plain loop")
    parser.add_argument("--folder", type=Path, default=Path("plain-loop"), help="videos, embeddings and results")
    parser.add_argument("--runs", nargs="*", choices=RUNS, default=RUNS, metavar="RUN", help=f"some of {RUNS}")
    parser.add_argument("--share", default="1/1", help="of the videos, for the plain loop: 1/2, then 2/2")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.plain:
        return plain(folder, arguments.plain, arguments)
    if not (folder / "studies").exists():
        from panecho_embed.phantoms import write_studies

        write_studies(
            folder / "studies", layout="echonet-dynamic", patients=arguments.videos, num_frames=arguments.frames
        )
    kept = folder / "results.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    for run in arguments.runs:
        engine, plan = run.split(" ", 1)
        if engine == "plain":
            results.setdefault(run, {})[arguments.share] = run_plain(folder, plan, arguments)
        else:
            results[run] = {"1/1": run_extract(folder, engine, plan, arguments)}
        print(run, results[run], flush=True)
        kept.write_text(json.dumps(results, indent=1))
    print(table(folder, results))
    return None


if __name__ == "__main__":
    main()
