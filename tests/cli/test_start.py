"""Wrong arguments are refused before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.search.conftest import vectors_file

# What takes long to load, and no wrong argument needs. h5py and numpy are needed to look into an embedding file.
HEAVY = ("torch", "torchvision", "timm", "sklearn", "scipy", "faiss", "cv2", "av", "pydicom", "matplotlib", "ray")

CASES = {
    "extract: no input": ["extract", "nothing", "-o", "out.h5"],
    "extract: empty folder": ["extract", "empty", "-o", "out.h5"],
    "extract: output is a folder": ["extract", "videos", "-o", "empty"],
    "extract: no such backbone": ["extract", "videos", "-o", "out.h5", "--backbone", "panecko"],
    "extract: clips of frames": ["extract", "videos", "-o", "out.h5", "--plan", "--clips 2", "--level", "frame"],
    "manifest: empty folder": ["manifest", "empty", "-o", "out.csv"],
    "predict: no input": ["predict", "nothing", "-o", "out"],
    "predict: empty folder": ["predict", "empty", "-o", "out"],
    "predict: output is another folder": ["predict", "videos", "-o", "videos"],
    "finetune: no input": ["finetune", "echonet-dynamic", "--data", "nothing", "-o", "out"],
    "finetune: no such recipe": ["finetune", "echonet", "--data", "videos", "-o", "out"],
    "grid: empty folder": ["grid", "echonet-dynamic", "--data", "empty", "--inits", "panecho,random", "-o", "out"],
    "reclip: output exists": ["reclip", "emb.h5", "-o", "other.h5"],
    "pool: output exists": ["pool", "emb.h5", "--by", "video", "-o", "other.h5"],
    "probe: no such label": ["probe", "linear", "emb.h5", "--target", "NOPE", "-o", "out"],
    "probe: output exists": ["probe", "knn", "emb.h5", "--target", "EF", "-o", "run"],
    "probe apply: output exists": ["probe", "apply", "empty", "emb.h5", "-o", "other.h5"],
    "audit: output exists": ["audit", "emb.h5", "-o", "other.h5"],
    "search: no such video": ["search", "emb.h5", "--video", "nope"],
    "atlas: output exists": ["atlas", "emb.h5", "-o", "other.h5"],
    "weights: no such file": ["weights", "verify", "nope"],
    "merge: nothing there": ["merge", "nothing.h5"],
    "compare: no run": ["compare", "empty", "videos", "-o", "out"],
}

CODE = """
import json, sys
from panecho_embed.cli.main import main
codes = {}
for name, words in json.loads(sys.argv[1]).items():
    try:
        main(words)
    except SystemExit as end:
        codes[name] = end.code
    loaded = [heavy for heavy in json.loads(sys.argv[2]) if heavy in sys.modules]
    if loaded:
        sys.exit(f"after {name!r} these are loaded: {loaded}")
print(json.dumps(codes))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    (folder / "empty").mkdir()
    (folder / "videos").mkdir()
    (folder / "videos" / "notes.txt").write_text("no video")
    vectors_file(folder / "emb.h5")
    (folder / "run").mkdir()
    (folder / "run" / "metrics.json").write_text("{}")
    (folder / "other.h5").write_text("in the way")
    words = [sys.executable, "-c", CODE, json.dumps(CASES), json.dumps(HEAVY)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_wrong_arguments_load_nothing_heavy(ended):
    assert ended.returncode == 0, ended.stderr


def test_each_of_them_is_an_error(ended):
    codes = json.loads(ended.stdout.splitlines()[-1])
    assert codes.keys() == CASES.keys()
    assert set(codes.values()) <= {1, 2}
