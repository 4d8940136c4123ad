"""Import torchvision beside a torch that it was not built for.

A CPU build of torch beside the CUDA build of torchvision (two `pip install` lines easily leave that behind) can't load
torchvision's compiled operators, and `import torchvision`, which timm does too, then dies on the detection operator
`nms`. No model here uses that operator, so it is enough to declare it.
"""

from __future__ import annotations

import importlib
from functools import cache

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# A library takes its operators with it when it is collected.
_libraries: list[torch.library.Library] = []


@cache
def ensure_torchvision() -> None:
    """Import torchvision, with its detection operators declared if they could not be loaded.

    Call it before importing timm or torchvision. Calling a declared operator raises NotImplementedError. Raises
    ImportError if torchvision is not there, and RuntimeError if it can't be imported for any other reason.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + _SIGNATURE)
        _libraries.append(library)
        importlib.import_module("torchvision")
