"""Reads a YAML configuration file as a dictionary. Ambiguous files, and ones too large for settings, are refused."""

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from data.errors import UsageError

LARGEST = 1 << 20  # bytes of a file
MOST_VALUES = 10_000  # with every alias expanded: nine nested ones can stand for billions


def path_at_home(text: str) -> Path:
    """A path from the command line. Expands `~` also if the shell does not, as in --config=~/a.yaml."""
    return Path(os.path.expanduser(text))


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file as a dictionary.

    Raises:
        UsageError: the file is missing, cannot be read, is not a YAML mapping, has a key twice, or is too large.
    """
    if not path.exists():
        raise UsageError(f"there is no configuration file {path}.", what_next=f"Relative paths start at {Path.cwd()}.")
    if not path.is_file():  # a pipe may never send anything, and can be read only once
        raise UsageError(f"{path} is not a file.", what_next="Write the settings to a file, and give that.")
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(
            f"the configuration file {path} cannot be read: {error.strerror}.", what_next="Give another file."
        ) from None
    if len(text) > LARGEST:
        raise UsageError(f"{path} has more than {LARGEST:,} bytes.", what_next="Give a file of settings.")
    try:
        content = _content(text.decode())
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
    ) as error:
        # PyYAML's own constructors fail on some input with other errors, such as `!!timestamp 5`.
        raise UsageError(f"{path} is not valid YAML: {error}.", what_next="Correct the file.") from None
    if not isinstance(content, dict):
        held = "is empty" if content is None else "is not a mapping"
        raise UsageError(f"{path} {held}.", what_next="Write key: value lines.")
    return content


def _content(text: str) -> Any:
    loader = _Loader(text)
    root = loader.get_single_node()
    if root is None:
        return None
    _bound(root)  # before construction, because merging may expand aliases
    return loader.construct_document(root)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a repeated key is an error instead of silently keeping the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    lines = f"lines {seen[key.value]} and {key.start_mark.line + 1}"
                    raise yaml.YAMLError(f"the key {key.value!r} appears twice, in {lines}")
                seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _bound(root: yaml.Node) -> None:
    """Refuse a document with too many values once every alias is expanded, including one that contains itself."""
    waiting, count = [root], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"with aliases expanded it has more than {MOST_VALUES:,} values")
        if isinstance(node, yaml.MappingNode):
            waiting.extend(part for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
