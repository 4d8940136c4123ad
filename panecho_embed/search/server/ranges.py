"""Byte ranges of an answer (RFC 9110, section 14): Safari plays no video without them."""

from __future__ import annotations

import re

from starlette.responses import Response

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def partial(whole: Response, wanted: str | None) -> Response:
    """The range that a request asks for, or all of the answer where it asks for none or for several."""
    whole.headers["Accept-Ranges"] = "bytes"
    match = _RANGE.fullmatch((wanted or "").strip())
    if match is None or not (match[1] or match[2]):
        return whole
    body = bytes(whole.body)
    size = len(body)
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        first, last = max(0, size - int(match[2])), size - 1
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {k: v for k, v in whole.headers.items() if k.lower() != "content-length"}
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(body[first : last + 1], 206, headers, whole.media_type)
