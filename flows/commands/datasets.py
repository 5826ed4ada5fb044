"""The command `autodidact data`: shows how a data set is read, before a loop uses it."""

from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from rich.table import Table

from data.formats import Record, named
from data.prepare.reading import HAVE_PROMPTS_WRITTEN, NO_ANSWERS, Reading, Tally, first_use
from data.prepare.sources import FilesRead
from data.render import prompt_token_ids
from data.wording import counted
from flows.commands.parser import Parser
from flows.commands.printing import make_console
from flows.commands.settings import read_settings
from models.config_base import Config
from tasks.datasets.format import REPLIES_FILE, FormatConfig, format_data
from tasks.datasets.inspect import InspectConfig, Inspection, inspect, quantiles
from tasks.datasets.problems import OverlapConfig
from tasks.datasets.prompt_length import model_tokenizer
from tasks.stage.disks import explain_disk_errors
from tasks.stage.environment import prepare
from tasks.stage.logs import progress_shown

PREVIEW = 600
FILES = 20  # shown of those read, and of those not read


COMMANDS = {
    "inspect": "show how a data set is read, some of its rows, and what will be left out",
    "format": "write its rows to a folder, split and without duplicates",
}
SETTINGS: dict[str, type[Config]] = {"inspect": InspectConfig, "format": FormatConfig}


def data(arguments: list[str]) -> int:
    """Inspect a data set before using it, or convert it to the project's rows."""
    parser = Parser("autodidact data", data.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, description in COMMANDS.items():
        commands.add_parser(name, help=description, add_help=False)
    told, rest = parser.parse_known_args(arguments[:1])
    work = {"inspect": _inspect, "format": _format}[told.command]
    return work(rest + arguments[1:])


def _settings(config_class: type[Config], command: str, first: str, arguments: list[str]) -> Any:
    """The settings of a command; a first argument without a flag is the setting `first`."""
    if arguments and not arguments[0].startswith("-"):
        arguments = [f"--{first}", *arguments]
    return read_settings(config_class, arguments, f"autodidact data {command} [DATA]", of_a_loop=False)[0]


def _format(arguments: list[str]) -> int:
    config = _settings(FormatConfig, "format", "problems", arguments)
    with ExitStack() as stack:
        stack.enter_context(explain_disk_errors(str(config.output), config.output))
        if config.write_prompts:
            prepare(Path("runs"), dry_run=True)  # where libraries may write, and which services use the GPUs
            stack.enter_context(progress_shown())
        found = format_data(config)
    console = make_console()
    _show_formats(config.problems, found.tally)
    console.print(f"{counted(found.tally.rows, 'row')} read as {found.use}; the result is in {config.output}.")
    if found.prompts:
        console.print(f"{found.prompts['model']} wrote the prompts; its replies are in {REPLIES_FILE}.")
    table = Table("file", "rows", "by source")
    for name, counts in found.kept.items():
        by_source = ", ".join(f"{source}: {count:,}" for source, count in counts.most_common())
        table.add_row(f"{name}.parquet", f"{counts.total():,}", by_source)
    console.print(table)
    _show_files(found.tally.files)
    _show_drops(found.dropped, found.tally)
    for shown in found.repeated:
        said = f"{shown.reason.replace('_', ' ')} ({shown.share:.0%}), from {shown.source}"
        console.print(f"\n{said}", style="bold")
        console.print(f"{_cut(shown.prompt)}\n▸ repeats: {_cut(shown.repeats)}")
    return 0 if found.rows else 1


def _inspect(arguments: list[str]) -> int:
    config = _settings(InspectConfig, "inspect", "data", arguments)
    if config.format:
        named(config.format)
    reads = model_tokenizer(config) if config.model else None
    tokenizer, context = (reads.tokenizer, reads.context) if reads else (None, None)
    told = config.format, config.columns, True, config.placeholders, config.reasoning == "keep"
    reading = Reading(config.data, *told)
    use = config.use or first_use(reading)
    found = inspect(reading, use, tokenizer, context, OverlapConfig().near_duplicates)
    _show(config.data, found, tokenizer)
    return 0 if found.usable else 1


def _show(source: Path, found: Inspection, tokenizer: Any | None) -> None:
    console = make_console()
    _show_formats(source, found.tally)
    for name in found.tally.formats:
        uses = named(name).uses
        console.print(f"Rows of {name} can be used as {' or '.join(uses)}; here they are read as {found.use}.")
        if uses == ("prompts",):
            console.print(NO_ANSWERS)
        if uses == ("passages",):
            console.print(HAVE_PROMPTS_WRITTEN)
    console.print(
        f"{counted(found.tally.rows, 'row')} gave {found.records:,} {found.use}, {found.usable:,} of them usable.",
        highlight=False,
    )
    _show_files(found.tally.files)
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
        console.print(f"\n{at}", style="bold")
        console.print(_preview(record, tokenizer))


def _show_formats(source: Path, tally: Tally) -> None:
    for name, reason in tally.formats.items():
        make_console().print(f"{source} is {name} ({named(name).about}): {reason}.")


def _show_files(files: FilesRead) -> None:
    """Print which files were read and which were not; nothing for a single file."""
    if len(files.rows) + len(files.skipped) < 2:
        return
    read = Table("file", "rows", "set", title="What was read", title_justify="left")
    for name, count in islice(files.rows.items(), FILES):
        read.add_row(name, f"{count:,}", files.splits.get(name, ""))
    passed = Table("file", "why", title="What was not read", title_justify="left")
    for name, why in islice(files.skipped.items(), FILES):
        passed.add_row(name, why)
    for table, count in ((read, len(files.rows)), (passed, len(files.skipped))):
        if count:
            make_console().print(table)
        if count > FILES:
            make_console().print(f"and {count - FILES:,} more.")


def _show_drops(dropped: Counter[str], tally: Tally) -> None:
    console = make_console()
    if tally.hidden:
        console.print(f"{counted(tally.hidden, 'row')} with invisible characters, such as zero-width spaces.")
    for said in tally.said():
        console.print(said)
    if not dropped:
        return
    table = Table("reason", "rows", "first", title="What is left out", title_justify="left")
    for reason, count in dropped.items():
        table.add_row(reason.replace("_", " "), f"{count:,}", tally.first.get(reason, "–"))
    console.print(table)


def _preview(record: Record, tokenizer: Any | None) -> str:
    if tokenizer is None or not record.messages:
        prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in record.messages)
    else:
        prompt = tokenizer.decode(prompt_token_ids(tokenizer, record.messages))
    reference = record.reference if record.reference != record.response else None
    answers = {"answer": record.response, "rejected": record.rejected, "reference": reference}
    return "\n".join([_cut(prompt), *(f"▸ {name}: {_cut(text)}" for name, text in answers.items() if text)])


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW else f"{text[:PREVIEW]} … ({len(text):,} characters)"
