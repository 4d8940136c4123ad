"""Names of folders that say a view or a part of a split, and no patient."""

from __future__ import annotations

import re

PEDIATRIC_FOLDERS = ("A4C", "PSAX")
"""The two halves of EchoNet-Pediatric."""

_VIEW = re.compile(
    r"a[2-5]c|[2-5]ch|lax|sax|subcostal|suprasternal|ssn|(plax|psax|apical|parasternal)"
    # Not anything: PLAX_0001 and PLAX_DOE are a patient's.
    r"([-_ ]*(av|mv|pv|tv|pm|pap|papillary|ao|apex|base|mid|level|zoom|rv|lv|inflow|outflow|long|short|axis|lax|sax"
    r"|[2-5](ch?)?|two|three|four|five|chambers?|colou?r|doppler))*",
    re.IGNORECASE,
)
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLITS |= {"test": "test", "testing": "test"}


def is_view(name: str) -> bool:
    """Whether a folder of this name says a view and nothing else, as A4C, 2CH and PSAX-AV do."""
    return _VIEW.fullmatch(name) is not None


def split_of_folder(name: str) -> str:
    """ "train", "val" or "test" for a folder called so; "" for any other."""
    return _SPLITS.get(name.lower(), "")
