"""Messages that are stored as text in a field, as in a CSV table."""

import json
import re
from collections.abc import Mapping
from typing import Any

from data.formats.message import ROLE_KEYS, ROLES, TEXT_KEYS, TOOL_ROLES, role_name

AS_JSON = "It holds messages in Python's notation. Write them as JSON, or as a list in JSON Lines or Parquet."
_BEGINS = re.compile(r"\s*\[\s*\{")
_PYTHON = re.compile(rf"\s*\[\s*\{{'(?:{'|'.join((*ROLE_KEYS, *TEXT_KEYS))})':")


def written_down(text: str) -> Any:
    """The list of messages that a JSON text holds; otherwise the text itself."""
    if not _BEGINS.match(text):
        return text
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if all(map(_is_message, found)) else text


def is_python(text: str) -> bool:
    """Whether a text is messages as Python's `str` writes them, which pandas does when writing CSV."""
    return bool(_PYTHON.match(text))


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping) or not any(key in value for key in TEXT_KEYS):
        return False
    return role_name(value) in (*ROLES, *TOOL_ROLES)
