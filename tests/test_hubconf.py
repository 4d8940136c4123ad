from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent

# As from a bare checkout: the package can only come from the folder given to torch.hub.
PROGRAM = """
import json, socket, sys
def refuse(*arguments, **keywords):
    raise OSError("no network is needed")
socket.socket.connect = socket.getaddrinfo = refuse
import torch
sys.path[:] = [place for place in sys.path if place not in ("", {repository!r})]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
model = torch.hub.load({repository!r}, "PanEcho", source="local", pretrained=False, tasks=["EF", "AVStenosis"])
outputs = model(torch.rand(1, 3, 16, 32, 32))
import panecho_embed
print(json.dumps([{{name: list(value.shape) for name, value in outputs.items()}}, panecho_embed.__file__]))
"""


def test_loads_from_a_bare_checkout_by_torch_hub(tmp_path):
    program = PROGRAM.format(repository=str(REPOSITORY))
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shapes, home = json.loads(done.stdout)
    assert shapes == {"EF": [1, 1], "AVStenosis": [1, 3]}
    assert Path(home).parent.parent == REPOSITORY


def test_the_entry_point_is_the_only_one_and_documented(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)
    import hubconf

    entries = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")]
    assert entries == ["PanEcho"]
    assert "backbone_only" in hubconf.PanEcho.__doc__
