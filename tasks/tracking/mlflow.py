"""The history in MLflow: one parent run per loop, one child per iteration, checkpoints registered by reference.

The only file that imports mlflow. Ids are kept in the run directory, so a resumed loop continues the same runs.
Anything logged just before a kill is found again rather than logged twice: runs by a tag, versions by their digest,
metrics by their time, which is their stage's.
"""

import json
import logging
import os
import re
import shlex
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from data.errors import RunFailedError
from data.files import write_json
from data.text import markdown, storable
from tasks.stage.contract import Artifact, flatten
from tasks.stage.environment import ARTIFACTS, SQLITE
from tasks.stage.logs import run_logger
from tasks.tracking.points import Point, points_of
from tasks.tracking.registry import DIGEST, PATH, Registry, Version

IDS = "mlflow.json"
KEY = "autodidact.key"
ON_RUNS = "workflowType=machine_learning"  # or MLflow's pages open on traces
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_. -]")
# MLflow's SCHEDULED means a loop that waits for approval.
RunStatus = Literal["FINISHED", "FAILED", "KILLED", "SCHEDULED"]


class HistoryError(RunFailedError):
    """MLflow cannot be reached, or refuses. Files on disk are not affected."""


def nameable(name: str) -> str:
    """Return a name that MLflow accepts for a metric or parameter. A slash would create folders."""
    return _UNNAMEABLE.sub("_", name).strip(".") or "_"


def tracking_uri(runs: Path) -> str:
    """Return `MLFLOW_TRACKING_URI`, or an SQLite file beside the runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.absolute() / SQLITE}"


def open_registry(runs: Path) -> Registry:
    """Open the model registry of a folder of runs."""
    return Registry(_client(tracking_uri(runs)))


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into a `HistoryError` that says what to do.

    Raises:
        HistoryError: MLflow cannot be reached, or refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        first = str(error).splitlines()[0]
        raise HistoryError(
            f"MLflow at {uri} failed: {first}",
            "Nothing on disk is lost.",
            "Check the server, then run the same command again to complete the history.",
        ) from error


def reach_history(runs: Path) -> None:
    """Check that MLflow answers.

    Raises:
        HistoryError: it cannot be reached, or refuses.
    """
    uri = tracking_uri(runs)
    with reaching(uri):
        _client(uri).search_experiments(max_results=1)


def _client(uri: str) -> Any:
    make_database(uri)
    from mlflow import MlflowClient

    return MlflowClient(uri)


def make_database(uri: str) -> None:
    """Make an SQLite file with all of MLflow's tables at once: MLflow refuses one that a kill left incomplete."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.model_registry.abstract_store").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it also raises what it logs
    from mlflow import MlflowClient

    if not uri.startswith("sqlite:///"):
        return
    file = Path(uri.removeprefix("sqlite:///"))
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not file.exists():
            partial = file.with_name(f".{file.name}.partial")
            partial.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{partial}").search_experiments()
            os.replace(partial, file)


class Tracking:
    """The MLflow runs of one loop. A method that failed halfway may be called again.

    Numbers that come while a stage runs are queued, and sent by another thread.
    """

    def __init__(self, directory: Path, experiment: str, config: Mapping[str, Any]) -> None:
        root = directory.parent.absolute()
        self.uri = tracking_uri(root)
        self.directory = directory
        self._ids: dict[str, str] = _read_ids(directory / IDS)
        self._ids_lock, self._queue_lock, self._sending = threading.RLock(), threading.Lock(), threading.Lock()
        self._queued: list[tuple[int | None, Point]] = []
        self._steps: dict[tuple[str, str], set[int]] = {}  # those that MLflow has, by run and metric
        self._new: set[str] = set()  # runs that this process has created
        self._opened: set[str] = set()  # iterations' runs that it has found or made running
        if "id" not in self._ids:
            self._remember("id", uuid.uuid4().hex)
        with reaching(self.uri):
            self.client = _client(self.uri)
            self.registry = Registry(self.client)
            self.experiment_id = self._experiment(experiment, root)
            self.parent = self._run("parent", directory.name, {})
            self.client.update_run(self.parent, status="RUNNING")
            self.started_ms = int(self.client.get_run(self.parent).info.start_time)
            self._log_params(self.parent, config)

    def reaching(self) -> AbstractContextManager[None]:
        """Context for calls: MLflow's errors become HistoryError."""
        return reaching(self.uri)

    def logged(self, iteration: int) -> bool:
        """Whether everything of an iteration is in the history."""
        return f"logged-{iteration}" in self._ids

    def open_iteration(self, iteration: int) -> None:
        """Have an iteration's run in MLflow, as running, unless it is complete."""
        with self._ids_lock:
            run = self._iteration(iteration)
            if not self.logged(iteration) and run not in self._opened:
                if run not in self._new:
                    self.client.update_run(run, status="RUNNING")
                self._opened.add(run)

    def log_iteration(
        self,
        iteration: int,
        metrics: Mapping[str, float],
        tables: Mapping[str, Path],
        time_ms: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Log an iteration's metrics to its own run and, with `step = iteration`, to the parent; the rest to its own.

        Logging the same iteration again, after a resume, changes nothing.

        Args:
            tables: files of columns and rows, by the folder that they are shown in.
            settings: what the iteration's stages were made with.
        """
        run = self._iteration(iteration)
        if self.logged(iteration):
            return
        self._log_params(run, settings or {})
        for target in (run, self.parent):
            self._log_metrics(target, [Point(name, value, iteration, time_ms) for name, value in metrics.items()])
        for folder, path in tables.items():
            self.client.log_artifact(run, str(path), folder)
        shown = [{"path": f"{folder}/{path.name}", "type": "table"} for folder, path in tables.items()]
        self.client.set_tag(run, "mlflow.loggedArtifacts", json.dumps(shown))  # so that its page draws tables
        with self._ids_lock:
            self.client.set_terminated(run, "FINISHED")
            self._remember(f"logged-{iteration}", "yes")

    def log_training(self, iteration: int, journal: Path, time_ms: int) -> None:
        """Log the numbers in a trainer's journal that were not sent while it ran to the iteration's run."""
        if f"trained-{iteration}" in self._ids or not journal.exists():
            return
        self.queue(iteration, points_of(journal.read_text(), "train", time_ms))
        self.send_queued()
        self._remember(f"trained-{iteration}", "yes")

    def queue(self, iteration: int | None, points: Iterable[Point]) -> None:
        """Keep points for an iteration's run, or with None for the parent, until they are sent."""
        with self._queue_lock:
            self._queued += [(iteration, point) for point in points]

    def send_queued(self) -> None:
        """Send what is queued. Of a metric, a step that MLflow has is not sent again."""
        with self._sending:
            with self._queue_lock:
                queued = list(self._queued)
            for iteration in dict.fromkeys(iteration for iteration, _ in queued):
                run = self.parent if iteration is None else self._iteration(iteration)
                new: dict[tuple[str, int], Point] = {}
                for of, point in queued:
                    if of == iteration and point.step not in self._known_steps(run, point.name):
                        new.setdefault((point.name, point.step), point)
                self._log_metrics(run, list(new.values()))
                for name, step in new:
                    self._known_steps(run, name).add(step)
            with self._queue_lock:
                del self._queued[: len(queued)]

    def _known_steps(self, run: str, name: str) -> set[int]:
        if (run, name) not in self._steps:
            there = [] if run in self._new else self.client.get_metric_history(run, name)
            self._steps[run, name] = {point.step for point in there}
        return self._steps[run, name]

    def log_dataset(self, name: str, digest: str, path: str, counts: Mapping[str, int]) -> None:
        """Record a data set by digest on the parent run, with its number of rows from each of the user's data sets."""
        if f"dataset-{name}" in self._ids:
            return
        from mlflow.entities import Dataset, DatasetInput

        profile = {"rows": sum(counts.values()), "sources": dict(counts)}
        dataset = Dataset(name, digest[:36], "local", json.dumps({"uri": path}), profile=json.dumps(profile))
        self.client.log_inputs(self.parent, [DatasetInput(dataset, [])])
        self._remember(f"dataset-{name}", "yes")

    def register(self, model: str, iteration: int, policy: Artifact, tags: Mapping[str, str]) -> Version:
        """Register a checkpoint by path and digest as a version of `model`; nothing is copied.

        A checkpoint is registered once: an existing version with the same digest is returned.
        """
        digest = policy.require()
        for version in self.registry.versions(model):
            if version.digest == digest:
                return version
        if not self.client.search_registered_models(filter_string=f"name = '{model}'"):
            self.client.create_registered_model(model)
        run = self._iteration(iteration)
        described = {PATH: str(policy.path.absolute()), DIGEST: digest, "iteration": str(iteration), **tags}
        reference = self._reference(iteration, run, described)
        created = self.client.create_model_version(
            model,
            source=f"models:/{reference}",
            run_id=run,
            tags=described,
            model_id=reference,
            description=_how_to_load(self.directory.name, iteration, policy.path.absolute()),
        )
        return Version(model, str(created.version), policy.path, digest, described)

    def _reference(self, iteration: int, run: str, described: Mapping[str, str]) -> str:
        """Return the id of a version's external model. One that a kill left unfinished is made again."""
        import mlflow
        from mlflow.entities import LoggedModelStatus

        mlflow.set_tracking_uri(self.uri)  # where a registry in SQLite looks for the model of a version, too
        same = f"tags.{DIGEST} = '{described[DIGEST]}'"
        for model in self.client.search_logged_models([self.experiment_id], same):
            if model.source_run_id == run and model.status == LoggedModelStatus.READY:
                return str(model.model_id)
            if model.source_run_id == run:
                self.client.delete_logged_model(model.model_id)
        made = mlflow.create_external_model(
            name=f"{self.directory.name}-{iteration}".replace(".", "-"),  # dots are allowed in run names but not here
            source_run_id=run,
            tags=dict(described),
            experiment_id=self.experiment_id,
        )
        return str(made.model_id)

    def log_final(self, metrics: Mapping[str, float], name: str, time_ms: int) -> None:
        """Log metrics of the finished loop to the parent run, once per name."""
        if f"final-{name}" not in self._ids:
            points = [Point(f"final/{key}", value, 0, time_ms) for key, value in metrics.items()]
            self._log_metrics(self.parent, points)
            self._remember(f"final-{name}", "yes")

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set tags of the parent run, by which runs can be filtered."""
        from mlflow.entities import RunTag

        told = [RunTag(name, storable(value)[:5000]) for name, value in tags.items() if value]
        self.client.log_batch(self.parent, tags=told)

    def log_files(self, *paths: Path) -> None:
        for path in paths:
            self.client.log_artifact(self.parent, str(path))

    def finish(self, status: RunStatus) -> None:
        """Close the parent run and every iteration that is still open."""
        for key, run in self._ids.items():
            if key.startswith("iteration-") and self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, status)
        self.client.set_terminated(self.parent, status)

    def where(self) -> str:
        """Where to find the run: its page on a server, or how to open the file."""
        if self.uri.startswith("http"):
            shown = re.sub(r"//[^/@]*@", "//", self.uri.rstrip("/"))  # the address may contain a password
            return f"{shown}/#/experiments/{self.experiment_id}/runs/{self.parent}?{ON_RUNS}"
        command = f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"
        page = f"http://127.0.0.1:5000/#/experiments/{self.experiment_id}/runs/{self.parent}?{ON_RUNS}"
        return f"run {self.parent}; to look at it, {command} and open {page}"

    def _experiment(self, name: str, root: Path) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = (root / ARTIFACTS).as_uri() if self.uri.startswith("sqlite") else None
        return str(self.client.create_experiment(name, artifact_location=location))

    def _iteration(self, number: int) -> str:
        """Return the run of an iteration, created on first use."""
        return self._run(f"iteration-{number}", f"{self.directory.name}/iteration-{number}", {"iteration": str(number)})

    def _run(self, key: str, name: str, tags: Mapping[str, str]) -> str:
        with self._ids_lock:
            if key not in self._ids:
                mark = f"{self._ids['id']}/{key}"
                found = self.client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{mark}'")
                if not found:
                    tags = {KEY: mark, **tags}
                    if key != "parent":
                        tags["mlflow.parentRunId"] = self._ids["parent"]
                    found = [self.client.create_run(self.experiment_id, run_name=name, tags=tags)]
                    self._new.add(found[0].info.run_id)
                self._remember(key, found[0].info.run_id)
            return self._ids[key]

    def _log_params(self, run: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        flat = flatten(settings)
        known = self.client.get_run(run).data.params
        named = {nameable(name): storable(str(value))[:6000] for name, value in flat.items()}
        new = [Param(name, value) for name, value in named.items() if name not in known]
        for start in range(0, len(new), 100):
            self.client.log_batch(run, params=new[start : start + 100])

    def _log_metrics(self, run: str, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def _remember(self, key: str, value: str) -> None:
        with self._ids_lock:
            self._ids[key] = value
            write_json(self.directory / IDS, self._ids)


def _how_to_load(run: str, iteration: int, policy: Path) -> str:
    """A version's description, in Markdown. Its number counts all versions of the model, from 1."""
    code = f"`AutoModelForCausalLM.from_pretrained({str(policy)!r})`"
    return (
        markdown(f"Iteration {iteration} of the run {run}. The number counts all runs' versions. Load it with ") + code
    )


class MachineLoad:
    """CPU, memory and, where there are any, GPUs, under the names that MLflow has for them."""

    def __init__(self) -> None:
        import pynvml  # noqa: F401  MLflow looks whether it was imported
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        self._monitors: list[Any] = [CPUMonitor()]
        with suppress(RuntimeError):  # no driver, or no GPU
            self._monitors.append(GPUMonitor())

    def measure(self) -> dict[str, float]:
        """The load since the last call."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"system/{name}": value for name, value in values.items()}


def close_stale(directory: Path) -> list[str]:
    """Mark a loop's MLflow runs that are still RUNNING as KILLED if no process works on it. Return their names."""
    ids = _read_ids(directory / IDS)
    client, closed = _client(tracking_uri(directory.parent)), []
    for key, run_id in ids.items():
        if key == "parent" or key.startswith("iteration-"):
            run = client.get_run(run_id)
            if run.info.status == "RUNNING":
                client.set_terminated(run_id, "KILLED")
                closed.append(str(run.info.run_name))
    return closed


def _read_ids(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except ValueError:
        kept = path.with_suffix(".damaged")
        os.replace(path, kept)
        run_logger().warning("%s cannot be read. It is kept as %s, and MLflow starts a new history.", path, kept)
        return {}
