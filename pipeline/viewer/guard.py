"""Lets only the user's own browser in: a token, a Host of this machine, reading methods, and strict headers.

Other pages in the same browser, other users of the machine and names that lead to 127.0.0.1 get a sentence, no data.
"""

import hmac
import html
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_READING = ("GET", "HEAD")
_ENTER = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>camatlas view</title>'
    '<meta http-equiv="refresh" content="0;url={address}"><p><a href="{address}">Continue</a></p></html>'
)


class Guard:
    """An ASGI layer around the pages.

    Args:
        app: the pages.
        port: the port that the Host header must name.
        token: the secret of the address.
    """

    def __init__(self, app: ASGIApp, port: int, token: str) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self._cookie = f"camatlas_view_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        answer = self._refusal(scope) or self._entrance(scope) or self._app
        await answer(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            return PlainTextResponse("This server answers to 127.0.0.1 and localhost only.\n", 421)
        if scope["method"] not in _READING:
            message = f"{scope['method']} is not possible: the viewer only reads.\n"
            return PlainTextResponse(message, 405, headers={"Allow": ", ".join(_READING)})
        if not self._is_known(headers, scope):
            return PlainTextResponse(
                "This address lacks its token, or has an old one. Open the address that `camatlas view` printed.\n", 403
            )
        return None

    def _is_known(self, headers: Headers, scope: Scope) -> bool:
        offered = [value for name, value in _query(scope) if name == "token"]
        cookie = SimpleCookie()
        try:
            cookie.load(headers.get("cookie", ""))
        except CookieError:
            return False
        if self._cookie in cookie:
            offered.append(cookie[self._cookie].value)
        return any(hmac.compare_digest(value.encode("utf-8", "replace"), self._token.encode()) for value in offered)

    def _entrance(self, scope: Scope) -> Response | None:
        """Turn the token of an address into a cookie; a page sends it on, since a redirect would lose the cookie."""
        query = _query(scope)
        if not any(name == "token" for name, _ in query):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"], errors="replace")
        path = scope["path"] if scope["path"] in ("/", "/image", "/classes", "/class", "/compare") else "/"
        response = HTMLResponse(_ENTER.format(address=html.escape(path + (f"?{rest}" if rest else ""))))
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
        return response


def new_token() -> str:
    """Draw a token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def _query(scope: Scope) -> list[tuple[str, str]]:
    text = scope["query_string"].decode("latin-1")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=2000)
    except ValueError:
        return []


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
