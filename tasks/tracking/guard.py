"""A guard in front of a web server: it accepts requests only from the server's own pages and from programs.

A browser lets any page send requests to any server it can reach, including on the loopback interface, and a foreign
name can be made to point there (DNS rebinding). So a request must name the server by a known name, and a request from
another origin's page is refused, whatever it asks for and whatever key it has. Programs send no `Origin`, so they pass.
"""

import base64
import hmac
import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ORIGINS = "AUTODIDACT_ORIGINS"  # a server's own origins, set by the program that starts it
KEY = "AUTODIDACT_SERVE_KEY"  # set by a user; then requests need it
HEALTH = "/health"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def guarded(app: ASGIApp, origins: Iterable[str]) -> ASGIApp:
    """Wrap an app so that it answers only under the names in its own origins, and to no other origin's pages.

    Args:
        app: the app to guard.
        origins: as browsers write them, such as http://127.0.0.1:4200.
    """
    origins = frozenset(origins)
    names = {urlsplit(origin).netloc.removesuffix(f":{urlsplit(origin).port}") for origin in origins}
    return TrustedHostMiddleware(OwnPagesOnly(app, origins), sorted(names), www_redirect=False)


def own_origins(host: str, port: int) -> list[str]:
    """Return the origins of a server's pages when it is reached by its listening address or by loopback."""
    suffix = "" if port == 80 else f":{port}"
    return [f"http://{name}{suffix}" for name in dict.fromkeys((host.lower(), *LOOPBACK))]


class OwnPagesOnly:
    """Refuses HTTP requests and WebSockets from pages of other origins."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and self._is_foreign(Headers(scope=scope)):
            refusal = PlainTextResponse("Requests from pages of another origin are refused.", status_code=403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        if given := headers.getlist("origin"):
            return not self.origins.issuperset(given)
        # Browsers send no Origin with plain GETs, such as for images and scripts, but most send Sec-Fetch-Site.
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return False
        # A link on any page may open our pages in a tab, but not in a frame.
        return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")


class KeyNeeded:
    """Refuses requests without the key: a bearer token, or the password that a browser asks for, with any name."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        open_to_all = scope["type"] == "lifespan" or scope["path"] == HEALTH
        if open_to_all or hmac.compare_digest(_given(Headers(scope=scope)), self.key):
            await self.app(scope, receive, send)
            return
        refusal = PlainTextResponse("A key is needed.", 401, {"www-authenticate": 'Basic realm="key as password"'})
        await refusal(scope, receive, send)


def _given(headers: Headers) -> bytes:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.encode("latin-1")  # as headers are decoded
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2] if scheme.lower() == "basic" else b""
    except ValueError:
        return b""


class Guard:
    """The same as middleware, for a server that adds it by its name. Where there is a key, every request needs it."""

    def __init__(self, app: ASGIApp) -> None:
        key = os.environ.get(KEY)
        self.app = guarded(KeyNeeded(app, key) if key else app, os.environ[ORIGINS].split(","))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
