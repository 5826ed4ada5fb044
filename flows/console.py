"""What a flow shows in the terminal: the plan of a dry run, the table of a finished run, an error in plain words."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from data.calibration import RewardMetrics
from data.render import PromptTooLongError, TemplateError
from data.rewards import RewardError
from data.scoring import TooManyErrorsError
from data.sources import DataFileError, hub_name
from tasks.adapter import AdapterError
from tasks.approval import ApprovalError
from tasks.champion import settle
from tasks.contract import CorruptStageError, DriftError, OnDrift, Status
from tasks.files import DiskError, explain_disk_errors
from tasks.loop import RunConfig
from tasks.policy import ModelError
from tasks.preflight import DiskSpaceError, check
from tasks.process import ChildError, StillRunningError
from tasks.record import REPORT
from tasks.reward_report import reward_tables
from tasks.run import SUMMARY, Planned, Run, RunDirectoryError, RunInUseError
from tasks.score import NothingKeptError
from tasks.servers import reach_servers
from tasks.tracking import HistoryError
from tasks.verify import verify_run

BAD_INPUT = (
    DataFileError,
    RewardError,
    ModelError,
    TemplateError,
    PromptTooLongError,
    AdapterError,
    ApprovalError,
    DriftError,
    DiskSpaceError,
    CorruptStageError,
    RunDirectoryError,
    RunInUseError,
    StillRunningError,
)
RUN_FAILED = (ChildError, DiskError, HistoryError, NothingKeptError, TooManyErrorsError)


def run_flow(module: ModuleType, flow_name: str, config: RunConfig, dry_run: bool, on_drift: str) -> int:
    """Run a flow, or show its plan. Returns the exit code."""
    policy = OnDrift(on_drift)
    try:
        with explain_disk_errors(str(config.directory), config.directory):
            config = settle(config)
            if dry_run:
                show_plan(module, config, policy)
                return 0
            plan = check(module.loop, config, policy)
            if finished(plan):
                print(f"{config.directory} is finished; nothing is left to do.")
            else:
                reach_servers(config.runs_dir)
                getattr(module, flow_name)(config, policy)
            show_summary(config.directory)
            return 0
    except BAD_INPUT as error:
        print(f"autodidact: {error}", file=sys.stderr)
        return 2
    except RUN_FAILED as error:
        print(f"autodidact: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("autodidact: stopped. Run the same command again to go on from here.", file=sys.stderr)
        return 130
    except Exception as error:
        # Whatever a stage reads was verified, but not what only the report reads: a damaged file may explain it.
        if not (damages := _damages(config.directory)):
            raise
        lines = "\n".join(damages)
        print(
            f"autodidact: {lines}\nThat ended the run ({type(error).__name__}). Nothing was deleted: "
            f"run the same command again with --on-drift rebuild to make it anew.",
            file=sys.stderr,
        )
        return 2


def _damages(directory: Path) -> list[str]:
    try:
        return verify_run(directory)
    except RunDirectoryError:
        return []


def finished(plan: Run) -> bool:
    """Whether every stage would be reused and the report is there."""
    kept = (Status.REUSE, Status.DRIFT) if plan.on_drift is OnDrift.ACCEPT else (Status.REUSE,)
    return all(p.status in kept for p in plan.plan) and _has_report(plan.directory)


def _has_report(directory: Path) -> bool:
    """Whether the report and a summary that can be read are there; if not, they are made again."""
    try:
        return isinstance(_summary(directory), dict) and (directory / REPORT).exists()
    except (OSError, ValueError):
        return False


def _summary(directory: Path) -> Any:
    return json.loads((directory / SUMMARY).read_text())


def show_summary(directory: Path) -> None:
    """Print the table of iterations and the final comparison, or what a reward model came to; and where it all is."""
    summary = _summary(directory)
    console = make_console()
    if "held_out" in summary:
        for table in reward_tables(RewardMetrics.model_validate(summary["held_out"])):
            console.print(table)
        for label, key in (("reward model", "best"), ("report", "report"), ("MLflow", "mlflow")):
            console.print(f"{label}: {summary[key]}", soft_wrap=True, highlight=False)
        return
    rows = summary["iterations"]
    table = Table(title="Validation, by iteration", title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
    final = Table(title="Held out to the end: greedy pass@1, 95 % intervals", title_justify="left")
    for name in ("set", "n", "base", f"best (iteration {summary['best_iteration']})", "gain", "excludes zero"):
        final.add_column(name, justify="right")
    for name, row in summary["final"].items():
        final.add_row(name, row["n"], row["base"], row["best"], row["gain"], row["clear"])
    console.print(final)
    for label, key in (("stopped because", "stop_reason"), ("best policy", "best"), ("report", "report")):
        console.print(f"{label}: {summary[key]}", soft_wrap=True, highlight=False)
    console.print(f"champion: {summary['champion']}", soft_wrap=True, highlight=False)
    console.print(f"MLflow: {summary['mlflow']}", soft_wrap=True, highlight=False)


def show_plan(module: ModuleType, config: RunConfig, on_drift: OnDrift) -> None:
    """Print what every stage would do and cost. Needs no server, no GPU and no model."""
    from tasks.loop import plan_loop

    plan = plan_loop(module.loop, config, on_drift)
    table = Table(title=f"{config.directory}: {len(plan.plan)} stages (figures are upper bounds)", title_justify="left")
    for name in ("stage", "would", "samples or examples", "tokens", "disk", "memory per GPU", "GPUs"):
        table.add_column(name, justify="left" if name in ("stage", "would") else "right")
    for planned in plan.plan:
        table.add_row(*_plan_row(planned))
    left = [p.stage.estimate for p in plan.plan if p.status is not Status.REUSE]
    table.add_section()
    table.add_row(
        "to do",
        "",
        "",
        _si(sum(e.tokens for e in left)),
        format_bytes(sum(e.disk_bytes for e in left)),
        "",
        "",
    )
    console = make_console()
    console.print(table)
    for planned in plan.plan:
        if planned.stage.command:
            console.print(f"{planned.stage.name}: {planned.stage.command}", soft_wrap=True, highlight=False)
    for name, path in config.input_files().items():
        if not path.exists() and hub_name(path) is None:
            console.print(f"missing: {name} {path}; it has to be there before the run starts", highlight=False)
    base = next(planned.stage for planned in plan.plan if planned.stage.name == "base")
    if config.model and base.inputs["model"].digest is None:
        console.print(f"missing: model {config.model} is not in the cache; it will be fetched", highlight=False)


def _plan_row(planned: Planned) -> tuple[str, ...]:
    estimate = planned.stage.estimate
    would = {
        Status.RUN: "run",
        Status.RESUME: "resume",
        Status.REUSE: "reuse",
        Status.DRIFT: "stop: made with other settings",
        Status.OPEN: "reuse, if its inputs stay the same",
    }[planned.status]
    memory = "unknown" if estimate.gpu_bytes is None else f"≈ {format_bytes(estimate.gpu_bytes)}"
    return (
        planned.stage.name,
        would,
        f"{estimate.samples:,}" if estimate.samples else "",
        _si(estimate.tokens) if estimate.tokens else "",
        format_bytes(estimate.disk_bytes) if estimate.disk_bytes else "",
        memory if estimate.devices else "",
        str(estimate.devices) if estimate.devices else "",
    )


def _si(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def format_bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"


def make_console() -> Console:
    console: Any = Console()
    return console if console.is_terminal else Console(width=120)
