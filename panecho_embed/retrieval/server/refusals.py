"""Refusals outside the API: words on a page for a browser, JSON for everybody else."""

from __future__ import annotations

from html import escape

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response

# No style sheet: who is refused is given nothing else.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark">
<title>{title} · panecho-embed</title>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{detail}</p>
<p><a href="/">To all studies</a></p>
</main>
</body>
</html>
"""


def refusal(status: int, title: str, detail: str, path: str, headers: Headers) -> Response:
    """The answer to a request for `path` that is refused. detail: why, and what helps."""
    if path.startswith("/api/") or "text/html" not in headers.get("accept", ""):
        return JSONResponse({"detail": detail}, status)
    return HTMLResponse(_PAGE.format(title=escape(title), detail=escape(detail)), status)
