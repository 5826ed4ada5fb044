"""Where a run is shown, during and afterward: MLflow, Prefect's pages, the registry and its champion."""
