"""Flows on stub programs: everything is real but the heavy programs, which the end-to-end tests run, and figures."""

import functools
import json
import logging
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tasks.policies.train
import tasks.report.drawing
import tasks.rollouts.generate
import tasks.rollouts.judge_reward
import tasks.rollouts.trained_reward
import tasks.stage.launch
from flows.rest_em import RestEM
from flows.spin import Spin
from models import tiny
from tasks.stage.process import ChildError, run_child
from tasks.stage.run import Run
from tasks.tracking.mlflow import make_database
from tests.flows.stubs.common import write_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUBS = Path(__file__).parent / "stubs"


def use_stub_programs(replace: Callable[[Any, str, Any], None], inside: bool = False) -> None:
    """Have flows run the stub programs, and draw no figures.

    Args:
        inside: run them in the flow's own process. As processes of their own they spend nearly all of their time on
            imports, which matters where nothing is killed.
    """
    replace(Run, "start", staticmethod(partial(start_stub, inside)))
    replace(tasks.report.drawing, "as_svg", texts_of)


def texts_of(figure: "Figure", name: str, description: str) -> str:
    """The texts of a figure: nobody looks at it, and drawing takes long."""
    from matplotlib.text import Text

    texts = (str(text.get_text()) for text in figure.findobj(Text))
    return f"<svg>{escape(' '.join(texts))}</svg>"


def start_stub(
    inside: bool,
    command: Sequence[str],
    log_path: Path,
    lock: Path,
    logger: logging.Logger,
    environment: Mapping[str, str] | None = None,
) -> None:
    """What `run_child` does, with the stub of a program in its place. Stubs of training merge adapters themselves.

    Inside it is no child: nothing locks, and its output is not logged.
    """
    module = command[-2] if "-m" in command else ""
    stub = STUBS / f"{module.rpartition('.')[2]}.py"
    if module == "models.training.merge":
        return
    if not module or not stub.exists():
        run_child(command, log_path, lock, logger, environment)
        return
    told = [str(stub), command[-1]]
    if not inside:
        run_child([sys.executable, *told], log_path, lock, logger, environment)
        return
    with pytest.MonkeyPatch.context() as patch, log_path.open("a") as log, redirect_stdout(log):
        patch.setattr(sys, "argv", told)
        try:
            runpy.run_path(told[0], run_name="__main__")
        except SystemExit as error:
            raise ChildError(f"{' '.join(command)} failed: {error}") from error


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    use_stub_programs(monkeypatch.setattr, inside=True)


@pytest.fixture
def processes(stubs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub programs as processes of their own after all."""
    monkeypatch.setattr(Run, "start", staticmethod(partial(start_stub, False)))


@contextmanager
def prepared(cache: Path) -> Iterator[None]:
    """The stub programs and the environment that a test has, for a run that several tests share."""
    with pytest.MonkeyPatch.context() as patch:
        use_stub_programs(patch.setattr, inside=True)
        use_cache(patch, cache)
        yield


def use_cache(patch: pytest.MonkeyPatch, cache: Path) -> None:
    patch.setenv("AUTODIDACT_CACHE", str(cache))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)


def copy_runs(config: RestEM, folder: Path) -> None:
    """Copy a finished run with its history, hard links and all, to where `make_config` puts one."""
    subprocess.run(["cp", "--archive", config.runs_dir, folder / "runs"], check=True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs: a base is trained once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folders(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(monkeypatch, cache)


@functools.cache
def empty_history() -> bytes:
    """MLflow's database without a run in it, which takes seconds to make."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        make_database(f"sqlite:///{file}")
        return file.read_bytes()


@pytest.fixture
def config(tmp_path: Path) -> RestEM:
    return make_config(tmp_path)


def make_config(tmp_path: Path, **changes: Any) -> RestEM:
    """A ReST-EM run of two iterations on a hundred embedded problems, and its empty history."""
    make_history(tmp_path / "runs")
    return RestEM.model_validate(small(tmp_path) | {"iterations": 2} | changes)


def make_spin(tmp_path: Path, **changes: Any) -> Spin:
    """A SPIN run of two iterations on a hundred embedded demonstrations, and its empty history."""
    make_history(tmp_path / "runs")
    generate = {"samples": 1, "temperature": 1.0, "top_k": 0, "max_tokens": 48}
    return Spin.model_validate(small(tmp_path) | {"iterations": 2, "generate": generate} | changes)


def make_history(runs: Path) -> None:
    if not (runs / "mlflow.db").exists():
        runs.mkdir(exist_ok=True)
        (runs / "mlflow.db").write_bytes(empty_history())


def small(tmp_path: Path) -> dict[str, Any]:
    return {
        "run": "stub",
        "runs_dir": tmp_path / "runs",
        "limit": 100,
        "limit_validation": 100,
        "limit_test": 60,
        "limit_transfer": 40,
        "stop": {"rule": "none"},
        "generate": {"samples": 4, "max_tokens": 48},
        "evaluate": {"samples": 4, "pass_at": [1, 4]},
        "engine": {"shard_size": 80},
    }


def write_reward_model(folder: Path) -> Path:
    """A folder that is read as a reward model, which only stubs can run."""
    tiny.write_untrained(folder, ["Ada has 4 books."])
    kind = {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    (folder / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | kind))
    write_weights(folder)
    return folder
