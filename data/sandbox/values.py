"""Python values on their way between the two programs in the sandbox: as JSON, and as plain built-in types only.

Part of both programs, and so without any import of this project. What arrives has no methods of its own: comparing it
runs no code of whoever sent it.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

LONGEST = 16 * 2**20  # characters of one message
LONGEST_WORDS = 300  # characters of an exception's text that are passed on
PASSED, FAILED, BROKEN = "passed", "failed", "broken"  # what the tests may come to


class NotDataError(TypeError):
    """A value is no plain data."""


def encode(value: Any, keep: Any = None) -> Any:
    """A value as JSON can hold it; a subclass of a built-in type as that type.

    Args:
        keep: gives a number for a value that is no data, by which it can be spoken of; None to refuse it.

    Raises:
        NotDataError: it is no data, and there is nothing to keep it.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    numbers: tuple[tuple[Any, str], ...] = ((int, "int"), (float, "float"), (complex, "complex"))
    for kind, name in numbers:
        if isinstance(value, kind):
            return {name: kind.__repr__(value)}
    if isinstance(value, bytes | bytearray):
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    groups: tuple[Any, ...] = (list, tuple, set, frozenset, range)
    for kind in groups:
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, keep) for item in kind.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(item, keep)] for key, item in dict.items(value)]}
    if keep is None:
        raise NotDataError(f"a value of type {type(value).__name__} is no plain data")
    return {"kept": keep(value)}


def decode(value: Any, kept: Any = None) -> Any:
    """What `encode` made JSON of.

    Args:
        kept: gives the value, or what stands for it, that has a number.

    Raises:
        NotDataError: this is nothing that `encode` made.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise NotDataError("malformed message")
    ((name, held),) = value.items()
    try:
        if name in ("int", "float", "complex"):
            return {"int": int, "float": float, "complex": complex}[name](held)
        if name == "bytes":
            return base64.b64decode(held)
        if name == "dict":
            return {decode(key, kept): decode(item, kept) for key, item in held}
        if name == "kept" and kept is not None:
            return kept(int(held))
        items = [decode(item, kept) for item in held]
        if name == "range":
            return items
        return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name](items)
    except (KeyError, TypeError, ValueError) as error:
        raise NotDataError(f"malformed message ({error})") from None


def said(error: BaseException) -> str:
    """An exception in a few words. It may be another's, whose methods do what they like."""
    if isinstance(error, NotDataError):
        return f"NotDataError: {error}"
    return f"{_read(lambda: type(error).__name__)}: {_read(lambda: str(error))}"


def _read(word: Callable[[], str]) -> str:
    try:
        return f"{word()}"[:LONGEST_WORDS]
    except BaseException:
        return "(cannot be read)"


class Channel:
    """Messages of one line of JSON over two pipes."""

    def __init__(self, read: int, write: int) -> None:
        self.read = open(read, encoding="utf-8", errors="strict", closefd=False)  # noqa: SIM115
        self.write = open(write, "w", encoding="utf-8", closefd=False)  # noqa: SIM115

    def send(self, message: Any) -> None:
        self.write.write(json.dumps(message) + "\n")
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
