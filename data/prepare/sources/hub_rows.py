"""Rows of data sets on the hub, `owner/name[:config][:split]`."""

import re
from collections.abc import Iterator
from pathlib import Path

from data.hub import meant_as_path, why_unreachable
from data.prepare.sources.errors import DataFileError
from data.prepare.sources.json_rows import Located
from data.prepare.sources.packed import kind
from data.prepare.sources.table_rows import converter

HUB = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[\w.-]+))??(?::(?P<split>[\w.-]+))?")


def hub_name(source: Path) -> tuple[str, str | None, str] | None:
    """Name, configuration and split of a data set on the hub; None if `source` is, or looks like, a file."""
    match = None if source.exists() or source.is_absolute() or kind(source) else HUB.fullmatch(str(source))
    if match is None or Path(match["name"]).exists():
        return None
    return match["name"], match["config"], match["split"] or "train"


def hub_rows(name: str, config: str | None, split: str) -> Iterator[Located]:
    """The rows of a split.

    Raises:
        DataFileError: the hub does not respond, or has no such data set.
    """
    from datasets import load_dataset

    require_hub(name)
    try:
        rows = load_dataset(name, config, split=split, streaming=True)
        change = converter(rows.features.arrow_schema) if rows.features else lambda row: row
        for number, row in enumerate(rows, start=1):
            yield f"{name} on the hub, {split}, row {number}", change(row), None
    except Exception as problem:
        raise DataFileError(
            f"There is no file {name}, and the hub has no data set of that name ({problem}).",
            what_next=f"Check the name, which is owner/name[:config][:split], or the path; it is relative to "
            f"{Path.cwd()}.",
        ) from problem


def require_hub(name: str) -> None:
    """Check that the hub can be asked for a data set that is not a local file.

    Raises:
        DataFileError: the hub does not respond.
    """
    if why := why_unreachable():
        raise DataFileError(
            f"There is no file {name}, and the hub cannot be asked for a data set of that name.",
            f"{why}.",
            f"{meant_as_path(name)}Check the path, which is relative to {Path.cwd()}, or the network.",
        )
