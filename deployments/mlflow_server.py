"""MLflow's server behind a guard, as served by `mlflow server --app-name autodidact`.

MLflow alone lets pages of other origins post to paths outside /api/, and trusts every page of this machine, whatever
its port.
"""

import os

from starlette.types import ASGIApp

from tasks.tracking.guard import ORIGINS, guarded


def create_app() -> ASGIApp:
    """MLflow's app behind the guard; a factory for uvicorn."""
    from mlflow.server.fastapi_app import app

    return guarded(app, os.environ[ORIGINS].split(","))
