"""The conversation of the two programs in the sandbox: each asks the other to operate on objects that the other keeps.

While a side waits for a reply it answers questions, so the candidate can call a function that tests hand over, and that
function may call the candidate in turn. `values` defines what is passed by value; everything else stays where it is and
is referred to by a number.
"""

from __future__ import annotations

import json
import operator
from _thread import RLock
from abc import ABC, abstractmethod

from values import LONGEST_WORDS, PURE, NotDataError, Packer, Unpacker, changed, contents, said

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

LASTING, LARGE = 64, 1024  # containers kept in sync on both sides; items from which one is soon forgotten
LONGEST = 64 * 2**20  # characters of one message
# The methods that Python's syntax and built-in functions use. The other side may ask for no others with `do`.
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
IN_PLACE = [f"__i{name}__" for name in OPERATORS]
COMPARED = ("__eq__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__")


def has(kind: type, name: str) -> bool:
    """Whether a class has a method that not every object has. Its metaclass may have another of that name."""
    owners = (base for base in kind.__mro__ if name in vars(base))
    owner = next(owners, object)
    return owner is not object and vars(owner)[name] is not None


class GoneError(BaseException):
    """The other side ended or sends malformed messages. No `except Exception` of tests catches it."""


class CannotError(BaseException):
    """A request cannot be transferred over the channel, which says nothing about the candidate."""


class Channel:
    """Messages, one line of JSON each, over two pipes."""

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
            NotDataError: it is not a message, or too long.
        """
        line = self.read.readline(LONGEST)
        if not line:
            raise EOFError
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise NotDataError("malformed message") from None


class Peer(ABC):
    """One side. Subclasses define what it keeps for the other and how it represents what the other keeps.

    Attributes:
        gives, takes: Python built-ins that this side sends and accepts, by name.
    """

    gives: frozenset[str] = PURE
    takes: frozenset[str] = PURE

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.things: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._turn = RLock()
        self._shared: dict[int, Any] = {}
        self._before: dict[int, list[Any]] = {}
        self._count = self._last = 0

    # Defined by subclasses.

    @abstractmethod
    def describe(self, value: Any) -> dict[str, Any]:
        """What the other side has to know of an object that is not plain data, as JSON."""

    @abstractmethod
    def stand_in(self, number: int, described: dict[str, Any]) -> Any:
        """The stand-in for an object of the other side."""

    @abstractmethod
    def number_of(self, value: Any) -> int | None:
        """The number under which the other side keeps the object that this value stands for, if any."""

    @abstractmethod
    def admit(self, asked: dict[str, Any]) -> None:
        """Refuse a request that the other side may not make, before its values are unpacked."""

    @abstractmethod
    def do(self, asked: dict[str, Any], values: list[Any]) -> Any:
        """Carry out a request of the other side."""

    @abstractmethod
    def raised(self, packed: dict[str, Any], unpacker: Unpacker) -> BaseException:
        """The exception that was raised on the other side."""

    def describe_error(self, error: BaseException, packer: Packer) -> dict[str, Any]:
        """An exception as JSON, for `raised`."""
        return {"words": said(error)}

    # Asking.

    def ask(self, asked: dict[str, Any], values: Sequence[Any] = ()) -> Any:
        """Ask the other side and return its reply.

        Raises:
            GoneError: it is gone, or its reply is malformed.
            Exception: the exception that was raised there.
        """
        with self._turn:
            try:
                self._tell(asked, "values", lambda packer: [packer.pack(value) for value in values])
            except (OSError, ValueError):
                raise GoneError("the candidate ended") from None
            return self._result(self._reply())

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

    def _result(self, reply: dict[str, Any]) -> Any:
        try:
            if "cannot" in reply:
                raise CannotError(str(reply["cannot"])[:LONGEST_WORDS])
            if "raised" in reply:
                result = self._hear(reply, lambda unpacker: self.raised(reply["raised"], unpacker))
            else:
                result = self._hear(reply, lambda unpacker: unpacker.unpack(reply["value"]))
            self.heard(reply)
        except (NotDataError, LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError) as error:
            raise GoneError(f"malformed message ({error})") from None
        if "raised" in reply:
            raise result
        return result

    @abstractmethod
    def heard(self, aside: dict[str, Any]) -> None:
        """Handle what the other side sends with a reply, see `aside`."""

    # Answering.

    def answer(self, asked: dict[str, Any]) -> None:
        """Carry out a request, and reply."""
        try:
            self.admit(asked)
            values = self._hear(asked, lambda unpacker: [unpacker.unpack(value) for value in asked["values"]])
            result = self.do(asked, values)
        except GoneError:
            raise
        except CannotError as error:
            self.channel.send({"cannot": str(error)})
        except BaseException as error:
            raised = error
            self._tell_or_say_why("raised", lambda packer: self.describe_error(raised, packer))
        else:
            self._tell_or_say_why("value", lambda packer: packer.pack(result))

    def _tell_or_say_why(self, name: str, pack: Callable[[Packer], Any]) -> None:
        try:
            self._tell(self.aside(), name, pack)
        except (CannotError, RecursionError, MemoryError) as error:
            self.channel.send({"cannot": said(error)})
        except GoneError:
            raise
        except BaseException as error:
            self.channel.send({"raised": {"words": said(error)}})

    def aside(self) -> dict[str, Any]:
        """Additional data sent with a reply."""
        return {}

    # Containers that both sides have, kept in sync when one side changes them.

    def _tell(self, message: dict[str, Any], name: str, pack: Callable[[Packer], Any]) -> None:
        while True:
            start = self._count
            packer = Packer(self.keep, self._shared, start, self.gives)
            packed = pack(packer)
            if self._count == start:  # else another message had to create an object first, and the numbers are taken
                break
        changes = [number for number, value in self._shared.items() if changed(value, self._before[number])]
        after = [[number, packer.contents(self._shared[number])] for number in changes]
        self.channel.send({**message, name: packed, **({"after": after} if after else {})})
        self._share(packer.new, changes)

    def _hear(self, message: dict[str, Any], unpack: Callable[[Unpacker], Any]) -> Any:
        unpacker = Unpacker(self.held, self._shared, self._count, self.takes)
        heard = unpack(unpacker)
        after = message.get("after", [])
        for number, held in after:
            unpacker.refill(number, held)
        self._share(unpacker.new, [number for number, _ in after])
        return heard

    def _share(self, new: list[Any], changes: list[int]) -> None:
        """Remember new containers. Forget old ones, and large ones not in the last message: each message checks all."""
        last = self._count
        self._shared.update(enumerate(new, start=self._count))
        self._count += len(new)
        for number in (*changes, *range(last, self._count)):
            self._before[number] = contents(self._shared[number])
        for number, value in [*self._shared.items()]:
            if number < self._count - LASTING or (number < self._last and len(value) > LARGE):
                del self._shared[number], self._before[number]
        self._last = last

    # Kept objects.

    def keep(self, value: Any) -> dict[str, Any]:
        """An object that is not plain data: by its number here, or by the other side's if it comes from there."""
        if (number := self.number_of(value)) is not None:
            return {"yours": number}
        return {**self.describe(value), "mine": self.kept(value)}

    def kept(self, value: Any) -> int:
        """The number under which the other side can refer to a value from now on."""
        number = self._numbers.setdefault(id(value), len(self.things))
        if number == len(self.things):
            self.things.append(value)
        return number

    def held(self, packed: dict[str, Any]) -> Any:
        """The object that the other side refers to by number."""
        if "yours" in packed:
            return self.things[packed["yours"]]
        return self.stand_in(int(packed["mine"]), packed)
