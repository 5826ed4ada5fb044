"""Stands in front of a web server and answers its own pages and programs only.

A browser lets any page that it shows send requests to any server that it reaches, also on the loopback interface, and
a foreign name can be made to point there. So a request has to name the server as it is known, and one that another
page made is refused, whatever it asks for and whatever key it bears. Programs send no `Origin`: they pass.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ORIGINS = "AUTODIDACT_ORIGINS"  # a server's own origins, set by whoever starts it
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def guarded(app: ASGIApp, origins: Iterable[str]) -> ASGIApp:
    """An app that answers under the names in its own origins, and no other origin's pages.

    Args:
        app: what is guarded.
        origins: as browsers write them, such as http://127.0.0.1:4200.
    """
    origins = frozenset(origins)
    names = {urlsplit(origin).netloc.removesuffix(f":{urlsplit(origin).port}") for origin in origins}
    return TrustedHostMiddleware(OwnPagesOnly(app, origins), sorted(names), www_redirect=False)


def own_origins(host: str, port: int) -> list[str]:
    """The origins of pages that a server shows when it listens on an address and is reached by it or by loopback."""
    suffix = "" if port == 80 else f":{port}"
    return [f"http://{name}{suffix}" for name in dict.fromkeys((host.lower(), *LOOPBACK))]


class OwnPagesOnly:
    """Refuses HTTP requests and WebSockets of other origins' pages."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and self._is_foreign(Headers(scope=scope)):
            refusal = PlainTextResponse("Pages of another origin are not answered.", status_code=403)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        if given := headers.getlist("origin"):
            return not self.origins.issuperset(given)
        # Browsers leave the origin out of plain GETs, of images and scripts too, but most say where those come from.
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return False
        # A link on any page may open one of ours in a tab, not in a frame.
        return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) != ("navigate", "document")
