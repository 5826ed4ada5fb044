"""The conversation of the two programs in the sandbox: each asks the other to do things with what the other keeps.

A side that waits for a reply answers what it is asked meanwhile, so a function that tests hand over can be called by
the candidate, and may call the candidate in turn. What is passed by value, `values` says; everything else stays where
it is, and is spoken of by a number.
"""

from __future__ import annotations

import json
import operator
from _thread import RLock

from values import LONGEST_WORDS, PURE, NotDataError, Packer, Unpacker, changed, contents, said

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

LONGEST = 64 * 2**20  # characters of one message
# Methods by which Python's syntax and built-in functions use an object. The other side may ask for no others by `do`.
QUERIES = {
    *("__bool__", "__len__", "__iter__", "__next__", "__reversed__", "__getitem__", "__setitem__", "__delitem__"),
    *("__int__", "__float__", "__complex__", "__index__", "__abs__", "__neg__", "__pos__", "__invert__", "__bytes__"),
    *("__round__", "__trunc__", "__floor__", "__ceil__", "__call__", "__enter__", "__exit__", "__aiter__"),
    *("__anext__", "__aenter__", "__aexit__", "__fspath__", "__length_hint__", "__missing__"),
}
ALWAYS = {"__str__", "__repr__", "__format__", "__hash__"}
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "divmod": divmod,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
OPERATIONS = [f"__{side}{name}__" for name in OPERATORS for side in ("", "r")]
COMPARED = ("__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")


def has(kind: type, name: str) -> bool:
    """Whether a class has a method that not every object has. Its metaclass may have another of that name."""
    owners = (base for base in kind.__mro__ if name in vars(base))
    owner = next(owners, object)
    return owner is not object and vars(owner)[name] is not None


class GoneError(BaseException):
    """The other side ended, or talks nonsense. No `except Exception` of tests catches it."""


class CannotError(BaseException):
    """What is asked for cannot be carried over the channel, which says nothing of the candidate."""


class Channel:
    """Messages of one line of JSON over two pipes."""

    def __init__(self, read: int, write: int) -> None:
        self.read = open(read, encoding="utf-8", errors="strict", closefd=False)  # noqa: SIM115
        self.write = open(write, "w", encoding="utf-8", closefd=False)  # noqa: SIM115

    def send(self, message: Any) -> None:
        self.write.write(json.dumps(message, check_circular=False) + "\n")
        self.write.flush()

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: the other side is gone.
            NotDataError: what comes is no message, or too long for one.
        """
        line = self.read.readline(LONGEST)
        if not line:
            raise EOFError
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise NotDataError("malformed message") from None


class Peer:
    """One side. What it keeps for the other, and how it stands for what the other keeps, its subclasses say.

    Attributes:
        gives, takes: names of what Python has built in that this side passes on, and takes, by name.
    """

    gives: frozenset[str] = PURE
    takes: frozenset[str] = PURE

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.things: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._turn = RLock()

    # What the subclasses say.

    def describe(self, value: Any) -> dict[str, Any]:
        """What the other side has to know of a value that is no data, as JSON."""
        raise NotImplementedError

    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        """What stands here for a thing of the other side."""
        raise NotImplementedError

    def number_of(self, value: Any) -> int | None:
        """The number by which the other side keeps this value, if it stands for one."""
        raise NotImplementedError

    def admit(self, asked: dict[str, Any]) -> None:
        """Refuse what the other side may not ask for, before anything is made of it."""

    def do(self, asked: dict[str, Any], values: list[Any]) -> Any:
        """Do what the other side asks for."""
        raise NotImplementedError

    def raised(self, packed: dict[str, Any], unpacker: Unpacker) -> BaseException:
        """An exception that was raised on the other side."""
        raise NotImplementedError

    def describe_error(self, error: BaseException, packer: Packer) -> dict[str, Any]:
        """An exception as JSON, for `raised`."""
        return {"words": said(error)}

    # Asking.

    def ask(self, asked: dict[str, Any], values: Sequence[Any] = ()) -> Any:
        """What the other side says. Containers among the values are afterwards as the other side left them.

        Raises:
            GoneError: it is gone, or its reply is none.
            Exception: what was raised there.
        """
        with self._turn:
            packer = Packer(self.keep, (), self.gives)
            packed = [packer.pack(value) for value in values]
            try:
                self.channel.send({**asked, "values": packed})
            except (OSError, ValueError):
                raise GoneError("the candidate ended") from None
            return self._result(self._reply(), packer.shared)

    def _reply(self) -> dict[str, Any]:
        while True:
            try:
                message = self.channel.receive()
            except (EOFError, OSError, UnicodeDecodeError):
                raise GoneError("the candidate ended") from None
            except (NotDataError, MemoryError) as error:
                raise GoneError(said(error)) from None
            if not isinstance(message, dict):
                raise GoneError("malformed message")
            if "do" not in message:
                return message
            self.answer(message)

    def _result(self, reply: dict[str, Any], shared: list[Any]) -> Any:
        unpacker = Unpacker(self.held, shared, self.takes)
        try:
            if "cannot" in reply:
                raise CannotError(str(reply["cannot"])[:LONGEST_WORDS])
            result = self.raised(reply["raised"], unpacker) if "raised" in reply else unpacker.unpack(reply["value"])
            for number, held in reply.get("after", []):
                unpacker.refill(number, held)
            self.printed(reply.get("printed", ""))
        except (NotDataError, LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError) as error:
            raise GoneError(f"malformed message ({error})") from None
        if "raised" in reply:
            raise result
        return result

    def printed(self, text: str) -> None:
        """Take what the other side printed."""

    # Answering.

    def answer(self, asked: dict[str, Any]) -> None:
        """Do what was asked for, and reply."""
        unpacker = Unpacker(self.held, (), self.takes)
        before: list[list[Any]] = []
        try:
            self.admit(asked)
            values = [unpacker.unpack(value) for value in asked["values"]]
            before = [contents(value) for value in unpacker.shared]
            name, said_of = "value", self.do(asked, values)
        except GoneError:
            raise
        except CannotError as error:
            self.channel.send({"cannot": str(error)})
            return
        except BaseException as error:
            name, said_of = "raised", error
        try:
            reply = self._packed(name, said_of, unpacker.shared, before)
        except (CannotError, RecursionError, MemoryError) as error:
            reply = {"cannot": said(error)}
        except GoneError:
            raise
        except BaseException as error:
            reply = {"raised": {"words": said(error)}}
        self.channel.send(reply)

    def _packed(self, name: str, result: Any, shared: list[Any], before: list[list[Any]]) -> dict[str, Any]:
        packer = Packer(self.keep, shared, self.gives)
        reply = {name: self.describe_error(result, packer) if name == "raised" else packer.pack(result)}
        after = [n for n, held in enumerate(before) if changed(shared[n], held)]
        if after:
            reply["after"] = [[n, packer.contents(shared[n])] for n in after]
        return reply

    # What is kept.

    def keep(self, value: Any) -> dict[str, Any]:
        """A value that is no data: by its number here, or by the other side's if it is from there."""
        if (number := self.number_of(value)) is not None:
            return {"yours": number}
        return {**self.describe(value), "mine": self.kept(value)}

    def kept(self, value: Any) -> int:
        """The number by which the other side can speak of a value from now on."""
        number = self._numbers.setdefault(id(value), len(self.things))
        if number == len(self.things):
            self.things.append(value)
        return number

    def held(self, packed: dict[str, Any]) -> Any:
        """What the other side speaks of by number."""
        if "yours" in packed:
            return self.things[packed["yours"]]
        return self.stand_in(int(packed["mine"]), packed)
