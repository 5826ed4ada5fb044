"""The history in MLflow: one parent run per loop, one child per iteration, checkpoints registered by reference.

The only file that imports mlflow. Ids are kept in the run directory, so a resumed loop continues the same runs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tasks.contract import Artifact
from tasks.files import write_json

IDS = "mlflow.json"
CHAMPION = "champion"
RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class Tracking:
    """The MLflow runs of one loop.

    With `MLFLOW_TRACKING_URI` set, that server is used; else the SQLite file `mlflow.db` beside the runs.
    """

    def __init__(self, directory: Path, experiment: str, config: Mapping[str, Any]) -> None:
        import logging
        import os

        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        root = directory.parent.absolute()
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
        self.client = MlflowClient(self.uri)
        self.directory = directory
        self._ids: dict[str, str] = _read_ids(directory / IDS)
        self.experiment_id = self._experiment(experiment, root)
        self.parent = self._run("parent", directory.name, {})
        self._begin(self.parent)
        self._log_params(config)

    def log_iteration(self, iteration: int, metrics: Mapping[str, float], tables: Mapping[str, Path]) -> None:
        """Log an iteration's metrics to its own run and, with `step = iteration`, to the parent. Files go along.

        Logging the same iteration again, after a resume, changes nothing.
        """
        run = self._run(
            f"iteration-{iteration}", f"{self.directory.name}/iteration-{iteration}", {"iteration": str(iteration)}
        )
        if f"logged-{iteration}" in self._ids:
            return
        for target in (run, self.parent):
            self._log_metrics(target, {name: [(iteration, value)] for name, value in metrics.items()})
        for folder, path in tables.items():
            self.client.log_artifact(run, str(path), folder)
        self.client.set_terminated(run, "FINISHED")
        self._remember(f"logged-{iteration}", "yes")

    def log_training(self, iteration: int, journal: Path) -> None:
        """Forward a trainer's metrics.jsonl to the iteration's run."""
        run = self._run(
            f"iteration-{iteration}", f"{self.directory.name}/iteration-{iteration}", {"iteration": str(iteration)}
        )
        if f"trained-{iteration}" in self._ids or not journal.exists():
            return
        curves: dict[str, list[tuple[int, float]]] = {}
        for line in journal.read_text().splitlines():
            row = json.loads(line)
            for name, value in row.items():
                if name != "step":
                    curves.setdefault(f"train/{name}", []).append((row["step"], value))
        self._log_metrics(run, curves)
        self._remember(f"trained-{iteration}", "yes")

    def log_dataset(self, name: str, digest: str, source: str, rows: int) -> None:
        """Record a data set by digest on the parent run."""
        if f"dataset-{name}" in self._ids:
            return
        from mlflow.entities import Dataset, DatasetInput

        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": source}), profile=json.dumps({"rows": rows}))
        self.client.log_inputs(self.parent, [DatasetInput(dataset, [])])
        self._remember(f"dataset-{name}", "yes")

    def register(self, model: str, iteration: int, policy: Artifact, tags: Mapping[str, str], champion: bool) -> None:
        """Register a checkpoint by path and digest as a version of `model`; nothing is copied."""
        key = f"version-{policy.require()[:16]}"
        if key not in self._ids:
            from mlflow.exceptions import MlflowException

            try:
                self.client.create_registered_model(model)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            import mlflow

            mlflow.set_tracking_uri(self.uri)
            run = self._ids.get(f"iteration-{iteration}")
            described = {
                "path": str(policy.path.absolute()),
                "digest": policy.require(),
                "iteration": str(iteration),
                **tags,
            }
            reference = mlflow.create_external_model(
                name=f"{self.directory.name}-{iteration}".replace(".", "-"),  # a run may be called v1.5, this may not
                source_run_id=run,
                tags=described,
                experiment_id=self.experiment_id,
            )
            version = self.client.create_model_version(
                model, source=f"models:/{reference.model_id}", run_id=run, tags=described, model_id=reference.model_id
            )
            self._remember(key, str(version.version))
        if champion:
            self.client.set_registered_model_alias(model, CHAMPION, self._ids[key])

    def log_final(self, metrics: Mapping[str, float], name: str) -> None:
        """Log metrics of the finished loop to the parent run, once per name."""
        if f"final-{name}" not in self._ids:
            self._log_metrics(self.parent, {f"final/{key}": [(0, value)] for key, value in metrics.items()})
            self._remember(f"final-{name}", "yes")

    def log_files(self, *paths: Path) -> None:
        for path in paths:
            self.client.log_artifact(self.parent, str(path))

    def finish(self, status: RunStatus) -> None:
        """Close the parent and every iteration that is still open."""
        for key, run in self._ids.items():
            if key.startswith("iteration-") and self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, status)
        self.client.set_terminated(self.parent, status)

    def where(self) -> str:
        """Where a person finds the run: its page on a server, else how to look at the file."""
        if self.uri.startswith("http"):
            return f"{self.uri.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.parent}"
        return f"run {self.parent}; look at it with: mlflow ui --backend-store-uri {self.uri}"

    def _experiment(self, name: str, root: Path) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (root / "mlflow-artifacts").as_uri() if self.uri.startswith("sqlite") else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _run(self, key: str, name: str, tags: Mapping[str, str]) -> str:
        if key not in self._ids:
            parent = {"mlflow.parentRunId": self._ids["parent"]} if key != "parent" else {}
            run = self.client.create_run(self.experiment_id, run_name=name, tags={**tags, **parent})
            self._remember(key, run.info.run_id)
        return self._ids[key]

    def _begin(self, run: str) -> None:
        self.client.update_run(run, status="RUNNING")

    def _log_params(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        flat = _flatten(config)
        known = self.client.get_run(self.parent).data.params
        new = [Param(name, str(value)[:6000]) for name, value in flat.items() if name not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(self.parent, params=new[start : start + 100])

    def _log_metrics(self, run: str, curves: Mapping[str, list[tuple[int, float]]]) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, points in curves.items() for step, value in points]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def _remember(self, key: str, value: str) -> None:
        self._ids[key] = value
        write_json(self.directory / IDS, self._ids)


def _read_ids(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat
