from __future__ import annotations

import subprocess
import sys

BROKEN = """
import sys, types, torch

class Broken:
    tries = 0

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision":
            return None
        Broken.tries += 1
        {condition}
            raise RuntimeError("{message}")
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        from importlib.machinery import ModuleSpec
        class Loader:
            def create_module(self, spec): return sys.modules["torchvision"]
            def exec_module(self, module): pass
        return ModuleSpec("torchvision", Loader())

sys.meta_path.insert(0, Broken())
from panecho_embed.models.torchvision_ops import ensure_torchvision
ensure_torchvision()
ensure_torchvision()
print(Broken.tries)
print(torch.ops.torchvision.nms.default._schema)
"""


def run(condition: str, message: str) -> subprocess.CompletedProcess[str]:
    program = BROKEN.format(condition=condition, message=message)
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)


def test_missing_operators_are_declared_and_the_import_tried_again():
    done = run("if Broken.tries == 1:", "operator torchvision::nms does not exist")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2",
        "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ]


def test_another_failure_of_torchvision_is_not_hidden():
    done = run("if True:", "something else")
    assert done.returncode == 1
    assert "RuntimeError: something else" in done.stderr
