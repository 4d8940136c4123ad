"""The checksum that covers every byte of an embedding file, block by block."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import UInt8Array

BLOCK_BYTES = 2 * 1024 * 1024
"""Most bytes that one checksum covers, unless a single item is larger."""

# A prime: no sector, page or row that is found elsewhere adds to the same sums there.
_SUMS = 1021


def items_per_block(item_bytes: int) -> int:
    """How many items of a column, or rows of embeddings, share a checksum: whole ones, 2 MiB of them or fewer."""
    return max(1, BLOCK_BYTES // max(item_bytes, 1))


def checksum(block: UInt8Array) -> int:
    """CRC-32 of the sums of a block of bytes.

    The bytes, filled up with zeros, are 64-bit words; word i is added to sum i modulo 1,021, and the sums (modulo 2^64)
    and the number of bytes go through CRC-32. Any change within one word changes a sum, and so does what is moved;
    numpy adds many times faster than `zlib.crc32` reads.

    Parameters
    ----------
    block : array of uint8, shape (n,), contiguous

    Returns
    -------
    int
        0 to 2^32 - 1.
    """
    count = len(block)
    if short := -count % 8:
        block = np.concatenate([block, np.zeros(short, np.uint8)])
    words = block.view("<u8")
    whole = len(words) - len(words) % _SUMS
    sums = words[:whole].reshape(-1, _SUMS).sum(axis=0, dtype="<u8")
    sums[: len(words) - whole] += words[whole:]
    return zlib.crc32(count.to_bytes(8, "little"), zlib.crc32(sums.data))


def checksums(values: npt.NDArray[np.generic]) -> list[int]:
    """The checksum of each block of a column (n,) or of rows (n, D), contiguous."""
    step = items_per_block(values.itemsize * int(np.prod(values.shape[1:])))
    return [checksum(as_bytes(values[start : start + step])) for start in range(0, len(values), step)]


def combined(several: Iterable[int]) -> int:
    """One checksum of the checksums of a column's blocks."""
    return zlib.crc32(np.fromiter(several, "<u4").data)


def as_bytes(values: npt.NDArray[np.generic]) -> UInt8Array:
    """The memory of a contiguous array, as bytes that can be written to."""
    return values.reshape(-1).view(np.uint8)
