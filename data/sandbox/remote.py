"""Stand-ins, in the tests' program, for the candidate's objects and exceptions.

A stand-in has the methods that Python's syntax finds on the object itself. Their calls go to the candidate, which
answers from the object. Never sent there, and so decided here on copies: whether an object equals, orders before or
contains what the tests compare it with, and arithmetic with the tests' own numbers. If a class of the candidate
implements these with its own rules, they cannot be decided without it, which is a `CannotError`.
"""

from __future__ import annotations

import sys

from peer import OPERATORS, QUERIES
from values import DATA, FIXED, KINDS

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from data.sandbox.asking import Asking


ORDERS = {
    "__lt__": lambda a, b: a < b,
    "__le__": lambda a, b: a <= b,
    "__gt__": lambda a, b: a > b,
    "__ge__": lambda a, b: a >= b,
}
# Methods of built-in types that test data: an object of another type could always return True.
PREDICATES = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "__contains__", "__eq__", "__ne__"} | {
    *ORDERS
}

TEXTS = {"__str__", "__repr__", "__format__"}
UNCLAIMED = {"builtins", "__main__"}  # modules whose classes are known here
CHANGING = {  # methods of built-in types that change the object, or belong to every object
    *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "update", "setdefault", "popitem"),
    *("add", "discard", "difference_update", "intersection_update", "symmetric_difference_update"),
    *("__setitem__", "__delitem__", "__call__", "__next__", "__enter__", "__exit__", "__hash__"),
    *(name for name in dir(object) if name not in ORDERS),
}
_CLASSES: dict[tuple[frozenset[str], str, tuple[str, ...]], type[Remote]] = {}


class CandidateError(Exception):
    """The candidate raised an exception that cannot be reproduced more precisely."""


class Remote:
    """A thing in the candidate's process."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Inner) -> None:
        object.__setattr__(self, "_inner", inner)
        inner.remote = self

    def __getattr__(self, name: str) -> Any:
        return self._inner.attribute(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._inner.query("set", value, name=name)

    def __delattr__(self, name: str) -> None:
        self._inner.query("delete", name=name)

    def __deepcopy__(self, memo: Any) -> Any:
        return self._inner.query("deepcopy")

    def __copy__(self) -> Any:
        return self._inner.query("copy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._inner.peer.cannot("the tests pickle an object of the candidate")

    def __str__(self) -> str:
        return str(self._inner.does("__str__"))

    def __repr__(self) -> str:
        return str(self._inner.does("__repr__"))

    def __format__(self, form: str) -> str:
        return str(self._inner.does("__format__", form))

    def __eq__(self, other: Any) -> Any:
        return self._inner.equals(other)

    def __ne__(self, other: Any) -> Any:
        same = self._inner.equals(other)
        return same if same is NotImplemented else not same

    def __hash__(self) -> int:
        return self._inner.hashed()

    def __instancecheck__(self, thing: Any) -> bool:
        return isinstance(inner_of(thing), Inner) and bool(self._inner.peer.ask({"do": "isinstance"}, [thing, self]))

    def __subclasscheck__(self, kind: Any) -> bool:
        return isinstance(inner_of(kind), Inner) and bool(self._inner.peer.ask({"do": "issubclass"}, [kind, self]))

    def __mro_entries__(self, bases: Any) -> Any:
        self._inner.peer.cannot("the tests derive a class from one of the candidate")


class Inner:
    """The state of a stand-in, kept apart from the names it stands for.

    Attributes:
        number: the number under which the candidate keeps the object.
        told: the candidate's description of it, see `Answering.describe`.
        handed: whether the tests handed it to the candidate, which may then know all its content.
        made: whether the tests created it, by calling a class.
    """

    def __init__(self, peer: Asking, number: int | None, told: dict[str, Any]) -> None:
        self.peer, self.number, self.told = peer, number, told
        self.handed = self.made = False
        self.born, self._read_at, self._found = peer.asked, -1, None
        self.remote: Any = None
        self.base: Any = next((base for base in DATA if base.__name__ == told.get("base")), None)
        self.own = {*told.get("own", [])}

    def query(self, do: str, *values: Any, **asked: Any) -> Any:
        return self.peer.ask({"do": do, **asked}, [self.remote, *values])

    def does(self, name: str, *arguments: Any, **named: Any) -> Any:
        if self._says_by_value(name):
            return getattr(self.base, name)(self.contents(), *arguments, **named)
        return self.query(name, list(arguments), named)

    def attribute(self, name: str) -> Any:
        if self._says_by_value(name):
            return getattr(self.contents(), name)
        if name in PREDICATES:
            self.cannot(f"the result of {name!r}")
        return self.query("get", name=name)

    def _says_by_value(self, name: str) -> bool:
        """Whether a method belongs to the object's built-in type and only reads: its result can be computed here.

        A class with its own rule for reading data could return anything that the tests ask for.
        """
        if not (self.base and hasattr(self.base, name)) or name in CHANGING or name in TEXTS:
            return False
        if name == "__getitem__" and "__missing__" in self.told["able"]:
            return False
        if name in self.own:
            self.cannot(f"the result of {name!r}")
        return True

    def call(self, *arguments: Any, **named: Any) -> Any:
        if "fields" in self.told:
            return Fields(self, arguments, named).remote
        result = self.query("call", list(arguments), named)
        if "class" in self.told and isinstance(inner_of(result), Inner):
            inner_of(result).made = True
        return result

    def address(self) -> int | None:
        """The number, for which the object has to exist on the other side."""
        return self.number

    def contents(self) -> Any:
        """What it is compared by, as of now: a value of a built-in type, or the values of its fields."""
        kind = self.base or tuple
        if self.base in FIXED:
            found = self.peer.unpacked(self.told.get("contents"))
        elif self._read_at == self.peer.asked:  # nothing that could change it was asked since
            found = self._found
        else:
            found, self._read_at = self.query("contents"), self.peer.asked
            self._found = found
        if type(found) is not kind:
            self.peer.gone("malformed message")
        return found

    def equals(self, other: Any) -> Any:
        theirs, rule = inner_of(other), self.told.get("equal")
        if rule == "own" or "__eq__" in self.own:
            self.cannot("equality")
        if not isinstance(theirs, Inner):
            return self.contents() == other if self.base else NotImplemented
        if theirs.told.get("equal") == "own" or "__eq__" in theirs.own:
            theirs.cannot("equality")
        same = self is theirs
        if not same and (rule == "identity" or bool(self.base) != bool(theirs.base)):
            return False
        for one in (self, theirs):
            if one.made and not one.handed:
                one.peer.cannot("the tests compare with an object that they made with a class of the candidate")
        if same:
            return True
        if rule == "fields" and self.told.get("kind") != theirs.told.get("kind"):
            return False
        if self.number is not None and theirs.number is not None:
            for one in (self, theirs):
                one.see_unchanged_since(max(self.born, theirs.born))
        return self.contents() == theirs.contents()

    def see_unchanged_since(self, moment: int) -> None:
        """Check that its content is not from another object that the candidate made from what the tests expect."""
        if (
            "contents" in self.told
            and self.born < moment
            and self.contents() != self.peer.unpacked(self.told["contents"])
        ):
            self.peer.cannot("the tests compare a changed object with another one of the candidate")

    def orders(self, name: str, other: Any) -> Any:
        theirs = inner_of(other)
        if isinstance(theirs, Inner):
            fields = self.told.get("ordered") and self.told.get("kind") == theirs.told.get("kind")
            if fields or (self.base and theirs.base and name not in self.own):
                return ORDERS[name](self.contents(), theirs.contents())
        elif self.base and name not in self.own:
            return ORDERS[name](self.contents(), other)
        self.cannot("order")
        return NotImplemented

    def contains(self, item: Any) -> bool:
        if self.base and "__contains__" not in self.own:
            return item in self.contents()
        if self.told.get("members") and isinstance(inner_of(item), Inner):
            return isinstance(item, self.remote)
        self.cannot("membership")
        return False

    def operates(self, name: str, other: Any, reflected: bool) -> Any:
        theirs = inner_of(other)
        own = {f"__{name}__", f"__r{name}__"} & self.own
        if self.base and not own:
            ours, value = self.contents(), theirs.contents() if isinstance(theirs, Inner) and theirs.base else other
            return OPERATORS[name](*((value, ours) if reflected else (ours, value)))
        if isinstance(theirs, Inner):
            pair = (other, self.remote) if reflected else (self.remote, other)
            return self.peer.ask({"do": name}, pair)
        self.cannot("arithmetic")
        return NotImplemented

    def hashed(self) -> int:
        rule = self.told.get("equal")
        if rule == "own" or (rule == "identity" and self.told.get("hashes")):
            return int(self.does("__hash__"))
        if rule == "identity":
            return hash((id(self.peer), self.number))
        if not self.told.get("hashable", True):
            raise TypeError("unhashable type")
        return hash(self.contents())

    def kind(self, exactly: bool = False) -> Any:
        """Its class: one of Python's, or the stand-in for one of the candidate's if the tests have it; or None."""
        if "class" in self.told:
            return type
        if (known := KINDS.get(str(self.told.get("is")))) is not None:
            return known
        if self.base and not exactly:
            return None
        return self.peer.stand_ins.get(self.told.get("kind", -1)) or self.query("get", name="__class__")

    def cannot(self, what: str) -> None:
        self.peer.cannot(f"{what} is up to the candidate's own code, which must not see what the tests expect")


class Fields(Inner):
    """An object that the tests make with a candidate's class that only holds fields: a named tuple or a dataclass.

    Its content is therefore known here, and the candidate gets it only when something is asked of the object: until
    then it may be what the tests expect.
    """

    def __init__(self, maker: Inner, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        super().__init__(maker.peer, None, maker.told["instances"])
        self.peer.asked += 1
        self.maker, self.arguments, self.named = maker, arguments, named
        self.values = self._bound()
        stand_in(self)

    def kind(self, exactly: bool = False) -> Any:
        return self.maker.remote

    def _bound(self) -> tuple[Any, ...]:
        fields = self.maker.told["fields"]
        names = [name for name, *_ in fields]
        given = dict(zip(names, self.arguments, strict=False))
        if len(self.arguments) > len(names) or given.keys() & self.named or not self.named.keys() <= {*names}:
            raise TypeError(f"{self.maker.told['class']} takes {', '.join(names) or 'nothing'}")
        given.update(self.named)
        for name, *default in fields:
            if name not in given and not default:
                raise TypeError(f"{self.maker.told['class']} lacks {name!r}")
            given.setdefault(name, *map(self.peer.unpacked, default))
        return tuple(given[name] for name in names)

    def contents(self) -> Any:
        return self.values if self.number is None or self.base in FIXED else super().contents()

    def see_unchanged_since(self, moment: int) -> None:
        """The candidate cannot have stored what it was never sent."""

    def address(self) -> int | None:
        if self.number is None:
            made = inner_of(self.maker.query("call", list(self.arguments), self.named))
            if not isinstance(made, Inner):
                raise CandidateError(f"{self.maker.told['class']} makes no object")
            self.number = made.number
            self.peer.stand_ins[int(made.number or 0)] = self.remote
        return self.number


def stand_in(inner: Inner) -> Remote:
    """An object with the methods of the original, and a class of the same name."""
    told = inner.told
    able = [*told.get("able", []), *(["__class_getitem__"] if told.get("generic") else [])]
    return _class_of(frozenset(able), str(told.get("name", "Remote")), tuple(told.get("holds", [])))(inner)


def plain(value: Any) -> Any:
    """A value with everything in it that is of a built-in type converted to that type."""
    inner = inner_of(value)
    if inner is not None:
        return plain(inner.contents()) if inner.base else value
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return {plain(key): plain(item) for key, item in value.items()} if type(value) is dict else value


def inner_of(thing: Any) -> Any:
    """The state of a stand-in, if the value is one."""
    return object.__getattribute__(thing, "_inner") if issubclass(type(thing), Remote) else None


def _class_of(able: frozenset[str], name: str, holds: tuple[str, ...]) -> type[Remote]:
    if (able, name, holds) not in _CLASSES:
        fields = {"__dataclass_fields__": _fields(holds)} if holds and "dataclasses" in sys.modules else {}
        made = type(name, (Remote,), {**_OF_THE_THING, **_methods(able), **fields, "__slots__": ()})
        _CLASSES[able, name, holds] = made
    return _CLASSES[able, name, holds]


def _fields(names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a dataclass, for the functions of `dataclasses`."""
    import dataclasses

    found = {name: dataclasses.field() for name in names}
    for name, field in found.items():
        field.name, field._field_type = name, dataclasses._FIELD  # type: ignore[attr-defined]
    return found


def _asked_for(name: str) -> property:
    """An attribute that every object has, and that is asked of the original."""
    return property(lambda self: inner_of(self).query("get", name=name))


def is_instance(thing: Any, kinds: Any) -> bool:
    """`isinstance` for tests: an object of the candidate may be of a class that comes from one of Python's library."""
    return isinstance(thing, kinds) or _comes_from(thing, kinds)


def is_subclass(kind: Any, kinds: Any) -> bool:
    """`issubclass` for tests."""
    return _comes_from(kind, kinds) or issubclass(kind, kinds)


def _comes_from(thing: Any, kinds: Any) -> bool:
    if isinstance(kinds, tuple):
        return any(_comes_from(thing, kind) for kind in kinds)
    inner = inner_of(thing)
    if inner is None or not issubclass(type(kinds), type) or kinds.__module__ in UNCLAIMED:
        return False
    return bool(inner.query("is", kind=[kinds.__module__, kinds.__qualname__]))


def _class(self: Any) -> Any:
    inner = inner_of(self)
    # Abstract base classes look at the methods of a class, which this one has.
    return inner.base or (type(self) if sys._getframe(1).f_globals.get("__name__") == "abc" else inner.kind())


_OF_THE_THING: dict[str, Any] = {
    **{name: _asked_for(name) for name in ("__doc__", "__dict__", "__module__", "__annotations__")},
    "__class__": property(_class),
}


class _AsksForClass(type):
    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        if cls is not Class or len(arguments) != 1:
            return super().__call__(*arguments, **named)
        inner = inner_of(arguments[0])
        kind = (inner.kind(exactly=True) if inner else None) or type(arguments[0])
        return Class if kind in (type, _AsksForClass) else kind

    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, type)


class Class(type, metaclass=_AsksForClass):
    """`type` for tests: it returns the candidate's class of a stand-in."""


def _methods(able: frozenset[str]) -> dict[str, Any]:
    methods: dict[str, Any] = {"__getitem__": _item} if "__class_getitem__" in able else {}
    methods |= {name: _query(name) for name in able & QUERIES if name != "__call__"}
    if "__call__" in able:
        methods["__call__"] = lambda self, *arguments, **named: inner_of(self).call(*arguments, **named)
    if "__contains__" in able:
        methods["__contains__"] = lambda self, item: inner_of(self).contains(item)
    for name in ORDERS.keys() & able:
        methods[name] = lambda self, other, name=name: inner_of(self).orders(name, other)
    for name in OPERATORS:
        if f"__i{name}__" in able:
            methods[f"__i{name}__"] = _operation(name, reflected=False)
        if {f"__{name}__", f"__r{name}__"} & able:
            methods[f"__{name}__"] = _operation(name, reflected=False)
            methods[f"__r{name}__"] = _operation(name, reflected=True)
    return methods


def _item(self: Any, item: Any) -> Any:
    return inner_of(self).query("item", item)


def _query(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **named: inner_of(self).does(name, *arguments, **named)


def _operation(name: str, reflected: bool) -> Callable[[Any, Any], Any]:
    return lambda self, other: inner_of(self).operates(name, other, reflected)
