"""LLaMA-Factory's `dataset_info.json`: the data sets of a folder, their files and their column names.

See https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.prepare.sources.errors import DataFileError, unreadable

REGISTRY = "dataset_info.json"
LARGEST = 1 << 22  # bytes
ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
# The registry's column names mapped to those of the format that reads them.
ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "label"}
SHAREGPT = {"messages": "conversations", "kto_tag": "label"}
SAME = ("history", "system", "tools", "chosen", "rejected")
TAGS = {"role_tag": "from", "content_tag": "value"}
ROLES = {
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
    "observation_tag": "observation",
    "function_tag": "function_call",
}


@dataclass(frozen=True)
class Layout:
    """The layout of rows.

    Attributes:
        columns: the format's column names mapped to the file's.
        tags: ShareGPT's keys of a turn mapped to the file's; empty if turns are written as ShareGPT's.
        roles: the file's role names mapped to ShareGPT's.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the column names of the format that reads it."""
        found = {name: value for name, value in row.items() if name not in self.columns.values()}
        found |= {ours: row[theirs] for ours, theirs in self.columns.items() if theirs in row}
        if self.tags or self.roles:
            for name in ("conversations", "chosen", "rejected"):
                if name in found:
                    found[name] = self._turns(found[name])
        return found

    def _turns(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._turns(turn) for turn in value]
        if not isinstance(value, dict):
            return value
        theirs = {self.tags.get(ours, ours): ours for ours in TAGS.values()}
        turn = {theirs.get(key, key): part for key, part in value.items()}
        role = turn.get("from")
        return turn | {"from": self.roles.get(role, role)} if isinstance(role, str) else turn


def read_registry(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The data sets of a folder by name; None if it has no registry.

    Raises:
        DataFileError: it cannot be read.
    """
    content = read_object(folder / REGISTRY)
    if not content or not all(isinstance(entry, dict) for entry in content.values()):
        return None
    sources = ("file_name", *ELSEWHERE)
    return content if all(any(name in entry for name in sources) for entry in content.values()) else None


def read_object(file: Path) -> dict[str, Any] | None:
    """The content of a small JSON file; None if it does not exist or holds no object.

    Raises:
        DataFileError: it cannot be read.
    """
    if not file.is_file() or file.stat().st_size > LARGEST:
        return None
    try:
        content = json.loads(file.read_text())
    except OSError as problem:
        raise unreadable(file, problem) from None
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def layout(entry: Mapping[str, Any], at: str) -> Layout:
    """The layout of an entry's rows.

    Raises:
        DataFileError: the entry's description is not known.
    """
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    formatting = entry.get("formatting", "alpaca")
    if formatting not in ("alpaca", "sharegpt", "openai"):
        raise DataFileError(f"{at}: there is no formatting {formatting!r}.", what_next="Write alpaca or sharegpt.")
    for named in (columns, tags):
        if not isinstance(named, dict) or not all(isinstance(value, str) for value in named.values()):
            raise DataFileError(f"{at}: columns and tags must be names.", what_next="Correct the entry.")
    names = (ALPACA if formatting == "alpaca" else SHAREGPT) | {name: name for name in SAME}
    if formatting == "openai":
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"} | tags
    return Layout(
        {names[theirs]: column for theirs, column in columns.items() if theirs in names},
        {ours: tags[tag] for tag, ours in TAGS.items() if tag in tags},
        {tags[tag]: ours for tag, ours in ROLES.items() if tag in tags},
    )
