"""The candidate's side of the conversation: what its objects are, and what can be done with them."""

from __future__ import annotations

import builtins
import io
import sys

from peer import ALWAYS, COMPARED, IN_PLACE, OPERATIONS, OPERATORS, QUERIES, Channel, Peer, has
from values import BUILTIN, FIXED, KINDS, Packer, Unpacker, as_base, base_of, exception_type, said

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_PRINTED = 2**20  # characters of printed output that are passed on, per answer
MOMENT = 0.01  # seconds for which coroutines run before the tests' own get their turn


class Stdin(io.TextIOBase):
    """The tests' standard input, which they may have replaced."""

    def __init__(self, peer: Answering) -> None:
        self._peer = peer

    @property
    def buffer(self) -> Any:
        return sys.__stdin__.buffer  # type: ignore[union-attr]

    def fileno(self) -> int:
        return sys.__stdin__.fileno()  # type: ignore[union-attr]

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> str:
        return self._peer.ask({"do": "read"}, [-1 if size is None else size])  # type: ignore[no-any-return]

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        return self._peer.ask({"do": "readline"}, [size])  # type: ignore[no-any-return]


class Foreign:
    # An object of the tests that was given to the candidate. It does what the tests let it do. `functools.wraps` reads
    # the docstring of the original.
    __doc__ = property(lambda self: self._peer.ask({"do": "get", "name": "__doc__"}, [self]))  # type: ignore[assignment]

    def __init__(self, peer: Answering, number: int) -> None:
        self.__dict__.update(_peer=peer, _number=number)

    def __getattr__(self, name: str) -> Any:
        return self._peer.ask({"do": "get", "name": name}, [self])

    def __setattr__(self, name: str, value: Any) -> None:
        self._peer.ask({"do": "set", "name": name}, [self, value])


def _forwarded(name: str) -> Any:
    def method(self: Foreign, *arguments: Any, **named: Any) -> Any:
        return self._peer.ask({"do": name}, [self, list(arguments), named])

    return method


class Answering(Peer):
    """A candidate that answers until the tests are over."""

    takes = frozenset(name for name, _ in BUILTIN.values())

    def __init__(self, questions: int, answers: int) -> None:
        super().__init__(Channel(questions, answers))
        self.namespace: dict[str, Any] = {}
        self.given: dict[str, Any] = {}  # what the tests have of it
        self.stand_ins: dict[int, Foreign] = {}
        self.errors: dict[int, tuple[int, Any]] = {}  # stand-ins for exceptions of the tests and their classes
        self.tasks: list[Any] = []
        self.loop: Any = None
        self.screen = sys.stdout = io.StringIO()
        self.errors_screen = sys.stderr = io.StringIO()
        sys.stdin = Stdin(self)
        builtins.input = lambda prompt="": self.ask({"do": "input"}, [str(prompt)])

    def run(self, candidate: Callable[[], dict[str, Any]]) -> None:
        try:
            self.namespace = candidate()
            self.channel.send({"value": True, **self.aside()})
        except BaseException as error:
            self.channel.send({"raised": {"words": said(error)}})
            return
        while True:
            try:
                asked = self.channel.receive()
            except EOFError:
                return
            self.answer(asked)

    def admit(self, asked: dict[str, Any]) -> None:
        """The tests may ask for anything."""

    def heard(self, aside: dict[str, Any]) -> None:
        """The tests send nothing with a reply."""

    def do(self, asked: dict[str, Any], values: list[Any]) -> Any:
        name = asked["do"]
        if name == "names":
            self.given = {name: self.namespace[name] for name in asked["names"] if name in self.namespace}
            return self.given
        if name == "step":
            return self._step(self.tasks[asked["task"]])
        if name == "run":
            return self.loop.run_until_complete(_moment())
        if name == "cancel":
            return self.tasks[asked["task"]].cancel()
        return self._do_with(name, asked, *values)

    def _do_with(self, name: str, asked: dict[str, Any], thing: Any, *others: Any) -> Any:
        """Do what the tests ask of an object."""
        if name == "item":
            return thing[others[0]]
        if name == "is":
            return _is_of(thing, *asked["kind"])
        if name == "get":
            return getattr(thing, asked["name"])
        if name == "set":
            return setattr(thing, asked["name"], *others)
        if name == "delete":
            return delattr(thing, asked["name"])
        if name == "call":
            return thing(*others[0], **others[1])
        if name == "start":
            import asyncio  # takes longer than all other imports here

            self.loop = self.loop or asyncio.new_event_loop()
            self.tasks.append(self.loop.create_task(_awaited(thing)))
            return len(self.tasks) - 1
        if name in ("copy", "deepcopy"):
            import copy

            return getattr(copy, name)(thing)
        if name == "contents":
            return _contents(thing)
        if name in OPERATORS:
            return OPERATORS[name](thing, others[0])
        return _DOES[name](thing, *others)

    def _step(self, task: Any) -> tuple[Any, ...]:
        """Let all tasks run for a moment. Returns how this one ended and its result, or nothing before it ends."""
        import asyncio

        left = [other for other in self.tasks if not other.done()]
        if not task.done():
            wait = asyncio.wait(left, timeout=MOMENT / len(left), return_when=asyncio.FIRST_COMPLETED)
            self.loop.run_until_complete(wait)
        if task.cancelled():
            return ("cancelled",)
        return ("done", task.result()) if task.done() else ()

    def aside(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if any(self.namespace.get(name) is not value for name, value in self.given.items()):
            found["rebound"] = True
        for name, screen in (("printed", self.screen), ("complained", self.errors_screen)):
            if text := screen.getvalue():
                screen.seek(0)
                screen.truncate()
                found[name] = text[:LONGEST_PRINTED]
        return found

    def describe(self, value: Any) -> dict[str, Any]:
        if hasattr(type(value), "__await__"):
            return {"awaitable": True}
        kind = type(value)
        told = self._describe_instances(kind)
        if KINDS.get(kind.__name__) is kind:
            told["is"] = kind.__name__
        if isinstance(value, type):
            told.update(self._describe_class(value))
        elif base_of(kind) in FIXED or told["equal"] == "fields":
            told["contents"] = Packer(self.keep).pack(_contents(value))
        return told

    def _describe_instances(self, kind: type) -> dict[str, Any]:
        """The methods of a class's objects, and what they are compared by."""
        able = [name for name in (*QUERIES, *OPERATIONS, *IN_PLACE, *COMPARED) if has(kind, name)]
        told: dict[str, Any] = {"able": able, "name": kind.__name__, "equal": _equality(kind), "kind": self.kept(kind)}
        if hasattr(kind, "__dataclass_fields__"):
            told["holds"] = [field.name for field in kind.__dataclass_fields__.values() if _is_field(field)]
        told["hashable"] = kind.__hash__ is not None
        told["hashes"] = getattr(kind, "__hash__", None) is not object.__hash__
        told["ordered"] = _is_generated(getattr(kind, "__lt__", None))
        if (base := base_of(kind)) is not None:
            told["base"] = base.__name__
            told["own"] = [name for name in {*dir(base), *OPERATIONS, *COMPARED} if not _is_of_base(kind, base, name)]
        return told

    def _describe_class(self, value: type) -> dict[str, Any]:
        told: dict[str, Any] = {"class": value.__name__, "generic": hasattr(value, "__class_getitem__")}
        told["members"] = type(value) is getattr(sys.modules.get("enum"), "EnumMeta", None)
        if issubclass(value, BaseException):
            own = [kind for kind in value.__mro__ if kind.__module__ != "builtins"]
            known = next(kind for kind in value.__mro__ if kind.__module__ == "builtins")
            told["error"] = [
                known.__name__,
                *([kind.__name__, self._number(kind), kind.__module__] for kind in reversed(own)),
            ]
        elif (fields := _plain_fields(value)) is not None:
            told["fields"] = [[name, *map(Packer(self.keep).pack, default)] for name, default in fields]
            told["instances"] = self._describe_instances(value)
        return told

    def describe_error(self, error: BaseException, packer: Packer) -> dict[str, Any]:
        if (number := self.number_of(error)) is not None:
            return {"yours": number}
        told: dict[str, Any] = {"words": said(error)}
        kind = type(error)
        told.update(self._describe_class(kind))
        state = {name: value for name, value in vars(error).items() if isinstance(name, str)}
        # The arguments of an OSError lack its file's name.
        arguments = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args  # type: ignore[index]
        told["arguments"] = packer.pack(tuple(arguments))
        told["state"] = packer.pack(state)
        for name in ("__cause__", "__context__"):
            if (before := getattr(error, name)) is not None:
                told[name] = self.describe_error(before, packer)
        told["alone"] = error.__suppress_context__
        told["plain"] = kind.__str__ in (BaseException.__str__, Exception.__str__, KeyError.__str__, OSError.__str__)
        return told

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        if "error" in described:
            kind = self._error_class(described["error"])
            return self._error(kind, described) if "arguments" in described else kind
        if number not in self.stand_ins:
            methods = {"__doc__": vars(Foreign)["__doc__"], **{name: _forwarded(name) for name in described["able"]}}
            self.stand_ins[number] = type("Foreign", (Foreign,), methods)(self, number)
        return self.stand_ins[number]

    def number_of(self, value: Any) -> int | None:
        if isinstance(value, Foreign):
            return value.__dict__["_number"]  # type: ignore[no-any-return]
        known = self.errors.get(id(value))
        return known[0] if known and known[1] is value else None

    def _number(self, kind: type) -> int:
        """The number of a class here, or, below zero, of one of the tests there."""
        number = self.number_of(kind)
        return self.kept(kind) if number is None else -1 - number

    def raised(self, packed: dict[str, Any], unpacker: Unpacker) -> BaseException:
        return self._error(self._error_class(packed["error"]), packed)

    def _error(self, kind: type[BaseException], told: dict[str, Any]) -> BaseException:
        """The stand-in for an exception of the tests."""
        if (error := self._error_of(told["mine"])) is None:
            arguments = Unpacker(self.held, named=self.takes).unpack(told["arguments"])
            try:
                error = kind(*arguments)
            except TypeError:  # some take more arguments than they keep
                error = kind.__new__(kind, *arguments)
            self.errors[id(error)] = told["mine"], error
        return error

    def _error_of(self, number: int) -> Any:
        return next((error for known, error in self.errors.values() if known == number), None)

    def _error_class(self, chain: list[Any]) -> type[BaseException]:
        kind = exception_type(chain[0])
        for name, number, module in chain[1:]:
            if (known := self._error_of(number)) is None:
                known = getattr(sys.modules.get(module), name, None) or type(name, (kind,), {})
                self.errors[id(known)] = number, known
            kind = known
        return kind


def _is_of(thing: Any, module: str, name: str) -> bool:
    """Whether it is, or comes from, a class of Python's library."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and (issubclass(thing, kind) if isinstance(thing, type) else isinstance(thing, kind))


async def _moment() -> None:
    import asyncio

    await asyncio.sleep(MOMENT / 10)


async def _awaited(thing: Any) -> Any:
    return await thing


def _is_of_base(kind: type, base: type, name: str) -> bool:
    return getattr(kind, name, None) == getattr(base, name, None)


def _contents(value: Any) -> Any:
    """What an object is compared by: its value as a built-in type, or the values of its fields."""
    base = base_of(type(value))
    if base is None:
        return tuple(getattr(value, name) for name in _field_names(type(value)))
    return as_base(value, base)


def _equality(kind: type) -> str:
    """How objects compare equal: by "identity", by "base" (a built-in type), by "fields", or by their "own" rule."""
    equal: Any = kind.__eq__
    if any(equal is known for known in (object.__eq__, type.__eq__)):
        return "identity"
    base = base_of(kind)
    if base is not None and equal is base.__eq__:
        return "base"
    return "fields" if _is_plain_dataclass(kind) else "own"


def _is_plain_dataclass(kind: type) -> bool:
    """Whether a class compares by its fields, as `dataclasses` generates it."""
    return hasattr(kind, "__dataclass_fields__") and _is_generated(kind.__eq__)


def _is_generated(method: Any) -> bool:
    """Whether `dataclasses` generated a method."""
    return getattr(getattr(method, "__code__", None), "co_filename", None) == "<string>"


def _field_names(kind: Any) -> list[str]:
    return [field.name for field in kind.__dataclass_fields__.values() if field.compare and _is_field(field)]


def _is_field(field: Any) -> bool:
    return field._field_type is sys.modules["dataclasses"]._FIELD  # type: ignore[attr-defined]


def _is_of_class(field: Any) -> bool:
    return field._field_type is sys.modules["dataclasses"]._FIELD_CLASSVAR  # type: ignore[attr-defined]


def _plain_fields(kind: Any) -> list[tuple[str, list[Any]]] | None:
    """The fields of a class that only holds them, each with its default if it has one; None for any other class."""
    if issubclass(kind, tuple) and kind.__bases__ == (tuple,) and hasattr(kind, "_field_defaults"):
        defaults = kind._field_defaults
        return [(name, [defaults[name]] if name in defaults else []) for name in kind._fields]
    if not hasattr(kind, "__dataclass_fields__") or not _is_plain_dataclass(kind) or hasattr(kind, "__post_init__"):
        return None
    if not _is_generated(kind.__init__):
        return None
    fields = [field for field in kind.__dataclass_fields__.values() if not _is_of_class(field)]
    missing = sys.modules["dataclasses"].MISSING
    if any(not (field.init and field.compare and _is_field(field)) or field.kw_only for field in fields):
        return None
    found = []
    for field in fields:
        if field.default_factory is not missing and field.default_factory not in (list, dict, set, tuple):
            return None
        default = field.default_factory() if field.default_factory is not missing else field.default
        found.append((field.name, [] if default is missing else [default]))
    return found


_DOES: dict[str, Callable[..., Any]] = {
    "isinstance": isinstance,
    "issubclass": issubclass,
    **{
        name: (lambda thing, arguments, named, name=name: getattr(type(thing), name)(thing, *arguments, **named))
        for name in (*QUERIES, *ALWAYS)
    },
}
