"""The tests' side of the conversation: it asks the candidate, and does little for it in turn."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, MethodType, TracebackType

from peer import COMPARED, OPERATIONS, QUERIES, CannotError, Channel, GoneError, Peer, has
from remote import CandidateError, Inner, inner_of, stand_in
from values import (
    BUILTIN,
    DATA,
    FIXED,
    LONGEST_WORDS,
    NotDataError,
    Packer,
    Unpacker,
    as_base,
    base_of,
    exception_type,
)

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, type)
STREAMS = {("_io", "StringIO"), ("_io", "BytesIO")}
OWN_MODULES = {"__main__", "asking", "answering", "collecting", "peer", "pytest", "pytest_stand_in", "remote", "values"}
SAID_OF_FUNCTIONS = {"__name__", "__qualname__", "__doc__"}


class Asking(Peer):
    """The candidate, as the tests see it.

    Attributes:
        asked: how often it was asked for anything but its names.
        trouble: the first thing that could not be transferred, or why the candidate is gone, even if tests hide it.
    """

    gives = frozenset(name for name, _ in BUILTIN.values())

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.asked = 0
        self._reads = False
        self.trouble: BaseException | None = None
        self.stand_ins: dict[int, Any] = {}
        self.errors: dict[int, type[BaseException]] = {}
        self._result(self._reply())

    def named(self, names: Sequence[str]) -> dict[str, Any]:
        """The candidate's definitions of these names."""
        found = super().ask({"do": "names", "names": list(names)})
        if type(found) is not dict:
            raise GoneError("malformed message")
        self.asked += any(inner_of(value) is None for value in found.values())
        return {name: found[name] for name in names if name in found}

    def ask(self, asked: dict[str, Any], values: Sequence[Any] = ()) -> Any:
        self._reads = asked["do"] == "contents"
        self.asked += not self._reads
        try:
            return super().ask(asked, values)
        except (CannotError, GoneError) as error:
            self.trouble = self.trouble or error
            raise

    def cannot(self, why: str) -> NoReturn:
        """Report that something cannot be transferred.

        Raises:
            CannotError: always.
        """
        error = CannotError(why)
        self.trouble = self.trouble or error
        raise error

    def gone(self, why: str) -> NoReturn:
        """Report that the candidate sends malformed messages.

        Raises:
            GoneError: always.
        """
        self.trouble = self.trouble or GoneError(why)
        raise GoneError(why)

    def printed(self, text: str) -> None:
        if text:
            sys.stdout.write(text)

    def unpacked(self, packed: Any) -> Any:
        """The candidate's description of an object, as values."""
        try:
            return Unpacker(self.held, named=self.takes).unpack(packed)
        except NotDataError as error:
            raise GoneError(str(error)) from None

    # Objects of the candidate.

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        if "awaitable" in described:
            return self._awaited(number)
        if "error" in described:
            return self._error_class(described["error"])
        if number not in self.stand_ins:
            self.stand_ins[number] = stand_in(Inner(self, number, described))
        return self.stand_ins[number]

    async def _awaited(self, number: int) -> Any:
        """A coroutine of the candidate, which runs there until it ends."""
        return self.ask({"do": "await"}, [stand_in(Inner(self, number, {}))])

    def number_of(self, value: Any) -> int | None:
        if (inner := inner_of(value)) is not None:
            inner.handed = inner.handed or not self._reads  # reading for a comparison does not hand it over
            return inner.address()
        return next((number for number, kind in self.errors.items() if kind is value), None)

    def raised(self, packed: dict[str, Any], unpacker: Unpacker) -> BaseException:
        words = str(packed["words"])[:LONGEST_WORDS]
        if "error" not in packed:
            return CandidateError(words)
        kind = self._error_class(packed["error"])
        arguments, state = unpacker.unpack(packed["arguments"]), unpacker.unpack(packed["state"])
        try:
            error = kind(*arguments)
        except TypeError:  # some take more arguments than they keep
            error = kind.__new__(kind, *arguments)
            error.args = arguments
        vars(error).update(state)
        if not packed["plain"]:
            vars(error)["_words"] = words.partition(": ")[2]
        return error

    def _error_class(self, chain: list[Any]) -> type[BaseException]:
        kind = exception_type(chain[0])
        for name, number, module in chain[1:]:
            if number not in self.errors:
                own = type(str(name), (kind,), {"__str__": _words})
                self.errors[number] = _library_error(module, name) or own
            kind = self.errors[number]
        return kind

    # Objects of the tests.

    def keep(self, value: Any) -> Any:
        """Pass by value what is a value: an `IntEnum` as its number, a named tuple as one of its kind."""
        kind = type(value)
        if inner_of(value) is None and (base := base_of(kind)) in FIXED:
            packed = Packer(super().keep, named=self.gives).pack(as_base(value, base))
            return {"named": [kind.__name__, list(kind._fields), packed]} if hasattr(kind, "_fields") else packed
        return super().keep(value)

    def describe(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        if isinstance(value, FUNCTIONS) or _is_partial(value):
            return {"able": ["__call__"]}
        if _is_open(kind):
            return {"able": [name for name in (*QUERIES, *OPERATIONS, *COMPARED, "__hash__") if has(kind, name)]}
        if hasattr(kind, "__next__"):
            return {"able": ["__iter__", "__next__"]}
        if kind is not TracebackType:
            self.cannot(f"the tests hand over a {kind.__name__}")
        return {"able": []}

    def admit(self, asked: dict[str, Any]) -> None:
        """The candidate may only ask for objects it was handed, by their number."""
        first = asked["values"][0]
        handed = isinstance(first, dict) and first.keys() == {"yours"} and type(first["yours"]) is int
        if asked["do"] != "input" and not (handed and 0 <= first["yours"] < len(self.things)):
            raise TypeError("the tests handed over no such thing")

    def do(self, asked: dict[str, Any], values: list[Any]) -> Any:
        """Do what the candidate may do with an object it was handed: call it, iterate, use what the tests define."""
        name, thing, *others = asked["do"], *values
        if name == "input":
            return input(str(thing))
        if name not in ("get", "set"):
            if name not in self.describe(thing)["able"]:
                raise TypeError(f"{name} is not offered")
            return getattr(type(thing), name)(thing, *others[0], **others[1])
        attribute = str(asked["name"])
        public = _is_open(type(thing)) and not attribute.startswith("__")
        if not public and not (name == "get" and attribute in SAID_OF_FUNCTIONS):
            raise AttributeError(attribute)
        return getattr(thing, attribute) if name == "get" else setattr(thing, attribute, *others)

    def describe_error(self, error: BaseException, packer: Any) -> dict[str, Any]:
        told = super().describe_error(error, packer)
        if type(error).__module__ == "builtins":
            told.update(type=type(error).__name__, arguments=packer.pack(tuple(error.args)))
        return told


def _library_error(module: str, name: str) -> type[Exception] | None:
    """The standard library's exception, if the tests have loaded it; none that a test runner reacts to."""
    if module.partition(".")[0] in ("unittest", "asyncio", "concurrent") or module in OWN_MODULES:
        return None
    kind = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _words(error: BaseException) -> str:
    words = vars(error).get("_words")
    if isinstance(words, str):
        return words
    known: Any = next(kind for kind in type(error).__mro__ if kind.__module__ == "builtins")
    return known.__str__(error)


def _is_open(kind: type) -> bool:
    """Whether the candidate may use the attributes of such objects: the tests define it, and it is more than data."""
    of_tests = kind.__module__ == "__main__" and not issubclass(kind, DATA)
    return of_tests or (kind.__module__, kind.__qualname__) in STREAMS


def _is_partial(value: Any) -> bool:
    return (type(value).__module__, type(value).__qualname__) == ("functools", "partial")
