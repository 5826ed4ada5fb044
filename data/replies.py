"""Find the JSON object in a model's reply: fenced, amid prose, after a byte order mark, with raw line breaks.

What a person could read is read; what a person would have to guess is rejected. A key that occurs twice is an error:
JSON parsers would silently take the last.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from data.errors import AutodidactError
from data.rewards.answer import outside_thoughts

MAX_STARTS = 50  # places where an object may begin
_BACKSLASH = re.compile(r'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})|\\')
_LAST_COMMA = re.compile(r",(?=\s*\})")
_TWICE = "\0twice"  # marks an object that has a key twice


class ReplyError(AutodidactError):
    """A model's reply cannot be parsed; the message says why."""


def read_json(text: str, key: str) -> dict[str, Any]:
    """The one object in `text` that has `key`. Keys are lower-cased; reasoning in <think> is skipped.

    Raises:
        ReplyError: there is none, there are several that differ, or one has a key twice.
    """
    bare = text.lstrip("\ufeff \t\r\n")
    said = bare if bare.startswith("{") else outside_thoughts(bare)
    found = list(_objects(said)) or list(_objects(_mended(said)))
    if twice := next((reply[_TWICE] for reply in found if _TWICE in reply), None):
        raise ReplyError(f"the reply gives {twice} twice: {text[:80]!r}")
    if not found:
        raise ReplyError(f"the reply is not a JSON object: {text[:80]!r}")
    having = [reply for reply in found if key in reply]
    if not having:
        raise ReplyError(f"the reply has no {key}: {text[:80]!r}")
    if any(reply[key] != having[0][key] for reply in having):
        raise ReplyError(f"the reply gives {key} twice: {text[:80]!r}")
    return having[0]


def _mended(text: str) -> str:
    """The text with the backslashes of LaTeX doubled, and without commas before a closing brace."""
    return _LAST_COMMA.sub("", _BACKSLASH.sub(lambda found: found[0] if len(found[0]) > 1 else "\\\\", text))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """All top-level objects in a text."""
    # Not strict: models put raw line breaks into strings.
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_once)
    at = -1
    for _ in range(MAX_STARTS):
        at = text.find("{", at + 1)
        if at < 0:
            return
        try:
            reply, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        yield reply
        at = end - 1


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key.lower() in found:
            found[_TWICE] = key
        found[key.lower()] = value
    return found
