"""The values of a JSON file, one after another, with only one block in memory at a time.

Not by ijson: it keeps the path of every value, which for deep nesting grows with the square of the depth.
"""

import json
from typing import IO, Any

BLOCK = 1 << 16  # characters
LONGEST_ROW = 1 << 24  # characters of a line of JSON, a row of an array, or a field of CSV
LONGEST_SIGN = 12  # characters of an escaped surrogate pair, which a block boundary may split


class RepeatedKeyError(ValueError):
    """An object has a key twice, so it is unknown which one is meant."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys and values.

    Raises:
        RepeatedKeyError: a key occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedKeyError(f"the key {_repeated(pairs)!r} appears twice")
    return found


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


class Values:
    """A position in a JSON file, and the operations to move on from it."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.text = ""
        self.position = 0
        self.repeated: str | None = None
        self.first = True

    def enter(self) -> None:
        """Move past the bracket that opens a list or an object."""
        self.sign()
        self.position += 1
        self.first = True

    def another(self, end: str) -> bool:
        """Move to the next item of the entered list or object; False after its end, the bracket `end`.

        Raises:
            ValueError: neither follows.
        """
        sign, first = self.sign(), self.first
        self.first = False
        if sign == end:
            self.position += 1
            return False
        if first:
            return True
        self.expect(",")
        return True

    def expect(self, sign: str) -> None:
        """Move past a character.

        Raises:
            ValueError: another character is there.
        """
        if self.sign() != sign:
            raise json.JSONDecodeError(f"Expecting {sign!r}", self.text, self.position)
        self.position += 1
        self.sign()

    def value(self) -> Any:
        """Read a value and move past it.

        Raises:
            RepeatedKeyError: an object in it has a key twice. The value was read; reading can continue.
            ValueError: not JSON, or more than LONGEST_ROW characters.
        """
        while True:
            self.repeated = None
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as problem:
                cut = problem.msg.startswith("Unterminated string") or problem.pos >= len(self.text) - LONGEST_SIGN
                if not cut or not self._more():
                    raise
            else:
                if end < len(self.text) or not self._more():  # a number may continue in the next block
                    self.position = end
                    if self.repeated is not None:
                        raise RepeatedKeyError(f"the key {self.repeated!r} appears twice")
                    return value

    def sign(self) -> str:
        """The next non-blank character, without moving past it; empty at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.position += 1
            if self.position < len(self.text) or not self._more():
                return self.text[self.position : self.position + 1]

    def cut_off(self) -> bool:
        """Whether the file ends in the middle of the value at this position."""
        if self.file.read(1):
            return False
        try:
            self.decoder.raw_decode(self.text, self.position)
        except json.JSONDecodeError as problem:
            return problem.msg.startswith("Unterminated string") or problem.pos >= len(self.text.rstrip())
        return False

    def require_end(self) -> None:
        """Raise ValueError if anything follows."""
        if self.sign():
            raise json.JSONDecodeError("Extra data", self.text, self.position)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self.repeated = _repeated(pairs)
        return found

    def _more(self) -> bool:
        """Read a block after what is left, doubling its size each time it does not suffice."""
        left = self.text[self.position :]
        if len(left) > LONGEST_ROW:
            raise json.JSONDecodeError(f"The row has more than {LONGEST_ROW:,} characters", "", 0)
        block = self.file.read(max(BLOCK, len(left)))
        if block:
            self.text, self.position = left + block, 0
        return bool(block)
