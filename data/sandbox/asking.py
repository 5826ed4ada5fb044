"""The tests' side of the conversation: it asks the candidate, and does little for it in turn."""

from __future__ import annotations

import sys
from types import (
    BuiltinFunctionType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    TracebackType,
    WrapperDescriptorType,
)

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

FUNCTIONS = (FunctionType, BuiltinFunctionType, MethodType, MethodDescriptorType, WrapperDescriptorType, type)
CALLABLE = {  # types of the standard library whose objects only call something
    *(("functools", "partial"), ("functools", "_lru_cache_wrapper"), ("operator", "itemgetter")),
    *(
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("unittest.mock", "Mock"),
        ("unittest.mock", "MagicMock"),
    ),
}
WAIT = 0.01  # seconds between the turns of coroutines that the tests do not wait for
STDIN = {"input", "read", "readline"}  # tests may have replaced it
STREAMS = {("_io", "StringIO"), ("_io", "BytesIO")}
OWN_MODULES = {"__main__", "asking", "answering", "collecting", "peer", "pytest", "pytest_stand_in", "remote", "values"}
SAID_OF_FUNCTIONS = {"__name__", "__qualname__", "__doc__"}
# Attributes of functions that an honest program may look for, to count arguments.
UNSAID = {"__signature__", "__code__", "__defaults__", "__kwdefaults__"}


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
        self._reads = self._rebound = False
        self.namespace: dict[str, Any] = {}
        self.given: dict[str, Any] = {}
        self._loop: Any = None
        self._runner: Any = None  # kept, or it would be collected
        self.trouble: BaseException | None = None
        self.stand_ins: dict[int, Any] = {}
        self.errors: dict[int, type[BaseException]] = {}
        self._result(self._reply())

    def named(self, names: Sequence[str]) -> dict[str, Any]:
        """The candidate's definitions of these names."""
        found = super().ask({"do": "names", "names": list(names)})
        if type(found) is not dict:
            raise GoneError("malformed message")
        self.given = {name: found[name] for name in names if name in found}
        return self.given

    def offer(self, names: Sequence[str], namespace: dict[str, Any]) -> None:
        """Put the candidate's definitions of these names into the tests' namespace, and again when they change."""
        namespace.update(self.named(names))
        self.namespace = namespace
        self.asked += any(inner_of(value) is None for value in self.given.values())

    def _offer_again(self) -> None:
        before, self._rebound = self.given, False
        for name, value in self.named(list(before)).items():
            if self.namespace.get(name) is before[name]:  # else the tests gave it another meaning
                self.namespace[name] = value
        self._rebound = False

    def ask(self, asked: dict[str, Any], values: Sequence[Any] = ()) -> Any:
        self._reads = asked["do"] == "contents"
        self.asked += not self._reads
        try:
            return super().ask(asked, values)
        except (CannotError, GoneError) as error:
            self.trouble = self.trouble or error
            raise
        finally:
            if self._rebound and self.trouble is None:
                self._offer_again()

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

    def heard(self, aside: dict[str, Any]) -> None:
        if aside.get("printed"):
            sys.stdout.write(aside["printed"])
        if aside.get("complained"):
            sys.stderr.write(aside["complained"])
        self._rebound = self._rebound or "rebound" in aside

    def unpacked(self, packed: Any) -> Any:
        """The candidate's description of an object, as values."""
        try:
            return Unpacker(self.held, named=self.takes).unpack(packed)
        except NotDataError as error:
            raise GoneError(str(error)) from None

    def has_derived(self) -> bool:
        """Whether it handed over an object of a class that derives from a built-in one: its stand-in does not."""
        return any(inner_of(thing).base for thing in self.stand_ins.values())

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
        """A coroutine of the candidate. It runs there as a task, in turn with others there and here."""
        import asyncio

        if self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._runner = self._loop.create_task(self._keep_running())
        task = self.ask({"do": "start"}, [stand_in(Inner(self, number, {}))])
        ended = None
        while True:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                ended = error
                self.ask({"do": "cancel", "task": task})
            found = self.ask({"do": "step", "task": task})
            if found == ("cancelled",) and ended:  # else it would end the tests' own coroutine, which may be ignored
                raise ended
            if found:
                return found[1]

    async def _keep_running(self) -> None:
        """Let the candidate's other tasks run while the tests wait for something else."""
        import asyncio

        while self.trouble is None:
            await asyncio.sleep(WAIT)
            self.ask({"do": "run"})

    def number_of(self, value: Any) -> int | None:
        if (inner := inner_of(value)) is not None:
            inner.handed = inner.handed or not self._reads  # reading for a comparison does not hand it over
            return inner.address()
        return next((number for number, kind in self.errors.items() if kind is value), None)

    def raised(self, packed: dict[str, Any], unpacker: Unpacker) -> BaseException:
        if "yours" in packed:
            return self._own_error(packed["yours"])
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
        for name in ("__cause__", "__context__"):
            if name in packed:
                setattr(error, name, self.raised(packed[name], unpacker))
        error.__suppress_context__ = packed["alone"] is True
        if not packed["plain"]:
            vars(error)["_words"] = words.partition(": ")[2]
        return error

    def _error_class(self, chain: list[Any]) -> type[BaseException]:
        kind = exception_type(chain[0])
        for name, number, module in chain[1:]:
            if number < 0:
                kind = self._own_error(-1 - number)
                continue
            if number not in self.errors:
                own = type(str(name), (kind,), {"__str__": _words})
                self.errors[number] = _library_error(module, name) or own
            kind = self.errors[number]
        return kind

    # Objects of the tests.

    def _own_error(self, number: int) -> Any:
        """An exception of the tests, or a class of them, that comes back."""
        error = self.things[number]
        kind = error if isinstance(error, type) else type(error)
        if not issubclass(kind, BaseException):
            raise NotDataError("malformed message")
        return error

    def keep(self, value: Any) -> Any:
        """Pass by value what is a value: an `IntEnum` as its number, a named tuple as one of its kind."""
        kind = type(value)
        if kind is TracebackType:
            return None  # where the tests are is not the candidate's to know
        if inner_of(value) is None and (base := base_of(kind)) in FIXED:
            packed = Packer(super().keep, named=self.gives).pack(as_base(value, base))
            return {"named": [kind.__name__, list(kind._fields), packed]} if hasattr(kind, "_fields") else packed
        return super().keep(value)

    def describe(self, value: Any) -> dict[str, Any]:
        """See `Peer.describe`. An exception or a class of them is known by its built-in class."""
        kind = type(value)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"error": self._chain(value)}
        if isinstance(value, BaseException):
            return self.describe_error(value, Packer(super().keep, named=self.gives))
        if isinstance(value, FUNCTIONS) or (kind.__module__, kind.__qualname__) in CALLABLE:
            return {"able": ["__call__"]}
        if _is_open(kind):
            return {"able": [name for name in (*QUERIES, *OPERATIONS, *COMPARED, "__hash__") if has(kind, name)]}
        if not hasattr(kind, "__next__"):
            self.cannot(f"the tests hand over a {kind.__name__}")
        return {"able": ["__iter__", "__next__"]}

    def _chain(self, kind: type) -> list[Any]:
        """An exception's class by the built-in one that it comes from, and those between, by number."""
        own = [base for base in reversed(kind.__mro__) if issubclass(base, BaseException)]
        known = next(base for base in kind.__mro__ if base.__module__ == "builtins")
        others = [base for base in own if base.__module__ != "builtins"]
        return [known.__name__, *([base.__name__, self.kept(base), base.__module__] for base in others)]

    def admit(self, asked: dict[str, Any]) -> None:
        """The candidate may only ask for objects it was handed, by their number."""
        if asked["do"] in STDIN:
            return
        first = asked["values"][0]
        handed = isinstance(first, dict) and first.keys() == {"yours"} and type(first["yours"]) is int
        if not (handed and 0 <= first["yours"] < len(self.things)):
            raise TypeError("the tests handed over no such thing")

    def do(self, asked: dict[str, Any], values: list[Any]) -> Any:
        """Do what the candidate may do with an object it was handed: call it, iterate, use what the tests define."""
        name, thing, *others = asked["do"], *values
        if name in STDIN:
            return input(str(thing)) if name == "input" else getattr(sys.stdin, name)(int(thing))
        if name not in ("get", "set"):
            if name not in self.describe(thing)["able"]:
                raise TypeError(f"{name} is not offered")
            return getattr(type(thing), name)(thing, *others[0], **others[1])
        attribute = str(asked["name"])
        public = (_is_open(type(thing)) or type(thing) is FunctionType) and not attribute.startswith("__")
        if callable(thing) and (attribute in UNSAID or type(thing).__module__ == "unittest.mock"):
            self.cannot(f"the program reads {attribute!r} of what the tests hand over")
        if not public and not (name == "get" and attribute in SAID_OF_FUNCTIONS):
            raise AttributeError(attribute)
        return getattr(thing, attribute) if name == "get" else setattr(thing, attribute, *others)

    def describe_error(self, error: BaseException, packer: Any) -> dict[str, Any]:
        return {
            "error": self._chain(type(error)),
            "arguments": Packer(super().keep, named=self.gives).pack(tuple(error.args)),
            "mine": self.kept(error),
        }


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
