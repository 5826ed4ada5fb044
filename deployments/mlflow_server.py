"""MLflow's server with a guard in front, which `mlflow server --app-name autodidact` serves.

By itself MLflow lets other origins' pages post to what does not lie below /api/, and takes every page of this machine,
whatever its port, for its own.
"""

import os

from starlette.types import ASGIApp

from tasks.tracking.guard import ORIGINS, guarded


def create_app() -> ASGIApp:
    """MLflow's app behind the guard; a factory for uvicorn."""
    from mlflow.server.fastapi_app import app

    return guarded(app, os.environ[ORIGINS].split(","))
