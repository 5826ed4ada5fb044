"""The commands about past runs: `autodidact runs`, `trace` and `compare`. They read the disk and change nothing.

`tasks/history/runs.py`, `trace.py` and `compare.py` find the facts; this file prints them.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from data.labels import Label
from data.rows import Example, Pair, Rollout, Score
from flows.commands.comparison_tables import show_comparison
from flows.commands.parser import CommandParser
from flows.commands.printing import format_bytes, make_console, say
from tasks.history.compare import SETS, compare_runs
from tasks.history.disk import KINDS, Usage, disk_usage
from tasks.history.runs import History, QueryError, open_history, run_directories
from tasks.history.state import RunState, State, run_state
from tasks.history.trace import Answer, Policy, Row, Trace, training_files
from tasks.history.trace import trace as follow
from tasks.stage.contract import Manifest
from tasks.stage.freed import read_freed, stage_that_freed

LABEL = 12
SERVICES = {"mlflow": "MLflow", "prefect": "Prefect"}
PREVIEW = 70


def runs(arguments: list[str]) -> int:
    """List every run with its state on disk, or with what it takes of the disk."""
    parser = CommandParser("runs", runs.__doc__)
    parser.add_argument("--disk", action="store_true", help="show what takes the disk")
    told = parser.parse_args(arguments)
    return _show_disk(told.runs_dir) if told.disk else _show_runs(told.runs_dir)


def trace(arguments: list[str]) -> int:
    """Trace a training row back to its problem, its policy, and everything that policy was trained on."""
    parser = CommandParser("trace", trace.__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument(
        "key",
        metavar="SAMPLE_KEY",
        nargs="?",
        help="iter-1/PROBLEM/INDEX: the folder of the Parquet file of training rows, and its columns problem_id "
        "and index; a unique prefix of the problem id is enough. Without a key, some keys are shown",
    )
    told = parser.parse_args(arguments)
    history = open_history(told.runs_dir, told.run)
    return _show_trace(history, told.key) if told.key else _show_keys(history, told.runs_dir)


def compare(arguments: list[str]) -> int:
    """Compare two runs on the same problems; differences are the second minus the first."""
    parser = CommandParser("compare", compare.__doc__)
    parser.add_argument("first", metavar="RUN")
    parser.add_argument("second", metavar="RUN")
    parser.add_argument("--set", choices=SETS, help="compare on this set only")
    parser.add_argument("--common", action="store_true", help="if the problems differ, use those in both")
    told = parser.parse_args(arguments)
    first, second = (open_history(told.runs_dir, name) for name in (told.first, told.second))
    if first.directory == second.directory:
        raise QueryError(f"{first.name} is given twice.", what_next="Name two runs; `autodidact runs` lists them.")
    show_comparison(first, second, compare_runs(first, second, told.set, told.common), told.set)
    return 0


def _show_disk(folder: Path) -> int:
    usages, everything = disk_usage(run_directories(folder))
    table = Table(title=f"What the runs in {folder} take, the largest first", title_justify="left")
    table.add_column("run")
    for kind in ("checkpoints", "training under way", "samples, rows", "everything else", "total"):
        table.add_column(kind, justify="right")
    for usage in sorted(usages, key=lambda usage: usage.total, reverse=True):
        table.add_row(*_usage_row(usage))
    table.add_section()
    table.add_row(*_usage_row(everything))
    make_console().print(table)
    disk = shutil.disk_usage(folder)
    say(f"{format_bytes(disk.free)} of {format_bytes(disk.total)} are free on the disk of {folder}.")
    return 0


def _usage_row(usage: Usage) -> tuple[str, ...]:
    return (usage.name, *(format_bytes(usage.bytes[kind]) for kind in KINDS), format_bytes(usage.total))


def _show_runs(folder: Path) -> int:
    states = sorted((run_state(d) for d in run_directories(folder)), key=lambda state: state.changed, reverse=True)
    if not states:
        say(f"There are no runs in {folder} yet. `autodidact rest-em` starts one; `autodidact --help` lists more.")
        return 0
    table = Table(title=f"Runs in {folder}, the latest first", title_justify="left")
    for name in ("run", "algorithm", "state"):
        table.add_column(name)
    for name in ("iterations", "best, on validation", "size", "last change"):
        table.add_column(name, justify="right")
    for state in states:
        table.add_row(*_run_row(state))
    make_console().print(table)
    for state in states:
        if state.state is State.CORRUPT:
            for message in state.broken.values():
                say(f"{state.name} is corrupt: {message}")
    return 0


def _run_row(state: RunState) -> tuple[str, ...]:
    return (
        state.name,
        state.algorithm or "unknown",
        f"{state.state}: {state.detail}" if state.detail else str(state.state),
        str(state.iterations) if state.planned is None else f"{state.iterations} of {state.planned}",
        _best(state),
        format_bytes(state.size),
        f"{state.changed:%Y-%m-%d %H:%M}",
    )


def _best(state: RunState) -> str:
    """The best iteration with its value of the measure that chose it; without a measure the last one, once known."""
    if state.measure is None:
        return "" if state.best is None else f"{state.best}: the last"
    if state.value is None:
        return ""
    return f"{state.best}: {state.measure.label} {state.measure.shown_interval(state.value)}"


def _show_keys(history: History, folder: Path) -> int:
    files = training_files(history)
    elsewhere = "" if folder == Path("runs") else f" --runs-dir {folder}"
    say(f"Training rows of {history.directory}. To trace one: autodidact trace {history.name} KEY{elsewhere}")
    for found in files:
        say(f"\n{found.file}, {found.rows:,} rows, such as")
        for key, row in found.first.items():
            text = " ".join((row.rejected if isinstance(row, Pair) else row.completion).split())
            say(f"  {key}  {text if len(text) <= PREVIEW else text[: PREVIEW - 1] + '…'}")
    return 0


def _show_trace(history: History, key: str) -> int:
    """Print a trace. Returns 1 if the records contradict one another."""
    found = follow(history, key)
    say(f"{found.key} of {history.directory}")
    for label, lines in _trace_blocks(history, found):
        say()
        for number, line in enumerate(lines):
            say(f"{label if number == 0 else '':<{LABEL}}{line}")
    contradictions = [check for check in found.checks if not check.holds]
    if contradictions:
        say(
            f"\n{len(contradictions)} of {len(found.checks)} checks fail: the run was partly rebuilt, or its files "
            f"were changed. Run the flow again with --on-drift rebuild to make its stages consistent."
        )
    return 1 if contradictions else 0


def _trace_blocks(history: History, found: Trace) -> Iterator[tuple[str, list[str]]]:
    row, kind = found.row, {Example: "example", Pair: "pair", Rollout: "rollout"}[type(found.row)]
    trained = ", ".join(found.trained) or "nothing yet"
    weight = f"; weight {row.weight:g}" if isinstance(row, Example) else ""
    yield (
        kind,
        [str(history.path(found.file)), f"trained on in {trained}{weight}", *_made_by(history, found.file.stage)],
    )
    if isinstance(row, Pair):
        for side, source, text in (
            ("chosen", row.chosen_source, row.chosen),
            ("rejected", row.rejected_source, row.rejected),
        ):
            yield side, [f"from {_source(history, source, found.file.iteration)}", *_quoted(text)]
    elif isinstance(row, Rollout):
        yield from _rollout_blocks(row)
    elif found.samples is None:
        whose = (
            f"written by {_source(history, row.policy, found.file.iteration)}"
            if found.policies
            else f"a gold answer, from {row.policy or row.source}"
        )
        yield "completion", [whose, *_quoted(row.completion)]
    for number, answer in enumerate(found.answers):
        yield from _answer_blocks(history, found, answer, "chosen" if len(found.answers) > number + 1 else "rejected")
    if found.label is not None:
        yield "label", _label_lines(found.row, found.label)
    if found.judge is not None:
        role = "judge" if found.label is None else "labeler"
        yield role, [f"{found.judge}, digest {history.digest(found.judge)}"]
    problem = found.problem
    about = (
        f"{problem.id}, from {problem.source}, split {problem.split}" if problem else f"{row.problem_id}, of the pairs"
    )
    reference = [] if problem is None or problem.reference is None else ["reference:", *_quoted(problem.reference)]
    messages = [] if isinstance(row, Rollout) else row.messages
    messages = problem.messages if problem else messages
    prompt = [line for m in messages for line in (f"{m['role']}:", *_quoted(m["content"]))]
    yield "problem", [about, *prompt, *reference]
    for number, policy in enumerate(found.policies):
        wrote = number == 0 and not isinstance(row, Rollout)
        yield "policy" if number == 0 else "before it", _policy_lines(history, policy, wrote)
    yield "checks", [f"{'agrees ' if check.holds else 'DIFFERS'}  {check.statement}" for check in found.checks]


def _answer_blocks(history: History, found: Trace, answer: Answer, side: str) -> Iterator[tuple[str, list[str]]]:
    assert found.samples is not None
    sampling, sample = history.manifest(found.samples).config, answer.sample
    yield (
        "sample",
        [
            f"{history.path(found.samples)}, index {sample.index}",
            f"{len(sample.token_ids)} tokens, finish reason {sample.finish_reason}, seed {sample.seed}",
            f"sampling {sample.sampling}: {', '.join(f'{name} {value}' for name, value in sampling.items())}",
            *(_quoted(sample.text) if isinstance(found.row, Example) else [f"the {side} answer above"]),
            *_made_by(history, found.samples.stage),
        ],
    )
    if found.label is None:
        none = [f"none: {history.algorithm} trains without a reward"]
        yield "score", none if answer.score is None else _score_lines(answer.score)
    for opinion in answer.opinions:
        order = f", compared with {opinion.other}{', which came first' * opinion.swapped}" if opinion.other >= 0 else ""
        read = f"read as {opinion.value}" if opinion.value is not None else f"not read: {opinion.failure}"
        yield "opinion", [f"number {opinion.opinion} of answer {opinion.index}{order}, {read}", *_quoted(opinion.text)]


def _label_lines(row: Row, label: Label) -> list[str]:
    """The label, and what the labeler said with the chosen answer shown first and second."""
    orders = [(label.straight, label.reasoning), (label.swapped, label.swapped_reasoning)]
    if row.index != label.index:
        orders.reverse()
    first, second = orders
    shares = (first[0], None if second[0] is None else 1 - second[0])
    value = label.value if row.index == label.index or label.value is None else 1 - label.value
    lines = ["not read" if value is None else f"{value:.1%} that the chosen answer is better"]
    lines += [f"principle: {label.principle}"] if label.principle else []
    for place, share, reasoning in zip(("first", "second"), shares, (first[1], second[1]), strict=True):
        lines.append(f"with it shown {place}: " + ("not read" if share is None else f"{share:.1%}"))
        lines += _quoted(reasoning) if reasoning else []
    return lines


def _rollout_blocks(row: Rollout) -> Iterator[tuple[str, list[str]]]:
    learned = "nothing was learned from it" if row.advantage is None else f"advantage {row.advantage:.4g}"
    yield (
        "answer",
        [
            f"drawn in step {row.step}; {learned}",
            f"{len(row.token_ids)} tokens, finish reason {row.finish_reason}, seed {row.seed}",
            *_quoted(row.completion),
        ],
    )
    yield "score", _score_lines(row)


def _score_lines(score: Score | Rollout) -> list[str]:
    value = "not graded" if score.value is None else f"{score.value:g}"
    answer = "" if score.answer is None else f", answer read as {score.answer}"
    return [f"{value}, {score.verdict}{answer}, by {score.grader}", *_quoted(score.explanation)]


def _policy_lines(history: History, policy: Policy, wrote: bool) -> list[str]:
    manifest, origin = history.manifest(policy.origin), policy.origin
    lines = [
        f"{origin.stage}, {f'iteration {origin.iteration}' if origin.iteration else 'the base'}"
        + (", wrote the sample" if wrote else ""),
        f"{history.path(origin)}",
        f"digest {history.digest(origin)}",
    ]
    if stage := stage_that_freed(history.path(origin)):
        lines.append(f"its weights are gone, {read_freed(stage)}; the digest says what they were")
    if origin.stage == "base":
        lines.append(_base(history, manifest))
    if policy.start:
        lines.append(f"training began from {policy.start}")
    if policy.rollouts:
        lines.append(f"learned from its own answers: {history.path(policy.rollouts)}")
    for data in policy.data:
        chosen = history.manifest(data.file)
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in chosen.dropped.items())
        writer = f"; answers of {data.writer}" if data.writer else ""
        lines.append(
            f"trained on {history.path(data.file)}: {chosen.rows_out or 0:,} of {chosen.rows_in or 0:,} rows"
            f"{f' (left out: {dropped})' * bool(dropped)}{writer}"
        )
    return [*lines, *_made_by(history, origin.stage)]


def _base(history: History, manifest: Manifest) -> str:
    if "model" in manifest.inputs:
        return f"the model {history.config.get('model')}, digest {manifest.inputs['model']}"
    return f"the embedded tiny model, trained on {manifest.rows_in or 0:,} demonstrations"


def _made_by(history: History, stage: str) -> list[str]:
    """When and where a stage was made, and by which code."""
    manifest = history.stages[stage].manifest
    ids = ", ".join(f"{SERVICES.get(name, name)} run {run}" for name, run in sorted(manifest.runs.items()))
    commit = str(manifest.code.get("commit") or "unknown")[:12]
    dirty = " with uncommitted changes" if manifest.code.get("dirty") else ""
    made = f"made {manifest.ended[:19].replace('T', ' ')} UTC on {manifest.host} by commit {commit}{dirty}"
    return [f"{made}; {ids or 'in no Prefect or MLflow run'}"]


def _source(history: History, source: str, latest: int) -> str:
    """A policy's digest with the stage that made it, or a file name unchanged."""
    made = history.origin(source, latest)
    return f"{made} ({source})" if made else source


def _quoted(text: str) -> list[str]:
    return [f"| {line}" for line in text.removesuffix("\n").split("\n")]
