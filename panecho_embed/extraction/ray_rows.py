"""What travels between the machines of a Ray cluster: rows of Ray Data that each hold a few videos, pickled.

Ray Data would take every video's columns apart and put them together again at each step; nothing here looks into them
on the way.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

_COLUMN = "pickled"


def table(items: Iterable[object]) -> Any:
    """A pyarrow.Table with a row for each item."""
    import pyarrow as pa

    pickled = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
    # "large": the frames of a long video have more bytes than an offset of 32 bits counts.
    return pa.table({_COLUMN: pa.array(pickled, pa.large_binary())})


def items(table: Any) -> Iterator[Any]:
    """What is in the rows of a table. Only what this package has written is read: pickles are code."""
    for cell in table.column(_COLUMN):
        yield pickle.loads(cell.as_buffer())
