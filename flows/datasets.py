"""The command `autodidact data`: what a data set is, before a loop takes it."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from rich.markup import escape
from rich.table import Table

from data.formats import FORMATS, FormatError, Record, Use, named
from data.reading import Reading, Tally, first_use
from data.render import TemplateError, context_length, prompt_token_ids, require_template
from data.sources import DataFileError
from flows.cli import UsageError, read_settings
from flows.console import make_console
from tasks.formatting import FormatConfig, OutputError, format_data
from tasks.inspection import Inspection, inspect, quantiles
from tasks.policy import ModelError, resolve_model
from tasks.problems import OverlapConfig

USES: tuple[Use, ...] = get_args(Use)
PREVIEW = 600


def data(arguments: list[str]) -> int:
    """Look at a data set before a loop takes it, or turn it into the project's rows."""
    if arguments[:1] == ["format"]:
        return _reported(lambda: _format(arguments[1:]))
    parser = argparse.ArgumentParser(prog="autodidact data", description=data.__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("format", help="write its rows, split and without duplicates, into a folder")
    inspecting = commands.add_parser("inspect", help="say what a data set is", description=_inspect.__doc__)
    inspecting.add_argument(
        "source", metavar="DATA", type=Path, help="a file, a folder of files, or owner/name[:config][:split] on the hub"
    )
    inspecting.add_argument("--use", choices=USES, help="what its rows are to serve as; by default its first use")
    inspecting.add_argument("--model", help="path or hub id of a model, whose tokens and template are used")
    inspecting.add_argument(
        "--format", help=f"one of {', '.join(known.name for known in FORMATS)}; by default detected"
    )
    inspecting.add_argument(
        "--column", action="append", default=[], type=_pair, metavar="OURS=THEIRS", help="what a column is called here"
    )
    inspecting.add_argument(
        "--placeholder",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=TEXT",
        help="what {{NAME}} stands for",
    )
    told = parser.parse_args(arguments)
    return _reported(lambda: _inspect(told))


def _reported(work: Callable[[], int]) -> int:
    try:
        return work()
    except (DataFileError, FormatError, ModelError, OutputError, TemplateError, UsageError) as error:
        print(f"autodidact: {error}", file=sys.stderr)
        return 2


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return ours, theirs


def _format(arguments: list[str]) -> int:
    """`autodidact data format DATA`, which takes the settings by which a loop reads its data sets."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--problems", *arguments]
    config, _ = read_settings(FormatConfig, arguments, "autodidact data format [DATA]", of_a_loop=False)
    found = format_data(config)
    console = make_console()
    console.print(f"{found.tally.rows:,} rows were read as {found.use}; their rows are in {config.output}.")
    table = Table("file", "rows", "by source")
    for name, counts in found.kept.items():
        by_source = ", ".join(f"{source}: {count:,}" for source, count in counts.most_common())
        table.add_row(f"{name}.parquet", f"{counts.total():,}", escape(by_source))
    console.print(table)
    _show_drops(found.dropped, found.tally)
    for shown in found.repeated:
        said = f"{shown.reason.replace('_', ' ')} ({shown.share:.0%}), of {shown.source}"
        console.print(f"\n[bold]{escape(said)}[/bold]")
        console.print(f"{_cut(shown.prompt)}\n▸ repeats: {_cut(shown.repeats)}", highlight=False, markup=False)
    return 0 if found.kept else 1


def _inspect(told: argparse.Namespace) -> int:
    """Show what a data set is: format, three rows as a model will see them, lengths, and what will be left out."""
    if told.format:
        named(told.format)
    tokenizer, context = _tokenizer(told.model) if told.model else (None, None)
    reading = Reading(told.source, told.format, dict(told.column), placeholders=dict(told.placeholder))
    similar = OverlapConfig().near_duplicates
    found = inspect(reading, told.use or first_use(reading), tokenizer, context, similar)
    _show(told.source, found, tokenizer)
    return 0 if found.usable else 1


def _tokenizer(model: str) -> tuple[Any, int]:
    from transformers import AutoConfig, AutoTokenizer

    folder = resolve_model(model)
    try:
        tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    except Exception as error:
        raise ModelError(f"{model} cannot be read as a model: {error}") from error
    require_template(tokenizer, model)
    return tokenizer, context_length(config)


def _show(source: Path, found: Inspection, tokenizer: Any | None) -> None:
    console = make_console()
    for name, reason in found.tally.formats.items():
        known = named(name)
        console.print(f"[bold]{escape(str(source))}[/bold] is {name} ({known.about}): {escape(reason)}.")
        console.print(f"Its rows can serve as {' or '.join(known.uses)}; they are read as {found.use}.")
    console.print(
        f"{found.tally.rows:,} rows gave {found.records:,} {found.use}, {found.usable:,} of them usable.",
        highlight=False,
    )
    _show_drops(found.tally.dropped + found.left_out, found.tally)
    if not found.records:
        return
    unit = "tokens" if tokenizer else "characters"
    table = Table("", title=f"Length in {unit}", title_justify="left")
    for name in ("shortest", "median", "95 %", "longest"):
        table.add_column(name, justify="right")
    for name, lengths in (("prompt", found.prompts), ("answer", found.answers)):
        table.add_row(name, *(f"{value:,}" for value in quantiles(lengths)))
    console.print(table)
    for at, record in found.shown:
        console.print(f"\n[bold]{escape(at)}[/bold]")
        console.print(_preview(record, tokenizer), highlight=False, markup=False)


def _show_drops(dropped: Counter[str], tally: Tally) -> None:
    console = make_console()
    if tally.hidden:
        console.print(f"{tally.hidden:,} have characters that nobody sees, such as zero-width spaces.")
    if not dropped:
        return
    table = Table("reason", "rows", "the first", title="What is left out", title_justify="left")
    for reason, count in dropped.items():
        table.add_row(escape(reason), f"{count:,}", escape(tally.first.get(reason, "–")))
    console.print(table)


def _preview(record: Record, tokenizer: Any | None) -> str:
    if tokenizer is None:
        prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in record.messages)
    else:
        prompt = tokenizer.decode(prompt_token_ids(tokenizer, record.messages))
    reference = record.reference if record.reference != record.response else None
    answers = {"answer": record.response, "rejected": record.rejected, "reference": reference}
    return "\n".join([_cut(prompt), *(f"▸ {name}: {_cut(text)}" for name, text in answers.items() if text)])


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW else f"{text[:PREVIEW]} … ({len(text):,} characters)"
