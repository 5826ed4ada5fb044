"""The candidate's side of the conversation: what its objects are, and what can be done with them."""

from __future__ import annotations

import builtins
import io
import sys

from peer import ALWAYS, COMPARED, OPERATIONS, OPERATORS, QUERIES, Channel, Peer, has
from values import BUILTIN, FIXED, Packer, Unpacker, as_base, base_of, said

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LONGEST_PRINTED = 2**20  # characters of printed output that are passed on, per answer


class Foreign:
    """An object of the tests that was given to the candidate. It does what the tests let it do."""

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
        self.stand_ins: dict[int, Foreign] = {}
        self.screen = sys.stdout = io.StringIO()
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

    def printed(self, text: str) -> None:
        """Ignore what the tests print."""

    def do(self, asked: dict[str, Any], values: list[Any]) -> Any:
        name = asked["do"]
        if name == "names":
            return {name: self.namespace[name] for name in asked["names"] if name in self.namespace}
        thing, *others = values
        if name == "get":
            return getattr(thing, asked["name"])
        if name == "set":
            return setattr(thing, asked["name"], *others)
        if name == "delete":
            return delattr(thing, asked["name"])
        if name == "call":
            return thing(*others[0], **others[1])
        if name == "await":
            import asyncio  # takes longer than all other imports here

            return asyncio.run(_awaited(thing))
        if name in ("copy", "deepcopy"):
            import copy

            return getattr(copy, name)(thing)
        if name == "contents":
            return _contents(thing)
        if name in OPERATORS:
            return OPERATORS[name](thing, others[0])
        return _DOES[name](thing, *others)

    def aside(self) -> dict[str, str]:
        printed = self.screen.getvalue()
        if printed:
            self.screen.seek(0)
            self.screen.truncate()
        return {"printed": printed[:LONGEST_PRINTED]} if printed else {}

    def describe(self, value: Any) -> dict[str, Any]:
        if hasattr(type(value), "__await__"):
            return {"awaitable": True}
        kind = type(value)
        told = self._describe_instances(kind)
        if isinstance(value, type):
            told.update(self._describe_class(value))
        elif base_of(kind) in FIXED or told["equal"] == "fields":
            told["contents"] = Packer(self.keep).pack(_contents(value))
        return told

    def _describe_instances(self, kind: type) -> dict[str, Any]:
        """The methods of a class's objects, and what they are compared by."""
        able = [name for name in (*QUERIES, *OPERATIONS, *COMPARED) if has(kind, name)]
        told: dict[str, Any] = {"able": able, "name": kind.__name__, "equal": _equality(kind), "kind": self.kept(kind)}
        told["hashable"] = kind.__hash__ is not None
        told["ordered"] = _is_generated(getattr(kind, "__lt__", None))
        if (base := base_of(kind)) is not None:
            told["base"] = base.__name__
            told["own"] = [name for name in {*dir(base), *OPERATIONS, *COMPARED} if not _is_of_base(kind, base, name)]
        return told

    def _describe_class(self, value: type) -> dict[str, Any]:
        told: dict[str, Any] = {"class": value.__name__}
        if issubclass(value, BaseException):
            own = [kind for kind in value.__mro__ if kind.__module__ != "builtins"]
            known = next(kind for kind in value.__mro__ if kind.__module__ == "builtins")
            told["error"] = [
                known.__name__,
                *([kind.__name__, self.kept(kind), kind.__module__] for kind in reversed(own)),
            ]
        elif (fields := _plain_fields(value)) is not None:
            told["fields"] = [[name, *map(Packer(self.keep).pack, default)] for name, default in fields]
            told["instances"] = self._describe_instances(value)
        return told

    def describe_error(self, error: BaseException, packer: Packer) -> dict[str, Any]:
        told = {"words": said(error)}
        kind = type(error)
        told.update(self._describe_class(kind))
        state = {name: value for name, value in vars(error).items() if isinstance(name, str)}
        told["arguments"] = packer.pack(tuple(error.args))
        told["state"] = packer.pack(state)
        told["plain"] = kind.__str__ in (BaseException.__str__, Exception.__str__, KeyError.__str__, OSError.__str__)
        return told

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        if number not in self.stand_ins:
            methods = {name: _forwarded(name) for name in described["able"]}
            self.stand_ins[number] = type("Foreign", (Foreign,), methods)(self, number)
        return self.stand_ins[number]

    def number_of(self, value: Any) -> int | None:
        return value.__dict__["_number"] if isinstance(value, Foreign) else None

    def raised(self, packed: dict[str, Any], unpacker: Unpacker) -> BaseException:
        kind = getattr(builtins, packed.get("type", ""), RuntimeError)
        return kind(*unpacker.unpack(packed["arguments"])) if "arguments" in packed else RuntimeError(packed["words"])


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


def _plain_fields(kind: Any) -> list[tuple[str, list[Any]]] | None:
    """The fields of a class that only holds them, each with its default if it has one; None for any other class."""
    if issubclass(kind, tuple) and kind.__bases__ == (tuple,) and hasattr(kind, "_field_defaults"):
        defaults = kind._field_defaults
        return [(name, [defaults[name]] if name in defaults else []) for name in kind._fields]
    if not hasattr(kind, "__dataclass_fields__") or not _is_plain_dataclass(kind) or hasattr(kind, "__post_init__"):
        return None
    if not _is_generated(kind.__init__):
        return None
    fields = list(kind.__dataclass_fields__.values())
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
