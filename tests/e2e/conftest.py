"""End-to-end tests: real vLLM, real DeepSpeed, on the embedded tiny model, trained briefly once for all of them."""

import io
import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock

from data.arithmetic import embedded_problems
from data.rows import Example, Problem
from data.storage import write_rows
from flows.commands import cli, console
from flows.commands.flow_table import own_flows
from models import tiny
from models.config import (
    LaunchConfig,
    LikelihoodProgram,
    PreferenceProgram,
    RewardTrainProgram,
    SupervisedConfig,
    TrainProgram,
)
from models.launch import SUPERVISED, launch_command
from models.on_policy import OnPolicyProgram
from models.training.common import CHECKPOINTS, COMPLETE
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import child_environment
from tests.e2e.programs import printed, run_program, started, use_forks
from tests.forks import GENERATE
from tests.waiting import PATIENCE, eventually

Program = TrainProgram | PreferenceProgram | LikelihoodProgram | RewardTrainProgram | OnPolicyProgram


def train(folder: Path, program: Program, module: str = SUPERVISED, anew: bool = False) -> None:
    """Run a training program.

    Args:
        anew: start it as its stage does, which is slower.
    """
    config = write_config(folder, program)
    if program.launch.processes == 1 and not anew:
        run_program(module, config)
        return
    command = launch_command(module, program.launch, config)
    where = {"cwd": folder, "env": child_environment()}  # as a stage does it, in a folder of the user's
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **where)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def kill_at_checkpoint(folder: Path, program: Program, module: str = SUPERVISED) -> None:
    """Start a training program and kill it as soon as it has written a checkpoint."""
    config = write_config(folder, program)
    with started(module, config) as process:

        def reached() -> bool:
            assert process.poll() is None, printed(config)
            return any((folder / CHECKPOINTS).glob(f"checkpoint-*/{COMPLETE}"))

        eventually(reached, lambda: printed(config))


def write_config(folder: Path, program: Program) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "train.json"
    config.write_text(program.model_dump_json())
    return config


def autodidact(folder: Path, *arguments: str) -> str:
    """What a command does in a folder, with a cache of its own; returns what it printed.

    It runs in this process, without Prefect, and its programs are forked.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "MLFLOW_"))}
    output = io.StringIO()
    environment["AUTODIDACT_CACHE"] = str(folder / "cache")
    with (
        pytest.MonkeyPatch.context() as patch,
        mock.patch.dict(os.environ, environment, clear=True),
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        patch.chdir(folder)
        use_forks(patch.setattr)
        patch.setattr(console, "reach_servers", lambda runs: None)
        if found := own_flows().get(arguments[0]):
            patch.setattr(found.entrypoint.replace(":", "."), found.load().flow.fn)
        code = cli.main(arguments)
    assert code == 0, output.getvalue()[-3000:]
    return output.getvalue()


def generate(config: Path, anew: bool = False) -> str:
    """Run the generation program; return what it printed.

    Args:
        anew: start it as its stage does, which is slower.
    """
    if not anew:
        return run_program(GENERATE, config)
    done = subprocess.run(
        generate_command(config), capture_output=True, text=True, timeout=PATIENCE, check=False, env=child_environment()
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return list(embedded_problems(0))


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory, problems: list[Problem]) -> Path:
    file = tmp_path_factory.mktemp("examples") / "examples.parquet"
    worked = [p for p in problems if p.split == "demonstration"][:512]
    rows = (Example(p.id, 0, p.messages, p.response or "", None, "", 1.0 + i % 2) for i, p in enumerate(worked))
    write_rows(Example, file, rows)
    return file


@pytest.fixture(scope="session")
def policy(shared: Path, problems: list[Problem], examples: Path) -> Path:
    """The tiny model after a minute's training: it knows the form of an answer and little arithmetic.

    One worker trains it for all.
    """
    folder = shared / "policy"
    with FileLock(folder.with_suffix(".lock")):
        return folder / "run" / "policy" if folder.exists() else train_policy(folder, problems, examples)


def train_policy(folder: Path, problems: list[Problem], examples: Path) -> Path:
    worked = [p for p in problems if p.split == "demonstration"]
    tiny.write_untrained(
        folder / "untrained", (t for p in worked for t in (p.messages[0]["content"], p.response or ""))
    )
    program = TrainProgram(
        policy=folder / "untrained",
        examples=[examples],
        output=folder / "run" / "policy",
        seed=0,
        train=SupervisedConfig(learning_rate=3e-3, epochs=6, batch_size=32, dtype="float32"),
        launch=LaunchConfig(micro_batch_size=32),
    )
    train(folder / "run", program)
    return program.output
