"""Who may ask: only this computer, or who holds the token, and no other page; and what the browser may do."""

from __future__ import annotations

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panecho_embed.retrieval.server.refusals import refusal

COOKIE = "panecho_embed_token"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether a host name means only this computer."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: checks the token (or, without one, that the page is asked for as localhost), adds headers.

    Without the check of the host's name, a foreign web page could rename itself to 127.0.0.1 and read everything. What
    another page's script or form asks for is refused; its links may lead here. The token comes as
    `Authorization: Bearer`, or once as ?token=, which becomes a cookie.
    """

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if _is_foreign(scope["method"], headers):
            return refusal(
                403, "Not from here", "another page can't ask; open this one in the browser", scope["path"], headers
            )
        if self._token is None:
            if is_loopback(_host_name(headers.get("host", ""))):
                return None
            return refusal(
                421, "Another name", "this page answers to 127.0.0.1 and localhost only", scope["path"], headers
            )
        given = headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self._matches(given) or self._matches(_cookie(headers.get("cookie", ""), _cookie_name(scope))):
            return None
        pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
        if scope["method"] == "GET" and self._matches(dict(pairs).get("token", "")):
            rest = urlencode([pair for pair in pairs if pair[0] != "token"])
            # A path of two slashes would lead to another host.
            path = "/" + scope["path"].lstrip("/\\")
            answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(_cookie_name(scope), self._token, httponly=True, samesite="lax", path="/")
            return answer
        return refusal(
            401, "No token", "a token is needed: the address that `serve` printed holds it", scope["path"], headers
        )

    def _matches(self, given: str) -> bool:
        expected = (self._token or "").encode()
        return hmac.compare_digest(given.encode("utf-8", "replace"), expected)


def _is_foreign(method: str, headers: Headers) -> bool:
    """Whether a browser says that a page of another origin asks (Fetch Metadata; RFC 6454, Origin)."""
    reads = method in ("GET", "HEAD")
    followed = reads and headers.get("sec-fetch-mode") == "navigate"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not followed:
        return True
    origin = headers.get("origin")
    if reads or origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


def _host_name(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _cookie_name(scope: Scope) -> str:
    """A browser sends a host's cookies to all of its ports; the port keeps two servers' tokens apart."""
    server = scope.get("server")
    return COOKIE if server is None else f"{COOKIE}_{server[1]}"


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value
