"""What a flow prints in the terminal: the table of a finished run, plain error messages."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from data.calibration import RewardMetrics
from data.errors import STOPPED, AutodidactError
from flows.commands.flow_table import LoadedFlow
from flows.commands.plan import show_plan
from flows.commands.printing import make_console, say
from tasks.history.verify import verify_run
from tasks.loop.preflight import check
from tasks.report.use import commands
from tasks.settings.run import RunConfig
from tasks.stage.contract import OnDrift, Status
from tasks.stage.disks import explain_disk_errors
from tasks.stage.logs import keep_logs_plain
from tasks.stage.run import SUMMARY, Run, RunDirectoryError, finish_interrupted
from tasks.tracking.champion import resolve_settings
from tasks.tracking.recorder import REPORT
from tasks.tracking.reward_report import headline, reward_tables
from tasks.tracking.servers import reach_servers


class StoppedError(AutodidactError):
    """Stopped by Ctrl-C or a similar signal."""

    exit_code = STOPPED


class DamagedError(AutodidactError):
    """Files of the run were changed or removed, and that ended it."""


def run_flow(flow: LoadedFlow, config: RunConfig, dry_run: bool, on_drift: str) -> int:
    """Run a flow, or show its plan. Returns the exit code.

    Raises:
        AutodidactError: bad input, or the run failed, was stopped, or is damaged.
    """
    policy = OnDrift(on_drift)
    try:
        with explain_disk_errors(str(config.directory), config.directory):
            config = resolve_settings(config)
            if dry_run:
                show_plan(flow.loop, config, policy)
                return 0
            plan = check(flow.loop, config, policy)
            if finished(plan):
                finish_interrupted(config.directory)
                say(f"{config.directory} is finished; nothing is left to do.")
            else:
                keep_logs_plain()  # also Prefect's messages before the flow begins
                reach_servers(config.runs_dir)
                flow.flow(config, policy)
            show_summary(config.directory)
            return 0
    except KeyboardInterrupt:
        raise StoppedError("stopped.", what_next="Run the same command again to continue.") from None
    except AutodidactError:
        raise
    except Exception as error:
        # A stage's inputs were verified, but not files that only the report reads: a damaged one may be the cause.
        if not (damages := _damages(config.directory)):
            raise
        raise DamagedError(
            "\n".join(damages) + "\n",
            f"That ended the run ({type(error).__name__}). Nothing was deleted.",
            "Run the same command again with --on-drift rebuild to rebuild the damaged stages.",
        ) from error


def _damages(directory: Path) -> list[str]:
    try:
        return verify_run(directory)
    except RunDirectoryError:
        return []


def finished(plan: Run) -> bool:
    """Whether every stage would be reused and the report exists."""
    kept = (Status.REUSE, Status.DRIFT) if plan.on_drift is OnDrift.ACCEPT else (Status.REUSE,)
    return all(p.status in kept for p in plan.plan) and _has_report(plan.directory)


def _has_report(directory: Path) -> bool:
    """Whether the report and a readable summary exist; if not, they are made again."""
    try:
        return isinstance(_summary(directory), dict) and (directory / REPORT).exists()
    except (OSError, ValueError):
        return False


def _summary(directory: Path) -> Any:
    return json.loads((directory / SUMMARY).read_text())


def show_summary(directory: Path) -> None:
    """Print the table of iterations and the final comparison, or a reward model's measures; then paths and links."""
    summary = _summary(directory)
    console = make_console()
    if "held_out" in summary:
        console.print(headline(RewardMetrics.model_validate(summary["held_out"])), soft_wrap=True)
        for table in reward_tables(RewardMetrics.model_validate(summary["held_out"])):
            console.print(table)
        for label, key in (("reward model", "best"), ("report", "report"), ("MLflow", "mlflow")):
            console.print(f"{label}: {summary[key]}", soft_wrap=True)
        return
    for sentence in summary.get("findings", ()):
        console.print(sentence, soft_wrap=True)
    console.print(_iteration_table(summary["iterations"]))
    best = f"{'best' if summary.get('measure', 'accuracy') else 'result'} (iteration {summary['best_iteration']})"
    if summary["final"]:
        final = Table(title="Held out to the end: greedy pass@1, 95 % intervals", title_justify="left")
        for name in ("set", "n", "base", best, "gain", "excludes zero"):
            final.add_column(name, justify="right")
        for name, row in summary["final"].items():
            final.add_row(name, row["n"], row["base"], row["best"], row["gain"], row["clear"])
        console.print(final)
    if measures := summary.get("measures"):
        title = f"Held out to the end{': further measures' * bool(summary['final'])}, 95 % intervals"
        further = Table(title=title, title_justify="left")
        for name in ("set", "measure", "n", "base", best, "gain", "excludes zero, or 50 %"):
            further.add_column(name, justify="right")
        for row in measures:
            further.add_row(*(row[name] for name in ("set", "measure", "n", "base", "best", "gain", "clear")))
        console.print(further)
    for label, key in (("stopped because", "stop_reason"), ("best policy", "best"), ("report", "report")):
        console.print(f"{label}: {summary[key]}", soft_wrap=True)
    console.print(f"champion: {summary['champion']}", soft_wrap=True)
    console.print(f"MLflow: {summary['mlflow']}", soft_wrap=True)
    for label, command in commands(directory).items():
        console.print(f"{label}: {command}", soft_wrap=True)


def _iteration_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Validation, by iteration", title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*("" if row.get(name) is None else str(row[name]) for name in names))
    return table
