"""Settings in --help and --help-all: names as flags, readable types and defaults."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from os.path import expanduser
from pathlib import Path
from textwrap import wrap
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

INDENT, COLUMN, WIDEST = 2, 36, 110
UNGROUPED = RUN, MODEL, DATA, OWN = "run", "model", "data", "this flow"  # headings of settings that are in no group
ROOMS = {"tasks.datasets": DATA, "tasks.policies": MODEL}


@dataclass(frozen=True)
class Setting:
    """One setting, or a group of them.

    Attributes:
        name: dotted, as in YAML.
        default: `PydanticUndefined` if the setting is required.
        heading: its heading in --help-all; a group has its own.
    """

    name: str
    field: FieldInfo
    default: Any
    heading: str
    is_group: bool

    @property
    def can_be_none(self) -> bool:
        return NoneType in _members(self.field.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        return _choices(self.field.annotation)

    @property
    def metavar(self) -> str:
        """Placeholder for the value: `N`, `TEXT`, choices in braces."""
        if self.is_group:
            return "[none]"
        return "MODEL" if _is_model(self.field.metadata) else _word(self.field.annotation)

    @property
    def about(self) -> str:
        return "By itself: on, as set below; none: off." if self.is_group else self.field.description or ""

    @property
    def standing(self) -> str:
        """The default, in parentheses."""
        if self.default is PydanticUndefined:
            return "(required)"
        return f"(default: {'on' if isinstance(self.default, BaseModel) else _shown(self.default)})"


def as_flag(name: str) -> str:
    """The flag of the setting with that name."""
    return "--" + name.replace("_", "-")


def settings_of(config_class: type[BaseModel]) -> Iterator[Setting]:
    """All settings of a class, each group before its members."""
    for name, field in config_class.model_fields.items():
        default = field.get_default(call_default_factory=True)
        group = _group(field)
        yield Setting(name, field, default, name if group else _heading(config_class, name), group is not None)
        if group:
            yield from _in_group(group, default, name)


def _in_group(group: type[BaseModel], default: Any, prefix: str) -> Iterator[Setting]:
    for name, field in group.model_fields.items():
        path, within = f"{prefix}.{name}", _group(field)
        value = getattr(default, name) if isinstance(default, group) else field.get_default(call_default_factory=True)
        yield Setting(path, field, value, path if within else prefix, within is not None)
        if within:
            yield from _in_group(within, value, path)


def _group(field: FieldInfo) -> type[BaseModel] | None:
    return next((kind for kind in _members(field.annotation) if _is_class(kind, BaseModel)), None)


def _heading(config_class: type[BaseModel], name: str) -> str:
    """The heading, from the class that first declared the setting: its package, or the flow's own file."""
    first = next(kind for kind in reversed(config_class.__mro__) if name in get_annotations(kind))
    of_its_own = OWN if first is config_class else RUN
    return next((heading for room, heading in ROOMS.items() if first.__module__.startswith(room)), of_its_own)


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; of anything else, the type itself."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(member for kind in get_args(annotation) for member in _members(kind))
    return (annotation,)


def _choices(annotation: Any) -> tuple[str, ...]:
    """The possible values; empty if any value is. Booleans as the parser accepts them."""
    found: list[str] = []
    for kind in _members(annotation):
        if kind is bool:
            found += ("on", "off")
        elif get_origin(kind) is Literal:
            found += map(str, get_args(kind))
        elif kind is not NoneType:
            return ()
    return tuple(found)


def _is_class(annotation: Any, base: type) -> bool:
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, base)


def _is_model(metadata: Sequence[Any]) -> bool:
    """Whether it is a ModelName: a folder, in which `~` is the home folder, or a hub id."""
    return any(isinstance(told, AfterValidator) and told.func is expanduser for told in metadata)


def _word(annotation: Any) -> str:
    if choices := _choices(annotation):
        return f"{{{','.join(choices)}}}"
    if get_origin(annotation) is Annotated:
        kind, *metadata = get_args(annotation)
        return "MODEL" if _is_model(metadata) else _word(kind)
    if get_origin(annotation) in (Union, UnionType):
        return max((_word(kind) for kind in get_args(annotation) if kind is not NoneType), key=len)
    if get_origin(annotation) is dict:
        value = get_args(annotation)[1]
        return "JSON" if get_origin(value) is dict or _is_class(value, BaseModel) else "KEY=VALUE"
    if get_origin(annotation) in (tuple, list):
        return f"{_word(get_args(annotation)[0])},…"
    return {int: "N", float: "N", Path: "PATH"}.get(annotation, "TEXT")


def _shown(value: Any) -> str:
    """A value as written on the command line."""
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    if isinstance(value, tuple):
        return ",".join(_shown(item) for item in value)
    return str(value)


Entry = tuple[str, str, str]  # a flag with its metavar, its description, and its default in parentheses


def section(title: str, entries: Sequence[Entry], lines: int | None = None) -> str:
    """A heading and its entries, in two columns.

    Args:
        lines: most lines per text; the rest is left out.
    """
    shown = wrap(title, width())
    for flag, text, standing in entries:
        begin = " " * INDENT + flag
        apart = len(begin) > COLUMN - 2
        parts = _fitting(text, standing, lines and lines - apart)
        shown += [begin] if apart else [f"{begin:<{COLUMN}}{parts.pop(0)}"]
        shown += [" " * COLUMN + part for part in parts]
    return "\n".join(shown)


def paragraph(text: str) -> str:
    return "\n".join(wrap(" ".join(text.split()), width()))


def width() -> int:
    return min(WIDEST, shutil.get_terminal_size().columns) - 2


def _fitting(text: str, standing: str, lines: int | None) -> list[str]:
    """The text in lines, without its last clauses if it takes too many. The default stays, in one piece."""
    room, whole = max(24, width() - COLUMN), standing.replace(" ", "\0")
    clauses = re.split(r"(?<=[.;]) ", " ".join(text.split()))
    while lines and len(clauses) > 1 and len(wrap(f"{' '.join(clauses)} {whole}", room)) > lines:
        clauses.pop()
        clauses[-1] = clauses[-1].rstrip(";.") + "."
    found = wrap(f"{' '.join(clauses)} {whole}", room, break_on_hyphens=False)
    return [part.replace("\0", " ") for part in found] or [""]
