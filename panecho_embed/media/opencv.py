"""OpenCV without its log: what goes wrong is raised, with the file named, and need not stand on the terminal twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from cv2.utils import logging as cv2_logging

from panecho_embed.errors import MediaError
from panecho_embed.records import UInt8Array


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log for the calls inside. Changes state of the process: not for several threads at once."""
    level = cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2_logging.setLogLevel(level)


def decode_image(data: bytes, *, grey: bool = False) -> UInt8Array:
    """Decode a compressed image: (H, W, 3) RGB, or (H, W) where `grey`. Raises MediaError(stage "decode")."""
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MediaError(f"the image can't be decoded: {error.err}", stage="decode") from error
    if image is None:
        raise MediaError("the image can't be decoded; it is damaged", stage="decode")
    return np.asarray(image if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
