"""Prefect's server with a guard in front: `python -m tasks.tracking.prefect_server HOST PORT`, instead of
`prefect server start`, which has no setting for hosts. Also the server that a run starts for itself if none is set.

AUTODIDACT_ORIGINS has the origins of its own pages, separated by commas.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.stage.environment import KEY_VARIABLES
from tasks.stage.process import end_with_this_process
from tasks.tracking.first_visit import FirstVisit, remember
from tasks.tracking.flow_run_names import NamedAfterRuns
from tasks.tracking.guard import ORIGINS, guarded, own_origins

# What closing the banner for the next version of the pages leaves in the browser.
REMEMBERED = {"prefect-v2-promo-dismissed": True, "prefect-show-promotional-content": False}
# Without a key, a page shows errors that stay until they are closed, and only then the page that asks for the key.
ASK_FOR_KEY = """
if (!localStorage["prefect-password"] && location.pathname !== "/login")
    history.replaceState(null, "", "/login?redirect=" + encodeURIComponent(location.pathname + location.search));
"""
CHECK = "/api/admin/version"  # even the page that asks for the key asks this first, and shows the refusal as an error


def create_app() -> ASGIApp:
    """Prefect's app behind the guard; a factory for uvicorn."""
    from prefect.server.api.server import create_app

    from tasks.tracking import notifying  # noqa: F401  # the server creates blocks of that type

    wait_for_writers()
    return guarded(opens_on_key(NamedAfterRuns(create_app(final=True))), os.environ[ORIGINS].split(","))


def wait_for_writers() -> None:
    """Begin every transaction on SQLite as a writer's, which waits for other writers as long as it is told to.

    Prefect begins most as a reader's. Such a one fails at once, whatever the time-out, if it writes after another has
    written since it began: SQLite's SQLITE_BUSY_SNAPSHOT, https://sqlite.org/lang_transaction.html.
    """
    from prefect.server.database.configurations import AioSqliteConfiguration

    begin = AioSqliteConfiguration.begin_transaction

    def begin_as_writer(
        self: AioSqliteConfiguration, session: Any, with_for_update: bool = True
    ) -> AbstractAsyncContextManager[Any]:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_as_writer  # type: ignore[assignment,method-assign]


def opens_on_key(app: ASGIApp) -> ASGIApp:
    """Prefect's app whose pages ask a new browser for the key at once, and show no error before that."""

    async def without_key(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == CHECK:
            headers = Headers(scope=scope)
            if "authorization" not in headers and urlsplit(headers.get("referer", "")).path == "/login":
                await JSONResponse("")(scope, receive, send)
                return
        await app(scope, receive, send)

    script = remember(REMEMBERED) + ASK_FOR_KEY
    return FirstVisit(without_key, script, lambda path: not path.startswith(("/api/", "/v2")))


def main(host: str, port: int) -> None:
    """Serve as `prefect server start` does: API, pages and all background services in this process."""
    import uvicorn
    from prefect.settings import get_current_settings

    server = get_current_settings().server
    uvicorn.run(
        create_app(),
        host=host,
        port=port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=server.logging_level.lower(),
    )


def start_own_server() -> None:
    """Start a server for this process only, with a key that only it knows. It ends with this process in any case."""
    from prefect.context import refresh_global_settings_context
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    class Guarded(SubprocessASGIServer):
        """Prefect's server for one process. Clients find it because Prefect keeps one per port."""

        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            known = get_current_settings().to_environment_variables(exclude_unset=True)
            own = {
                ORIGINS: ",".join(own_origins("127.0.0.1", self.port or 0)),
                "PREFECT_UI_ENABLED": "0",
                "PREFECT__SERVER_EPHEMERAL": "1",
                "PREFECT__SERVER_FINAL": "1",
            }
            app = ["--factory", f"{__name__}:create_app", "--lifespan", "on", "--log-level", "error"]
            where = ["--host", "127.0.0.1", "--port", str(self.port)]
            return subprocess.Popen([sys.executable, "-m", "uvicorn", *app, *where], env={**os.environ, **known, **own})

    key = new_key()
    os.environ.update(dict.fromkeys(KEY_VARIABLES, key))
    refresh_global_settings_context()  # Prefect read its settings when it was imported
    server = Guarded()
    with _first_in_its_folder(Path(get_current_settings().home)):
        server.start()
    if server.server_process:
        end_with_this_process(server.server_process.pid)


@contextmanager
def _first_in_its_folder(home: Path) -> Iterator[None]:
    """While this version of Prefect makes or changes its database, no second server starts: the two would collide."""
    made = home / f".database-of-{version('prefect')}"
    with nullcontext() if made.exists() else FileLock(home / ".database.lock"):
        yield
        made.touch()


def new_key() -> str:
    """Return a key for Prefect's server, in its format user:password."""
    return f"autodidact:{secrets.token_urlsafe()}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
