"""What a flow prints in the terminal: the plan of a dry run, the table of a finished run, plain error messages."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data.calibration import RewardMetrics
from data.errors import STOPPED, AutodidactError
from data.prepare.sources import hub_name, is_here
from data.text import visible
from flows.commands.flow_table import LoadedFlow
from tasks.history.verify import verify_run
from tasks.loop.preflight import Loop, check, keeps, peak_disk, plan_loop
from tasks.policies.model_folder import is_path
from tasks.report.use import commands
from tasks.settings.run import RunConfig
from tasks.stage.contract import OnDrift, Status
from tasks.stage.disks import explain_disk_errors
from tasks.stage.freed import needed_error
from tasks.stage.logs import keep_logs_plain
from tasks.stage.run import SUMMARY, Planned, Run, RunDirectoryError, finish_interrupted
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


def show_plan(loop: Loop, config: RunConfig, on_drift: OnDrift) -> None:
    """Print what every stage would do and cost. Needs no server, GPU or model."""
    plan = plan_loop(loop, config, on_drift)
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
        format_bytes(peak_disk(plan.plan, keeps(config))),
        "",
        "",
    )
    console = make_console()
    console.print(table)
    if (keep := keeps(config)) != "all":
        without = format_bytes(peak_disk(plan.plan, "all"))
        console.print(f"keep: {keep} frees trained weights on the way; with keep: all, disk would come to {without}")
    for made_by, needed_by in plan.lacking.items():
        console.print(f"missing: {needed_error(needed_by, plan.directory / made_by)}", soft_wrap=True)
    for planned in plan.plan:
        if planned.stage.command:
            console.print(f"{planned.stage.name}: {planned.stage.command}", soft_wrap=True)
    for name, path in config.input_files().items():
        if not is_here(path) and hub_name(path) is None:
            console.print(f"missing: {name} {path}; it must exist before the run starts")
    base = next(planned.stage for planned in plan.plan if planned.stage.name == "base")
    if config.model and base.inputs["model"].digest is None:
        way_on = "it must exist before the run starts" if is_path(config.model) else "it will be fetched"
        console.print(f"missing: model {config.model} is not here; {way_on}")


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


class PlainConsole(Console):
    """A terminal that prints text literally: no markup, no emoji codes, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # Rich calls this while handling the error, and would exit with code 1

    def render_str(self, text: str, **options: Any) -> Text:  # also for a table's cells and title
        return super().render_str(visible(text), **options)


def make_console() -> PlainConsole:
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=120)


def say(text: str = "") -> None:
    """Print a text literally, so nothing in it acts on the terminal."""
    print(visible(text))
