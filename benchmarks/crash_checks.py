"""What a finished loop leaves behind: its files, rows, locks and history, and their faults."""

import fcntl
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from tasks.stage.contract import MANIFEST, CorruptStageError, Finished, load_finished
from tasks.stage.run import LOCK_HOLDER

TEMPORARY = (".attempt", ".partial", ".replaced")
# Metrics whose values a repeated run must reproduce; others measure time, or restart after a resume.
REPEATED = ("validation/", "selection/", "verdicts/", "final/")
# Metrics that come as often as there is time for: the machine's load, and how fast an engine is. And those of training
# the base, which only the loop has that trained it: the others find it in the cache.
LIVE = re.compile(r"system/|base/|.*/tokens_per_second$")


@dataclass(frozen=True)
class Traces:
    """What can be compared between two runs of the same loop, and faults within one of them."""

    stages: dict[str, Finished]
    digests: dict[str, str]
    rows: dict[str, int]
    history: dict[str, Any]
    faults: list[str] = field(default_factory=list)

    def against(self, other: "Traces") -> list[str]:
        """The faults of these traces, given that the others are correct."""
        return [
            *self.faults,
            *_differences("the digest of", self.digests, other.digests),
            *_differences("the number of rows of", self.rows, other.rows),
            *_differences("in MLflow,", self.history, other.history),
        ]


def read_traces(runs: Path, run: str, cache: Path) -> Traces:
    """Read everything that the loop `run`, the only one below `runs`, left there and in its cache."""
    directory = runs / run
    faults: list[str] = []
    stages: dict[str, Finished] = {}
    for manifest in sorted(directory.rglob(MANIFEST)):
        name = str(manifest.parent.relative_to(directory))
        try:
            finished = load_finished(manifest.parent)
            assert finished is not None
            finished.verify()
            stages[name] = finished
            faults += _unlisted(finished)
        except CorruptStageError as error:
            faults.append(str(error))
    rows = {}
    for name, files in _row_files(directory, stages).items():
        rows[name], unique = _count(files)
        if unique != rows[name]:
            faults.append(f"{name} has {rows[name]} rows, but only {unique} different ones")
    history = read_history(runs)
    faults += [*_unfit(history, stages), *_left_over(directory, cache), *_held(directory, cache)]
    return Traces(stages, {name: stage.manifest.digest for name, stage in stages.items()}, rows, history, faults)


def read_history(runs: Path) -> dict[str, Any]:
    """MLflow's records of a loop, by a description in words; duplicates stay duplicates."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found: dict[str, Any] = {}
    names: Counter[str] = Counter()
    for run in client.search_runs(experiments):
        child = "mlflow.parentRunId" in run.data.tags
        name = f"iteration {run.data.tags.get('iteration')}" if child else "parent"
        names[name] += 1
        if names[name] > 1:
            name += f" ({names[name]})"
        found[f"status of {name}"] = run.info.status
        found[f"parameters of {name}"] = len(run.data.params)
        found[f"files of {name}"] = sorted(file.path for file in client.list_artifacts(run.info.run_id))
        inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
        found[f"data sets of {name}"] = sorted(given.dataset.name for given in inputs)
        for metric in filter(lambda name: not LIVE.match(name), run.data.metrics):
            points = client.get_metric_history(run.info.run_id, metric)
            repeated = metric.startswith(REPEATED)
            found[f"{metric} of {name}"] = sorted((p.step, p.value if repeated else None) for p in points)
    found["runs"] = dict(sorted(names.items()))
    found["checkpoints"] = sorted(version.tags.get("digest", "none") for version in client.search_model_versions())
    found["logged models"] = len(client.search_logged_models(experiments))
    models = client.search_registered_models()
    found["champion"] = [
        client.get_model_version(m.name, m.aliases["champion"]).tags["digest"]
        for m in models
        if "champion" in m.aliases
    ]
    return found


def _unfit(history: Mapping[str, Any], stages: Mapping[str, Finished]) -> Iterator[str]:
    """Faults of a history by itself, without comparing it."""
    iterations = sum(bool(re.fullmatch(r"iter-\d+/evaluate", name)) for name in stages)
    wanted = {f"iteration {number}": 1 for number in range(iterations)} | {"parent": 1}
    yield from _differences("in MLflow,", {"runs": history["runs"]}, {"runs": wanted})
    for name, value in history.items():
        if name.startswith("status of") and value != "FINISHED":
            yield f"in MLflow, {name} is {value} instead of FINISHED"
        if " of " in name and isinstance(value, list) and value and isinstance(value[0], tuple):
            steps = [step for step, _ in value]
            if len(set(steps)) != len(steps):
                yield f"in MLflow, {name} has a step twice: {steps}"
    policies = {
        stage.artifact("policy").require()
        for name, stage in stages.items()
        if re.search("base$|train$", name) and not name.startswith("final")
    }
    yield from _differences("in MLflow,", {"checkpoints": history["checkpoints"]}, {"checkpoints": sorted(policies)})
    if history["logged models"] != len(policies):
        yield f"in MLflow, there are {history['logged models']} logged models of {len(policies)} checkpoints"


def _unlisted(stage: Finished) -> Iterator[str]:
    known = {*stage.manifest.outputs, *stage.manifest.logs, MANIFEST}
    for file in sorted(stage.path.rglob("*")):
        if file.is_file() and str(file.relative_to(stage.path)) not in known:
            yield f"{file} is in no manifest"


def _row_files(directory: Path, stages: Mapping[str, Finished]) -> dict[str, list[Path]]:
    """Parquet files by name; the shards in a folder are one group."""
    found: dict[str, list[Path]] = {}
    for stage in stages.values():
        for name in sorted(stage.manifest.outputs):
            file = stage.path / name
            if file.suffix == ".parquet":
                whole = file.parent if file.stem.isdigit() else file
                found.setdefault(str(whole.relative_to(directory)), []).append(file)
    return found


def _count(files: list[Path]) -> tuple[int, int]:
    """The number of rows, and of distinct rows by the columns that identify a row."""
    columns = pq.read_schema(files[0]).names
    keys = ["id"] if "id" in columns else ["problem_id", "index"]
    table = pa.concat_tables(pq.read_table(file, columns=keys) for file in files)
    return table.num_rows, table.group_by(keys).aggregate([]).num_rows


def _left_over(directory: Path, cache: Path) -> Iterator[str]:
    for folder in (directory, cache / "bootstrap"):
        for path in sorted(folder.rglob(".*")):
            if path.name.endswith(TEMPORARY):
                yield f"{path} is left"


def _held(directory: Path, cache: Path) -> Iterator[str]:
    if (directory / LOCK_HOLDER).exists():
        yield f"{directory / LOCK_HOLDER} is left"
    try:
        with FileLock(directory / ".lock", timeout=0):
            pass
    except Timeout:
        yield f"{directory / '.lock'} is still held"
    for lock in (directory / ".child.lock", *cache.glob("bootstrap/*.child.lock")):
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield f"{lock} is still held"


def _differences(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(found.keys() | wanted.keys()):
        ours, others = found.get(name, "nothing"), wanted.get(name, "nothing")
        if ours != others:
            yield f"{what} {name} is {ours} instead of {others}"
