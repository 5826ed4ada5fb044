"""MLflow's server behind a guard, as served by `mlflow server --app-name autodidact`.

MLflow alone lets pages of other origins post to paths outside /api/, and trusts every page of this machine, whatever
its port. Its pages open on traces of GenAI apps, where no run is in sight, and beside an assistant, until the browser
remembers otherwise.
"""

import os

from starlette.types import ASGIApp

from tasks.tracking.first_visit import FirstVisit, remember
from tasks.tracking.guard import ORIGINS, guarded

# As MLflow's pages keep it (`useLocalStorage`, key and version): what one click on "Model training", closing the
# pop-ups and switching telemetry off would leave.
REMEMBERED = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.detectIssues.guidanceShown_v1": True,
    "mlflow.flagForReview.guidanceShown_v1": True,
    "mlflow.home.getting-started.collapsed_v1": True,
    "mlflow.settings.telemetry.enabled_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
}


def create_app() -> ASGIApp:
    """MLflow's app behind the guard; a factory for uvicorn."""
    from mlflow.server.fastapi_app import app

    return guarded(opens_on_runs(app), os.environ[ORIGINS].split(","))


def opens_on_runs(app: ASGIApp) -> ASGIApp:
    """MLflow's app whose one page, at its root, opens experiments on their runs."""
    return FirstVisit(app, remember(REMEMBERED), lambda path: path == "/")
