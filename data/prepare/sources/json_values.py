"""The values of a JSON file, one after another, of which only a block is held at a time.

Not by ijson, which keeps the path of every value: deep nesting makes that as large as its depth squared.
"""

import json
from typing import IO, Any

BLOCK = 1 << 16  # characters
LONGEST_ROW = 1 << 24  # characters of a line of JSON, a row of an array, or a field of CSV
LONGEST_SIGN = 12  # characters of an escaped pair of surrogates, which the end of a block may cut


class RepeatedKeyError(ValueError):
    """An object has a key twice: which of the two is meant cannot be known."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values.

    Raises:
        RepeatedKeyError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedKeyError(f"the key {_repeated(pairs)!r} appears twice")
    return found


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


class Values:
    """A place in a JSON file, and what is done to go on from there."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self.text = ""
        self.position = 0
        self.repeated: str | None = None
        self.first = True

    def enter(self) -> None:
        """Go behind the bracket that opens a list or an object."""
        self.sign()
        self.position += 1
        self.first = True

    def another(self, end: str) -> bool:
        """Go to the next item of the list or object that was entered; False behind its end, the bracket `end`.

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
        """Go behind a sign.

        Raises:
            ValueError: another is there.
        """
        if self.sign() != sign:
            raise json.JSONDecodeError(f"Expecting {sign!r}", self.text, self.position)
        self.position += 1
        self.sign()

    def value(self) -> Any:
        """Read a value and go behind it.

        Raises:
            RepeatedKeyError: an object in it has a key twice. It was read, and one can go on.
            ValueError: no JSON, or more than LONGEST_ROW characters.
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
                if end < len(self.text) or not self._more():  # a number may go on in the next block
                    self.position = end
                    if self.repeated is not None:
                        raise RepeatedKeyError(f"the key {self.repeated!r} appears twice")
                    return value

    def sign(self) -> str:
        """The next sign that is not blank, left where it is; empty at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.position += 1
            if self.position < len(self.text) or not self._more():
                return self.text[self.position : self.position + 1]

    def cut_off(self) -> bool:
        """Whether the file ends in the middle of the value at this place."""
        if self.file.read(1):
            return False
        try:
            self.decoder.raw_decode(self.text, self.position)
        except json.JSONDecodeError as problem:
            return problem.msg.startswith("Unterminated string") or problem.pos >= len(self.text.rstrip())
        return False

    def require_end(self) -> None:
        """Raises ValueError if anything follows."""
        if self.sign():
            raise json.JSONDecodeError("Extra data", self.text, self.position)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self.repeated = _repeated(pairs)
        return found

    def _more(self) -> bool:
        """Read a block behind what is left, twice as long each time that it did not suffice."""
        left = self.text[self.position :]
        if len(left) > LONGEST_ROW:
            raise json.JSONDecodeError(f"The row has more than {LONGEST_ROW:,} characters", "", 0)
        block = self.file.read(max(BLOCK, len(left)))
        if block:
            self.text, self.position = left + block, 0
        return bool(block)
