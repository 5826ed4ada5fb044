"""Python values in transit between the two programs in the sandbox: as JSON, and as plain built-in types only.

Part of both programs, and therefore without imports of this project. Received values have no methods of their own:
comparing them runs no code of the sender. A container that one side sent stays the same container when it is sent back.
"""

from __future__ import annotations

import binascii
import builtins
import operator
import sys

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_WORDS = 300  # characters of an exception's text that are passed on
PASSED, FAILED, BROKEN, CANNOT = "passed", "failed", "broken", "cannot"  # outcomes of the tests

FLAT = {type(None), bool, int, float, str}  # represented directly in JSON
GROUPS: dict[type, str] = {tuple: "tuple", frozenset: "frozenset"}
# Built-in types of data that classes derive from: the immutable ones, and all.
FIXED: tuple[Any, ...] = (int, float, complex, str, bytes, tuple, frozenset)
DATA: tuple[Any, ...] = (*FIXED, list, dict, set, bytearray)
SINGLE: dict[str, Any] = {"Ellipsis": ..., "NotImplemented": NotImplemented}
BUILTIN: dict[int, tuple[str, Any]] = {
    id(value): (name, value) for name, value in vars(builtins).items() if not name.startswith("_")
}
# Those that the candidate may pass to the tests: with `exec` it could write its own verdict there.
PURE = frozenset(
    {name for name, value in BUILTIN.values() if isinstance(value, type) and issubclass(value, BaseException)}
) | {
    *("bool", "int", "float", "complex", "str", "bytes", "bytearray", "list", "dict", "set", "tuple", "frozenset"),
    *("object", "range", "slice", "enumerate", "zip", "map", "filter", "reversed", "abs", "all", "any", "ascii", "bin"),
    *("callable", "chr", "divmod", "hash", "hex", "isinstance", "issubclass", "len", "max", "min", "oct", "ord", "pow"),
    *("repr", "round", "sorted", "sum"),
}
# Data types of the standard library, and what to build them from. Used only if their module is loaded.
LIBRARY: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("decimal", "Decimal"): lambda value: (str(value),),
    ("fractions", "Fraction"): lambda value: (value.numerator, value.denominator),
    ("datetime", "date"): lambda value: value.__reduce__()[1],
    ("datetime", "time"): lambda value: value.__reduce_ex__(4)[1],  # the older one loses `fold`
    ("datetime", "datetime"): lambda value: value.__reduce_ex__(4)[1],
    ("datetime", "timedelta"): lambda value: (value.days, value.seconds, value.microseconds),
    ("datetime", "timezone"): lambda value: value.__getinitargs__(),
    ("zoneinfo", "ZoneInfo"): lambda value: (value.key,),
    ("uuid", "UUID"): lambda value: (str(value),),
    ("pathlib", "PosixPath"): lambda value: (str(value),),
    ("pathlib", "PurePosixPath"): lambda value: (str(value),),
    ("ipaddress", "IPv4Address"): lambda value: (str(value),),
    ("ipaddress", "IPv6Address"): lambda value: (str(value),),
}
# The mutable ones, and what an empty one is built from.
MUTABLE: dict[tuple[str, str], Callable[[Any], tuple[Any, ...]]] = {
    ("builtins", "list"): lambda value: (),
    ("builtins", "set"): lambda value: (),
    ("builtins", "dict"): lambda value: (),
    ("builtins", "bytearray"): lambda value: (),
    ("collections", "deque"): lambda value: ((), value.maxlen),
    ("collections", "OrderedDict"): lambda value: (),
    ("collections", "Counter"): lambda value: (),
    ("collections", "defaultdict"): lambda value: (value.default_factory,),
    ("array", "array"): lambda value: (value.typecode,),
}
# Types of built-in objects that are not data. Some have no name in `builtins`.
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (map, filter, zip, enumerate, reversed, type(sys), type(len), type(lambda: None), type([].__len__))
}


def _generator() -> Any:
    yield


KINDS["generator"] = type(_generator())
FACTORIES = (None, int, float, str, bool, list, dict, set, tuple)


class NotDataError(TypeError):
    """A received message was not created by a packer."""


class Packer:
    """Converts values to JSON. A subclass of a built-in type is not plain data.

    Args:
        keep: returns, as JSON, a reference to a value that is not plain data.
        shared: containers that both sides have, by number. `new` has those that are packed for the first time, with
            numbers from `start` on.
        named: Python built-ins that may be passed by name.
    """

    def __init__(
        self, keep: Callable[[Any], Any], shared: dict[int, Any] | None = None, start: int = 0, named: Any = PURE
    ) -> None:
        self.keep, self.start, self.named = keep, start, named
        self.new: list[Any] = []
        self._numbers = {id(value): number for number, value in (shared or {}).items()}

    def pack(self, value: Any) -> Any:
        kind = type(value)
        if kind in FLAT:
            return value
        if (number := self._numbers.get(id(value))) is not None:
            return {"shared": number}
        key = (kind.__module__, kind.__qualname__) if isinstance(kind.__module__, str) else ("", "")
        if key in MUTABLE and _is(kind, key) and _has_known_factory(value):
            return self._mutable(value, key)
        if kind in GROUPS:
            return {GROUPS[kind]: self.items(value)}
        if key in LIBRARY and _is(kind, key):
            return {"made": [*key, [self.pack(part) for part in LIBRARY[key](value)]]}
        return self._other(value, kind)

    def items(self, values: Any) -> list[Any]:
        held = list(values)
        return held if set(map(type, held)) <= FLAT else [self.pack(item) for item in held]

    def contents(self, value: Any) -> list[Any]:
        """The content of a shared container."""
        return self.items(contents(value))

    def _mutable(self, value: Any, key: tuple[str, str]) -> Any:
        self._numbers[id(value)] = self.start + len(self.new)
        self.new.append(value)
        start = [self.pack(part) for part in MUTABLE[key](value)]
        return {"new": [*key, start, self.contents(value)]}

    def _other(self, value: Any, kind: type) -> Any:
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind in (bytes, memoryview):
            return {kind.__name__: binascii.b2a_base64(bytes(value), newline=False).decode()}
        if kind in (range, slice):
            return {kind.__name__: [self.pack(part) for part in (value.start, value.stop, value.step)]}
        if kind in VIEWS:
            return {VIEWS[kind]: self.items(value)}
        if value is ... or value is NotImplemented:
            return {"single": str(value)}
        if id(value) in BUILTIN and BUILTIN[id(value)][0] in self.named:
            return {"builtin": BUILTIN[id(value)][0]}
        if id(kind) in BUILTIN and issubclass(kind, BaseException):
            return {"exception": [BUILTIN[id(kind)][0], self.items(value.args)]}
        return self.keep(value)


class Unpacker:
    """Converts what a `Packer` produced back to values.

    Args:
        held: returns the stand-in for a value that is not plain data.
        shared, start, named: as for the packer.
    """

    def __init__(
        self,
        held: Callable[[dict[str, Any]], Any],
        shared: dict[int, Any] | None = None,
        start: int = 0,
        named: Any = PURE,
    ) -> None:
        self.held, self.start, self.named = held, start, named
        self.shared = shared or {}
        self.new: list[Any] = []

    def unpack(self, packed: Any) -> Any:
        """The value.

        Raises:
            NotDataError: it was not created by a packer.
        """
        if type(packed) in FLAT:
            return packed
        try:
            return self._unpacked(packed)
        except (KeyError, ValueError, AttributeError, IndexError, ArithmeticError, TypeError, ImportError) as error:
            raise NotDataError(f"malformed message ({error})") from None

    def items(self, packed: Any) -> list[Any]:
        if not isinstance(packed, list):
            raise NotDataError("malformed message")
        return packed if set(map(type, packed)) <= FLAT else [self.unpack(item) for item in packed]

    def refill(self, number: int, packed: Any) -> None:
        """Give a shared container its content on the other side."""
        value = self._at(number)
        held = self.items(packed)
        _clear(value)
        _fill(value, held)

    def _at(self, number: int) -> Any:
        return self.shared[number] if number < self.start else self.new[number - self.start]

    def _unpacked(self, packed: Any) -> Any:
        if "mine" in packed or "yours" in packed:
            return self.held(packed)
        ((name, held),) = packed.items()
        if name == "new":
            return self._mutable(*held)
        if name == "shared":
            return self._at(held)
        if name == "made":
            module, kind, parts = held
            return _find(LIBRARY, module, kind)(*self.items(parts))
        if name in ("tuple", "frozenset"):
            return {"tuple": tuple, "frozenset": frozenset}[name](self.items(held))
        return self._other(name, held)

    def _mutable(self, module: str, kind: str, start: list[Any], held: list[Any]) -> Any:
        place = len(self.new)
        self.new.append(None)
        value = self.new[place] = _find(MUTABLE, module, kind)(*self.items(start))
        _fill(value, self.items(held))
        return value

    def _other(self, name: str, held: Any) -> Any:
        if name == "complex":
            return complex(*map(float, held))
        if name in ("bytes", "memoryview"):
            return {"bytes": bytes, "memoryview": memoryview}[name](binascii.a2b_base64(held))
        if name in ("range", "slice"):
            return {"range": range, "slice": slice}[name](*self.items(held))
        if name == "dict_keys":
            return dict.fromkeys(self.items(held)).keys()
        if name == "dict_values":
            return dict(enumerate(self.items(held))).values()
        if name == "dict_items":
            return dict(self.items(held)).items()
        if name == "single":
            return SINGLE[held]
        if name == "builtin" and held in self.named:
            return getattr(builtins, held)
        if name == "named":
            return _named_tuple(held[0], *held[1])._make(self.unpack(held[2]))
        if name == "exception":
            return exception_type(held[0])(*self.items(held[1]))
        raise NotDataError("malformed message")


VIEWS: dict[type, str] = {type({}.keys()): "dict_keys", type({}.values()): "dict_values"} | {
    type({}.items()): "dict_items"
}


def contents(value: Any) -> list[Any]:
    """The content of a mutable container: its items, or each key and its value in turn."""
    return [part for pair in value.items() for part in pair] if isinstance(value, dict) else list(value)


def changed(value: Any, before: list[Any]) -> bool:
    """Whether a container's content differs from before."""
    now = contents(value)
    if isinstance(value, bytearray) or type(value).__module__ == "array":
        return now != before
    return len(now) != len(before) or not all(map(operator.is_, now, before))


_NAMED: dict[tuple[str, ...], Any] = {}


def _named_tuple(*name_and_fields: str) -> Any:
    from collections import namedtuple

    if name_and_fields not in _NAMED:
        name, *fields = name_and_fields
        _NAMED[name_and_fields] = namedtuple(name, fields)
    return _NAMED[name_and_fields]


def base_of(kind: type) -> Any:
    """The built-in data type that a class derives from, or None."""
    return next((base for base in DATA if issubclass(kind, base)), None)


def as_base(value: Any, base: Any) -> Any:
    """A value converted to its built-in data type, with that type's own methods."""
    if base is str:
        return str.__str__(value)
    if base in (int, float, complex):
        return base.__add__(value, base())
    return base(base.items(value) if base is dict else base.__iter__(value))


def exception_type(name: str) -> type[BaseException]:
    """The built-in exception of that name.

    Raises:
        NotDataError: there is no such exception.
    """
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise NotDataError("malformed message")
    return kind


def said(error: BaseException) -> str:
    """A short text for an exception. Its methods may be the candidate's and do anything."""
    return f"{_read(lambda: type(error).__name__)}: {_read(lambda: str(error))}"


def _read(word: Callable[[], str]) -> str:
    try:
        return f"{word()}"[:LONGEST_WORDS]
    except BaseException:
        return "(cannot be read)"


def _find(known: dict[tuple[str, str], Any], module: str, kind: str) -> Any:
    """A type, if it is one of the known ones."""
    if (module, kind) not in known:
        raise NotDataError("malformed message")
    return getattr(__import__(module), kind)


def _is(kind: type, key: tuple[str, str]) -> bool:
    """Whether this is really the type of that name, not another one with the same name."""
    return getattr(sys.modules.get(key[0]), key[1], None) is kind


def _has_known_factory(value: Any) -> bool:
    factory = getattr(value, "default_factory", None)
    return any(factory is known for known in FACTORIES)


def _fill(value: Any, held: list[Any]) -> None:
    if isinstance(value, dict):
        for key, item in zip(held[::2], held[1::2], strict=True):
            value[key] = item
    else:
        (value.update if isinstance(value, set) else value.extend)(held)


def _clear(value: Any) -> None:
    if hasattr(value, "clear"):
        value.clear()
    else:
        del value[:]
