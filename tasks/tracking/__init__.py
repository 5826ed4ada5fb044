"""Where a run is shown while it goes on and afterward: MLflow, Prefect's page, the registry and its champion."""
